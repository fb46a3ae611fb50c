/**
 * A WebSocket connection: a `Stream` of messages in, a `Sink` for messages out, in a Scope. Nothing here belongs to a
 * platform; whatever moves bytes ({@link Transport.Transport}) can carry a connection.
 *
 * What belongs elsewhere: the opening handshake (WebSocketRoute, WebSocketClient), reconnecting, broadcasting.
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { Slab } from "./engine/byteWriter.js"
import * as CloseCode from "./engine/CloseCode.js"
import type * as Extension from "./engine/Extension.js"
import type { Version } from "./engine/Handshake.js"
import type { ExtensionOffer } from "./engine/headerGrammar.js"
import * as Limits from "./engine/Limits.js"
import type { Role } from "./engine/Protocol.js"
import { BaseConnection, type DirectConsumer } from "./internal/BaseConnection.js"
import { FramedConnection, type Opened, type Settings } from "./internal/FramedConnection.js"
import { nextMaskKey } from "./internal/maskKeys.js"
import type { Kind, Message } from "./Message.js"
import type { Transport } from "./Transport.js"
import {
  type CloseInfo,
  ConnectionClosed,
  type ConnectionError,
  HeartbeatTimeout,
  ProtocolError
} from "./WebSocketError.js"

export type {
  /**
   * A version that a server speaks only where it is switched on: `"8"`, `"hixie-76"`, `"hixie-75"`.
   *
   * @since 0.1.0
   * @category models
   */
  Draft,
  /**
   * The version of the protocol: `"13"` is RFC 6455, the others are drafts of it.
   *
   * @since 0.1.0
   * @category models
   */
  Version
} from "./engine/Handshake.js"
export type {
  /**
   * Which rules apply: a client masks what it sends, a server must not.
   *
   * @since 0.1.0
   * @category models
   */
  Role
} from "./engine/Protocol.js"

