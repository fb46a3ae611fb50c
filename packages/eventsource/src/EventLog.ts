/**
 * What was sent, kept for those who come back: append gives an event its ID, and a last event ID gives what followed it.
 *
 * Logs are bounded. Who asks for events that are gone is told of the gap, never given a part as if it were the whole.
 *
 * @since 0.1.0
 */
import * as KeyValueStore from "@effect/platform/KeyValueStore"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * What followed an ID.
 *
 * `Rest`: all that followed, in order. `Gap`: the ID is not known (any more), so that events are missing; `events` are
 * those that are still held, and `id` is the ID just before them.
 *
 * @since 0.1.0
 * @category models
 */
export type Since =
  | { readonly _tag: "Rest"; readonly events: ReadonlyArray<ServerSentEvent.ServerSentEvent> }
  | { readonly _tag: "Gap"; readonly id: string; readonly events: ReadonlyArray<ServerSentEvent.ServerSentEvent> }

/**
 * The store below the log failed.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventLogError extends Data.TaggedError("EventLogError")<{
  readonly operation: "append" | "since"
  readonly cause: unknown
}> {
  override get message(): string {
    return `The event log failed (${this.operation})`
  }
}

/**
 * A bounded log of events.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventLog {
  /** Keeps an event and answers it with the ID that the log gave it; an ID of its own is replaced. */
  readonly append: (
    event: ServerSentEvent.ServerSentEvent
  ) => Effect.Effect<ServerSentEvent.ServerSentEvent, EventLogError>
  /** What followed the event with this ID. */
  readonly since: (id: string) => Effect.Effect<Since, EventLogError>
}

/** IDs are `<epoch>-<number>`: numbers count from 1, and another epoch is another log. */
const idOf = (epoch: string, number: number): string => `${epoch}-${number}`

const numberOf = (epoch: string, id: string): number | undefined => {
  if (!id.startsWith(`${epoch}-`)) return undefined
  const digits = id.slice(epoch.length + 1)
  return /^(0|[1-9][0-9]*)$/.test(digits) ? Number(digits) : undefined
}

const makeEpoch = Effect.zipWith(
  Clock.currentTimeMillis,
  Random.nextIntBetween(0, 36 ** 4),
  (millis, random) => millis.toString(36) + random.toString(36).padStart(4, "0")
)

/**
 * A log in memory: it forgets when the process ends, which its clients then see as a gap.
 *
 * Holds the last `maxEvents` (default: 1024), or fewer when their text is longer than `maxBytes` (default: 4 MiB; counted
 * in UTF-16 code units of `data` and `event`, and at least the newest event stays).
 *
 * @since 0.1.0
 * @category constructors
 */
export const memory = (
  options: { readonly maxEvents?: number | undefined; readonly maxBytes?: number | undefined } = {}
): Effect.Effect<EventLog> =>
  Effect.map(makeEpoch, (epoch): EventLog => {
    const { maxEvents = 1024, maxBytes = 4 * 1024 * 1024 } = options
    const sizeOf = (event: ServerSentEvent.ServerSentEvent) => event.data.length + event.event.length
    // Events `first` to `last`; what is before `start` in the array was forgotten, and is cut off now and then.
    let held: Array<ServerSentEvent.ServerSentEvent> = []
    let start = 0
    let last = 0
    let bytes = 0
    const forget = () => {
      while (held.length - start > Math.max(1, maxEvents) || (bytes > maxBytes && held.length - start > 1)) {
        bytes -= sizeOf(held[start]!)
        held[start++] = undefined as never
      }
      if (start > 32 && start * 2 > held.length) {
        held = held.slice(start)
        start = 0
      }
    }
    return {
      append: (event) =>
        Effect.sync(() => {
          const kept = { ...event, id: idOf(epoch, ++last) }
          held.push(kept)
          bytes += sizeOf(kept)
          forget()
          return kept
        }),
      since: (id) =>
        Effect.sync(() => {
          const count = held.length - start
          const number = numberOf(epoch, id)
          return number !== undefined && number <= last && number >= last - count
            ? { _tag: "Rest", events: held.slice(held.length - (last - number)) }
            : { _tag: "Gap", id: idOf(epoch, last - count), events: held.slice(start) }
        })
    }
  })

