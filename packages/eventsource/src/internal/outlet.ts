/**
 * Where the bytes of one response go: straight to the socket of a Node response, or to a stream that any platform takes.
 *
 * Node's types are described here by shape, so that nothing is imported: only what is used is asked for.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Wire } from "./wire.js"

/** A response that is being written. After `end` or `abort`, or when the client has left, writing does nothing. */
export interface Outlet {
  /** Sends the head, and the first bytes with it. */
  open(first: Wire): void
  write(wire: Wire): void
  /** Whether the memory of all that was written may be used again. */
  taken(): boolean
  /** Bytes that were written and not yet taken by the network. */
  bufferedBytes(): number
  /** Whether a writer should wait: more is buffered than the limit, and than the transport buffers by itself. */
  full(limit: number): boolean
  /** Calls back once when all is taken, or never if the connection is lost; answers how to give up. Only when full. */
  onDrain(resume: () => void): () => void
  /** Ends the body as it should end; what the client has not taken after so many milliseconds, if given, is given up. */
  end(patience?: number): void
  /** Breaks the connection, in a way that the client sees; what was written goes first, where it can. Then calls back. */
  abort(done: () => void): void
}

interface Emitter {
  readonly on: (event: string, listener: () => void) => unknown
  readonly once: (event: string, listener: () => void) => unknown
  readonly listeners: (event: string) => ReadonlyArray<() => void>
  readonly removeListener: (event: string, listener: () => void) => unknown
}

interface NodeWritable extends Emitter {
  readonly writableLength: number
  readonly writableNeedDrain: boolean
  readonly write: (bytes: Uint8Array) => boolean
}

interface NodeSocket extends NodeWritable {
  readonly writable: boolean
  readonly destroyed: boolean
  readonly cork: () => void
  readonly uncork: () => void
  readonly destroySoon: () => void
  readonly destroy: () => void
  readonly resetAndDestroy: () => void
  /** Set by `node:http`: the server that accepted the connection, and the response whose turn it is. */
  readonly server?: object | null
  readonly _httpMessage?: unknown
}

export interface NodeResponse extends NodeWritable {
  readonly socket: NodeSocket | null
  /** True for the bodies of HTTP/1.1 whose length is not known. */
  readonly chunkedEncoding?: boolean
  readonly writeHead: (status: number, headers: Readonly<Record<string, string | ReadonlyArray<string>>>) => unknown
  readonly writableEnded: boolean
  readonly destroyed: boolean
  readonly flushHeaders: () => void
  readonly end: () => void
  readonly destroy: () => void
  /** Over HTTP/2 only. */
  readonly stream?: NodeWritable & { readonly close: (code: number) => void }
}

/** The Node response of a request that `@effect/platform-node` serves. */
export const nodeResponse = (request: HttpServerRequest.HttpServerRequest): NodeResponse | undefined => {
  const { response } = request as unknown as { readonly response?: unknown }
  const candidate = (typeof response === "function" ? response() : response) as Partial<NodeResponse> | null | undefined
  return typeof candidate?.flushHeaders === "function" && typeof candidate.destroy === "function"
    ? (candidate as NodeResponse)
    : undefined
}

/** Whether the response goes over HTTP/1, whose connections can be told to close. */
export const isHttp1 = (response: NodeResponse): boolean => response.stream === undefined

/** HTTP/2's INTERNAL_ERROR (RFC 9113 §7). */
const internalError = 0x2

/** How long a response that was aborted, or stopped, may still deliver what was written, in milliseconds. */
export const patience = 5000

export const fromNode = (response: NodeResponse): Outlet =>
  ownsSocket(response)
    ? new SocketOutlet(response, response.socket)
    : new ResponseOutlet(response, response.stream ?? response)

/** Whether the response goes over HTTP/1 and it is its turn on the connection. */
export const ownsSocket = (response: NodeResponse): response is NodeResponse & { readonly socket: NodeSocket } =>
  isHttp1(response) && response.socket?._httpMessage === response

/** Whether a response can still be begun, and its end would be told. */
export const isOpen = (response: NodeResponse): boolean =>
  ownsSocket(response) && !response.writableEnded && !response.destroyed && !response.socket.destroyed

/**
 * Lets the platform find the response ended, which it asks each time before it would send one: once when all pre-response
 * handlers have run, and again behind middleware that made a request of its own. The response is itself again when it ends.
 */
export const settle = (response: NodeResponse): void => {
  Object.defineProperty(response, "writableEnded", { value: true, configurable: true })
}

const unsettle = (response: { writableEnded?: boolean }): void => {
  delete response.writableEnded
}

/**
 * Takes the platform's listener off the response, which interrupts the fiber of the request when the client leaves. That has
 * ended, and would be kept as long as the connection lives: 5 KB. (Were it not recognised, nothing else would be wrong.)
 */
export const forgetFiber = (response: NodeResponse): void => {
  // The platform adds it after the first run of the request's fiber, which may have been the only one.
  queueMicrotask(() => {
    for (const listener of response.listeners("close")) {
      if (String(listener).includes("unsafeInterruptAsFork")) response.removeListener("close", listener)
    }
  })
}

/** Where Node says what is not sent yet. */
abstract class NodeOutlet<Writable extends NodeWritable> {
  constructor(
    protected readonly response: NodeResponse,
    protected readonly writable: Writable
  ) {}

  bufferedBytes() {
    return this.writable.writableLength
  }

  full(limit: number) {
    return this.writable.writableNeedDrain && this.writable.writableLength > limit
  }

  onDrain(resume: () => void) {
    this.writable.once("drain", resume)
    return () => void this.writable.removeListener("drain", resume)
  }
}

