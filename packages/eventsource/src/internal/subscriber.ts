/**
 * One open response: how much it may hold, and what happens beyond that. Streams and broadcasts write to it.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { Outlet } from "./outlet.js"
import { lend, type Wire } from "./wire.js"

/** What becomes of a reader that does not keep up. */
export type SlowReader = "wait" | "drop" | "cut"

/** A policy and its allowance of unsent bytes. */
export interface Allowance {
  readonly slowReader: SlowReader
  readonly maxBufferedBytes: number
}

/** Events that were not sent because their reader was slow. */
export const droppedEvents = Metric.counter("eventsource_dropped_events_total", { incremental: true })

const countDropped = (events: number): void => droppedEvents.unsafeUpdate(events, [])

/**
 * How much may be written before others get their turn. The kernel takes what a fast reader reads at once, so that writing
 * never waits, and Effect's scheduler hands over to timers and sockets only after seconds of it.
 */
const turnBytes = 64 * 1024

const later: (resume: () => void) => unknown =
  (globalThis as { readonly setImmediate?: (resume: () => void) => unknown }).setImmediate ??
  ((resume) => setTimeout(resume, 0))

/** Goes on in another turn of the event loop. */
const nextTurn: Effect.Effect<void> = Effect.async<void>((resume) => {
  later(() => resume(Effect.void))
})

export class Subscriber {
  private sinceTurn = 0

  constructor(
    readonly outlet: Outlet,
    private readonly allowance: Allowance,
    /** Whoever serves the subscriber, and breaks its connection when the policy says so. */
    private readonly owner: { cut(): void }
  ) {}

  /** Writes bytes that hold this many events, or does what the policy says. True: the policy is to wait, and it is time to. */
  offer(wire: Wire, events: number): boolean {
    const { maxBufferedBytes, slowReader } = this.allowance
    if (slowReader === "wait") {
      this.outlet.write(wire)
      return this.outlet.full(maxBufferedBytes)
    }
    // What is larger than the whole allowance is sent when nothing else waits.
    const buffered = this.outlet.bufferedBytes()
    if (buffered === 0 || buffered + wire.plain.length <= maxBufferedBytes) {
      this.outlet.write(wire)
      return false
    }
    countDropped(events)
    if (slowReader === "cut") this.owner.cut()
    return false
  }

  /** Writes text that is for this subscriber only, and waits where the policy says so. */
  send(text: string, events: number): Effect.Effect<void> {
    let full = false
    lend(text, (wire) => {
      full = this.offer(wire, events)
      this.sinceTurn += wire.plain.length
      return this.outlet.taken()
    })
    if (full) {
      this.sinceTurn = 0
      return this.drained
    }
    if (this.sinceTurn < turnBytes) return Effect.void
    this.sinceTurn = 0
    return nextTurn
  }

  /** Waits until what was written is taken. */
  get drained(): Effect.Effect<void> {
    return Effect.async<void>((resume) => Effect.sync(this.outlet.onDrain(() => resume(Effect.void))))
  }
}