/**
 * An open connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connection {
  readonly role: Role
  /**
   * The version of the protocol, `"13"` unless drafts were switched on. Connections of hixie-76 and hixie-75 carry text only (to
   * send bytes is a defect, or closes a member of a Broadcast), have neither `ping` and `pong` (defects) nor heartbeat, and their close frames
   * no code: `closed` has 1005.
   */
  readonly version: Version
  /** The negotiated subprotocol, if any. */
  readonly subprotocol: string | undefined
  /** What the server answered to the opening handshake, cookies among it; `undefined` at the server and where the platform hides it. */
  readonly response: HandshakeResponse | undefined
  /** The extensions that were agreed on, in the order in which they transform what is sent. RFC 6455 §9. */
  readonly extensions: ReadonlyArray<ExtensionOffer>

  /**
   * The peer's messages in order, all that one received chunk held as one `Chunk`. One consumer at a time; a second one
   * dies with a clear message. Ends when the closing handshake completed with a clean code (1000, 1001 or none; an option), fails
   * with `ConnectionClosed` on any other code and on 1006 (the transport was lost), `ProtocolError`, `HeartbeatTimeout`.
   *
   * While nobody pulls, at most 16 messages or 1 MiB (options) are decoded ahead; then the transport is paused. A consumer
   * that stops inside a chunk (`Stream.take`) drops the rest of that chunk: use {@link Connection.take} for single messages.
   *
   * Messages that came together with the peer's close frame, or with what broke a rule, can still be answered: our close frame
   * waits until the consumer asks for more, at most for the close timeout. RFC 6455 §5.5.1.
   */
  readonly messages: Stream.Stream<Message, ConnectionError>

  /** The next message. Interruption loses none. After a clean end it fails with `ConnectionClosed`. */
  readonly take: Effect.Effect<Message, ConnectionError>

  /**
   * Runs `f` for every message in order: what `messages` does, in one loop without a Stream's cost per wake-up. `f` may
   * give nothing when all was done at once. Interruption loses no message that `f` did not get.
   */
  readonly runForEach: <E = never, R = never>(
    f: (message: Message) => Effect.Effect<unknown, E, R> | void
  ) => Effect.Effect<void, E | ConnectionError, R>

  /**
   * Sends one message. Completes when the bytes were accepted and less than the high-water mark (128 KiB, an option) waits
   * to leave; waits its turn before that when more does. Interruption sends a message whole or not at all. Fails with
   * `ConnectionClosed` once the closing handshake began or the transport is lost; never hangs.
   */
  readonly send: (message: Message) => Effect.Effect<void, ConnectionClosed>

  /** {@link Connection.send} with wishes for this message. */
  readonly sendWith: (message: Message, options: SendOptions) => Effect.Effect<void, ConnectionClosed>

  /** Sends several messages like {@link Connection.send}, together in as few writes as there is room for. */
  readonly sendAll: (messages: Iterable<Message>) => Effect.Effect<void, ConnectionClosed>

  /** {@link Connection.send} as a Sink, which sends what arrives together with one write. The end of the stream does not close. */
  readonly sink: Sink.Sink<void, Message, never, ConnectionClosed>

  /**
   * Sends one message in fragments, a frame for every piece (RFC 6455 §5.4): strings for a text message, bytes for a binary one.
   * Other messages wait for its end, control frames do not. If `pieces` fails or is interrupted after the first
   * fragment left, the connection closes with 1011, since the peer must not take half a message for a whole one.
   */
  readonly sendFragments: <E, R>(
    kind: Kind,
    pieces: Stream.Stream<Message, E, R>
  ) => Effect.Effect<void, E | ConnectionClosed, R>

  /** Sends a message if that needs no waiting; `false` when there is no room, or the connection is not open. */
  readonly trySend: (message: Message) => Effect.Effect<boolean>

  /** {@link Connection.trySend} at once, for callbacks. */
  readonly unsafeTrySend: (message: Message) => boolean

  /** Bytes that were accepted and have not left. */
  readonly bufferedBytes: Effect.Effect<number>

  /**
   * Sends a ping and waits for its pong; gives the round trip. `payload` (at most 125 bytes, else a defect) is unique by
   * default; several pings may be under way. Fails with `ConnectionClosed`.
   */
  readonly ping: (payload?: Uint8Array) => Effect.Effect<Duration.Duration, ConnectionClosed>

  /**
   * Sends a pong that nobody asked for, as a sign of life (RFC 6455 §5.5.3), with a payload of at most 125 bytes (else a defect); waits
   * for room as {@link Connection.send} does. Pings are answered without it.
   */
  readonly pong: (payload?: Uint8Array) => Effect.Effect<void, ConnectionClosed>

  /**
   * The closing handshake: sends a close frame (default code 1000), waits for the peer's within the close timeout (10 s, an
   * option), then cuts. Messages that the peer sent before its close frame can still be taken; if they fill
   * the inbound budget and nobody takes them, the wait is as long as the timeout. Gives how it ended; a
   * connection that is closing or closed just waits. A code that must not be sent, or a reason of more than 123 bytes,
   * is a defect. RFC 6455 §7.1.2.
   */
  readonly close: (code?: number, reason?: string) => Effect.Effect<CloseInfo>

  /** Waits for the end of the conversation and says how it ended. */
  readonly closed: Effect.Effect<CloseInfo>

  /** Cuts the transport at once; the peer sees 1006. */
  readonly abort: Effect.Effect<void>
}

/**
 * The 101 that opened a connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface HandshakeResponse {
  readonly status: number
  /** By lower-case name; several of one name joined by commas. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** The values of `Set-Cookie`, for `Cookies.fromSetCookie` of `@effect/platform`. */
  readonly setCookies: ReadonlyArray<string>
}

/**
 * Wishes for one message.
 *
 * @since 0.1.0
 * @category models
 */
export interface SendOptions {
  /**
   * Whether an extension that compresses takes the message: `false` spares the work for what is compressed already, `true` compresses
   * what is smaller than its threshold. Without such an extension nothing changes. Default: as the extension is set up.
   */
  readonly compress?: boolean | undefined
}

/**
 * Options that both roles have. Sizes are bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Largest message, all fragments together; a larger one is refused with 1009. Default 1 MiB. */
  readonly maxMessageBytes?: number | undefined
  /** Messages decoded ahead of the consumer before reading pauses. Default 16. */
  readonly maxQueuedMessages?: number | undefined
  /** Bytes of messages (of text: UTF-16 code units) decoded ahead of the consumer before reading pauses. Default 1 MiB. */
  readonly maxQueuedBytes?: number | undefined
  /** Automatic pongs that wait for a transport which takes no more; one more closes with 1008. Default 60. */
  readonly maxPendingPongs?: number | undefined
  /**
   * Bytes that may wait to leave before `send` waits. Default 128 KiB. What one call of `sendAll` or `sink` puts out at once is
   * estimated, with text as UTF-16 code units: it may be up to three times as much.
   */
  readonly highWaterMark?: number | undefined
  /** How long the closing handshake may take before the transport is cut. Default 10 seconds. */
  readonly closeTimeout?: Duration.DurationInput | undefined
  /** Close codes with which `messages` ends instead of failing. Default 1000, 1001 and 1005 (none). */
  readonly cleanCloseCodes?: ReadonlyArray<number> | undefined
  /** Pings that find dead peers. Default: at most 20 seconds after the last byte, 20 seconds for any byte to come. `false` switches them off. */
  readonly heartbeat?: Heartbeat | false | undefined
}

