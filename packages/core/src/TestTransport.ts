/**
 * Transports in memory, for tests without sockets: bytes arrive when the test says so, cut as the test says, late, never, or
 * until the line is cut. Time comes from Effect's Clock, so `TestClock` drives delays, heartbeats and deadlines.
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Connection from "./Connection.js"
import * as Timers from "./internal/timers.js"
import type { Listener, Transport } from "./Transport.js"
import { TransportError } from "./WebSocketError.js"

/**
 * How written bytes are cut into received chunks: as they were written, byte by byte, everything that waits at once, pieces of a
 * size, or pieces whose sizes a function chooses (given the bytes available, at least 1).
 *
 * @since 0.1.0
 * @category models
 */
export type Chunking = "as written" | "every byte" | "together" | number | ((availableBytes: number) => number)

/**
 * Options of a pair, for both directions.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Default: as written. */
  readonly chunking?: Chunking | undefined
  /** How long bytes travel. Default: none, they arrive in a later microtask. */
  readonly delay?: Duration.DurationInput | undefined
}

/**
 * One end of a pair, with what a test may do to the line.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestTransport extends Transport {
  /** What this end writes stays where it is until `flow`. */
  readonly stall: Effect.Effect<void>
  /** Ends a `stall`. */
  readonly flow: Effect.Effect<void>
  /** Cuts the line: both ends see a `TransportError` (`Reset`), and what was under way is lost. */
  readonly cut: Effect.Effect<void>
  /** Ends the direction from this end without asking its connection (FIN); the other direction goes on. */
  readonly halfClose: Effect.Effect<void>
  /** Bytes that this end has written since it was made. */
  readonly writtenBytes: Effect.Effect<number>
  /** Whether this end is gone in both directions. */
  readonly isClosed: Effect.Effect<boolean>
}

/**
 * Two ends of a line in memory.
 *
 * @since 0.1.0
 * @category constructors
 */
export const pair = (options: Options = {}): Effect.Effect<readonly [TestTransport, TestTransport]> =>
  Effect.clockWith((clock) =>
    Effect.sync(() => {
      const left = new End(options, clock)
      const right = new End(options, clock)
      left.peer = right
      right.peer = left
      return [left, right] as const
    })
  )

