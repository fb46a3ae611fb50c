/**
 * Contracts: what both ends of a WebSocket agree on, as one value. Where it is (path and query parameters, headers), which
 * subprotocols, which messages in each direction, and how messages are written.
 *
 * The server makes a Layer of it (`WebSocketRoute.make`, or `WebSocketRoute.implement` for a contract made here), the client a
 * typed connection (`WebSocketClient.connect`, `WebSocketClient.reconnecting`). Nothing here needs a server, so that a page which
 * shares a contract bundles none. `incoming` and `outgoing` are always the server's view: the client sends what is incoming.
 *
 * @since 0.1.0
 */
import type * as Headers from "@effect/platform/Headers"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type { Connection } from "./Connection.js"
import * as ContractClient from "./internal/contractClient.js"
import { Half } from "./internal/contractMessages.js"
import type { Message } from "./Message.js"
import type { ConnectOptions } from "./WebSocketClient.js"
import type { ConnectionClosed, ConnectionError, HandshakeError, MessageError } from "./WebSocketError.js"
import type { PathParams, UrlParams } from "./WebSocketRoute.js"

export {
  /**
   * JSON in text messages, the default.
   *
   * @since 0.1.0
   * @category codecs
   */
  json,
  /**
   * Messages as they are: the schema's encoded side is a string, a `Uint8Array` or both.
   *
   * @since 0.1.0
   * @category codecs
   */
  raw,
  /**
   * What a codec gives for a message that it can't read: of the wrong kind (the connection closes with 1003), or not in its format
   * (1007).
   *
   * @since 0.1.0
   * @category codecs
   */
  Undecodable
} from "./internal/contractMessages.js"

/**
 * How values are written as messages. `I` is what it can write: a schema's encoded side must be that.
 *
 * @since 0.1.0
 * @category codecs
 */
export interface MessageCodec<in I = unknown> {
  readonly name: string
  /** The value, or an {@link Undecodable}. Does not throw. */
  readonly decode: (message: Message) => unknown
  /** May throw for what it can't write: a defect of the sender. */
  readonly encode: (value: I) => Message
}

/**
 * A connection whose messages have types: `In` is received, `Out` is sent.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypedConnection<In, Out> {
  /** The connection underneath. Messages that it takes are missing here. */
  readonly raw: Connection
  readonly role: Connection["role"]
  readonly version: Connection["version"]
  /** The negotiated subprotocol, if any. */
  readonly subprotocol: string | undefined

  /**
   * The peer's messages, as `Connection.messages`, decoded chunk by chunk. A message that does not fit does what `onInvalid` says: by
   * default the connection closes with 1003, 1007 or 1008, and the stream fails with `MessageError` after the messages before it.
   */
  readonly messages: Stream.Stream<In, ConnectionError | MessageError>

  /** The next message, as `Connection.take`. Interruption loses none. */
  readonly take: Effect.Effect<In, ConnectionError | MessageError>

  /** Runs `f` for every message, as `Connection.runForEach`. */
  readonly runForEach: <E = never, R = never>(
    f: (message: In) => Effect.Effect<unknown, E, R> | void
  ) => Effect.Effect<void, E | ConnectionError | MessageError, R>

  /** Sends one message, as `Connection.send`. A message that does not fit the schema is a defect (a `MessageError`). */
  readonly send: (message: Out) => Effect.Effect<void, ConnectionClosed>

  /** Sends several messages together; none if one of them does not fit. */
  readonly sendAll: (messages: Iterable<Out>) => Effect.Effect<void, ConnectionClosed>

  /** {@link TypedConnection.send} as a Sink, which sends what arrives together with one write. */
  readonly sink: Sink.Sink<void, Out, never, ConnectionClosed>

  /** Sends a message if that needs no waiting, as `Connection.trySend`. */
  readonly trySend: (message: Out) => Effect.Effect<boolean>

  readonly bufferedBytes: Connection["bufferedBytes"]
  readonly ping: Connection["ping"]
  readonly pong: Connection["pong"]
  readonly close: Connection["close"]
  readonly closed: Connection["closed"]
  readonly abort: Connection["abort"]
}

/**
 * What happens when a message does not fit: `"close"` closes the connection (1003 for the wrong kind, 1007 for what the codec can't
 * read, 1008 for what the schema refuses, the field in the reason) and fails with `MessageError`. A function goes on with the
 * next message when it succeeds, and fails as it fails; it may answer the peer. Default `"close"`.
 *
 * @since 0.1.0
 * @category models
 */
