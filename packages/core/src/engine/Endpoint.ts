/**
 * The engine from the first byte to the last, both roles, without I/O: opening handshake and `Protocol` behind one surface, for those
 * who drive it by hand over whatever moves bytes.
 *
 * Received bytes go into `receive`, what happened comes back as one ordered list of events, and `take` gives the bytes to write;
 * ask it after every call. What is sent before the handshake is done is sent after it, in order. Deadlines are the caller's: of the
 * opening handshake, and of the closing one, for which `StartCloseTimer` asks.
 *
 * Mistakes of the caller (a header that can't be sent, a ping that is too long, a close code that must not be sent) throw;
 * nothing that a peer sends does.
 */
import { portableSlab, type Slab } from "./byteWriter.js"
import * as CloseCode from "./CloseCode.js"
import type { ConnectionProtocol } from "./ConnectionProtocol.js"
import * as Extension from "./Extension.js"
import * as Handshake from "./Handshake.js"
import * as HttpHead from "./HttpHead.js"
import * as HttpResponse from "./HttpResponse.js"
import * as Limits from "./Limits.js"
import { portable } from "./Natives.js"
import * as Opcode from "./Opcode.js"
import { type Action, type Message, Protocol, type Role, type State } from "./Protocol.js"
import * as ServerHandshake from "./ServerHandshake.js"

/**
 * What happened, or is to be done, in order.
 *
 * @since 0.1.0
 * @category models
 */
export type Event =
  /** Server: a request came. `accept` or `refuse` it, now or later; until then what follows it waits. */
  | {
      readonly _tag: "Request"
      readonly head: HttpHead.RequestHead
      /** Whether it is a handshake, and in which version; or what is wrong with it. */
      readonly handshake: ServerHandshake.AcceptedRequest | Handshake.RejectedRequest
      /** A view of the bytes that came with the head, behind it; the engine writes over them after `accept`. */
      readonly body: Uint8Array
    }
  /** Messages may come from now on. */
  | {
      readonly _tag: "Open"
      readonly version: Handshake.Version
      readonly subprotocol: string | undefined
      /** The response; `undefined` at the server. */
      readonly head: HttpHead.ResponseHead | undefined
    }
  /** No connection comes about. */
  | {
      readonly _tag: "Failed"
      readonly message: string
      /** The response that is none of the 101s wanted, if there is one. */
      readonly head: HttpHead.ResponseHead | undefined
    }
  | Exclude<Action, { readonly _tag: "EndPending" }>

/**
 * What both roles take.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Default: those of `Protocol`. */
  readonly limits?: Partial<Limits.Limits> | undefined
  /** Where frames are written; default: one slab per thread in plain JavaScript. */
  readonly slab?: Slab | undefined
  /** Extensions to offer, or to agree to. Default none. Those that are at odds with each other throw (`Extension.misuse`). */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /**
   * Called when an extension finished what it could not do at once, never from within another call: there may be bytes to `take`,
   * input that `resume` goes on with, and these events. Needed with extensions that take their time.
   */
  readonly onProgress?: ((events: ReadonlyArray<Event>) => void) | undefined
}

/**
 * Options of {@link server}.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerOptions extends Options, HttpHead.Options {
  /** Versions besides 13. Default none. */
  readonly drafts?: ReadonlyArray<Handshake.Draft> | undefined
}

/**
 * What the 101 says besides; see `ServerHandshake.Agreement`.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptOptions {
  readonly subprotocol?: string | undefined
  readonly headers?: Handshake.Headers | ReadonlyArray<Handshake.HeaderEntry> | undefined
  /** Whether the client asked for `wss:`, which the answers of hixie-76 and hixie-75 tell. */
  readonly secure?: boolean | undefined
}

/**
 * Options of {@link client}.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions extends Options {
  readonly request: Omit<Handshake.ClientRequest, "extensions">
  /** A random 32-bit number for each frame (RFC 6455 §5.3: unpredictable). */
  readonly randomKey: () => number
}

const noEvents: ReadonlyArray<Event> = []

/**
 * What both roles have.
 *
 * @since 0.1.0
 * @category models
 */
export abstract class Endpoint {
  protected protocol: ConnectionProtocol | undefined
  protected failed = false
  protected readonly slab: Slab
  protected readonly limits: Limits.Limits
  protected readonly extensions: ReadonlyArray<Extension.Extension>
  /** Bytes of the handshake that are to be written. */
  protected outgoing: Array<Uint8Array> = []
  /** What is to be sent when the connection is open. */
  private queue: Array<(protocol: ConnectionProtocol) => void> = []

