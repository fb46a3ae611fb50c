/**
 * Transports over Node's duplex streams: TCP, TLS and Unix sockets, or any `stream.Duplex` of bytes.
 *
 * @since 0.1.0
 */

import type * as Net from "node:net"
import type * as Stream from "node:stream"
import type { Transport } from "@effect-ws/core"
import { WebSocketError } from "@effect-ws/core"

/**
 * The transport over an open duplex stream, which belongs to it from now on: its timeout and Nagle's algorithm are switched off,
 * errors and the end are listened to at once. `head` are bytes that were read from it already.
 *
 * Reading starts with `open`. `end` sends FIN and goes on reading; `abort` destroys the stream. The high-water mark of the
 * stream itself does not matter.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromDuplex = (duplex: Stream.Duplex, head?: Uint8Array | undefined): Transport.Transport =>
  new NodeTransport(duplex as OwnedDuplex, head)

/** @internal */
export const ownsListener = (listener: unknown): boolean => listener === onClose

const owner = Symbol("@effect-ws/node/NodeTransport")

interface OwnedDuplex extends Stream.Duplex {
  [owner]: NodeTransport | undefined
}

class NodeTransport implements Transport.Transport {
  listener: Transport.Listener | undefined
  error: unknown
  closed = false
  /** Whether the stream holds back more than its own high-water mark, so that a `drain` will follow. */
  blocked = false
  /** Bytes that came before the end, if that came before all this began. */
  private early: Uint8Array | undefined

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
    if (head === undefined || head.length === 0) return
    // Nothing may be put back into a stream that has ended.
    if (duplex.readableEnded) this.early = head
    else duplex.unshift(head)
  }

  open(listener: Transport.Listener): void {
    this.listener = listener
    const { duplex } = this
    if (this.closed || duplex.destroyed) {
      this.closed = true
      queueMicrotask(() => listener.onClose(this.transportError()))
      return
    }
    duplex.on("data", onData)
    duplex.on("drain", onDrain)
    duplex.on("end", onEnd)
    // A stream that was paused by whoever owned it before does not flow by itself.
    duplex.resume()
    if (duplex.readableEnded) queueMicrotask(() => this.endedBefore(listener))
  }

  /** The end came before anyone listened to it. */
  private endedBefore(listener: Transport.Listener): void {
    if (this.closed) return
    if (this.early !== undefined) listener.onData(this.early)
    this.early = undefined
    listener.onEnd()
  }

  write(chunks: ReadonlyArray<Uint8Array>): boolean {
    const { duplex } = this
    if (duplex.destroyed || duplex.writableEnded) return true
    if (chunks.length === 1) this.blocked = !duplex.write(chunks[0])
    else {
      duplex.cork()
      for (const chunk of chunks) duplex.write(chunk)
      duplex.uncork()
      this.blocked = duplex.writableNeedDrain
    }
    // Node hands small writes to the kernel at once; then nothing refers to the memory any more.
    return duplex.writableLength === 0
  }

  bufferedBytes(): number {
    // Below its own high-water mark the stream tells nobody when the bytes have left, so they do not count.
    return this.blocked ? this.duplex.writableLength : 0
  }

  pause(): void {
    this.duplex.pause()
  }

  resume(): void {
    this.duplex.resume()
  }

  end(): void {
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
  this[owner]!.listener!.onData(chunk)
}

function onDrain(this: OwnedDuplex): void {
  const transport = this[owner]!
  transport.blocked = false
  transport.listener!.onDrain()
}

function onEnd(this: OwnedDuplex): void {
  this[owner]!.listener!.onEnd()
}

function onError(this: OwnedDuplex, error: unknown): void {
  this[owner]!.error = error
}

function onClose(this: OwnedDuplex): void {
  const transport = this[owner]!
  transport.closed = true
  transport.listener?.onClose(transport.transportError())
}
