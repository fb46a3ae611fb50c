import { assert, describe, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Metric, Stream } from "effect"
import { EventBroadcast, EventLog, EventStreamRoute, ServerSentEvent } from "../src/index.js"
import * as Direct from "../src/internal/direct.js"
import type { Outlet } from "../src/internal/outlet.js"
import { type Allowance, droppedEvents, Subscriber } from "../src/internal/subscriber.js"
import { get, serve } from "./support.js"

const event = (data: string) => ServerSentEvent.make({ data })

/** Waits for a count, turn by turn. */
const untilSubscribed = (broadcast: EventBroadcast.EventBroadcast, count: number) =>
  Effect.repeat(Effect.zipRight(Effect.yieldNow(), broadcast.subscribers), {
    until: (subscribers) => subscribers === count
  })

const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

const dataOf = (chunk: Chunk.Chunk<ServerSentEvent.Outgoing>) =>
  Chunk.toReadonlyArray(chunk).map((item) => (item._tag === "Event" ? item.data : item._tag))

describe("as a stream", () => {
  it.live("every subscriber gets what is published while it is subscribed, in order", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      yield* broadcast.publish(event("before"))
      yield* turn
      const take = (count: number) =>
        Effect.fork(
          Stream.runCollect(
            Stream.take(
              Stream.map(broadcast.subscribe(), (item) => item),
              count
            )
          )
        )
      const one = yield* take(3)
      const two = yield* take(2)
      yield* untilSubscribed(broadcast, 2)
      yield* Effect.forEach(["a", "b", "c"], (data) => broadcast.publish(event(data)))
      assert.deepStrictEqual(dataOf(yield* Fiber.join(one)), ["a", "b", "c"])
      assert.deepStrictEqual(dataOf(yield* Fiber.join(two)), ["a", "b"])
      assert.strictEqual(yield* broadcast.subscribers, 0)
    })
  )

  it.live("a subscriber that does not keep up fails, and the others do not wait", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make({ capacity: 4 })
      const stuck = yield* Deferred.make<void>()
      const slow = yield* Effect.fork(
        Stream.runForEach(
          Stream.map(broadcast.subscribe(), (item) => item),
          () => Deferred.await(stuck)
        ).pipe(Effect.flip)
      )
      yield* untilSubscribed(broadcast, 1)
      for (let n = 0; n < 8; n++) {
        yield* broadcast.publish(event(String(n)))
        yield* turn
      }
      yield* Deferred.succeed(stuck, undefined)
      const error = yield* Fiber.join(slow)
      assert.strictEqual(error._tag, "SubscriberOverflow")
    })
  )

  it.live("after what a subscriber missed nothing more comes, so that the last ID it saw tells where to go on", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make({ capacity: 3 })
      const stuck = yield* Deferred.make<void>()
      const seen: Array<ServerSentEvent.Outgoing> = []
      const slow = yield* Effect.fork(
        Stream.runForEach(
          Stream.map(broadcast.subscribe(), (item) => item),
          (item) =>
            Effect.zipRight(
              Effect.sync(() => seen.push(item)),
              Deferred.await(stuck)
            )
        ).pipe(Effect.flip)
      )
      yield* untilSubscribed(broadcast, 1)
      for (const turnful of [["taken"], ["1", "2"], ["missed", "missed too"], ["3"]]) {
        yield* Effect.forEach(turnful, (data) => broadcast.publish(event(data)))
        yield* turn
      }
      yield* Deferred.succeed(stuck, undefined)
      assert.strictEqual((yield* Fiber.join(slow))._tag, "SubscriberOverflow")
      assert.deepStrictEqual(dataOf(Chunk.fromIterable(seen)), ["taken", "1", "2"])
    })
  )

  it.effect("what cannot be written is refused to the publisher", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const error = yield* Effect.flip(broadcast.publish(ServerSentEvent.make({ data: "", id: "1\n" })))
      assert.strictEqual(error._tag, "InvalidEvent")
    })
  )
})

