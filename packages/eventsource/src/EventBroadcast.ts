/**
 * One source, many subscribers: every event is encoded once, and the same bytes go to all.
 *
 * Events that are published in one turn of the event loop leave as one write to each subscriber. A response made of
 * {@link EventBroadcast.subscribe} itself needs no fiber for the delivery; once an operator has changed the stream, it is an
 * ordinary one: right, and slower.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Codec from "./codec/index.js"
import type { EventLog, EventLogError } from "./EventLog.js"
import * as Direct from "./internal/direct.js"
import { wire } from "./internal/wire.js"
import * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * A subscriber had more events waiting than it may.
 *
 * @since 0.1.0
 * @category errors
 */
export class SubscriberOverflow extends Data.TaggedError("SubscriberOverflow")<{
  /** The number of events that may wait. */
  readonly capacity: number
}> {
  override get message(): string {
    return `A subscriber of a broadcast had more than ${this.capacity} events waiting`
  }
}

/**
 * A broadcast.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventBroadcast {
  /**
   * Sends an event to all who are subscribed now. With a log it is appended first, and sent with the ID that it got there.
   *
   * Waits only for subscribers whose policy is `"wait"` and which hold more than they may.
   */
  readonly publish: (
    event: ServerSentEvent.Outgoing
  ) => Effect.Effect<void, ServerSentEvent.InvalidEvent | EventLogError>
  /**
   * The events from now on; after a last event ID of the log, those that followed it first. Where the log cannot tell all
   * of them, a gap event comes before those it holds. Policy and allowance of slow readers are those of the response; any
   * other consumer fails with `SubscriberOverflow` when more than `capacity` events wait.
   *
   * `first` is what who begins is sent before all else: the state that the events change, for instance. It is run when the
   * subscription is made, so that nothing falls between the two; not for a last event ID that the log is asked about.
   */
  readonly subscribe: (
    lastEventId?: string,
    options?: { readonly first?: Effect.Effect<ReadonlyArray<ServerSentEvent.Outgoing>> | undefined }
  ) => Stream.Stream<ServerSentEvent.Outgoing, SubscriberOverflow | EventLogError>
  /** How many are subscribed. */
  readonly subscribers: Effect.Effect<number>
}

/**
 * Options of a broadcast.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Where events are kept for those who come back. Default: nowhere; IDs are the publisher's. */
  readonly log?: EventLog | undefined
  /**
   * The event that tells a gap. Default: type `"gap"`, and the last event ID that the client had as JSON:
   * `{"lastEventId":"..."}`. Its ID is set by the broadcast, so that the client is told once.
   */
  readonly gap?: ((lastEventId: string) => { readonly event?: string; readonly data: string }) | undefined
  /** How many events may wait for a subscriber that is not a response, or that is being told what it missed. Default: 4096. */
  readonly capacity?: number | undefined
}

/** An event, encoded. */
interface Item {
  readonly value: ServerSentEvent.Outgoing
  readonly text: string
}

/** What comes before what is published. */
type Beginning = Effect.Effect<ReadonlyArray<ServerSentEvent.Outgoing>, EventLogError>

/** Who takes what is published. */
interface Member {
  /** The items of one turn, and their joined text as bytes, made at most once. True: publishers should wait for it. */
  readonly deliver: (items: ReadonlyArray<Item>, joined: () => ReturnType<typeof wire>) => boolean
  /** Calls back once when a full member is not full any more, if it ever is; answers how to give up. */
  readonly onDrain: (resume: () => void) => () => void
}