/**
 * When the heartbeat pings, and how long the peer may stay silent after it. Any received byte counts as life, and so does
 * the time in which we ourselves did not read. Driven by Effect's Clock.
 *
 * With `interval` (default 20 seconds) a ping goes out when nothing came for at least half of it and at most all of it; one timer serves all
 * connections; a `schedule` takes its place and costs a fiber per connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Heartbeat {
  readonly interval?: Duration.DurationInput | undefined
  readonly schedule?: Schedule.Schedule<unknown, unknown> | undefined
  /** Default 20 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * Options of {@link make}.
 *
 * @since 0.1.0
 * @category models
 */
export interface MakeOptions extends Options {
  readonly role: Role
  readonly subprotocol?: string | undefined
  /** Default `"13"`. The framing of `"8"` is the same. */
  readonly version?: "13" | "8" | undefined
  /** What the opening handshake agreed on. Default: no extensions. */
  readonly extensions?: ReadonlyArray<Extension.Agreed> | undefined
}

/**
 * A connection over `transport` after the opening handshake (whose bytes the transport no longer holds).
 *
 * Leaving the Scope closes with 1000, after interruption with 1001, after a failure with 1011, and waits until the transport is
 * gone, at most for the close timeout.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (transport: Transport, options: MakeOptions): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.suspend(() =>
    fromSettings(transport, settings(options, { role: options.role }), options.subprotocol, options.extensions, {
      version: options.version ?? "13"
    })
  )

/**
 * What a platform adds to {@link Options}, once for all connections of a route or client.
 *
 * @since 0.1.0
 * @category advanced
 */
export interface PlatformOptions {
  readonly role: Role
  /** Unpredictable 32-bit numbers for masking (RFC 6455 §5.3). Default: from `crypto.getRandomValues`. */
  readonly randomKey?: (() => number) | undefined
  /** Where frames are written; default plain JavaScript. */
  readonly slab?: Slab | undefined
}

export type {
  /**
   * What the opening handshake agreed on about the protocol: an accepted request of `ServerHandshake` is one.
   *
   * @since 0.1.0
   * @category advanced
   */
  Opened,
  /**
   * Options with all defaults applied, made by {@link settings}.
   *
   * @since 0.1.0
   * @category advanced
   */
  Settings
} from "./internal/FramedConnection.js"

/**
 * Options with all defaults applied; make them once for all connections of a route.
 *
 * @since 0.1.0
 * @category advanced
 */
export const settings = (options: Options, platform: PlatformOptions): Settings => ({
  role: platform.role,
  limits: {
    maxMessageBytes: options.maxMessageBytes ?? Limits.defaults.maxMessageBytes,
    maxPendingPongs: options.maxPendingPongs ?? Limits.defaults.maxPendingPongs,
    maxQueuedMessages: Math.max(1, options.maxQueuedMessages ?? Limits.defaults.maxQueuedMessages),
    maxQueuedBytes: Math.max(1, options.maxQueuedBytes ?? Limits.defaults.maxQueuedBytes)
  },
  highWaterMark: Math.max(1, options.highWaterMark ?? 128 * 1024),
  cleanCloseCodes: options.cleanCloseCodes ?? defaultCleanCloseCodes,
  closeTimeoutMillis: Duration.toMillis(options.closeTimeout ?? "10 seconds"),
  heartbeat:
    options.heartbeat === false
      ? undefined
      : {
          intervalMillis: Duration.toMillis(options.heartbeat?.interval ?? "20 seconds"),
          timeoutMillis: Duration.toMillis(options.heartbeat?.timeout ?? "20 seconds"),
          schedule: options.heartbeat?.schedule
        },
  slab: platform.slab,
  randomKey: platform.randomKey ?? nextMaskKey,
  deferEnd: true
})

const defaultCleanCloseCodes = [CloseCode.normal, CloseCode.goingAway, CloseCode.noCode]