describe("as a response", () => {
  it.scopedLive("many subscribers get the same bytes", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const port = yield* serve(EventStreamRoute.layer("/", {}, () => broadcast.subscribe()))
      const readers = yield* Effect.promise(() => Promise.all(Array.from({ length: 50 }, () => get(port, "/"))))
      yield* untilSubscribed(broadcast, 50)
      yield* Effect.forEach(["a", "b\nc", "✓"], (data) => broadcast.publish(event(data)))
      yield* broadcast.publish(ServerSentEvent.comment("done"))
      const expected = ":\n\ndata: a\n\ndata: b\ndata: c\n\ndata: ✓\n\n: done\n\n"
      const texts = yield* Effect.promise(() =>
        Promise.all(readers.map((reader) => reader.until((text) => text.includes("done"))))
      )
      for (const text of texts) assert.strictEqual(text, expected)
      for (const reader of readers) reader.leave()
      yield* untilSubscribed(broadcast, 0)
    })
  )

  it.scopedLive("who comes back gets the rest, without a double", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.memory()
      const broadcast = yield* EventBroadcast.make({ log })
      const port = yield* serve(EventStreamRoute.layer("/", {}, ({ lastEventId }) => broadcast.subscribe(lastEventId)))
      const first = yield* log.append(event("0"))
      yield* Effect.forEach(["1", "2"], (data) => broadcast.publish(event(data)))
      const reader = yield* Effect.promise(() => get(port, "/", { "last-event-id": first.id }))
      yield* Effect.promise(() => reader.until((text) => text.includes("data: 2\n\n")))
      yield* broadcast.publish(event("3"))
      const text = yield* Effect.promise(() => reader.until((text) => text.includes("data: 3\n\n")))
      assert.deepStrictEqual(text.match(/^data: .*$/gm), ["data: 1", "data: 2", "data: 3"])
      assert.match(text, /id: \S+-4\ndata: 3\n\n$/)
      reader.leave()
    })
  )

  it.scopedLive("who begins gets what comes first, and then all that is published from that moment on", () =>
    Effect.gen(function* () {
      const reading = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const broadcast = yield* EventBroadcast.make()
      const first = Effect.as(Effect.zipRight(Deferred.succeed(reading, undefined), Deferred.await(go)), [
        event("state")
      ])
      const port = yield* serve(EventStreamRoute.layer("/", {}, () => broadcast.subscribe("", { first })))
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Deferred.await(reading)
      yield* broadcast.publish(event("change"))
      yield* turn
      yield* Deferred.succeed(go, undefined)
      yield* broadcast.publish(event("another"))
      const whole = ":\n\ndata: state\n\ndata: change\n\ndata: another\n\n"
      yield* Effect.promise(() => reader.until((text) => text === whole))
      reader.leave()
    })
  )

  it.live("with a log, what comes first is for who has no last event ID", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make({ log: yield* EventLog.memory() })
      yield* broadcast.publish(event("old"))
      const first = Effect.succeed([event("state")])
      const dataOf = (lastEventId?: string) =>
        broadcast.subscribe(lastEventId, { first }).pipe(
          Stream.take(1),
          Stream.runCollect,
          Effect.map((events) => Chunk.toReadonlyArray(events).map((item) => item._tag === "Event" && item.event))
        )
      assert.deepStrictEqual(yield* dataOf(), ["message"])
      assert.deepStrictEqual(yield* dataOf("unknown"), ["gap"])
    })
  )

  it.live("what is published while the log is read comes once, after the rest", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.memory()
      const reading = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      // Reads before it is told to go on, or after: either way nothing is lost or doubled.
      for (const early of [true, false]) {
        const slow: EventLog.EventLog = {
          append: log.append,
          since: (id) => {
            const wait = Effect.zipRight(Deferred.succeed(reading, undefined), Deferred.await(go))
            return early ? Effect.zipLeft(log.since(id), wait) : Effect.zipRight(wait, log.since(id))
          }
        }
        const broadcast = yield* EventBroadcast.make({ log: slow })
        const first = yield* log.append(event("0"))
        yield* broadcast.publish(event("1"))
        const items = yield* Effect.fork(
          Stream.runCollect(
            Stream.take(
              Stream.map(broadcast.subscribe(first.id), (item) => item),
              3
            )
          )
        )
        yield* Deferred.await(reading)
        yield* untilSubscribed(broadcast, 1)
        yield* broadcast.publish(event("2"))
        yield* turn
        yield* Deferred.succeed(go, undefined)
        yield* turn
        yield* broadcast.publish(event("3"))
        assert.deepStrictEqual(dataOf(yield* Fiber.join(items)), ["1", "2", "3"])
      }
    })
  )

  it.scopedLive("a gap is told as an event, once", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.memory({ maxEvents: 1 })
      const broadcast = yield* EventBroadcast.make({ log })
      const port = yield* serve(EventStreamRoute.layer("/", {}, ({ lastEventId }) => broadcast.subscribe(lastEventId)))
      yield* Effect.forEach(["1", "2"], (data) => broadcast.publish(event(data)))
      const reader = yield* Effect.promise(() => get(port, "/", { "last-event-id": "elsewhere-7" }))
      const text = yield* Effect.promise(() => reader.until((text) => text.includes("data: 2\n\n")))
      reader.leave()
      const match =
        /^:\n\nevent: gap\nid: (\S+-1)\ndata: \{"lastEventId":"elsewhere-7"\}\n\nid: \S+-2\ndata: 2\n\n$/.exec(text)
      assert.isNotNull(match)
      const again = yield* Effect.promise(() => get(port, "/", { "last-event-id": match![1]! }))
      const rest = yield* Effect.promise(() => again.until((text) => text.includes("data: 2\n\n")))
      assert.notInclude(rest, "gap")
      again.leave()
    })
  )
})