  constructor(private readonly common: Options) {
    this.extensions = common.extensions ?? []
    const misuse = Extension.misuse(this.extensions)
    if (misuse !== undefined) throw new TypeError(misuse)
    this.slab = common.slab ?? portableSlab
    this.limits = { ...Limits.defaults, ...common.limits }
  }

  /** Received bytes, which are the engine's from now on; the budget is that of `Protocol.receive`. */
  receive(chunk: Uint8Array, maxMessages?: number, maxBytes?: number): ReadonlyArray<Event> {
    if (this.protocol !== undefined) return events(this.protocol.receive(chunk, maxMessages, maxBytes))
    return this.failed || chunk.length === 0 ? noEvents : this.receiveHead(chunk)
  }

  protected abstract receiveHead(chunk: Uint8Array): ReadonlyArray<Event>

  /** How far it is. */
  get state(): State | { readonly _tag: "Opening" | "Failed" } {
    return this.protocol?.state ?? (this.failed ? failedState : openingState)
  }

  /** Whether input is held back by a budget; `resume` goes on with it, and no more may be received before. */
  get paused(): boolean {
    return this.protocol?.paused === true
  }

  /** Whether an extension works on a received message: nothing may be received or resumed until `onProgress`. */
  get busy(): boolean {
    return this.protocol?.busy === true
  }

  /** Decodes more of the input that was held back. */
  resume(maxMessages?: number, maxBytes?: number): ReadonlyArray<Event> {
    return this.protocol === undefined ? noEvents : events(this.protocol.resume(maxMessages, maxBytes))
  }

  /** All bytes to be written since the last call, in order. */
  take(): Array<Uint8Array> {
    const { outgoing } = this
    this.outgoing = []
    return this.protocol === undefined ? outgoing : [...outgoing, ...this.protocol.output.take()]
  }

  /** The transport could not write all that was taken; until `drained` pongs are limited by `maxPendingPongs`. */
  blocked(): void {
    this.protocol?.blocked()
  }

  /** The transport has written all that was taken. */
  drained(): void {
    this.protocol?.drained()
  }

  /**
   * Sends a message, or keeps it until the connection is open; `false` when none may be sent any more. (Bytes that were kept for
   * what turns out to be hixie-76 or hixie-75, which has text only, are dropped.)
   */
  send(message: Message): boolean {
    return this.put((protocol) => protocol.send(message))
  }

  /** As `Protocol.sendFragment`. */
  sendFragment(kind: "text" | "binary" | "continuation", payload: Message, fin: boolean): boolean {
    return this.put((protocol) => protocol.sendFragment(kind, payload, fin))
  }

  /** Sends a ping with at most 125 bytes. */
  ping(payload: Uint8Array = new Uint8Array(0)): boolean {
    checkControl(payload)
    return this.put((protocol) => protocol.ping(payload))
  }

  /** Sends an unasked pong with at most 125 bytes. */
  pong(payload: Uint8Array = new Uint8Array(0)): boolean {
    checkControl(payload)
    return this.put((protocol) => protocol.pong(payload))
  }

  private put(send: (protocol: ConnectionProtocol) => boolean): boolean {
    if (this.protocol !== undefined) return send(this.protocol)
    if (this.failed) return false
    this.queue.push(send)
    return true
  }

  /** Begins the closing handshake; before the connection is open it gives up. */
  close(code?: number, reason = ""): ReadonlyArray<Event> {
    if (code === undefined ? reason !== "" : !CloseCode.isSendable(code)) {
      throw new RangeError(`${code} is no close code that may be sent (1000-1003, 1007-1014, 3000-4999)`)
    }
    if (portable.textByteLength(reason) > CloseCode.maxReasonBytes) {
      throw new RangeError(`a close reason has at most ${CloseCode.maxReasonBytes} bytes of UTF-8`)
    }
    if (this.protocol !== undefined) return events(this.protocol.close(code, reason))
    return this.fail("closed before it was open", { _tag: "AbortTransport" })
  }

  /** The peer ended its side of the transport. */
  transportEnded(): ReadonlyArray<Event> {
    if (this.protocol !== undefined) return events(this.protocol.transportEnded())
    return this.fail("the transport ended before the connection was open", { _tag: "EndTransport" })
  }

