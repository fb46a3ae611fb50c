import { KeyValueStore } from "@effect/platform"
import * as PlatformError from "@effect/platform/Error"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { EventLog, ServerSentEvent } from "../src/index.js"

interface Bounds {
  readonly maxEvents?: number
}

const append = (log: EventLog.EventLog, ...data: ReadonlyArray<string>) =>
  Effect.forEach(data, (data) =>
    Effect.map(log.append(ServerSentEvent.make({ event: "e", data })), (event) => event.id!)
  )

const summary = (since: EventLog.Since) => [since._tag, since.events.map((event) => event.data)]

/** What every log promises. */
const contract = (
  name: string,
  make: (bounds: Bounds) => Effect.Effect<EventLog.EventLog, EventLog.EventLogError, KeyValueStore.KeyValueStore>
) =>
  describe(name, () => {
    it.effect("gives each event an ID, and what followed it", () =>
      Effect.gen(function* () {
        const log = yield* make({})
        const ids = yield* append(log, "a", "b", "c")
        assert.strictEqual(new Set(ids).size, 3)
        assert.deepStrictEqual(summary(yield* log.since(ids[0]!)), ["Rest", ["b", "c"]])
        assert.deepStrictEqual(summary(yield* log.since(ids[2]!)), ["Rest", []])
        assert.deepStrictEqual((yield* log.since(ids[1]!)).events, [
          ServerSentEvent.make({ event: "e", data: "c", id: ids[2] })
        ])
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
    )

    it.effect("tells a gap when the ID was forgotten", () =>
      Effect.gen(function* () {
        const log = yield* make({ maxEvents: 2 })
        const ids = yield* append(log, "a", "b", "c", "d")
        assert.deepStrictEqual(summary(yield* log.since(ids[0]!)), ["Gap", ["c", "d"]])
        // The one before the oldest is still enough to know all that followed.
        assert.deepStrictEqual(summary(yield* log.since(ids[1]!)), ["Rest", ["c", "d"]])
        const gap = yield* log.since(ids[0]!)
        assert.deepStrictEqual(summary(yield* log.since(gap._tag === "Gap" ? gap.id : "")), ["Rest", ["c", "d"]])
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
    )

    it.effect("tells a gap for IDs that it never gave", () =>
      Effect.gen(function* () {
        const log = yield* make({})
        const [id] = yield* append(log, "a")
        const epoch = id!.slice(0, id!.indexOf("-"))
        for (const other of [
          "",
          "7",
          "x-1",
          `${epoch}-2`,
          `${epoch}--1`,
          `${epoch}-1.0`,
          `${epoch}-01`,
          `${epoch}-`,
          `y${id}`
        ]) {
          assert.deepStrictEqual(summary(yield* log.since(other)), ["Gap", ["a"]], other)
        }
        assert.deepStrictEqual(summary(yield* log.since(`${epoch}-0`)), ["Rest", ["a"]])
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
    )

    it.effect("stays within its bounds over a long time", () =>
      Effect.gen(function* () {
        const log = yield* make({ maxEvents: 10 })
        for (let n = 0; n < 500; n++) {
          const [id] = yield* append(log, String(n))
          const since = yield* log.since("unknown")
          assert.strictEqual(since.events.length, Math.min(n + 1, 10))
          assert.strictEqual(since.events.at(-1)?.id, id)
        }
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
    )
  })

contract("in memory", EventLog.memory)
contract("in a KeyValueStore", EventLog.keyValueStore)

describe("bounds and restarts", () => {
  it.effect("memory is bounded by the length of its events too, and keeps the newest", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.memory({ maxBytes: 10 })
      yield* append(log, "1234", "1234", "1234")
      assert.deepStrictEqual(summary(yield* log.since("")), ["Gap", ["1234", "1234"]])
      yield* append(log, "x".repeat(100))
      assert.deepStrictEqual(summary(yield* log.since("")), ["Gap", ["x".repeat(100)]])
    })
  )

  it.effect("a restart is a gap in memory", () =>
    Effect.gen(function* () {
      const [id] = yield* append(yield* EventLog.memory(), "a")
      const restarted = yield* EventLog.memory()
      assert.deepStrictEqual(summary(yield* restarted.since(id!)), ["Gap", []])
    })
  )

  it.effect("a restart is none in a KeyValueStore", () =>
    Effect.gen(function* () {
      const [first] = yield* append(yield* EventLog.keyValueStore(), "a", "b")
      const restarted = yield* EventLog.keyValueStore()
      yield* append(restarted, "c")
      assert.deepStrictEqual(summary(yield* restarted.since(first!)), ["Rest", ["b", "c"]])
      const other = yield* EventLog.keyValueStore({ prefix: "other" })
      assert.deepStrictEqual(summary(yield* other.since(first!)), ["Gap", []])
    }).pipe(Effect.provide(KeyValueStore.layerMemory))
  )

  it.effect("what the store cannot do is an error", () =>
    Effect.gen(function* () {
      const store = yield* KeyValueStore.KeyValueStore
      const log = yield* EventLog.keyValueStore()
      const [id] = yield* append(log, "a", "b")
      yield* store.remove("events/2")
      const error = yield* Effect.flip(log.since(id!))
      assert.strictEqual(error._tag, "EventLogError")
      assert.strictEqual(error.operation, "since")
    }).pipe(Effect.provide(Layer.fresh(KeyValueStore.layerMemory)))
  )

  it.effect("an old event that can't be removed does not fail the new one, which is kept", () =>
    Effect.gen(function* () {
      const memory = yield* KeyValueStore.KeyValueStore
      const failure = new PlatformError.SystemError({ reason: "Busy", module: "KeyValueStore", method: "remove" })
      const stubborn = { ...memory, remove: () => Effect.fail(failure) }
      const log = yield* Effect.provideService(
        EventLog.keyValueStore({ maxEvents: 1 }),
        KeyValueStore.KeyValueStore,
        stubborn
      )
      const [first] = yield* append(log, "a", "b")
      assert.deepStrictEqual(summary(yield* log.since(first!)), ["Rest", ["b"]])
    }).pipe(Effect.provide(Layer.fresh(KeyValueStore.layerMemory)))
  )
})
