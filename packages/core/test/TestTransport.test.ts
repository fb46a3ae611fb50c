import { assert, describe, it } from "@effect/vitest"
import { TestTransport, WebSocketError } from "@effect-ws/core"
import { Effect, TestClock } from "effect"
import * as Timers from "../src/internal/timers.js"
import { bytes, Recorder } from "./recorder.js"

const settle = Effect.promise(async () => {
  for (let i = 0; i < 4; i++) await new Promise<void>((resume) => setImmediate(resume))
})

const make = (options?: TestTransport.Options) =>
  Effect.map(TestTransport.pair(options), ([left, right]) => {
    const [atLeft, atRight] = [new Recorder(), new Recorder()]
    left.open(atLeft)
    right.open(atRight)
    return { left, right, atLeft, atRight }
  })

describe("chunking", () => {
  const rows: ReadonlyArray<readonly [string, TestTransport.Chunking | undefined, ReadonlyArray<string>]> = [
    ["default", undefined, ["data 1,2,3", "data 4,5", "data 6"]],
    ["as written", "as written", ["data 1,2,3", "data 4,5", "data 6"]],
    ["every byte", "every byte", ["data 1", "data 2", "data 3", "data 4", "data 5", "data 6"]],
    ["together", "together", ["data 1,2,3,4,5,6"]],
    ["pieces of 4", 4, ["data 1,2,3,4", "data 5,6"]],
    ["pieces larger than all", 100, ["data 1,2,3,4,5,6"]],
    ["pieces of 0 are of 1", 0, ["data 1", "data 2", "data 3", "data 4", "data 5", "data 6"]],
    ["a function of what waits", (available) => available / 2, ["data 1,2,3", "data 4", "data 5", "data 6"]]
  ]
  for (const [what, chunking, events] of rows) {
    it.effect(what, () =>
      Effect.gen(function* () {
        const { atRight, left } = yield* make(chunking === undefined ? {} : { chunking })
        left.write([bytes(1, 2, 3), bytes()])
        left.write([bytes(4, 5), bytes(6)])
        yield* settle
        assert.deepStrictEqual(atRight.events, events)
      })
    )
  }
})

describe("the line", () => {
  it.effect("bytes are copied, so the writer may write over them", () =>
    Effect.gen(function* () {
      const { atRight, left } = yield* make()
      const chunk = bytes(1, 2)
      assert.isTrue(left.write([chunk]))
      chunk.fill(9)
      yield* settle
      assert.deepStrictEqual(atRight.chunks, [bytes(1, 2)])
    })
  )

  it.effect("nothing is called from inside a call, and bytes before open wait for it", () =>
    Effect.gen(function* () {
      const [left, right] = yield* TestTransport.pair()
      left.write([bytes(1)])
      left.end()
      yield* settle
      assert.strictEqual(left.bufferedBytes(), 1)
      const atRight = new Recorder()
      right.open(atRight)
      assert.deepStrictEqual(atRight.events, [])
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1", "end"])
    })
  )

  it.effect("bufferedBytes and onDrain tell when all has left; pause holds it back", () =>
    Effect.gen(function* () {
      const { atLeft, atRight, left, right } = yield* make()
      right.pause()
      left.write([bytes(1, 2)])
      left.write([bytes(3)])
      yield* settle
      assert.strictEqual(left.bufferedBytes(), 3)
      assert.deepStrictEqual([...atLeft.events, ...atRight.events], [])
      right.resume()
      yield* settle
      assert.strictEqual(left.bufferedBytes(), 0)
      assert.deepStrictEqual(atLeft.events, ["drain"])
      assert.deepStrictEqual(atRight.events, ["data 1,2", "data 3"])
      assert.strictEqual(yield* left.writtenBytes, 3)
    })
  )

  it.effect("pause inside onData takes effect at once", () =>
    Effect.gen(function* () {
      const { atRight, left, right } = yield* make({ chunking: "every byte" })
      atRight.onData = (chunk) => {
        atRight.chunks.push(chunk)
        right.pause()
      }
      left.write([bytes(1, 2, 3)])
      yield* settle
      assert.strictEqual(atRight.chunks.length, 1)
      right.resume()
      yield* settle
      assert.strictEqual(atRight.chunks.length, 2)
    })
  )

  it.effect("end: the other direction goes on; when both ended, both are closed", () =>
    Effect.gen(function* () {
      const { atLeft, atRight, left, right } = yield* make()
      left.write([bytes(1)])
      left.end()
      left.write([bytes(2)])
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1", "end"])
      right.write([bytes(3)])
      yield* settle
      assert.isFalse(yield* left.isClosed)
      right.end()
      yield* settle
      assert.deepStrictEqual(atLeft.events, ["drain", "data 3", "end", "close"])
      assert.deepStrictEqual(atRight.events, ["data 1", "end", "drain", "close"])
      assert.strictEqual(atLeft.error, undefined)
      assert.isTrue(yield* left.isClosed)
      assert.isTrue(yield* right.isClosed)
    })
  )

  it.effect("halfClose ends a direction like end", () =>
    Effect.gen(function* () {
      const { atRight, left } = yield* make()
      yield* left.halfClose
      yield* settle
      assert.deepStrictEqual(atRight.events, ["end"])
    })
  )

  it.effect("abort: our end closes, the other one is reset, and what was under way is lost", () =>
    Effect.gen(function* () {
      const { atLeft, atRight, left, right } = yield* make()
      right.write([bytes(1)])
      left.abort()
      left.abort()
      yield* settle
      assert.deepStrictEqual(atLeft.events, ["close"])
      assert.deepStrictEqual(atRight.events, ["close"])
      assert.strictEqual(atLeft.error, undefined)
      assert.deepInclude(atRight.error, { _tag: "TransportError", reason: "Reset" })
      assert.strictEqual(right.bufferedBytes(), 0)
      assert.isTrue(right.write([bytes(2)]))
      right.end()
      yield* settle
      assert.strictEqual(atRight.events.length, 1)
    })
  )

  it.effect("cut: both ends are reset, once", () =>
    Effect.gen(function* () {
      const { atLeft, atRight, left, right } = yield* make()
      yield* left.cut
      yield* right.cut
      yield* settle
      for (const recorder of [atLeft, atRight]) {
        assert.deepStrictEqual(recorder.events, ["close"])
        assert.instanceOf(recorder.error, WebSocketError.TransportError)
      }
    })
  )

  it.effect("an end that was cut before it was opened tells so when it is", () =>
    Effect.gen(function* () {
      const [left, right] = yield* TestTransport.pair()
      yield* right.cut
      yield* settle
      const atLeft = new Recorder()
      left.open(atLeft)
      assert.deepStrictEqual(atLeft.events, [])
      yield* settle
      assert.deepStrictEqual(atLeft.events, ["close"])
      assert.strictEqual(atLeft.error?.reason, "Reset")
    })
  )

  it.effect("stall keeps what an end writes, its end too, until flow; the other direction goes on", () =>
    Effect.gen(function* () {
      const { atLeft, atRight, left, right } = yield* make()
      yield* left.stall
      left.write([bytes(1)])
      left.end()
      right.write([bytes(2)])
      yield* settle
      assert.deepStrictEqual(atRight.events, ["drain"])
      assert.deepStrictEqual(atLeft.events, ["data 2"])
      assert.strictEqual(left.bufferedBytes(), 1)
      yield* left.flow
      yield* settle
      assert.deepStrictEqual(atRight.events, ["drain", "data 1", "end"])
    })
  )
})