  /** The transport is gone in both directions. */
  transportClosed(): ReadonlyArray<Event> {
    if (this.protocol !== undefined) return events(this.protocol.transportClosed())
    return this.fail("the transport was lost before the connection was open")
  }

  /** The close timeout passed since the last `StartCloseTimer`. */
  closeTimerFired(): ReadonlyArray<Event> {
    return this.protocol === undefined ? noEvents : events(this.protocol.closeTimerFired())
  }

  protected fail(message: string, then?: Event, head?: HttpHead.ResponseHead): ReadonlyArray<Event> {
    if (this.failed) return noEvents
    this.failed = true
    this.queue = []
    const failed: Event = { _tag: "Failed", message, head }
    return then === undefined ? [failed] : [failed, then]
  }

  /** What the protocol is made with. */
  protected protocolOptions(agreed: ReadonlyArray<Extension.Agreed>, role: Role) {
    const { onProgress } = this.common
    return {
      limits: this.limits,
      slab: this.slab,
      pipeline: Extension.open(agreed, { role }),
      onProgress: onProgress && ((actions: ReadonlyArray<Action>) => onProgress(events(actions)))
    }
  }

  /** The handshake is done: what waited is sent, and what came behind it is decoded. */
  protected open(protocol: ConnectionProtocol, opened: Event, rest: Uint8Array): ReadonlyArray<Event> {
    this.protocol = protocol
    for (const send of this.queue) send(protocol)
    this.queue = []
    const list: Array<Event> = [opened]
    if (protocol.opening === true) list.push({ _tag: "StartCloseTimer" })
    if (rest.length > 0) list.push(...events(protocol.receive(rest)))
    return list
  }
}

const openingState = { _tag: "Opening" } as const
const failedState = { _tag: "Failed" } as const

/** `EndPending` comes only with `deferEnd`. */
const events = (actions: ReadonlyArray<Action>) => actions as ReadonlyArray<Event>

const checkControl = (payload: Uint8Array): void => {
  if (payload.length > Opcode.maxControlPayloadBytes) throw new RangeError("a ping or pong carries at most 125 bytes")
}

// ---- server --------------------------------------------------------------------------------------------------------------

/**
 * A server's end of a connection, from the request on.
 *
 * @since 0.1.0
 * @category constructors
 */
export const server = (options: ServerOptions = {}): ServerEndpoint => new ServerEndpoint(options)

/**
 * See {@link server}.
 *
 * @since 0.1.0
 * @category models
 */
export class ServerEndpoint extends Endpoint {
  private readonly parser: HttpHead.HttpHead<HttpHead.RequestHead>
  private request: Extract<Event, { _tag: "Request" }> | undefined
  private rest: Array<Uint8Array> = []
  private restBytes = 0

  /** @internal */
  constructor(private readonly options: ServerOptions) {
    super(options)
    this.parser = HttpHead.make("request", options)
  }

  protected receiveHead(chunk: Uint8Array): ReadonlyArray<Event> {
    if (this.request !== undefined) return this.keep(chunk)
    const result = this.parser.push(chunk)
    if (result._tag === "Incomplete") return noEvents
    if (result._tag === "Failed") {
      this.respond({ status: result.status, body: `${result.message}.\n` }, "GET")
      return this.fail(result.message, { _tag: "EndTransport" })
    }
    const { head, rest } = result
    const handshake = ServerHandshake.checkRequest({ ...head, limits: noLimits, drafts: this.options.drafts })
    this.rest = [rest]
    this.request = { _tag: "Request", head, handshake, body: rest }
    return [this.request]
  }

  /** No client sends much before it has its answer (RFC 6455 §4.1). */
  private keep(chunk: Uint8Array): ReadonlyArray<Event> {
    this.restBytes += chunk.length
    if (this.restBytes > this.limits.maxQueuedBytes) {
      return this.fail("too much came before the request was answered", { _tag: "AbortTransport" })
    }
    this.rest.push(chunk)
    return noEvents
  }

