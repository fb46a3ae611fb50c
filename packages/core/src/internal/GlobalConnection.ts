/**
 * Connections over the platform's own WebSocket (the WebSocket standard's API), which speaks the protocol itself and shows messages
 * and the end. What it can't do is listed at `WebSocketClient.connectGlobal`.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Connection } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import type { ExtensionOffer } from "../engine/headerGrammar.js"
import * as Limits from "../engine/Limits.js"
import { portable } from "../engine/Natives.js"
import type { CloseFrame, CloseInfo } from "../engine/Protocol.js"
import type { Kind, Message } from "../Message.js"
import type { ConnectOptions, Service } from "../WebSocketClient.js"
import { type ConnectionClosed, HandshakeError, TransportError } from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"
import { collect } from "./collect.js"
import * as Timers from "./timers.js"

/** See `WebSocketClient`. @since 0.1.0 */
export interface WebSocketLike {
  binaryType: string
  readonly readyState: number
  readonly bufferedAmount: number
  readonly protocol: string
  readonly extensions?: string
  onopen: ((event: never) => void) | null
  onmessage: ((event: never) => void) | null
  onerror: ((event: never) => void) | null
  onclose: ((event: never) => void) | null
  send(data: string | Uint8Array<ArrayBuffer>): void
  close(code?: number, reason?: string): void
}

/** See `WebSocketClient`. @since 0.1.0 */
export type WebSocketConstructor = new (url: string, protocols?: Array<string>) => WebSocketLike

/** See `WebSocketClient`. Sizes are bytes. @since 0.1.0 */
export interface GlobalOptions {
  /** The class to use. Default `globalThis.WebSocket`. */
  readonly webSocket?: WebSocketConstructor | undefined
  /** Subprotocols in order of preference; tokens, none twice. Default none. */
  readonly subprotocols?: ReadonlyArray<string> | undefined
  /** How long opening may take. Default 10 seconds. */
  readonly handshakeTimeout?: Duration.DurationInput | undefined
  /** How long the closing handshake may take before the connection ends without it. Default 10 seconds. */
  readonly closeTimeout?: Duration.DurationInput | undefined
  /** Close codes with which `messages` ends instead of failing. Default 1000, 1001 and 1005 (none). */
  readonly cleanCloseCodes?: ReadonlyArray<number> | undefined
  /** Bytes that may wait to leave before `send` waits. Default 128 KiB. */
  readonly highWaterMark?: number | undefined
  /** Largest message; a larger one closes with 4009. Default 1 MiB. */
  readonly maxMessageBytes?: number | undefined
  /** Messages that may wait behind those which the consumer has begun to take; one more closes with 4008. Default 65536. */
  readonly maxWaitingMessages?: number | undefined
  /** Bytes (of text: code units) of such messages. Default 16 MiB. */
  readonly maxWaitingBytes?: number | undefined
  /** What `sendFragments` collects at most, in bytes (of text: code units). Default 1 MiB. */
  readonly maxCollectedBytes?: number | undefined
}

interface MessageEventLike {
  readonly data: unknown
}
interface ErrorEventLike {
  readonly error?: unknown
}
interface CloseEventLike {
  readonly code: number
  readonly reason: string
  readonly wasClean: boolean
}

/** `readyState` (WebSocket standard, §3.1). */
const isConnecting = 0
const isOpened = 1

/** Milliseconds between looks at `bufferedAmount`: doubled from the first to the last while nothing leaves. */
const firstLook = 1
const lastLook = 32

const settings = (options: GlobalOptions) => ({
  highWaterMark: Math.max(1, options.highWaterMark ?? 128 * 1024),
  cleanCloseCodes: options.cleanCloseCodes ?? [CloseCode.normal, CloseCode.goingAway, CloseCode.noCode],
  handshakeMillis: Duration.toMillis(options.handshakeTimeout ?? "10 seconds"),
  closeMillis: Duration.toMillis(options.closeTimeout ?? "10 seconds"),
  maxMessageBytes: options.maxMessageBytes ?? Limits.defaults.maxMessageBytes,
  maxWaitingMessages: options.maxWaitingMessages ?? 65536,
  maxWaitingBytes: options.maxWaitingBytes ?? 16 * 1024 * 1024,
  maxCollectedBytes: options.maxCollectedBytes ?? 1024 * 1024
})

