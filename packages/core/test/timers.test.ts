import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import * as Timers from "../src/internal/timers.js"

const settle = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
const advance = (millis: number) => Effect.zipRight(TestClock.adjust(millis), settle)
const setup = Effect.map(Effect.clock, (clock) => {
  const timers = Timers.of(clock)
  const fired: Array<readonly [string, number]> = []
  const timer = (name: string, then?: (timer: Timers.Timer) => void): Timers.Timer => {
    const made: Timers.Timer = new Timers.Timer(() => {
      fired.push([name, timers.now()])
      then?.(made)
    })
    return made
  }
  return { timers, fired, timer }
})

describe("timers", () => {
  it.effect("one set of timers per Clock", () =>
    Effect.gen(function* () {
      const clock = yield* Effect.clock
      assert.strictEqual(Timers.of(clock), Timers.of(clock))
      assert.strictEqual(Timers.of(clock).now(), 0)
    })
  )

  it.effect("fire once each, in order of their due times, whatever the order of setting", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      for (const millis of [50, 10, 30, 10, 20]) timers.set(timer(String(millis)), millis)
      assert.strictEqual(timers.size, 5)
      yield* advance(9)
      assert.deepStrictEqual(fired, [])
      yield* advance(100)
      assert.deepStrictEqual(fired, [
        ["10", 10],
        ["10", 10],
        ["20", 20],
        ["30", 30],
        ["50", 50]
      ])
      assert.strictEqual(timers.size, 0)
    })
  )

  it.effect("setting again moves, cancelling takes back", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      const [a, b, c] = [timer("a"), timer("b"), timer("c")]
      for (const one of [a, b, c]) timers.set(one, 10)
      yield* advance(5)
      timers.set(b, 10)
      timers.cancel(a)
      timers.cancel(a)
      assert.strictEqual(timers.size, 2)
      yield* advance(20)
      assert.deepStrictEqual(fired, [
        ["c", 10],
        ["b", 15]
      ])
      timers.cancel(c)
      yield* advance(100)
      assert.strictEqual(fired.length, 2)
    })
  )

  it.effect("a timer may set itself and cancel others while it fires", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      const other = timer("other")
      timers.set(
        timer("again", (self) => timers.set(self, 10)),
        10
      )
      timers.set(
        timer("cancels", () => timers.cancel(other)),
        10
      )
      timers.set(other, 10)
      yield* advance(10)
      yield* advance(10)
      yield* advance(10)
      assert.deepStrictEqual(fired, [
        ["again", 10],
        ["cancels", 10],
        ["again", 20],
        ["again", 30]
      ])
      assert.strictEqual(timers.size, 1)
    })
  )

  it.effect("a shorter timer that is set later fires first", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      timers.set(timer("long"), 1000)
      yield* advance(100)
      timers.set(timer("short"), 50)
      yield* advance(50)
      assert.deepStrictEqual(fired, [["short", 150]])
      yield* advance(850)
      assert.deepStrictEqual(fired, [
        ["short", 150],
        ["long", 1000]
      ])
    })
  )

  it.effect("no delay is at least a millisecond, so that a timer which sets itself again does not spin", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      const spinning = timer("spin", (self) => timers.set(self, 0))
      timers.set(spinning, 0)
      yield* advance(1)
      yield* advance(1)
      timers.cancel(spinning)
      assert.deepStrictEqual(fired, [
        ["spin", 1],
        ["spin", 2]
      ])
    })
  )

  it.effect("a million milliseconds for ever: infinite delays never fire and can be cancelled", () =>
    Effect.gen(function* () {
      const { fired, timer, timers } = yield* setup
      const never = timer("never")
      timers.set(never, Number.POSITIVE_INFINITY)
      timers.set(timer("soon"), 10)
      yield* advance(1_000_000)
      assert.deepStrictEqual(fired, [["soon", 10]])
      timers.cancel(never)
      assert.strictEqual(timers.size, 0)
    })
  )

  it.effect("one fiber sleeps for all, and none when no timer is set", () =>
    Effect.gen(function* () {
      const { timer, timers } = yield* setup
      const before = (yield* Fiber.roots).length
      const all = Array.from({ length: 1000 }, (_, i) => timer(String(i)))
      for (const one of all) timers.set(one, 10 + (one.due % 3))
      yield* settle
      assert.strictEqual((yield* Fiber.roots).length, before + 1)
      for (const one of all) timers.cancel(one)
      yield* settle
      assert.strictEqual((yield* Fiber.roots).length, before)
      assert.strictEqual(timers.size, 0)
    })
  )
})