/** An outlet whose network takes bytes when it is told to. */
const makeOutlet = () => {
  let buffered = 0
  let text = ""
  const drains = new Set<() => void>()
  const outlet: Outlet = {
    open: () => {},
    write: ({ plain }) => {
      buffered += plain.length
      text += new TextDecoder().decode(plain)
    },
    taken: () => false,
    bufferedBytes: () => buffered,
    full: (limit) => buffered > limit,
    onDrain: (resume) => {
      drains.add(resume)
      return () => drains.delete(resume)
    },
    end: () => {},
    abort: () => {}
  }
  const drain = () => {
    buffered = 0
    for (const resume of drains) resume()
    drains.clear()
  }
  return { outlet, drain, text: () => text, listeners: () => drains.size }
}

describe("slow subscribers", () => {
  const subscribe = (broadcast: EventBroadcast.EventBroadcast, allowance: Allowance) => {
    const network = makeOutlet()
    const owner = {
      wasCut: false,
      cut() {
        this.wasCut = true
      }
    }
    const subscriber = new Subscriber(network.outlet, allowance, owner)
    const subscription = Direct.get(broadcast.subscribe())!(subscriber)
    return { ...network, owner, ...subscription }
  }

  it.live("wait: publishers wait until it has drained", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const slow = subscribe(broadcast, { slowReader: "wait", maxBufferedBytes: 10 })
      yield* broadcast.publish(event("0123456789"))
      yield* turn
      const waiting = yield* Effect.fork(broadcast.publish(event("next")))
      yield* turn
      assert.isNull(waiting.unsafePoll())
      slow.drain()
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(waiting)))
      slow.leave()
    })
  )

  it.live("wait: or until it has left", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const slow = subscribe(broadcast, { slowReader: "wait", maxBufferedBytes: 10 })
      yield* broadcast.publish(event("0123456789"))
      yield* turn
      const waiting = yield* Effect.fork(broadcast.publish(event("next")))
      yield* turn
      slow.leave()
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(waiting)))
      assert.strictEqual(slow.listeners(), 0)
      assert.strictEqual(yield* broadcast.subscribers, 0)
    })
  )

  it.live("drop: it misses events, which are counted", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const slow = subscribe(broadcast, { slowReader: "drop", maxBufferedBytes: 20 })
      const before = (yield* Metric.value(droppedEvents)).count
      for (const data of ["one", "two", "three", "four"]) {
        yield* broadcast.publish(event(data))
        yield* turn
        if (data === "three") slow.drain()
      }
      assert.strictEqual(slow.text(), "data: one\n\ndata: four\n\n")
      assert.strictEqual((yield* Metric.value(droppedEvents)).count - before, 2)
      slow.leave()
    })
  )

  it.live("cut: it is cut", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const slow = subscribe(broadcast, { slowReader: "cut", maxBufferedBytes: 20 })
      yield* broadcast.publish(event("one"))
      yield* turn
      assert.isFalse(slow.owner.wasCut)
      yield* broadcast.publish(event("three"))
      yield* turn
      assert.isTrue(slow.owner.wasCut)
      slow.leave()
    })
  )
})
