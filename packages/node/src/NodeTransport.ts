/**
 * Transports over Node's duplex streams: TCP, TLS and Unix sockets, or any `stream.Duplex` of bytes.
 *
 * @since 0.1.0
 */

import type * as Net from "node:net"
import type * as Stream from "node:stream"
import type { Transport } from "@effect-ws/core"
import { WebSocketError } from "@effect-ws/core"
import * as Handle from "./internal/handle.js"
import { scheduler } from "./internal/scheduler.js"

/**
 * The transport over an open duplex stream, which belongs to it from now on: its timeout and Nagle's algorithm are switched off,
 * errors and the end are listened to at once. `head` are bytes that were read from it already.
 *
 * Reading starts with `open`. `end` sends FIN and goes on reading; `abort` destroys the stream. The high-water mark of the
 * stream itself does not matter. Plain TCP and Unix sockets are read and written past Node's own queues where Node's internals look
 * as expected (with `EFFECT_WS_NO_HANDLE=1` in the environment never).
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromDuplex = (duplex: Stream.Duplex, head?: Uint8Array | undefined): Transport.Transport =>
  new NodeTransport(duplex as OwnedDuplex, head)

/**
 * {@link fromDuplex} whose first bytes are the answer to an opening handshake. They leave when the event loop has polled, with those of others,
 * or earlier with what is written next. Where a request takes a server as long as through a router, answers that leave one by one wake
 * the peer's side each time: a fifth of what an opening handshake costs.
 *
 * @internal
 */
export const fromAnswered = (duplex: Stream.Duplex, head: Uint8Array, answer: Uint8Array): Transport.Transport => {
  const transport = new NodeTransport(duplex as OwnedDuplex, head)
  transport.writeSoon(answer)
  return transport
}

/** @internal */
export const ownsListener = (listener: unknown): boolean => listener === onClose

const owner = Symbol("@effect-ws/node/NodeTransport")

interface OwnedDuplex extends Stream.Duplex, Handle.Handled {
  [owner]: NodeTransport | undefined
}

interface OwnedHandle extends Handle.Handle {
  [owner]: NodeTransport | undefined
}

class NodeTransport implements Transport.Transport {
  listener: Transport.Listener | undefined
  error: unknown
  closed = false
  /** Whether the stream holds back more than its own high-water mark, so that a `drain` will follow. */
  blocked = false
  private listensToDrain = false
  /** Bytes that came before the end, if that came before all this began. */
  private early: Uint8Array | undefined
  /** What lies under the stream, if it may be used. */
  private readonly handle: Handle.Handle | undefined
  /** Whether what is read need not pass through the stream: it flows, and holds nothing. */
  passes = false
  /** Bytes that were read, of those that a handle has read into lent memory. */
  bytesRead = 0
  /** Whether what is written need not pass through the stream: it holds nothing. */
  private writesPast = false
  /** Whether the kernel did not take all that was written past the stream. */
  private queued = false
  /** Whether either side ended, so that the stream may not be writable any more. */
  halfOver = false
  /** What is to be written before all else. */
  private answer: Uint8Array | undefined

  constructor(
    private readonly duplex: OwnedDuplex,
    head: Uint8Array | undefined
  ) {
    duplex[owner] = this
    // Shared functions instead of closures: an idle connection then costs five array slots.
    duplex.on("error", onError)
    duplex.on("close", onClose)
    if (isSocket(duplex)) {
      if (duplex.timeout) duplex.setTimeout(0)
      duplex.setNoDelay(true)
    }
    this.handle = Handle.handleOf(duplex)
    if (head === undefined || head.length === 0) return
    // Nothing may be put back into a stream that has ended.
    if (duplex.readableEnded) this.early = head
    else duplex.unshift(head)
  }

  open(listener: Transport.Listener): void {
    const { duplex } = this
    if (this.closed || duplex.destroyed) {
      this.closed = true
      // Told here, and not again by an event that may still come.
      queueMicrotask(() => listener.onClose(this.transportError()))
      return
    }
    this.listener = listener
    duplex.on("data", onData)
    duplex.on("end", onEnd)
    if (this.handle !== undefined) {
      ;(this.handle as OwnedHandle)[owner] = this
      this.bytesRead = this.handle.bytesRead
      this.handle.onread = listener.onLent !== undefined && Handle.readIntoLent(this.handle) ? onReadLent : onRead
    }
    // A stream that was paused by whoever owned it before does not flow by itself.
    this.resume()
    if (duplex.readableEnded) queueMicrotask(() => this.endedBefore(listener))
  }

  gone(): void {
    const { handle, listener } = this
    this.closed = true
    if (handle !== undefined) (handle as OwnedHandle)[owner] = undefined
    listener?.onClose(this.transportError())
  }

  /** The end came before anyone listened to it. */
  private endedBefore(listener: Transport.Listener): void {
    if (this.closed) return
    if (this.early !== undefined) listener.onData(this.early)
    this.early = undefined
    listener.onEnd()
  }

  writeSoon(answer: Uint8Array): void {
    this.answer = answer
    scheduler.scheduleTask(() => this.writeAnswer([]), 0)
  }

