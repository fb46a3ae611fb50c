import { assert, describe, it } from "@effect/vitest"
import { Effect, type Fiber } from "effect"
import * as BatchScheduler from "../src/internal/batchScheduler.js"

/** A scheduler whose turns are run by hand. */
const make = () => {
  const turns: Array<() => void> = []
  const scheduler = BatchScheduler.make((run) => void turns.push(run))
  return { scheduler, turns, turn: () => turns.shift()!() }
}

describe("batchScheduler", () => {
  it("runs all tasks of a turn in order, by one call of defer", () => {
    const { scheduler, turn, turns } = make()
    const ran: Array<number> = []
    for (const i of [1, 2, 3]) scheduler.scheduleTask(() => void ran.push(i), 0)
    assert.strictEqual(turns.length, 1)
    assert.deepStrictEqual(ran, [])
    turn()
    assert.deepStrictEqual(ran, [1, 2, 3])
    assert.strictEqual(turns.length, 0)
  })

  it("tasks that are added while a batch runs wait for the next turn, so that the loop polls", () => {
    const { scheduler, turn, turns } = make()
    const ran: Array<string> = []
    const again = () => {
      ran.push("again")
      scheduler.scheduleTask(again, 0)
    }
    scheduler.scheduleTask(again, 0)
    scheduler.scheduleTask(() => void ran.push("other"), 0)
    turn()
    assert.deepStrictEqual(ran, ["again", "other"])
    assert.strictEqual(turns.length, 1)
    turn()
    assert.deepStrictEqual(ran, ["again", "other", "again"])
  })

  it("fibers yield after 2048 operations", () => {
    const { scheduler } = make()
    const at = (currentOpCount: number) =>
      scheduler.shouldYield({ currentOpCount } as Fiber.RuntimeFiber<unknown, unknown>)
    assert.isFalse(at(2048))
    assert.strictEqual(at(2049), 0)
  })

  it("a busy fiber lets another one run", () => {
    const { scheduler, turn, turns } = make()
    let steps = 0
    const busy = Effect.runFork(Effect.forever(Effect.sync(() => void steps++)), { scheduler })
    let ran = false
    Effect.runFork(
      Effect.zipRight(
        Effect.yieldNow(),
        Effect.sync(() => void (ran = true))
      ),
      { scheduler }
    )
    for (let i = 0; i < 5 && turns.length > 0; i++) turn()
    assert.isTrue(ran)
    assert.isAbove(steps, 0)
    busy.unsafeInterruptAsFork(busy.id())
    while (turns.length > 0) turn()
    assert.isNotNull(busy.unsafePoll())
  })
})