/**
 * Makes a broadcast.
 *
 * @example
 * import { EventBroadcast, EventLog, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
 * import { Effect } from "effect"
 *
 * const News = EventStreamRoute.layerEffect("/news", { slowReader: "cut" }, Effect.gen(function* () {
 *   const news = yield* EventBroadcast.make({ log: yield* EventLog.memory() })
 *   yield* Effect.forkScoped(Effect.forever(Effect.delay(news.publish(ServerSentEvent.make({ data: "hello" })), "1 second")))
 *   return ({ lastEventId }) => news.subscribe(lastEventId)
 * }))
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<EventBroadcast> =>
  Effect.map(Effect.makeSemaphore(1), (semaphore) => {
    const { capacity = 4096, gap = defaultGap, log } = options
    const members = new Set<Member>()
    let pending: Array<Item> = []

    // Members that publishers wait for, and the publishers that do.
    const blocked = new Map<Member, () => void>()
    let waiting: Array<() => void> = []

    const block = (member: Member) => {
      if (!blocked.has(member))
        blocked.set(
          member,
          member.onDrain(() => unblock(member))
        )
    }

    const unblock = (member: Member) => {
      blocked.delete(member)
      if (blocked.size > 0) return
      const resumed = waiting
      waiting = []
      for (const resume of resumed) resume()
    }

    const unblocked = Effect.suspend(() =>
      blocked.size === 0 ? Effect.void : Effect.async<void>((resume) => void waiting.push(() => resume(Effect.void)))
    )

    /** Runs as a microtask, when the turn that published is over. */
    const flush = () => {
      const items = pending
      pending = []
      let bytes: ReturnType<typeof wire> | undefined
      const joined = () => (bytes ??= wire(textOf(items)))
      for (const member of members) if (member.deliver(items, joined)) block(member)
    }

    const enqueue = (item: Item) => {
      if (pending.length === 0) queueMicrotask(flush)
      pending.push(item)
    }

    const publish: EventBroadcast["publish"] = (value) =>
      Effect.suspend((): ReturnType<EventBroadcast["publish"]> => {
        const text = Codec.encode(value)
        if (typeof text !== "string") return new ServerSentEvent.InvalidEvent(text)
        if (log === undefined || value._tag !== "Event") {
          enqueue({ value, text })
          return unblocked
        }
        const append = Effect.map(log.append(value), (event) =>
          enqueue({ value: event, text: Codec.encode(event) as string })
        )
        // One at a time, so that all see the order of the log.
        return Effect.zipRight(semaphore.withPermits(1)(Effect.uninterruptible(append)), unblocked)
      })

    /** What a subscriber is sent before what is published from now on; undefined: nothing. */
    const beginning = (
      lastEventId: string,
      first: Effect.Effect<ReadonlyArray<ServerSentEvent.Outgoing>> | undefined
    ): Beginning | undefined =>
      log === undefined || lastEventId === ""
        ? first
        : Effect.map(log.since(lastEventId), (since) =>
            since._tag === "Rest"
              ? since.events
              : [ServerSentEvent.make({ event: "gap", ...gap(lastEventId), id: since.id }), ...since.events]
          )

    /**
     * Joins, and answers what comes first. What is published meanwhile is held, and comes after it, without what it has
     * already. From `live` on items are delivered.
     */
    const join = (first: Beginning, live: Member) => {
      let held: Array<Item> | undefined = []
      let overflowed = false
      const member: Member = {
        deliver: (items, joined) => {
          if (held === undefined) return live.deliver(items, joined)
          if (held.length + items.length > capacity) overflowed = true
          else held.push(...items)
          return false
        },
        onDrain: live.onDrain
      }
      members.add(member)
      const start = Effect.flatMap(
        Effect.flatMap(
          first,
          Effect.forEach((value) => itemOf(value))
        ),
        (items) =>
          Effect.suspend(() => {
            if (overflowed) return new SubscriberOverflow({ capacity })
            const last = items.at(-1)?.value
            const id = last?._tag === "Event" ? last.id : undefined
            const known =
              id === undefined ? -1 : held!.findIndex(({ value }) => value._tag === "Event" && value.id === id)
            const whole = [...items, ...held!.slice(known + 1)]
            held = undefined
            return Effect.succeed(whole)
          })
      )
      return { member, start }
    }

    const leave = (member: Member) => {
      members.delete(member)
      const giveUp = blocked.get(member)
      if (giveUp === undefined) return
      giveUp()
      unblock(member)
    }

    /** For responses: no fiber, no Channel. */
    const direct =
      (first: Beginning | undefined): Direct.Subscribe<SubscriberOverflow | EventLogError> =>
      (subscriber) => {
        const live: Member = {
          deliver: (items, joined) => subscriber.offer(joined(), items.length),
          onDrain: (resume) => subscriber.outlet.onDrain(resume)
        }
        if (first === undefined) {
          members.add(live)
          return { run: undefined, leave: () => leave(live) }
        }
        const { member, start } = join(first, live)
        return {
          run: Effect.flatMap(start, (items) => {
            if (items.length > 0) subscriber.offer(wire(textOf(items)), items.length)
            return Direct.forever
          }),
          leave: () => leave(member)
        }
      }

    /** For consumers that are not responses. (One pull: a concatenation of what comes first and the rest weighs 10 KB more.) */
    const stream = (first: Beginning): Stream.Stream<ServerSentEvent.Outgoing, SubscriberOverflow | EventLogError> =>
      Stream.fromPull(
        Effect.map(
          Effect.acquireRelease(
            Effect.sync(() => new Queue(capacity)),
            (queue) => Effect.sync(() => queue.member !== undefined && leave(queue.member))
          ),
          (queue) =>
            Effect.suspend(() => {
              if (queue.member !== undefined) return queue.take
              const { member, start } = join(first, queue)
              queue.member = member
              return Effect.matchEffect(start, {
                onFailure: (error) => Effect.fail(Option.some(error)),
                onSuccess: (items) => {
                  queue.begin(items)
                  return queue.take
                }
              })
            })
        )
      )

    return {
      publish,
      subscribe: (lastEventId = "", options) => {
        const first = beginning(lastEventId, options?.first)
        return Direct.make(
          Stream.suspend(() => stream(first ?? Effect.succeed([]))),
          direct(first)
        )
      },
      subscribers: Effect.sync(() => members.size)
    }
  })

