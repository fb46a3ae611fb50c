/**
 * One open response: how much it may hold, and what happens beyond that. Streams and broadcasts write to it.
 */
import * as Effect from "effect/Effect"
import type { Outlet } from "./outlet.js"
import { lend, type Wire } from "./wire.js"

/** What becomes of a reader that does not keep up. */
export type SlowReader = "wait" | "drop" | "cut"

/** A policy and its allowance of unsent bytes. */
export interface Allowance {
  readonly slowReader: SlowReader
  readonly maxBufferedBytes: number
}

export class Subscriber {
  /** Events that were not sent because the reader was slow. */
  dropped = 0
  /** Set by whoever serves the subscriber: called when the policy cuts it. */
  onCut: () => void = () => {}

  constructor(
    readonly outlet: Outlet,
    readonly allowance: Allowance,
    private readonly countDropped: (events: number) => void
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
    this.dropped += events
    this.countDropped(events)
    if (slowReader === "cut") this.onCut()
    return false
  }

  /** The same with text that is for this subscriber only. */
  offerText(text: string, events: number): boolean {
    let full = false
    lend(text, (wire) => {
      full = this.offer(wire, events)
      return this.outlet.taken()
    })
    return full
  }

  /** Waits until what was written is taken. */
  get drained(): Effect.Effect<void> {
    return Effect.async<void>((resume) => Effect.sync(this.outlet.onDrain(() => resume(Effect.void))))
  }
}