export type OnInvalid<In, Out> =
  | "close"
  | ((error: MessageError, socket: TypedConnection<In, Out>) => Effect.Effect<unknown, ConnectionClosed | MessageError>)

/**
 * Marks contracts.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId: unique symbol = Symbol.for("@effect-ws/core/WebSocketContract")

/**
 * Marks contracts.
 *
 * @since 0.1.0
 * @category symbols
 */
export type TypeId = typeof TypeId

/**
 * A contract. `P`, `U` and `H` are the path parameters, query and headers that the server's handler gets, `In` and `Out` what the
 * server receives and sends, `R` what the schemas need.
 *
 * @since 0.1.0
 * @category models
 */
export interface WebSocketContract<P, U, H, In, Out, R> {
  readonly [TypeId]: TypeId
  readonly path: `/${string}`
  readonly pathSchema: Schema.Schema<P, any, R> | undefined
  readonly urlParamsSchema: Schema.Schema<U, any, R> | undefined
  readonly headersSchema: Schema.Schema<H, any, R> | undefined
  readonly subprotocols: ReadonlyArray<string>
  /** Messages from client to server. */
  readonly incoming: Half<In>
  /** Messages from server to client. */
  readonly outgoing: Half<Out>
  /** What a client asks for: the URL and the headers. Fails with `HandshakeError` (phase `Request`) for what does not fit. */
  readonly request: (
    options: ClientRequest<P, U, H>
  ) => Effect.Effect<ContractClient.ContractRequest, HandshakeError, R>
  /** The client's end over a connection that is open: in tests, or over a transport of your own. */
  readonly client: (
    connection: Connection,
    onInvalid?: OnInvalid<Out, In>
  ) => Effect.Effect<TypedConnection<Out, In>, never, R>
  /** The server's end over a connection that is open. */
  readonly server: (
    connection: Connection,
    onInvalid?: OnInvalid<In, Out>
  ) => Effect.Effect<TypedConnection<In, Out>, never, R>
}

/**
 * What {@link make} takes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<
  P,
  PI extends EncodedPath,
  RP,
  U,
  UI extends EncodedUrlParams,
  RU,
  H,
  HI extends EncodedHeaders,
  RH,
  In,
  InI,
  RIn,
  Out,
  OutI,
  ROut
> {
  /** Path parameters. Default: strings, named by the path's literal. */
  readonly path?: Schema.Schema<P, PI, RP> | undefined
  /** The query. Default: strings and arrays of strings. */
  readonly urlParams?: Schema.Schema<U, UI, RU> | undefined
  /** Headers of the request, names in lower case. Default: all headers. */
  readonly headers?: Schema.Schema<H, HI, RH> | undefined
  /** What the client sends. Default: messages as they are, without the codec. */
  readonly incoming?: Schema.Schema<In, InI, RIn> | undefined
  /** What the server sends. Default: messages as they are, without the codec. */
  readonly outgoing?: Schema.Schema<Out, OutI, ROut> | undefined
  /** Supported subprotocols, best first: the server agrees to the first that the client offers, and a client offers all. Default none. */
  readonly subprotocols?: ReadonlyArray<string> | undefined
  /** How messages with a schema are written. Default {@link json}. */
  readonly codec?: MessageCodec<NoInfer<InI | OutI>> | undefined
}

/**
 * Path parameters as they are in the URL.
 *
 * @since 0.1.0
 * @category models
 */
export type EncodedPath = Readonly<Record<string, string | undefined>>
/**
 * The query as it is in the URL.
 *
 * @since 0.1.0
 * @category models
 */
export type EncodedUrlParams = UrlParams
/**
 * Headers as they are sent.
 *
 * @since 0.1.0
 * @category models
 */
export type EncodedHeaders = Readonly<Record<string, string | undefined>>