type Events = Chunk.Chunk<ServerSentEvent.Outgoing>

/** What waits for a consumer. */
class Queue implements Member {
  /** What stands for it in the broadcast, from the first pull on. */
  member: Member | undefined
  private waiting: Array<ServerSentEvent.Outgoing> = []
  private overflowed = false
  private wake: (() => void) | undefined

  constructor(private readonly capacity: number) {}

  /** What comes first, however much it is: whoever keeps the log has bounded it. */
  begin(items: ReadonlyArray<Item>): void {
    for (const { value } of items) this.waiting.push(value)
  }

  deliver(items: ReadonlyArray<Item>): boolean {
    this.overflowed ||= this.waiting.length + items.length > this.capacity
    if (!this.overflowed) this.begin(items)
    this.wake?.()
    return false
  }

  /** Publishers do not wait for it. */
  onDrain(): () => void {
    return () => {}
  }

  readonly take: Effect.Effect<Events, Option.Option<SubscriberOverflow>> = Effect.suspend(() => {
    if (this.waiting.length > 0) {
      const events = Chunk.unsafeFromArray(this.waiting)
      this.waiting = []
      return Effect.succeed(events)
    }
    if (this.overflowed) return Effect.fail(Option.some(new SubscriberOverflow({ capacity: this.capacity })))
    return Effect.zipRight(
      Effect.async<void>((resume) => {
        this.wake = () => {
          this.wake = undefined
          resume(Effect.void)
        }
      }),
      this.take
    )
  })
}

/** What cannot be written is a mistake of whoever says what comes first: a defect. (A log has nothing of the kind.) */
const itemOf = (value: ServerSentEvent.Outgoing): Effect.Effect<Item> => {
  const text = Codec.encode(value)
  return typeof text === "string" ? Effect.succeed({ value, text }) : Effect.die(new ServerSentEvent.InvalidEvent(text))
}

const textOf = (items: ReadonlyArray<Item>): string => {
  let text = ""
  for (const item of items) text += item.text
  return text
}

const defaultGap = (lastEventId: string) => ({ data: JSON.stringify({ lastEventId }) })
