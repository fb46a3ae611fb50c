/**
 * Transports: what carries the bytes of a connection. Anything that moves bytes both ways can be one: a TCP or TLS
 * socket, a pipe, a message port, an in-memory pair.
 *
 * The interface is made of plain callbacks, since it is crossed for every chunk; {@link fromEffect} makes a transport of
 * Effects and a Stream.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TransportError } from "./WebSocketError.js"

/**
 * What a transport tells the connection. No call may come from inside a call to the transport, except `onData` from
 * `resume`; after `onClose` none comes at all.
 *
 * @since 0.1.0
 * @category models
 */
export interface Listener {
  /** Received bytes; they are the listener's from now on. Not called between `pause` and `resume`. */
  onData(chunk: Uint8Array): void
  /**
   * Received bytes that are the listener's only until it returns, and that it may write over: a transport which reads everything into
   * the same memory calls it instead of `onData`. Without it such a transport makes copies.
   */
  readonly onLent?: (chunk: Uint8Array) => void
  /** All that was written has left (`bufferedBytes` is 0 again) after it had not. */
  onDrain(): void
  /** The peer ended its direction. */
  onEnd(): void
  /** The transport is gone in both directions; exactly once. */
  onClose(error: TransportError | undefined): void
}

/**
 * A duplex stream of bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Transport {
  /** Begins to deliver; called once. Bytes that arrived before wait for it. */
  readonly open: (listener: Listener) => void
  /**
   * Takes bytes to send, in order. Never fails (a failure shows as `onClose`) and never refuses (see `bufferedBytes`).
   * Gives `true` if nothing refers to the memory of `chunks` any more, so that it may be written over at once.
   */
  readonly write: (chunks: ReadonlyArray<Uint8Array>) => boolean
  /** Bytes that were written and have not left yet. */
  readonly bufferedBytes: () => number
  /** No `onData` until `resume`. */
  readonly pause: () => void
  readonly resume: () => void
  /** Ends our direction after all that was written. */
  readonly end: () => void
  /** Cuts both directions at once; `onClose` follows. */
  readonly abort: () => void
}

/**
 * A transport from a Stream that is read and Effects that write: for message ports, workers, other runtimes' sockets.
 *
 * `incoming` is pulled by a fiber of the Scope, only when the connection wants more, and its end is the peer's end.
 * `write` gets all that waits as one array and is called again when it succeeded. Errors of either cut the connection with
 * a {@link TransportError} (`Read` or `Write`). `end` and `abort` run once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromEffect = <E1, R1, E2, R2, R3, R4>(options: {
  readonly incoming: Stream.Stream<Uint8Array, E1, R1>
  readonly write: (chunks: ReadonlyArray<Uint8Array>) => Effect.Effect<unknown, E2, R2>
  readonly end: Effect.Effect<unknown, never, R3>
  readonly abort: Effect.Effect<unknown, never, R4>
}): Effect.Effect<Transport, never, R1 | R2 | R3 | R4 | Scope.Scope> =>
  Effect.gen(function* () {
    // Made in an uninterruptible region, its fibers must still be interruptible: the Scope waits for them.
    const runtime = yield* Effect.interruptible(Effect.runtime<R1 | R2 | R3 | R4>())
    const transport = new EffectTransport(options, runtime)
    yield* Effect.addFinalizer(() => transport.dispose)
    return transport
  })

/** Bytes that may wait to leave on one side before the other is paused. */
const joinHighWaterMark = 0x10000

/**
 * Passes bytes between two transports until both are gone, unread and unchanged: what a proxy does. Each side waits for the other
 * when more than 64 KiB wait to leave there. The end of one direction is passed on, and so is the loss of a transport: the other is cut,
 * and it fails with the {@link TransportError} if there was one. Interruption cuts both.
 *
 * @since 0.1.0
 * @category combinators
 */
export const join = (left: Transport, right: Transport): Effect.Effect<void, TransportError> =>
  Effect.async((resume) => {
    const open = new Set([left, right])
    const ended = new Set<Transport>()
    let failure: TransportError | undefined
    const pass = (from: Transport, to: Transport): Listener => ({
      onData: (chunk) => {
        to.write([chunk])
        if (to.bufferedBytes() >= joinHighWaterMark) from.pause()
      },
      onDrain: () => to.resume(),
      onEnd: () => {
        ended.add(from)
        to.end()
      },
      onClose: (error) => {
        open.delete(from)
        failure ??= error
        if (open.size === 0) return resume(failure === undefined ? Effect.void : Effect.fail(failure))
        // Both directions have ended: what is left to write closes the other one by itself.
        if (error !== undefined || !ended.has(from) || !ended.has(to)) to.abort()
      }
    })
    left.open(pass(left, right))
    right.open(pass(right, left))
    return Effect.sync(() => {
      for (const transport of open) transport.abort()
    })
  })

