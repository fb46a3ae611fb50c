/**
 * One timer for all connections that want a heartbeat of the same interval, by the same clock.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"

/** What is called at every tick. */
export interface Member {
  tick(): void
}

/** Runs a fiber of the default runtime, so that no request's context is held, and only as long as it has members. */
export class Ticker {
  private readonly members = new Set<Member>()
  private fiber: Fiber.RuntimeFiber<never> | undefined

  constructor(
    private readonly clock: Clock.Clock,
    private readonly interval: Duration.Duration
  ) {}

  /** From now on: the first tick is at most one interval away. */
  join(member: Member): void {
    const { clock, members } = this
    members.add(member)
    this.fiber ??= Effect.runFork(
      Effect.forever(
        Effect.map(clock.sleep(this.interval), () => {
          for (const member of members) member.tick()
        })
      ).pipe(Effect.withClock(clock))
    )
  }

  leave(member: Member): void {
    if (!this.members.delete(member) || this.members.size > 0) return
    this.fiber?.unsafeInterruptAsFork(this.fiber.id())
    this.fiber = undefined
  }
}

const tickers = globalValue("@effect-ws/eventsource/tickers", () => new WeakMap<Clock.Clock, Map<number, Ticker>>())

/** The ticker of a clock for an interval in milliseconds. */
export const of = (clock: Clock.Clock, interval: number): Ticker => {
  let intervals = tickers.get(clock)
  if (intervals === undefined) tickers.set(clock, (intervals = new Map()))
  let ticker = intervals.get(interval)
  if (ticker === undefined) intervals.set(interval, (ticker = new Ticker(clock, Duration.millis(interval))))
  return ticker
}