  private writeAnswer(then: ReadonlyArray<Uint8Array>): boolean {
    const { answer } = this
    if (answer === undefined) return true
    this.answer = undefined
    return this.write([answer, ...then])
  }

  write(chunks: ReadonlyArray<Uint8Array>): boolean {
    const { duplex, handle } = this
    if (chunks.length === 0) return true
    if (this.answer !== undefined) return this.writeAnswer(chunks)
    if (this.writesPast) {
      // Only destroying a socket takes its handle away, and a field is read faster than what the stream would say.
      return (
        duplex._handle === null || (this.halfOver && duplex.writableEnded) || this.writePast(duplex._handle, chunks)
      )
    }
    if (duplex.destroyed || duplex.writableEnded) return true
    // Nobody else writes to the stream, so it holds nothing from here on.
    if (handle !== undefined && Handle.canWrite() && duplex.writableLength === 0) {
      this.writesPast = true
      return this.writePast(handle, chunks)
    }
    if (chunks.length === 1) this.blocked = !duplex.write(chunks[0])
    else {
      duplex.cork()
      for (const chunk of chunks) duplex.write(chunk)
      duplex.uncork()
      this.blocked = duplex.writableNeedDrain
    }
    if (this.blocked && !this.listensToDrain) {
      this.listensToDrain = true
      duplex.on("drain", onDrain)
    }
    // Node hands small writes to the kernel at once; then nothing refers to the memory any more.
    return duplex.writableLength === 0
  }

  private writePast(handle: Handle.Handle, chunks: ReadonlyArray<Uint8Array>): boolean {
    const waiting = Handle.write(handle, chunks, this, onWritten)
    if (waiting === 0) return !this.queued
    if (waiting < 0) this.duplex.destroy(Handle.failure(waiting))
    else this.queued = true
    return false
  }

  /** The kernel took what it did not take at once. */
  written(status: number): void {
    const { duplex, handle } = this
    if (this.closed || duplex.destroyed) return
    if (status !== 0) duplex.destroy(Handle.failure(status))
    else if (handle!.writeQueueSize === 0) {
      this.queued = false
      this.listener?.onDrain()
    }
  }

  bufferedBytes(): number {
    if (this.queued) return this.duplex._handle?.writeQueueSize ?? 0
    // Below its own high-water mark the stream tells nobody when the bytes have left, so they do not count.
    return this.blocked ? this.duplex.writableLength : 0
  }

  pause(): void {
    this.passes = false
    this.duplex.pause()
  }

  resume(): void {
    this.duplex.resume()
    this.passes = this.duplex.readableLength === 0
  }

  end(): void {
    this.writeAnswer([])
    this.halfOver = true
    // Ending twice makes Node build an error with its stack, which costs more than the rest of a closing handshake.
    if (!this.duplex.writableEnded) this.duplex.end()
  }

  abort(): void {
    this.duplex.destroy()
  }

  transportError(): WebSocketError.TransportError | undefined {
    if (this.error === undefined) return undefined
    const code = (this.error as { code?: unknown }).code
    const reason = code === "ECONNRESET" ? "Reset" : code === "EPIPE" ? "Write" : "Read"
    return new WebSocketError.TransportError({ reason, cause: this.error })
  }
}

const isSocket = (duplex: Stream.Duplex): duplex is Net.Socket => "setNoDelay" in duplex

function onData(this: OwnedDuplex, chunk: Uint8Array): void {
  const transport = this[owner]!
  transport.passes = this.readableLength === 0
  transport.listener!.onData(chunk)
}

function onRead(this: Handle.Handle, memory: ArrayBuffer | undefined): void {
  const transport = (this as OwnedHandle)[owner]!
  if (transport.passes && memory !== undefined) transport.listener!.onData(new Uint8Array(memory))
  else Handle.readByNode(this, memory)
}

function onReadLent(this: Handle.Handle): void {
  const transport = (this as OwnedHandle)[owner]!
  const { bytesRead } = this
  const size = bytesRead - transport.bytesRead
  transport.bytesRead = bytesRead
  if (size === 0) Handle.readByNode(this, undefined)
  else if (transport.passes) transport.listener!.onLent!(Handle.takeLent(size))
  else Handle.readByNode(this, Handle.takeLent(size).slice().buffer)
}

function onWritten(this: Handle.WriteRequest, status: number): void {
  ;(this.writer as NodeTransport).written(status)
}

function onDrain(this: OwnedDuplex): void {
  const transport = this[owner]!
  transport.blocked = false
  transport.listener?.onDrain()
}

function onEnd(this: OwnedDuplex): void {
  const transport = this[owner]!
  transport.halfOver = true
  transport.listener!.onEnd()
}

function onError(this: OwnedDuplex, error: unknown): void {
  const transport = this[owner]
  if (transport !== undefined) transport.error = error
}

function onClose(this: OwnedDuplex): void {
  const transport = this[owner]!
  // Sockets outlive small garbage collections, and all that they refer to would (a third of an opening handshake).
  this[owner] = undefined
  transport.gone()
}