/**
 * HTTP/1: writes to the socket below the response, which `node:http` leaves alone between the head and the end. One write
 * for each call, with the head of the chunk in it, where `response.write` makes four.
 */
class SocketOutlet extends NodeOutlet<NodeSocket> implements Outlet {
  // Known from the head on: to ask the response for each write was a tenth of a fan-out.
  private chunked = false
  private ended = false

  open(first: Wire) {
    this.writable.cork()
    this.response.flushHeaders()
    this.chunked = this.response.chunkedEncoding === true
    this.write(first)
    this.writable.uncork()
  }

  write({ chunk, plain }: Wire) {
    if (!this.ended && this.writable.writable) this.writable.write(this.chunked ? chunk : plain)
  }

  private close() {
    this.ended = true
    unsettle(this.response)
  }

  taken() {
    // A write that the kernel took whole has called back already.
    return this.writable.writableLength === 0
  }

  end(patience?: number) {
    this.close()
    if (patience !== undefined) this.resetAfter(patience)
    this.response.end()
  }

  private resetAfter(milliseconds: number) {
    cutAfter(this.writable, milliseconds, () => reset(this.writable))
  }

  abort(done: () => void) {
    const { response, writable: socket } = this
    this.close()
    if (!socket.writable) {
      response.end()
      done()
    } else if (this.chunked) {
      // A chunked body without its last chunk is incomplete (RFC 9112 §8). When the socket has ended, `node:http`'s own
      // end, which tells it that the response is done, writes nothing any more.
      this.resetAfter(patience)
      socket.destroySoon()
      response.end()
      done()
    } else {
      // A body that ends with the connection is broken by a reset only.
      whenDrained(socket, () => {
        reset(socket)
        response.end()
        done()
      })
    }
  }
}

/** Only TCP has resets: a TLS connection that ends without its closing alert is as broken. */
const reset = (socket: NodeSocket): void => {
  if ("encrypted" in socket) socket.destroy()
  else socket.resetAndDestroy()
}

/** Cuts what is not gone after the time for it, if anything is left to send. */
const cutAfter = (writable: NodeWritable, milliseconds: number, cut: () => void): void => {
  if (writable.writableLength === 0) return
  const timer = setTimeout(cut, milliseconds)
  writable.once("close", () => clearTimeout(timer))
}

/** HTTP/2, and pipelined requests whose turn has not come: by way of the response. */
class ResponseOutlet extends NodeOutlet<NodeWritable> implements Outlet {
  open(first: Wire) {
    this.response.flushHeaders()
    this.write(first)
  }

  write({ plain }: Wire) {
    if (!this.response.writableEnded && !this.response.destroyed) this.response.write(plain)
  }

  taken() {
    return false
  }

  end(patience?: number) {
    const { response } = this
    if (patience !== undefined) cutAfter(this.writable, patience, () => response.destroy())
    response.end()
  }

  abort(done: () => void) {
    const { response } = this
    if (response.writableEnded || response.destroyed) return done()
    whenDrained(this.writable, () => {
      if (response.stream === undefined) response.destroy()
      else response.stream.close(internalError)
      done()
    })
  }
}

/** Calls back once, when all was written, the client has left, or the time for it has passed. */
const whenDrained = (writable: NodeWritable, finish: () => void): void => {
  if (!writable.writableNeedDrain) return finish()
  const settle = () => {
    clearTimeout(timer)
    writable.removeListener("drain", settle)
    writable.removeListener("close", settle)
    finish()
  }
  const timer = setTimeout(settle, patience)
  writable.once("drain", settle)
  writable.once("close", settle)
}

/** What a server tells before it closes: `@effect-ws/node` puts a set of callbacks there. */
const beforeCloseSymbol: unique symbol = Symbol.for("@effect-ws/beforeClose") as never

/** The callbacks of the server that accepted this response's connection, if it has any. */
export const beforeClose = (response: NodeResponse): Set<() => void> | undefined => {
  const server = response.socket?.server as { readonly [beforeCloseSymbol]?: Set<() => void> } | null | undefined
  return server?.[beforeCloseSymbol]
}

/** An outlet whose bytes are pulled as a stream, for every other platform. The stream ends after `end` and after `abort`. */
export const portable = (): { readonly outlet: Outlet; readonly body: Stream.Stream<Uint8Array> } => {
  let queue: Array<Uint8Array> = []
  let queued = 0
  let ended = false
  let reader: (() => void) | undefined
  const drained = new Set<() => void>()
  const wake = () => {
    const resume = reader
    reader = undefined
    resume?.()
  }
  const write = ({ plain }: Wire) => {
    if (ended) return
    queue.push(plain)
    queued += plain.length
    wake()
  }
  const end = () => {
    ended = true
    wake()
  }
  const take = Effect.suspend((): Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>> => {
    if (queue.length > 0) {
      const chunk = Chunk.unsafeFromArray(queue)
      queue = []
      queued = 0
      for (const resume of drained) resume()
      drained.clear()
      return Effect.succeed(chunk)
    }
    if (ended) return Effect.fail(Option.none())
    return Effect.zipRight(
      Effect.async<void>((resume) => {
        reader = () => resume(Effect.void)
      }),
      take
    )
  })
  return {
    outlet: {
      open: write,
      write,
      taken: () => false,
      bufferedBytes: () => queued,
      full: (limit) => queued > limit,
      onDrain: (resume) => {
        drained.add(resume)
        return () => drained.delete(resume)
      },
      end,
      abort: (done) => {
        end()
        done()
      }
    },
    body: Stream.repeatEffectChunkOption(take)
  }
}