  /** Answers the request with 101. It must be a handshake, and is answered once; else it throws. */
  accept(options: AcceptOptions = {}): ReadonlyArray<Event> {
    const { head, handshake } = this.waiting()
    if (handshake._tag === "Rejected") throw new TypeError(`the request is no handshake: ${handshake.body}`)
    const { headers, secure, subprotocol } = options
    const extensions = Extension.negotiate(this.extensions, handshake.extensions)
    const agreement = { subprotocol, extensions, secure, target: head.target }
    const text = ServerHandshake.formatAccept(handshake, agreement, headers)
    if (typeof text !== "string") throw new TypeError(`${text.field}: ${text.message}`)
    this.outgoing.push(HttpHead.encode(text))
    const protocol = ServerHandshake.makeProtocol(handshake, this.protocolOptions(extensions, "server"))
    const rest = concat(this.rest)
    this.rest = []
    this.request = undefined
    return this.open(protocol, { _tag: "Open", version: handshake.version, subprotocol, head: undefined }, rest)
  }

  /** Answers the request with an ordinary response; default: what is wrong with the handshake, else 403. */
  refuse(response?: HttpResponse.HttpResponse): ReadonlyArray<Event> {
    const { head, handshake } = this.waiting()
    if (response !== undefined) this.respond(response, head.method)
    else if (handshake._tag === "Accepted") this.respond({ status: 403 }, head.method)
    else this.outgoing.push(HttpHead.encode(Handshake.formatReject(handshake)))
    this.request = undefined
    this.rest = []
    return this.fail("the request was refused", { _tag: "EndTransport" })
  }

  private waiting(): Extract<Event, { _tag: "Request" }> {
    if (this.request === undefined || this.failed) throw new TypeError("no request waits for an answer")
    return this.request
  }

  private respond(response: HttpResponse.HttpResponse, method: string): void {
    const bytes = HttpResponse.encode(response, method)
    if (!(bytes instanceof Uint8Array)) throw new TypeError(`${bytes.field}: ${bytes.message}`)
    this.outgoing.push(bytes)
  }
}

const concat = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (chunks.length === 1) return chunks[0]!
  const bytes = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}

/** The parser had its own. */
const noLimits: Handshake.RequestLimits = {
  maxHeaderBytes: Number.POSITIVE_INFINITY,
  maxHeaderCount: Number.POSITIVE_INFINITY
}

// ---- client --------------------------------------------------------------------------------------------------------------

/**
 * A client's end of a connection; the first `take` gives its request. A request that can't be sent throws.
 *
 * @since 0.1.0
 * @category constructors
 */
export const client = (options: ClientOptions): ClientEndpoint => new ClientEndpoint(options)

/** Interim responses (RFC 9110 §15.2) before the final one. */
const maxInterimResponses = 10

/**
 * See {@link client}.
 *
 * @since 0.1.0
 * @category models
 */
export class ClientEndpoint extends Endpoint {
  private parser = HttpHead.make("response")
  private interim = 0
  private readonly offered: ReadonlyArray<Extension.Offered>

  /** @internal */
  constructor(private readonly options: ClientOptions) {
    super(options)
    this.offered = Extension.offer(this.extensions)
    const text = Handshake.formatRequest({ ...options.request, extensions: this.offered })
    if (typeof text !== "string") throw new TypeError(`${text.field}: ${text.message}`)
    this.outgoing.push(HttpHead.encode(text))
  }

  protected receiveHead(chunk: Uint8Array): ReadonlyArray<Event> {
    const result = this.parser.push(chunk)
    if (result._tag === "Incomplete") return noEvents
    if (result._tag === "Failed") {
      return this.fail(`the response is no HTTP/1.1: ${result.message}`, { _tag: "AbortTransport" })
    }
    const { head, rest } = result
    if (head.status < 200 && head.status !== 101) {
      if (++this.interim > maxInterimResponses)
        return this.fail("too many interim responses", { _tag: "AbortTransport" })
      this.parser = HttpHead.make("response")
      return rest.length === 0 ? noEvents : this.receiveHead(rest)
    }
    const { key, subprotocols, version = 13 } = this.options.request
    const check = Handshake.checkResponse({
      ...head,
      key,
      offeredSubprotocols: subprotocols,
      offeredExtensions: this.offered
    })
    if (check._tag === "Rejected") return this.fail(check.message, { _tag: "AbortTransport" }, head)
    const { randomKey } = this.options
    const protocol = new Protocol({ ...this.protocolOptions(check.extensions, "client"), role: "client", randomKey })
    const opened: Event = { _tag: "Open", version: `${version}`, subprotocol: check.subprotocol, head }
    return this.open(protocol, opened, rest)
  }
}