/** Opens a connection by `constructor`. */
export const connect = (
  constructor: WebSocketConstructor | undefined,
  url: string | URL,
  options: GlobalOptions
): Effect.Effect<Connection, HandshakeError, Scope.Scope> =>
  Effect.clockWith((clock) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(construct(constructor, url, options.subprotocols ?? []), ({ shown, socket }) => {
        const connection = new GlobalConnection(socket, settings(options), clock)
        return restore(connection.opened(shown)).pipe(
          Effect.onError(() => connection.abort),
          Effect.zipRight(Effect.addFinalizer((exit) => connection.leave(exit))),
          Effect.as(connection)
        )
      })
    )
  )

const construct = (
  constructor: WebSocketConstructor | undefined,
  url: string | URL,
  subprotocols: ReadonlyArray<string>
): Effect.Effect<{ readonly socket: WebSocketLike; readonly shown: string }, HandshakeError> =>
  Effect.suspend(() => {
    const fail = (reason: "Invalid" | "Failed", detail: string, url?: string, cause?: unknown) =>
      Effect.fail(new HandshakeError({ phase: "Request", reason, detail, url, cause }))
    if (constructor === undefined) return fail("Failed", "this platform has no globalThis.WebSocket")
    let parsed: URL
    try {
      parsed = new URL(url, (globalThis as { readonly location?: { readonly href: string } }).location?.href)
    } catch {
      return fail("Invalid", "the URL is not valid")
    }
    // Not every platform knows http: for ws: yet
    if (parsed.protocol === "http:") parsed.protocol = "ws:"
    if (parsed.protocol === "https:") parsed.protocol = "wss:"
    // Without credentials and query, which may be secrets
    const shown = `${parsed.protocol}//${parsed.host}${parsed.pathname}`
    if (parsed.href.includes("#")) return fail("Invalid", "the URL has a fragment", shown)
    try {
      return Effect.succeed({ socket: new constructor(parsed.href, [...subprotocols]), shown })
    } catch (cause) {
      return fail("Invalid", "the platform refused the URL or the subprotocols", shown, cause)
    }
  })

/** Options that only our own handshake and frames can fulfil. */
const lacking = ["headers", "origin", "version", "heartbeat", "phaseTimeouts", "followRedirects"] as const

/** The service over `constructor`, which is asked for at every `connect`. */
export const client = (constructor: () => WebSocketConstructor | undefined): Service => ({
  connect: (url, options: ConnectOptions = {}) =>
    Effect.suspend(() => {
      for (const name of lacking) {
        if (options[name] === undefined || options[name] === false) continue
        const detail = `the platform's WebSocket can't fulfil the option "${name}"`
        return Effect.fail(new HandshakeError({ phase: "Request", reason: "Invalid", detail }))
      }
      return connect(constructor(), url, options)
    })
})

class GlobalConnection extends BaseConnection implements Connection {
  readonly role = "client"
  readonly version = "13"
  /** What came and no consumer asked for yet; the limits are about it. */
  private backlog: Array<Message> = []
  private backlogBytes = 0
  private sent: CloseFrame | undefined
  private platformError: TransportError | undefined
  private opening: ((effect: Effect.Effect<void, HandshakeError>) => void) | undefined
  private readonly closeTimer = new Timers.Timer(() => this.cut())
  private readonly lookTimer = new Timers.Timer(() => this.look())
  private lookMillis = firstLook
  private buffering = 0

  constructor(
    private readonly socket: WebSocketLike,
    private readonly options: ReturnType<typeof settings>,
    private readonly clock: Clock.Clock
  ) {
    super(options.highWaterMark, options.cleanCloseCodes)
    socket.binaryType = "arraybuffer"
    socket.onopen = () => this.opening?.(Effect.void)
    socket.onmessage = (event: MessageEventLike) => this.receive(event.data)
    socket.onerror = (event: ErrorEventLike) => {
      if (event.error !== undefined) this.platformError = new TransportError({ reason: "Read", cause: event.error })
    }
    socket.onclose = (event: CloseEventLike) => this.closedByPlatform(event)
  }