class EffectTransport<R> implements Transport {
  private listener: Listener | undefined
  private outgoing: Array<Uint8Array> = []
  private buffered = 0
  private writing = false
  private ending = false
  private readEnded = false
  private writeEnded = false
  private closed = false
  private gate: (() => void) | undefined
  private paused = false
  private readonly fibers = new Set<Fiber.RuntimeFiber<unknown, unknown>>()

  constructor(
    private readonly options: {
      readonly incoming: Stream.Stream<Uint8Array, unknown, R>
      readonly write: (chunks: ReadonlyArray<Uint8Array>) => Effect.Effect<unknown, unknown, R>
      readonly end: Effect.Effect<unknown, never, R>
      readonly abort: Effect.Effect<unknown, never, R>
    },
    private readonly runtime: Runtime.Runtime<R>
  ) {}

  readonly open = (listener: Listener): void => {
    this.listener = listener
    const wait = Effect.async<void>((resume) => {
      if (!this.paused) return resume(Effect.void)
      this.gate = () => resume(Effect.void)
    })
    const read = Stream.runForEachChunk(this.options.incoming, (chunk) =>
      Effect.suspend(() => {
        for (const bytes of chunk) if (!this.closed) listener.onData(bytes)
        return this.paused ? wait : Effect.void
      })
    )
    this.run(read, (exit) => {
      if (this.closed) return
      if (Exit.isSuccess(exit)) {
        this.readEnded = true
        listener.onEnd()
        if (this.writeEnded) this.close(undefined)
      } else this.close(new TransportError({ reason: "Read", cause: Cause.squash(exit.cause) }))
    })
  }

  readonly write = (chunks: ReadonlyArray<Uint8Array>): boolean => {
    if (this.closed || this.ending) return true
    for (const chunk of chunks) {
      this.outgoing.push(chunk)
      this.buffered += chunk.length
    }
    this.pump()
    return false
  }

  readonly bufferedBytes = (): number => this.buffered

  readonly pause = (): void => {
    this.paused = true
  }

  readonly resume = (): void => {
    this.paused = false
    const gate = this.gate
    this.gate = undefined
    gate?.()
  }

  readonly end = (): void => {
    if (this.ending || this.closed) return
    this.ending = true
    this.pump()
  }

  readonly abort = (): void => this.close(undefined)

  get dispose(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.close(undefined)
      const aborting = this.aborting === undefined ? Effect.void : Fiber.await(this.aborting)
      return Effect.zipRight(Fiber.interruptAll([...this.fibers].filter((fiber) => fiber !== this.aborting)), aborting)
    })
  }

  private pump(): void {
    if (this.writing || this.closed) return
    if (this.outgoing.length > 0) {
      const chunks = this.outgoing
      const size = this.buffered
      this.outgoing = []
      this.writing = true
      this.run(this.options.write(chunks), (exit) => {
        this.writing = false
        if (this.closed) return
        if (Exit.isFailure(exit)) {
          return this.close(new TransportError({ reason: "Write", cause: Cause.squash(exit.cause) }))
        }
        this.buffered -= size
        if (this.buffered === 0) this.listener?.onDrain()
        this.pump()
      })
    } else if (this.ending) {
      this.run(this.options.end, () => {
        this.writeEnded = true
        if (this.readEnded) this.close(undefined)
      })
    }
  }

  private close(error: TransportError | undefined): void {
    if (this.closed) return
    this.closed = true
    this.outgoing = []
    this.buffered = 0
    this.run(this.options.abort, () => this.listener?.onClose(error))
    for (const fiber of this.fibers) if (fiber !== this.aborting) fiber.unsafeInterruptAsFork(fiber.id())
  }

  private aborting: Fiber.RuntimeFiber<unknown, unknown> | undefined

  private run(effect: Effect.Effect<unknown, unknown, R>, done: (exit: Exit.Exit<unknown, unknown>) => void): void {
    // Not before this turn ends: nothing may call the listener from inside a call to the transport.
    const fiber = Runtime.runFork(this.runtime)(effect, { immediate: false })
    if (this.closed) this.aborting = fiber
    this.fibers.add(fiber)
    fiber.addObserver((exit) => {
      this.fibers.delete(fiber)
      done(exit)
    })
  }
}
