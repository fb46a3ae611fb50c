/**
 * Timers of connections: one fiber per Clock sleeps for all of them, so that ten thousand heartbeats cost no fiber each,
 * and TestClock drives them. Timers of equal duration are due in the order in which they were set, so each duration has
 * a list of its own and the next one due is the head of one of few lists.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"

/** A timer; set it as often as wanted, one due time at a time. */
export class Timer {
  due = 0
  list: List | undefined
  next: Timer | undefined
  previous: Timer | undefined
  constructor(readonly fire: () => void) {}
}

interface List {
  readonly millis: number
  head: Timer | undefined
  tail: Timer | undefined
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
    for (const list of this.lists.values()) for (let timer = list.head; timer !== undefined; timer = timer.next) size++
    return size
  }

  /** Sets `timer` to fire once in `delayMillis` (at least 1); a timer that is set already is moved. */
  set(timer: Timer, delayMillis: number): void {
    this.cancel(timer)
    // Due at once would never let `fireDue` end for a timer that sets itself again.
    const millis = Math.max(1, delayMillis)
    let list = this.lists.get(millis)
    if (list === undefined) {
      list = { millis, head: undefined, tail: undefined }
      this.lists.set(millis, list)
    }
    timer.due = this.now() + millis
    timer.list = list
    timer.previous = list.tail
    if (list.tail === undefined) list.head = timer
    else list.tail.next = timer
    list.tail = timer
    if (timer.due < this.wakesAt && !this.firing) this.sleep()
  }

  /** Takes back a timer; nothing happens if it is not set. */
  cancel(timer: Timer): void {
    const { list } = timer
    if (list === undefined) return
    if (timer.previous === undefined) list.head = timer.next
    else timer.previous.next = timer.next
    if (timer.next === undefined) list.tail = timer.previous
    else timer.next.previous = timer.previous
    timer.list = timer.next = timer.previous = undefined
    if (list.head === undefined) {
      this.lists.delete(list.millis)
      if (this.lists.size === 0 && !this.firing) this.stop()
    }
  }

  private fireDue(): void {
    this.firing = true
    const now = this.now()
    try {
      for (const list of [...this.lists.values()]) {
        for (let timer = list.head; timer !== undefined && timer.due <= now; timer = list.head) {
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
    for (const { head } of this.lists.values()) if (head !== undefined && head.due < due) due = head.due
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