/**
 * A contract without a server: for a module that a page shares. Servers use it by `WebSocketRoute.implement`; where both ends are
 * in one program anyway `WebSocketRoute.make` does both at once.
 *
 * @example
 * import { WebSocketContract } from "@effect-ws/core"
 * import { Schema } from "effect"
 *
 * export const Chat = WebSocketContract.make("/chat/:room", {
 *   path: Schema.Struct({ room: Schema.NonEmptyString }),
 *   incoming: Schema.Struct({ text: Schema.String }),
 *   outgoing: Schema.Struct({ from: Schema.String, text: Schema.String })
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <
  const Path extends `/${string}`,
  P = PathParams<Path>,
  PI extends EncodedPath = EncodedPath,
  RP = never,
  U = UrlParams,
  UI extends EncodedUrlParams = EncodedUrlParams,
  RU = never,
  H = Headers.Headers,
  HI extends EncodedHeaders = EncodedHeaders,
  RH = never,
  In = Message,
  InI = never,
  RIn = never,
  Out = Message,
  OutI = never,
  ROut = never
>(
  path: Path,
  options: Options<P, PI, RP, U, UI, RU, H, HI, RH, In, InI, RIn, Out, OutI, ROut> = {}
): WebSocketContract<P, U, H, In, Out, RP | RU | RH | RIn | ROut> => {
  type R = RP | RU | RH | RIn | ROut
  const incoming = new Half<In>(options.incoming, options.codec as MessageCodec | undefined)
  const outgoing = new Half<Out>(options.outgoing, options.codec as MessageCodec | undefined)
  const contract: WebSocketContract<P, U, H, In, Out, R> = {
    [TypeId]: TypeId,
    path,
    pathSchema: options.path as Schema.Schema<P, any, R> | undefined,
    urlParamsSchema: options.urlParams as Schema.Schema<U, any, R> | undefined,
    headersSchema: options.headers as Schema.Schema<H, any, R> | undefined,
    subprotocols: options.subprotocols ?? [],
    incoming,
    outgoing,
    request: (options) => ContractClient.request(contract, options),
    client: (connection, onInvalid) => outgoing.connect(connection, incoming, onInvalid),
    server: (connection, onInvalid) => incoming.connect(connection, outgoing, onInvalid)
  }
  return contract
}

/**
 * Whether a value is a contract.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isWebSocketContract = (
  value: unknown
): value is WebSocketContract<unknown, unknown, unknown, unknown, unknown, unknown> =>
  typeof value === "object" && value !== null && TypeId in value

// ---- the client's side ---------------------------------------------------------------------------------------------------

/**
 * Where a client finds the other end: the whole `url`, or `baseUrl` and the parameters. The contract's path is appended to the path
 * of `baseUrl`, the query to its query. Required are the parameters that the contract requires.
 *
 * @since 0.1.0
 * @category models
 */
export type Where<P, U> =
  | {
      readonly url: string | URL
      readonly baseUrl?: undefined
      readonly path?: undefined
      readonly urlParams?: undefined
    }
  | ({ readonly baseUrl: string | URL; readonly url?: undefined } & PathOption<P> & UrlParamsOption<U>)

/**
 * `path`, required when it has required fields.
 *
 * @since 0.1.0
 * @category models
 */
export type PathOption<P> = Record<never, never> extends P ? { readonly path?: P | undefined } : { readonly path: P }

/**
 * `urlParams`, required when it has required fields.
 *
 * @since 0.1.0
 * @category models
 */
export type UrlParamsOption<U> =
  Record<never, never> extends U ? { readonly urlParams?: U | undefined } : { readonly urlParams: U }

/**
 * `headers`: what the contract's schema says, or any. With a schema, `moreHeaders` are those that it does not name.
 *
 * @since 0.1.0
 * @category models
 */
export type HeadersOption<H> = [H] extends [Headers.Headers]
  ? { readonly headers?: Headers.Input | undefined; readonly moreHeaders?: undefined }
  : (Record<never, never> extends H ? { readonly headers?: H | undefined } : { readonly headers: H }) & {
      readonly moreHeaders?: Headers.Input | undefined
    }

/**
 * What a contract makes a client's request of.
 *
 * @since 0.1.0
 * @category models
 */
export type ClientRequest<P, U, H> = Where<P, U> & HeadersOption<H>

/**
 * Options of a client that connects by a contract.
 *
 * @since 0.1.0
 * @category models
 */
export type ClientOptions<P, U, H, In, Out> = Omit<ConnectOptions, "headers"> &
  ClientRequest<P, U, H> & {
    /** What happens when a message of the server does not fit. Default `"close"`. */
    readonly onInvalid?: OnInvalid<Out, In> | undefined
  }