describe("delay", () => {
  it.effect("bytes travel as long as the Clock says, in order", () =>
    Effect.gen(function* () {
      const { atRight, left } = yield* make({ delay: "100 millis" })
      left.write([bytes(1)])
      yield* TestClock.adjust("60 millis")
      left.write([bytes(2)])
      left.end()
      yield* TestClock.adjust("39 millis")
      assert.deepStrictEqual(atRight.events, [])
      yield* TestClock.adjust("1 millis")
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1"])
      yield* TestClock.adjust("60 millis")
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1", "data 2", "end"])
    })
  )

  it.effect("together takes only what has arrived", () =>
    Effect.gen(function* () {
      const { atRight, left } = yield* make({ delay: "100 millis", chunking: "together" })
      left.write([bytes(1), bytes(2)])
      yield* TestClock.adjust("1 millis")
      left.write([bytes(3)])
      yield* TestClock.adjust("99 millis")
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1,2"])
      yield* TestClock.adjust("1 millis")
      yield* settle
      assert.deepStrictEqual(atRight.events, ["data 1,2", "data 3"])
    })
  )

  it.effect("a cut takes back the timer", () =>
    Effect.gen(function* () {
      const timers = Timers.of(yield* Effect.clock)
      const { left } = yield* make({ delay: "1 seconds" })
      left.write([bytes(1)])
      yield* settle
      assert.strictEqual(timers.size, 1)
      yield* left.cut
      assert.strictEqual(timers.size, 0)
    })
  )
})

describe("connections", () => {
  it.scoped("pass options and subprotocol to their ends", () =>
    Effect.gen(function* () {
      const { client, clientTransport, server, serverTransport } = yield* TestTransport.connections({
        client: { subprotocol: "a" },
        server: { subprotocol: "b" }
      })
      assert.deepStrictEqual([client.role, client.subprotocol], ["client", "a"])
      assert.deepStrictEqual([server.role, server.subprotocol], ["server", "b"])
      yield* client.send("x")
      assert.strictEqual(yield* server.take, "x")
      // Two bytes of header, four of mask, one of text
      assert.strictEqual(yield* clientTransport.writtenBytes, 7)
      assert.strictEqual(yield* serverTransport.writtenBytes, 0)
    })
  )
})