  get extensions(): ReadonlyArray<ExtensionOffer> {
    return (this.socket.extensions ?? "").split(",").flatMap((text) => {
      // The platform has checked it; what it agrees to has no quoted strings.
      const [name = "", ...params] = text.split(";").map((part) => part.trim())
      if (name === "") return []
      return [
        {
          name,
          params: params.map((param) => {
            const [key = "", value = true] = param.split("=", 2)
            return { name: key, value }
          })
        }
      ]
    })
  }

  get subprotocol(): string | undefined {
    return this.socket.protocol === "" ? undefined : this.socket.protocol
  }

  /** Waits until the platform has done the opening handshake. */
  opened(url: string): Effect.Effect<void, HandshakeError> {
    const failed = (reason: "Timeout" | "Failed", detail: string) =>
      Effect.fail(new HandshakeError({ phase: "Response", reason, detail, url, cause: this.platformError?.cause }))
    const { handshakeMillis } = this.options
    return Effect.async<void, HandshakeError>((resume) => {
      if (this.socket.readyState === isOpened) return resume(Effect.void)
      const timers = Timers.of(this.clock)
      const timer = new Timers.Timer(() => settle(failed("Timeout", `opening took longer than ${handshakeMillis} ms`)))
      const settle = (effect: Effect.Effect<void, HandshakeError>) => {
        this.opening = undefined
        timers.cancel(timer)
        resume(effect)
      }
      if (this.socket.readyState !== isConnecting) return settle(failed("Failed", "the platform could not connect"))
      this.opening = (effect) =>
        settle(this.info === undefined ? effect : failed("Failed", "the platform could not connect"))
      if (Number.isFinite(handshakeMillis)) timers.set(timer, handshakeMillis)
      return Effect.sync(() => {
        this.opening = undefined
        timers.cancel(timer)
      })
    })
  }

  // ---- inbound -----------------------------------------------------------------------------------------------------------

  private receive(data: unknown): void {
    if (this.info !== undefined) return
    const { maxMessageBytes, maxWaitingBytes, maxWaitingMessages } = this.options
    const message = typeof data === "string" ? data : new Uint8Array(data as ArrayBuffer)
    if (isLarger(message, maxMessageBytes)) {
      return this.failWith(4009, `a message is larger than ${maxMessageBytes} bytes`)
    }
    if (this.consumerWaits) return this.deliver([message])
    if (this.backlog.length >= maxWaitingMessages || this.backlogBytes + message.length > maxWaitingBytes) {
      return this.failWith(4008, "too many messages wait to be taken")
    }
    this.backlog.push(message)
    this.backlogBytes += message.length
  }

  protected decodeMore(): void {
    if (this.backlog.length === 0) return
    const messages = this.backlog
    this.backlog = []
    this.backlogBytes = 0
    this.deliver(messages)
  }

  /** The platform reads always. */
  protected resumeReading(): void {}

  // ---- outbound ----------------------------------------------------------------------------------------------------------

  protected isOpen(): boolean {
    return this.info === undefined && this.sent === undefined && this.socket.readyState === isOpened
  }

  protected write(message: Message): void {
    this.socket.send(message as string | Uint8Array<ArrayBuffer>)
    if (this.buffered() >= this.highWaterMark && this.lookTimer.list === undefined) this.lookSoon()
  }

  protected buffered(): number {
    return this.socket.bufferedAmount
  }

  /** The platform writes at once. */
  flush(): void {
    this.flushed()
  }

  private lookSoon(): void {
    this.buffering = this.buffered()
    Timers.of(this.clock).set(this.lookTimer, this.lookMillis)
  }

  /** The platform does not tell when bytes have left. */
  private look(): void {
    const buffered = this.buffered()
    if (this.info !== undefined || buffered < this.highWaterMark) {
      this.lookMillis = firstLook
      this.wakeSenders()
      // Whoever was woken may have filled it again before this timer counted as set
      if (this.info === undefined && this.buffered() >= this.highWaterMark) this.lookSoon()
      return
    }
    this.lookMillis = buffered < this.buffering ? firstLook : Math.min(2 * this.lookMillis, lastLook)
    this.lookSoon()
  }

