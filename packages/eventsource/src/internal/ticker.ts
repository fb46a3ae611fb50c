/**
 * One timer for all connections that want a heartbeat of the same interval, by the same clock.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"

interface Ticker {
  readonly members: Set<() => void>
  fiber: Fiber.RuntimeFiber<never> | undefined
}

const tickers = globalValue("@effect-ws/eventsource/tickers", () => new WeakMap<Clock.Clock, Map<number, Ticker>>())

/**
 * Calls `member` at every tick, the first at most one interval from now; answers how to leave. Runs a fiber of the default
 * runtime, so that no request's context is held, and only as long as it has members.
 */
export const join = (clock: Clock.Clock, interval: number, member: () => void): (() => void) => {
  let intervals = tickers.get(clock)
  if (intervals === undefined) tickers.set(clock, (intervals = new Map()))
  let ticker = intervals.get(interval)
  if (ticker === undefined) intervals.set(interval, (ticker = { members: new Set(), fiber: undefined }))
  const { members } = ticker
  members.add(member)
  ticker.fiber ??= Effect.runFork(
    Effect.forever(
      Effect.map(clock.sleep(Duration.millis(interval)), () => {
        for (const tick of members) tick()
      })
    ).pipe(Effect.withClock(clock))
  )
  const joined = ticker
  return () => {
    if (!members.delete(member) || members.size > 0) return
    joined.fiber?.unsafeInterruptAsFork(joined.fiber.id())
    joined.fiber = undefined
  }
}
