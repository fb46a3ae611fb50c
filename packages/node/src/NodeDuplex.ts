/**
 * Node's `stream.Duplex` of a connection or of a transport, for code that is written against streams: `pipe`, `pipeline`, parsers,
 * TLS over anything. (The other way round are `NodeTransport.fromDuplex`, `NodeUpgrade.attach` and `NodeWebSocketClient.connectDuplex`.)
 *
 * @since 0.1.0
 */
import { Duplex } from "node:stream"
import type { Connection, Message, Transport } from "@effect-ws/core"
import * as Cause from "effect/Cause"
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * Options of {@link fromConnection}.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * `"bytes"`, the default: what is read is a stream of bytes without message boundaries, texts in UTF-8; every chunk that is
   * written is one binary message. `"messages"`: both sides are in object mode; a string is a text message, a `Uint8Array` a binary one.
   */
  readonly mode?: "bytes" | "messages" | undefined
  /** Of both sides, in bytes or messages. Default: Node's. */
  readonly highWaterMark?: number | undefined
}

/**
 * A Duplex over a connection, whose only consumer it is.
 *
 * - Reading pulls: who does not read makes the peer wait. Writing waits for room in the connection.
 * - `end` closes with 1000 after all that was written; `'finish'` follows the closing handshake. The peer's clean close is `'end'`, and
 *   ends the writable side too. Any other end destroys the stream with the connection's error.
 * - `destroy` cuts the connection (the peer sees 1006).
 * - When the Scope closes first, the stream is destroyed and the connection left to whom it belongs.
 *
 * @example
 * import { createGzip } from "node:zlib"
 * import { pipeline } from "node:stream/promises"
 * import { createReadStream } from "node:fs"
 * import { NodeDuplex, NodeWebSocketClient } from "@effect-ws/node"
 * import { Effect } from "effect"
 *
 * const upload = Effect.gen(function*() {
 *   const socket = yield* NodeWebSocketClient.connect("wss://example.com/upload")
 *   const stream = yield* NodeDuplex.fromConnection(socket)
 *   yield* Effect.promise(() => pipeline(createReadStream("log.txt"), createGzip(), stream.resume()))
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromConnection = (
  connection: Connection.Connection,
  options: Options = {}
): Effect.Effect<Duplex, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    // A runtime keeps the region where it was taken; to read is interruptible wherever the stream is made.
    const runtime = yield* Effect.interruptible(Effect.runtime<never>())
    const pull = yield* Stream.toPull(connection.messages)
    const fork: Fork = (effect, done) => {
      Runtime.runFork(runtime)(effect, { scope, immediate: true }).addObserver(done)
    }
    return yield* Effect.acquireRelease(
      Effect.sync(() => new ConnectionDuplex(connection, pull, fork, options)),
      (duplex) => Effect.sync(() => duplex.release())
    )
  })

type Fork = <A, E>(effect: Effect.Effect<A, E>, done: (exit: Exit.Exit<A, E>) => void) => void
type Pull = Effect.Effect<Chunk.Chunk<Message.Message>, Option.Option<Error>>
type Done = (error?: Error | null) => void

class ConnectionDuplex extends Duplex {
  private pulling = false
  /** Whether more was asked for while a pull was under way. */
  private wanted = false
  private released = false

  constructor(
    private readonly connection: Connection.Connection,
    private readonly pull: Pull,
    private readonly fork: Fork,
    { highWaterMark, mode }: Options
  ) {
    const objectMode = mode === "messages"
    super({ objectMode, allowHalfOpen: false, ...(highWaterMark === undefined ? {} : { highWaterMark }) })
  }

  /** The connection goes on without the stream. */
  release(): void {
    this.released = true
    this.destroy()
  }

  override _read(): void {
    this.wanted = true
    if (this.pulling) return
    this.pulling = true
    this.wanted = false
    this.fork(this.pull, (exit) => {
      if (this.destroyed) return
      if (Exit.isFailure(exit)) return this.ended(exit.cause)
      let pushed = false
      for (const message of exit.value) {
        const chunk = this.readableObjectMode ? message : bytesOf(message)
        // Nobody is woken by a chunk without bytes.
        if (this.readableObjectMode || chunk.length > 0) pushed = true
        this.push(chunk)
      }
      this.pulling = false
      if (this.wanted || !pushed) this._read()
    })
  }

  private ended(cause: Cause.Cause<Option.Option<Error>>): void {
    // The Scope closes.
    if (Cause.isInterruptedOnly(cause)) return this.release()
    const failure = Cause.failureOrCause(cause)
    if (failure._tag === "Right") this.destroy(Cause.squash(failure.right) as Error)
    else if (failure.left._tag === "None") this.push(null)
    else this.destroy(failure.left.value)
  }

  override _write(chunk: unknown, _: BufferEncoding, done: Done): void {
    if (typeof chunk !== "string" && !(chunk instanceof Uint8Array)) {
      return done(new TypeError("a message is a string or a Uint8Array"))
    }
    this.fork(this.connection.send(chunk), this.settle(done))
  }

  override _writev(chunks: Array<{ readonly chunk: unknown }>, done: Done): void {
    const messages = chunks.map(({ chunk }) => chunk)
    if (!messages.every((chunk) => typeof chunk === "string" || chunk instanceof Uint8Array)) {
      return done(new TypeError("a message is a string or a Uint8Array"))
    }
    this.fork(this.connection.sendAll(messages as Array<Message.Message>), this.settle(done))
  }

  override _final(done: Done): void {
    this.fork(this.connection.close(1000), this.settle(done))
  }

  private settle(done: Done): (exit: Exit.Exit<unknown, Error>) => void {
    return (exit) => {
      if (Exit.isSuccess(exit)) done()
      else if (Cause.isInterruptedOnly(exit.cause)) this.release()
      else done(Cause.squash(exit.cause) as Error)
    }
  }

  override _destroy(error: Error | null, done: Done): void {
    if (this.released) return done(error)
    this.fork(this.connection.abort, () => done(error))
  }
}