/**
 * A client's and a server's connection with a line in memory between them, and its two ends.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connections = (
  options: Options & {
    readonly client?: Omit<Connection.MakeOptions, "role">
    readonly server?: Omit<Connection.MakeOptions, "role">
  } = {}
): Effect.Effect<
  {
    readonly client: Connection.Connection
    readonly server: Connection.Connection
    readonly clientTransport: TestTransport
    readonly serverTransport: TestTransport
  },
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const [clientTransport, serverTransport] = yield* pair(options)
    const client = yield* Connection.make(clientTransport, { ...options.client, role: "client" })
    const server = yield* Connection.make(serverTransport, { ...options.server, role: "server" })
    return { client, server, clientTransport, serverTransport }
  })

interface Piece {
  readonly bytes: Uint8Array
  readonly due: number
}

class End implements TestTransport {
  peer!: End
  private listener: Listener | undefined
  private readonly outgoing: Array<Piece> = []
  private buffered = 0
  private written = 0
  private wantsDrain = false
  private stalled = false
  private paused = false
  private ended = false
  private endDelivered = false
  private closed = false
  private error: TransportError | undefined
  private scheduled = false
  private readonly delayMillis: number
  private readonly timer: Timers.Timer

  constructor(
    private readonly options: Options,
    private readonly clock: Clock.Clock
  ) {
    this.delayMillis = Duration.toMillis(options.delay ?? 0)
    this.timer = new Timers.Timer(() => this.schedule())
  }

  readonly open = (listener: Listener): void => {
    this.listener = listener
    if (this.closed) queueMicrotask(() => listener.onClose(this.error))
    else this.peer.schedule()
  }

  readonly write = (chunks: ReadonlyArray<Uint8Array>): boolean => {
    if (this.closed || this.ended) return true
    const due = this.clock.unsafeCurrentTimeMillis() + this.delayMillis
    for (const chunk of chunks) {
      if (chunk.length === 0) continue
      this.outgoing.push({ bytes: chunk.slice(), due })
      this.buffered += chunk.length
      this.written += chunk.length
    }
    this.wantsDrain = true
    this.schedule()
    return true
  }

  readonly bufferedBytes = (): number => this.buffered

  readonly pause = (): void => {
    this.paused = true
  }

  readonly resume = (): void => {
    this.paused = false
    this.peer.schedule()
  }

  readonly end = (): void => {
    if (this.closed || this.ended) return
    this.ended = true
    this.schedule()
  }

  readonly abort = (): void => {
    if (this.closed) return
    this.close(undefined)
    this.peer.close(new TransportError({ reason: "Reset", cause: new Error("the other end aborted") }))
  }

  readonly stall = Effect.sync(() => {
    this.stalled = true
  })

  readonly flow = Effect.sync(() => {
    this.stalled = false
    this.schedule()
  })

  readonly cut = Effect.sync(() => {
    for (const end of [this, this.peer]) {
      end.close(new TransportError({ reason: "Reset", cause: new Error("the line was cut") }))
    }
  })

  readonly halfClose = Effect.sync(() => this.end())

  readonly writtenBytes = Effect.sync(() => this.written)

  readonly isClosed = Effect.sync(() => this.closed)

  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    queueMicrotask(() => {
      this.scheduled = false
      this.deliver()
    })
  }

  /** Hands what has travelled long enough to the other end, one chunk per microtask. */
  private deliver(): void {
    const { peer } = this
    if (this.closed || this.stalled || peer.paused || peer.listener === undefined) return
    const first = this.outgoing[0]
    if (first !== undefined) {
      const wait = first.due - this.clock.unsafeCurrentTimeMillis()
      if (wait > 0) return Timers.of(this.clock).set(this.timer, wait)
      const chunk = this.nextChunk()
      this.buffered -= chunk.length
      this.schedule()
      peer.listener.onData(chunk)
      return
    }
    if (this.wantsDrain) {
      this.wantsDrain = false
      this.listener?.onDrain()
    }
    if (this.ended && !this.endDelivered) {
      this.endDelivered = true
      peer.listener.onEnd()
      if (peer.endDelivered) {
        this.close(undefined)
        peer.close(undefined)
      }
    }
  }

  private nextChunk(): Uint8Array {
    const { chunking = "as written" } = this.options
    const available = chunking === "as written" ? this.outgoing[0]!.bytes.length : this.dueBytes()
    const size =
      chunking === "every byte"
        ? 1
        : typeof chunking === "number"
          ? chunking
          : typeof chunking === "function"
            ? chunking(available)
            : available
    const chunk = new Uint8Array(Math.max(1, Math.min(Math.floor(size), available)))
    for (let filled = 0; filled < chunk.length; ) {
      const { bytes, due } = this.outgoing.shift()!
      const taken = Math.min(bytes.length, chunk.length - filled)
      chunk.set(bytes.subarray(0, taken), filled)
      filled += taken
      if (taken < bytes.length) this.outgoing.unshift({ bytes: bytes.subarray(taken), due })
    }
    return chunk
  }

  private dueBytes(): number {
    const now = this.clock.unsafeCurrentTimeMillis()
    let bytes = 0
    for (const piece of this.outgoing) if (piece.due <= now) bytes += piece.bytes.length
    return bytes
  }

  private close(error: TransportError | undefined): void {
    if (this.closed) return
    this.closed = true
    this.error = error
    this.outgoing.length = 0
    this.buffered = 0
    Timers.of(this.clock).cancel(this.timer)
    const { listener } = this
    if (listener !== undefined) queueMicrotask(() => listener.onClose(error))
  }
}