  override get sendFragments() {
    return <E, R>(kind: Kind, pieces: Stream.Stream<Message, E, R>): Effect.Effect<void, E | ConnectionClosed, R> =>
      Effect.flatMap(collect(kind, pieces, this.options.maxCollectedBytes), this.send)
  }

  /** `sendFragments` collects instead. */
  protected writeFragment(_kind: Kind | "continuation", payload: Message): void {
    this.write(payload)
  }

  get ping() {
    return (): Effect.Effect<Duration.Duration, ConnectionClosed> =>
      Effect.dieMessage("the platform's WebSocket can't ping")
  }

  get pong() {
    return (): Effect.Effect<void, ConnectionClosed> => Effect.dieMessage("the platform's WebSocket can't send pongs")
  }

  // ---- the end -----------------------------------------------------------------------------------------------------------

  override get close() {
    const close = super.close
    return (code: number = CloseCode.normal, reason = ""): Effect.Effect<CloseInfo> =>
      isPlatformCode(code)
        ? close(code, reason)
        : Effect.dieMessage(`the platform's WebSocket closes with 1000 and 3000 to 4999, not with ${code}`)
  }

  protected beginClose(code: number | undefined, reason: string): void {
    if (this.info === undefined && this.sent === undefined) this.sendClose(code, reason)
  }

  private sendClose(code: number | undefined, reason: string): void {
    const sent = code === CloseCode.goingAway ? CloseCode.normal : code
    // The private codes 4xxx stand for the codes 1xxx that the platform does not let through.
    const mapped = sent === undefined || isPlatformCode(sent) ? sent : sent + 3000
    this.sent = { code: mapped, reason }
    this.socket.close(mapped, reason)
    if (Number.isFinite(this.options.closeMillis)) {
      Timers.of(this.clock).set(this.closeTimer, this.options.closeMillis)
    }
  }

  /** Our own limit is reached: what waits can be taken, then `messages` fails. */
  private failWith(code: number, reason: string): void {
    if (this.sent === undefined) this.sendClose(code, reason)
    this.over({ code, reason, clean: false, initiator: "local", received: undefined })
  }

  private closedByPlatform({ code, reason, wasClean }: CloseEventLike): void {
    const received = wasClean ? { code: code === CloseCode.noCode ? undefined : code, reason } : undefined
    const initiator = this.sent !== undefined ? "local" : wasClean ? "remote" : "transport"
    // The platform echoes the peer's close frame by itself.
    if (initiator === "remote") this.sent = received
    this.over({ code: wasClean ? code : CloseCode.abnormal, reason, clean: wasClean, initiator, received })
    this.detach()
  }

  private over(info: Omit<CloseInfo, "sent" | "violation">): void {
    this.finish({ ...info, sent: this.sent, violation: undefined }, undefined, this.platformError)
    Timers.of(this.clock).cancel(this.lookTimer)
    this.opening?.(Effect.void)
  }

  private detach(): void {
    const { socket } = this
    Timers.of(this.clock).cancel(this.closeTimer)
    socket.onopen = socket.onmessage = socket.onclose = null
    // Where sockets are EventEmitters, an error that nobody listens to ends the process.
    socket.onerror = () => {}
    this.transportGone()
  }

  protected cut(): void {
    if (this.info === undefined) {
      this.over({ code: CloseCode.abnormal, reason: "", clean: false, initiator: "local", received: undefined })
    }
    if (this.socket.onclose === null) return
    this.detach()
    const socket = this.socket as WebSocketLike & { terminate?: () => void }
    if (socket.terminate !== undefined) socket.terminate()
    else socket.close()
  }
}

const isPlatformCode = (code: number): boolean => code === CloseCode.normal || (code >= 3000 && code <= 4999)

/** UTF-8 has one to three bytes for a code unit. */
const isLarger = (message: Message, maxBytes: number): boolean => {
  if (message.length > maxBytes) return true
  return typeof message === "string" && message.length * 3 > maxBytes && portable.textByteLength(message) > maxBytes
}