const bytesOf = (message: Message.Message): Buffer =>
  typeof message === "string"
    ? Buffer.from(message)
    : Buffer.from(message.buffer, message.byteOffset, message.byteLength)

/**
 * A Duplex of bytes over a transport, which belongs to it: what is left of a detached handshake, for another implementation of frames or
 * any code that wants a socket. Destroying it cuts the transport.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromTransport = (transport: Transport.Transport): Duplex => new TransportDuplex(transport)

class TransportDuplex extends Duplex implements Transport.Listener {
  private gone = false
  private ended = false
  private waiting: Done | undefined

  constructor(private readonly transport: Transport.Transport) {
    super()
    transport.open(this)
    transport.pause()
  }

  onData(chunk: Uint8Array): void {
    if (!this.push(chunk)) this.transport.pause()
  }

  onDrain(): void {
    this.proceed()
  }

  onEnd(): void {
    this.ended = true
    this.push(null)
  }

  onClose(error: Error | undefined): void {
    this.gone = true
    // What came before a clean end can still be read.
    if (error !== undefined || !this.ended) this.destroy(error)
    else this.end()
    this.proceed(error)
  }

  private proceed(error?: Error): void {
    const { waiting } = this
    this.waiting = undefined
    waiting?.(error)
  }

  override _read(): void {
    if (!this.gone) this.transport.resume()
  }

  override _write(chunk: Uint8Array, _: BufferEncoding, done: Done): void {
    this.transport.write([chunk])
    if (this.transport.bufferedBytes() < this.writableHighWaterMark) done()
    else this.waiting = done
  }

  override _final(done: Done): void {
    this.transport.end()
    if (this.gone || this.transport.bufferedBytes() === 0) done()
    else this.waiting = done
  }

  override _destroy(error: Error | null, done: Done): void {
    // After both ends the transport closes by itself; to cut it would look like a loss to the peer.
    if (!this.gone && (error !== null || !this.ended || !this.writableFinished)) this.transport.abort()
    done(error)
  }
}