/**
 * {@link make} with prepared settings.
 *
 * @since 0.1.0
 * @category advanced
 */
export const fromSettings = (
  transport: Transport,
  settings: Settings,
  subprotocol: string | undefined,
  extensions?: ReadonlyArray<Extension.Agreed>,
  opened?: Opened
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.clockWith((clock) =>
      Effect.sync(() => unsafeStart(transport, settings, subprotocol, clock, extensions, opened))
    ),
    leave
  )

const noExtensions: ReadonlyArray<Extension.Agreed> = []

/**
 * Starts a connection that no Scope ends: the caller must {@link leave} it.
 *
 * @since 0.1.0
 * @category advanced
 */
export const unsafeStart = (
  transport: Transport,
  settings: Settings,
  subprotocol: string | undefined,
  clock: Clock.Clock,
  extensions: ReadonlyArray<Extension.Agreed> = noExtensions,
  opened?: Opened
): Connection => {
  const connection = new FramedConnection(transport, settings, subprotocol, clock, extensions, opened)
  connection.start()
  const { heartbeat } = settings
  if (heartbeat?.schedule !== undefined && !connection.textOnly) {
    connection.heartbeatFiber = Effect.runFork(
      Effect.withClock(connection.scheduledHeartbeat(heartbeat, heartbeat.schedule), clock)
    )
  }
  return connection
}

/**
 * Ends a connection as leaving its Scope with `exit` does, or with a close frame of the caller's choice.
 *
 * @since 0.1.0
 * @category advanced
 */
export const leave = (
  self: Connection,
  exit: Exit.Exit<unknown, unknown>,
  frame?: { readonly code: number; readonly reason?: string }
): Effect.Effect<void> => (self instanceof BaseConnection ? self.leave(exit, frame) : Effect.void)

export type { DirectConsumer }

/**
 * `runForEach` without a fiber, as long as what `onMessage` does with each message is done at once: when it gives nothing, `Effect.void`, or
 * `send` of a connection with room. With the first other Effect, or when it throws, `onLeft` is called with the rest of the run, of that
 * message and all behind it, which has to be run; or, if it comes to that, with nothing at the end, and {@link unsafeEnd} tells how it
 * ended. After {@link leave} neither is called.
 *
 * @since 0.1.0
 * @category advanced
 */
export const unsafeConsume = (self: Connection, consumer: DirectConsumer): void => {
  if (self instanceof BaseConnection) self.unsafeConsume(consumer)
}

/**
 * What {@link leave} begins, without waiting until the transport is gone (see {@link setOwner}).
 *
 * @since 0.1.0
 * @category advanced
 */
export const unsafeLeave = (
  self: Connection,
  exit: Exit.Exit<unknown, unknown>,
  frame?: { readonly code: number; readonly reason?: string }
): void => {
  if (self instanceof BaseConnection) self.unsafeLeave(exit, frame)
}

/**
 * How a connection without messages that wait has ended: `undefined` while it goes on.
 *
 * @since 0.1.0
 * @category advanced
 */
export const unsafeEnd = (self: Connection): Exit.Exit<void, Failure> | undefined =>
  self instanceof BaseConnection ? self.unsafeEnd() : undefined

/**
 * How the messages of a connection fail, or sending does.
 *
 * @since 0.1.0
 * @category models
 */
export type Failure = ConnectionError

/**
 * Whether an error says that a connection ended, whatever the reason.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isFailure = (error: unknown): error is Failure =>
  error instanceof ConnectionClosed || error instanceof ProtocolError || error instanceof HeartbeatTimeout

/**
 * Whom a connection tells when nothing of its transport is left; at once if that is so already.
 *
 * @since 0.1.0
 * @category advanced
 */
export const setOwner = (self: Connection, owner: { readonly connectionGone: () => void }): void => {
  if (self instanceof BaseConnection) self.ownedBy(owner)
}

/** @internal */
export const disown = (self: Connection): void => {
  if (self instanceof BaseConnection) self.owner = undefined
}

/** @internal */
export const answeredWith = (self: Connection, response: HandshakeResponse): Connection => {
  if (self instanceof BaseConnection) self.response = response
  return self
}

/**
 * Whether messages wait for the consumer.
 *
 * @since 0.1.0
 * @category advanced
 */
export const hasMessages = (self: Connection): boolean => self instanceof BaseConnection && self.queuedMessages > 0