const Head = Schema.parseJson(Schema.Struct({ epoch: Schema.String, first: Schema.Number, last: Schema.Number }))
const Stored = Schema.parseJson(Schema.Struct({ event: Schema.String, data: Schema.String }))

/**
 * A log in a `KeyValueStore`, which outlives the process where the store does.
 *
 * Holds the last `maxEvents` (default: 1024) under keys that begin with `prefix` (default: `"events"`). One process writes.
 * The event is stored before the head that counts it, so a crash in between loses the event and never gives an ID twice
 * to what was seen.
 *
 * @since 0.1.0
 * @category constructors
 */
export const keyValueStore = (
  options: { readonly maxEvents?: number | undefined; readonly prefix?: string | undefined } = {}
): Effect.Effect<EventLog, EventLogError, KeyValueStore.KeyValueStore> =>
  Effect.gen(function* () {
    const { prefix = "events" } = options
    const maxEvents = Math.max(1, options.maxEvents ?? 1024)
    const store = yield* KeyValueStore.KeyValueStore
    const semaphore = yield* Effect.makeSemaphore(1)
    const headKey = `${prefix}/head`
    const eventKey = (number: number) => `${prefix}/${number}`

    const stored = yield* store.get(headKey).pipe(
      Effect.flatMap(
        Option.match({ onNone: () => Effect.succeedNone, onSome: (text) => Effect.option(Schema.decode(Head)(text)) })
      ),
      Effect.mapError((cause) => new EventLogError({ operation: "append", cause }))
    )
    let head = Option.isSome(stored) ? stored.value : { epoch: yield* makeEpoch, first: 1, last: 0 }

    const append = (event: ServerSentEvent.ServerSentEvent) =>
      Effect.gen(function* () {
        const last = head.last + 1
        const first = Math.max(head.first, last - maxEvents + 1)
        const next = { epoch: head.epoch, first, last }
        yield* store.set(eventKey(last), yield* Schema.encode(Stored)({ event: event.event, data: event.data }))
        yield* store.set(headKey, yield* Schema.encode(Head)(next))
        const forgotten = head.first
        head = next
        // What stays behind takes space and is never read; the event itself is kept, which a failure would deny.
        for (let number = forgotten; number < first; number++)
          yield* Effect.ignoreLogged(store.remove(eventKey(number)))
        return ServerSentEvent.make({ event: event.event, data: event.data, id: idOf(next.epoch, last) })
      })

    const read = (first: number) =>
      Effect.gen(function* () {
        const events: Array<ServerSentEvent.ServerSentEvent> = []
        for (let number = first; number <= head.last; number++) {
          const text = yield* Effect.flatten(store.get(eventKey(number)))
          const event = yield* Schema.decode(Stored)(text)
          events.push(ServerSentEvent.make({ ...event, id: idOf(head.epoch, number) }))
        }
        return events
      })

    return {
      append: (event) =>
        semaphore.withPermits(1)(
          Effect.uninterruptible(
            Effect.mapError(append(event), (cause) => new EventLogError({ operation: "append", cause }))
          )
        ),
      since: (id) =>
        semaphore.withPermits(1)(
          Effect.suspend((): Effect.Effect<Since, unknown> => {
            const number = numberOf(head.epoch, id)
            return number !== undefined && number <= head.last && number >= head.first - 1
              ? Effect.map(read(number + 1), (events) => ({ _tag: "Rest", events }))
              : Effect.map(read(head.first), (events) => ({
                  _tag: "Gap",
                  id: idOf(head.epoch, head.first - 1),
                  events
                }))
          }).pipe(Effect.mapError((cause) => new EventLogError({ operation: "since", cause })))
        )
    }
  })
