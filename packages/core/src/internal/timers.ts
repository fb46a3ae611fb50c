/**
 * Timers of connections: one fiber per Clock sleeps for all of them, so that ten thousand heartbeats cost no fiber each,
 * and TestClock drives them. Timers of equal duration are due in the order in which they were set, so each duration has
 * a list of its own and the next one due is the first of one of few lists.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"
import { type Link, Roster } from "./roster.js"

/** A timer; set it as often as wanted, one due time at a time. */
export class Timer implements Link<Timer> {
  due = 0
  list: List | undefined
  next: Timer | undefined
  previous: Timer | undefined
  constructor(readonly fire: () => void) {}
}

class List extends Roster<Timer> {
  constructor(readonly millis: number) {
    super()
  }
}

/** The timers of one Clock. */
export class Timers {
  private readonly lists = new Map<number, List>()
  private sleeper: Fiber.RuntimeFiber<void> | undefined
  private wakesAt = Number.POSITIVE_INFINITY
  private firing = false

  constructor(private readonly clock: Clock.Clock) {}

  /** Milliseconds of the Clock. */
  now(): number {
    return this.clock.unsafeCurrentTimeMillis()
  }

  /** How many timers are set. */
  get size(): number {
    let size = 0
    for (const list of this.lists.values()) size += list.size
    return size
  }

  /** Sets `timer` to fire once in `delayMillis` (at least 1); a timer that is set already is moved. */
  set(timer: Timer, delayMillis: number): void {
    this.cancel(timer)
    // Due at once would never let `fireDue` end for a timer that sets itself again.
    const millis = Math.max(1, delayMillis)
    let list = this.lists.get(millis)
    if (list === undefined) {
      list = new List(millis)
      this.lists.set(millis, list)
    }
    timer.due = this.now() + millis
    list.add(timer)
    if (timer.due < this.wakesAt && !this.firing) this.sleep()
  }

  /** Takes back a timer; nothing happens if it is not set. */
  cancel(timer: Timer): void {
    const { list } = timer
    if (list === undefined) return
    list.remove(timer)
    if (list.size === 0) {
      this.lists.delete(list.millis)
      if (this.lists.size === 0 && !this.firing) this.stop()
    }
  }

  private fireDue(): void {
    this.firing = true
    const now = this.now()
    try {
      for (const list of [...this.lists.values()]) {
        for (let timer = list.first; timer !== undefined && timer.due <= now; timer = list.first) {
          this.cancel(timer)
          timer.fire()
        }
      }
    } finally {
      this.firing = false
      if (this.lists.size > 0) this.sleep()
    }
  }

  private sleep(): void {
    this.stop()
    let due = Number.POSITIVE_INFINITY
    for (const { first } of this.lists.values()) if (first !== undefined && first.due < due) due = first.due
    this.wakesAt = due
    const sleeper = Effect.runFork(this.clock.sleep(Duration.millis(Math.max(0, due - this.now()))))
    this.sleeper = sleeper
    sleeper.addObserver((exit) => {
      if (this.sleeper !== sleeper || exit._tag === "Failure") return
      this.sleeper = undefined
      this.wakesAt = Number.POSITIVE_INFINITY
      this.fireDue()
    })
  }

  private stop(): void {
    const { sleeper } = this
    this.sleeper = undefined
    this.wakesAt = Number.POSITIVE_INFINITY
    if (sleeper !== undefined) sleeper.unsafeInterruptAsFork(sleeper.id())
  }
}

const all = globalValue("@effect-ws/core/timers", () => new WeakMap<Clock.Clock, Timers>())

/** The timers of `clock`. */
export const of = (clock: Clock.Clock): Timers => {
  let timers = all.get(clock)
  if (timers === undefined) all.set(clock, (timers = new Timers(clock)))
  return timers
}
