/**
 * The client of Node.js: `ws:` and `wss:` over TCP, TLS, Unix sockets and Windows pipes, through proxies, or over a stream that is
 * there already.
 *
 * @since 0.1.0
 */
import type * as Net from "node:net"
import type * as NodeStream from "node:stream"
import type * as Tls from "node:tls"
import type { Headers } from "@effect/platform"
import type { Connection, WebSocketError } from "@effect-ws/core"
import { WebSocketClient } from "@effect-ws/core"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Dial from "./internal/dial.js"
import { slab } from "./internal/natives.js"

/**
 * How to reach the server.
 *
 * @since 0.1.0
 * @category models
 */
export interface DialOptions {
  /**
   * Options of `tls.connect` for `wss:`: own authorities (`ca`), client certificates, versions, `checkServerIdentity` and so on. Host,
   * port, path and socket are the URL's. By default certificates are verified against Node's authorities, and the URL's host
   * is the server name.
   */
  readonly tls?: Tls.ConnectionOptions | undefined
  /** Options of `net.connect`: `localAddress`, `family`, `lookup`, `keepAlive` and so on. Happy eyeballs are Node's default. */
  readonly tcp?: Partial<Omit<Net.TcpNetConnectOpts, "host" | "port">> | undefined
  /** A Unix socket or Windows pipe in place of the URL's host and port, which still go into `Host` and the server name. */
  readonly socketPath?: string | undefined
  /**
   * A proxy that is asked to CONNECT, for `ws:` too (RFC 6455 §4.1): its URL (`http:` or `https:`, with credentials if it wants
   * some), options, or `"environment"` for the variables `HTTPS_PROXY` (for `wss:`), `HTTP_PROXY` (for `ws:`) and `NO_PROXY`.
   * Default none. Unix sockets are dialed without it.
   */
  readonly proxy?: string | URL | ProxyOptions | undefined
}

/**
 * A proxy.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProxyOptions {
  /** Scheme `http:` or `https:`; credentials in it are percent-decoded and sent as `Proxy-Authorization: Basic`. */
  readonly url: string | URL
  /** In place of the URL's credentials; as they are, without percent-encoding. */
  readonly credentials?: { readonly username: string; readonly password: string } | undefined
  /** More headers of the CONNECT request; a `Proxy-Authorization` among them takes the place of credentials. */
  readonly headers?: Headers.Input | undefined
  /** Options of `tls.connect` for an `https:` proxy; those of the server are another matter. */
  readonly tls?: Tls.ConnectionOptions | undefined
}

/**
 * The client that dials with these options.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: DialOptions = {}): WebSocketClient.Service =>
  WebSocketClient.fromDialer(Dial.dialer(options), { slab })

/**
 * `WebSocketClient` on Node: TCP and TLS, without proxy.
 *
 * @example
 * import { WebSocketClient } from "@effect-ws/core"
 * import { NodeWebSocketClient } from "@effect-ws/node"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const socket = yield* WebSocketClient.connect("wss://example.com/feed")
 *   yield* socket.send("hello")
 *   return yield* socket.take
 * }).pipe(Effect.scoped, Effect.provide(NodeWebSocketClient.layer))
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<WebSocketClient.WebSocketClient> = Layer.sync(WebSocketClient.WebSocketClient, make)

/**
 * {@link layer} with other ways to reach servers.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (options: DialOptions): Layer.Layer<WebSocketClient.WebSocketClient> =>
  Layer.sync(WebSocketClient.WebSocketClient, () => make(options))

/**
 * Opens one connection as `WebSocketClient.connect` does, dialing with options of its own.
 *
 * Fails with `HandshakeError`. Of a proxy's refusal it has the status, the headers and up to 64 KiB of the body, in phase `Proxy`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connect = (
  url: string | URL,
  options: WebSocketClient.ConnectOptions & DialOptions = {}
): Effect.Effect<Connection.Connection, WebSocketError.HandshakeError, Scope.Scope> =>
  make(options).connect(url, options)

/**
 * Options of {@link connectDuplex}.
 *
 * @since 0.1.0
 * @category models
 */
export interface DuplexOptions extends Omit<WebSocketClient.ConnectOptions, "followRedirects"> {
  /** What to ask for; with the scheme `wss:` TLS is spoken over the stream first. */
  readonly url: string | URL
  /** Bytes that were read from the stream already. */
  readonly head?: Uint8Array | undefined
  /** Options of `tls.connect` for `wss:`. */
  readonly tls?: Tls.ConnectionOptions | undefined
}

/**
 * Opens a connection over a stream that is open already and belongs to the connection from now on: it is destroyed when opening
 * fails or is interrupted, and when the Scope closes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connectDuplex = (
  duplex: NodeStream.Duplex,
  options: DuplexOptions
): Effect.Effect<Connection.Connection, WebSocketError.HandshakeError, Scope.Scope> =>
  WebSocketClient.fromDialer(Dial.duplexDialer(duplex, options.head, options.tls), { slab })
    .connect(options.url, { ...options, followRedirects: false })
    // A URL that is not valid fails before anyone dials.
    .pipe(Effect.onError(() => Effect.sync(() => duplex.destroy())))

/**
 * Performs the opening handshake and gives the bytes away, frames unread: to pass them on (`Transport.join`), or for another
 * implementation of frames (`NodeDuplex.fromTransport` makes a Duplex of them). The transport is cut when the Scope closes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const detach = (
  url: string | URL,
  options: WebSocketClient.DetachOptions & DialOptions = {}
): Effect.Effect<WebSocketClient.Detached, WebSocketError.HandshakeError, Scope.Scope> =>
  WebSocketClient.detach(Dial.dialer(options), url, options)
