/**
 * Clients: from a URL to an open connection in a Scope.
 *
 * The opening handshake is performed here, over any Transport; who dials (TCP, TLS, Unix sockets, proxies) is a {@link Dialer} of
 * the platform. Where the platform has only its own WebSocket (browsers, workers), {@link layerGlobal} makes the same connections of it.
 *
 * @since 0.1.0
 */
import type { Headers } from "@effect/platform"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Connection from "./Connection.js"
import type * as Extension from "./engine/Extension.js"
import { type Answer, Deadline, HandshakeTransport } from "./internal/clientHandshake.js"
import { WebSocketClient } from "./internal/clientService.js"
import * as ClientTarget from "./internal/clientTarget.js"
import * as Global from "./internal/GlobalConnection.js"
import type { Transport } from "./Transport.js"
import type { ClientOptions, TypedConnection, WebSocketContract } from "./WebSocketContract.js"
import { HandshakeError } from "./WebSocketError.js"

export {
  /**
   * What opens connections: `NodeWebSocketClient.layer`, {@link layerGlobal}, or {@link fromDialer} over anything that moves bytes.
   *
   * @since 0.1.0
   * @category services
   */
  WebSocketClient
} from "./internal/clientService.js"

/**
 * The service behind {@link WebSocketClient}.
 *
 * @since 0.1.0
 * @category models
 */
export interface Service {
  /** See {@link connect}. */
  readonly connect: (
    url: string | URL,
    options?: ConnectOptions
  ) => Effect.Effect<Connection.Connection, HandshakeError, Scope.Scope>
}

/**
 * Options of a connection that a client opens.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectOptions extends Connection.Options {
  /** Subprotocols in order of preference; tokens, none twice. Default none. */
  readonly subprotocols?: ReadonlyArray<string> | undefined
  /**
   * More headers of the request, cookies among them. `Host` takes the place of the URL's, `Authorization` that of the URL's
   * credentials; the handshake's own headers are refused.
   */
  readonly headers?: Headers.Input | undefined
  /** The `Origin` header. Default none, since only browsers must send it (RFC 6455 §4.1 item 8). */
  readonly origin?: string | undefined
  /** The version of the protocol to ask for: 13 is RFC 6455 and the default, 8 what drafts 08 to 12 of it have. */
  readonly version?: 13 | 8 | undefined
  /**
   * Extensions to offer, the ones wanted most first; see `Engine.Extension`, and `PermessageDeflate` of `@effect-ws/node`. Default:
   * none. `layerGlobal` leaves them to the platform. RFC 6455 §9.
   */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /** How long each phase of opening may take; a timeout names the phase. Default 10 seconds. */
  readonly handshakeTimeout?: Duration.DurationInput | undefined
  /** Deadlines of single phases, in place of `handshakeTimeout`. */
  readonly phaseTimeouts?: PhaseTimeouts | undefined
  /**
   * Whether a 3xx answer with `Location` is followed, or how many of them; `true` means 10. Default `false`. On a change of host and
   * from `wss:` to `ws:` the credentials stay behind: `Authorization`, `Cookie`, and those of the URL.
   */
  readonly followRedirects?: boolean | number | undefined
}

/**
 * Deadlines by phase: reaching the host (name and TCP, Unix socket), TLS, a proxy's answer, the response to the handshake.
 *
 * @since 0.1.0
 * @category models
 */
export interface PhaseTimeouts {
  readonly dial?: Duration.DurationInput | undefined
  readonly tls?: Duration.DurationInput | undefined
  readonly proxy?: Duration.DurationInput | undefined
  readonly response?: Duration.DurationInput | undefined
}

/**
 * Opens a connection. It closes with the Scope: with 1000, after interruption with 1001, after a failure with 1011.
 *
 * The URL has the scheme `ws:` or `wss:` (`http:` and `https:` mean the same; `ws+unix:/socket:/path` where the platform has such
 * sockets) and no fragment; its credentials are percent-decoded and sent as `Authorization: Basic`. RFC 6455 §3, §4.1.
 *
 * Fails with `HandshakeError`: phase `Request` for a URL or options that can't be sent; `Refused` with status, headers and up to
 * 64 KiB of body when the server answers something other than 101. Interruption at any phase leaves nothing behind.
 *
 * With a contract (`WebSocketRoute.make`, `WebSocketContract.make`) the connection has its messages' types; the URL is `url`, or
 * `baseUrl` with the contract's path and query. Parameters that do not fit the contract are a `HandshakeError` of phase `Request`.
 *
 * @example
 * import { WebSocketClient } from "@effect-ws/core"
 * import { Console, Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const socket = yield* WebSocketClient.connect("wss://example.com/feed", { subprotocols: ["feed.v1"] })
 *   yield* socket.send("hello")
 *   yield* Stream.runForEach(socket.messages, Console.log)
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category constructors
 */
export const connect: {
  <P, U, H, In, Out, R>(
    contract: WebSocketContract<P, U, H, In, Out, R>,
    options: ClientOptions<P, U, H, In, Out>
  ): Effect.Effect<TypedConnection<Out, In>, HandshakeError, WebSocketClient | Scope.Scope | R>
  (
    url: string | URL,
    options?: ConnectOptions
  ): Effect.Effect<Connection.Connection, HandshakeError, WebSocketClient | Scope.Scope>
} = (target: string | URL | AnyContract, options: ConnectOptions | AnyClientOptions = {}) =>
  Effect.flatMap(
    WebSocketClient,
    (client): Effect.Effect<any, HandshakeError, any> =>
      typeof target === "string" || target instanceof URL
        ? client.connect(target, options as ConnectOptions)
        : connectBy(client, target, options as AnyClientOptions)
  )

type AnyContract = WebSocketContract<any, any, any, any, any, any>
type AnyClientOptions = ClientOptions<any, any, any, any, any>

const connectBy = (client: Service, contract: AnyContract, options: AnyClientOptions) => {
  const { baseUrl, headers, moreHeaders, onInvalid, path, url, urlParams, ...rest } = options
  return Effect.flatMap(contract.request(options), (request) =>
    Effect.flatMap(
      client.connect(request.url, { subprotocols: contract.subprotocols, ...rest, headers: request.headers }),
      (socket) => contract.client(socket, onInvalid)
    )
  )
}

export {
  /**
   * A client that connects again whenever its connection ended: `messages` and `send` span connections. See `Reconnecting`.
   *
   * @since 0.1.0
   * @category constructors
   */
  reconnecting
} from "./Reconnecting.js"

// ---- over transports ---------------------------------------------------------------------------------------------------

/**
 * Where to dial.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target {
  /** Scheme `ws:`, `wss:` or `ws+unix:`, without credentials. */
  readonly url: URL
  /** Whether TLS is asked for. */
  readonly secure: boolean
  /** Host name or address, IPv6 without brackets; empty for `ws+unix:`. */
  readonly hostname: string
  readonly port: number
  /** The Unix socket of `ws+unix:`, in place of host and port. */
  readonly socketPath: string | undefined
  /** Says which phase begins, so that its deadline starts and a timeout names it. Dialing begins with `"Dial"`. */
  readonly enter: (phase: "Dial" | "Tls" | "Proxy") => void
}

/**
 * Makes a transport to a target. What it opens belongs to the Scope, which outlives the connection, and is closed at once when
 * opening fails or is interrupted; deadlines interrupt it. It need not fill in `url` of its errors.
 *
 * @since 0.1.0
 * @category models
 */
export type Dialer = (target: Target) => Effect.Effect<Transport, HandshakeError, Scope.Scope>

/**
 * A client which performs the opening handshake over the transports of `dialer`. `platform` is what a platform adds to every
 * connection.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromDialer = (dialer: Dialer, platform: Omit<Connection.PlatformOptions, "role"> = {}): Service => ({
  connect: (url, options = {}) =>
    Effect.suspend(() => {
      const place = ClientTarget.place(url, options)
      if (place instanceof HandshakeError) return Effect.fail(place)
      const settings = Connection.settings(options, { ...platform, role: "client" })
      const opened = { version: `${options.version ?? 13}` } as const
      return open(dialer, place, options, (transport, { extensions, response, subprotocol }) =>
        Effect.map(Connection.fromSettings(transport, settings, subprotocol, extensions, opened), (connection) =>
          Connection.answeredWith(connection, response)
        )
      )
    })
})

/**
 * What is left of an opening handshake that nobody speaks frames over yet.
 *
 * @since 0.1.0
 * @category models
 */
export interface Detached {
  /** The bytes after the response's head. It is cut when the Scope closes. */
  readonly transport: Transport
  readonly subprotocol: string | undefined
  readonly response: Connection.HandshakeResponse
}

/**
 * Options of {@link detach}.
 *
 * @since 0.1.0
 * @category models
 */
export interface DetachOptions extends Omit<ConnectOptions, keyof Connection.Options | "extensions"> {}

/**
 * Performs the opening handshake as {@link connect} does and gives the bytes away: to pass them on as they are (`Transport.join`), or
 * for another implementation of frames. No extension is offered.
 *
 * @since 0.1.0
 * @category constructors
 */
export const detach = (
  dialer: Dialer,
  url: string | URL,
  options: DetachOptions = {}
): Effect.Effect<Detached, HandshakeError, Scope.Scope> =>
  Effect.suspend(() => {
    const place = ClientTarget.place(url, options)
    if (place instanceof HandshakeError) return Effect.fail(place)
    return open(dialer, place, options, (transport, { response, subprotocol }) =>
      Effect.acquireRelease(Effect.succeed({ transport, subprotocol, response }), () =>
        Effect.sync(() => transport.abort())
      )
    )
  })

/**
 * A connection over one transport that is there already, through the opening handshake for `url` (the host and path to ask for).
 * The transport is aborted when opening fails or is interrupted, and when the Scope closes. Redirects are not followed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const overTransport = (
  transport: Transport,
  options: Omit<ConnectOptions, "followRedirects"> & { readonly url: string | URL }
): Effect.Effect<Connection.Connection, HandshakeError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    restore(
      fromDialer(() =>
        Effect.acquireRelease(Effect.succeed(transport), (transport) => Effect.sync(() => transport.abort()))
      ).connect(options.url, { ...options, followRedirects: false })
    ).pipe(
      // Whatever failed before the dialer was asked
      Effect.onError(() => Effect.sync(() => transport.abort()))
    )
  )

/** Opens; `use` takes over what was accepted, and does not fail. */
const open = <A>(
  dialer: Dialer,
  first: ClientTarget.Place,
  options: Omit<ConnectOptions, keyof Connection.Options>,
  use: (transport: Transport, answer: Extract<Answer, { _tag: "Accepted" }>) => Effect.Effect<A, never, Scope.Scope>
): Effect.Effect<A, HandshakeError, Scope.Scope> => {
  const millis = phaseMillis(options)
  const maxRedirects = options.followRedirects === true ? 10 : options.followRedirects || 0
  return Effect.uninterruptibleMask((restore) => {
    const attempt = (place: ClientTarget.Place, redirects: number): Effect.Effect<A, HandshakeError, Scope.Scope> => {
      const request = ClientTarget.request(place, options, maxRedirects > 0)
      if (request instanceof HandshakeError) return Effect.fail(request)
      return Effect.flatMap(Effect.scope, (scope) =>
        // What an attempt opens ends with it, or with the connection.
        Effect.flatMap(Scope.fork(scope, ExecutionStrategy.sequential), (inner) =>
          restore(Scope.extend(handshake(dialer, place, request, millis), inner)).pipe(
            Effect.exit,
            Effect.flatMap((exit) => {
              if (exit._tag === "Failure")
                return Effect.zipRight(Scope.close(inner, exit), Effect.failCause(exit.cause))
              const { answer, transport } = exit.value
              if (answer._tag === "Accepted") return use(transport, answer)
              return Effect.zipRight(Scope.close(inner, exit), follow(place, answer, redirects))
            })
          )
        )
      )
    }
    const follow = (
      place: ClientTarget.Place,
      answer: Extract<Answer, { _tag: "Redirect" }>,
      redirects: number
    ): Effect.Effect<A, HandshakeError, Scope.Scope> => {
      const { headers, status } = answer
      const url = ClientTarget.shown(place.url)
      if (redirects >= maxRedirects) {
        const detail = `more than ${maxRedirects} redirects`
        return Effect.fail(new HandshakeError({ phase: "Response", reason: "Refused", detail, status, headers, url }))
      }
      const next = ClientTarget.redirected(place, answer.location)
      if (!(next instanceof HandshakeError)) return attempt(next, redirects + 1)
      return Effect.fail(
        new HandshakeError({ phase: "Response", reason: "Invalid", detail: next.detail, status, headers, url })
      )
    }
    return attempt(first, 0)
  })
}

const handshake = (
  dialer: Dialer,
  place: ClientTarget.Place,
  request: Exclude<ReturnType<typeof ClientTarget.request>, HandshakeError>,
  millis: ConstructorParameters<typeof Deadline>[1]
): Effect.Effect<{ readonly answer: Answer; readonly transport: Transport }, HandshakeError, Scope.Scope> =>
  Effect.clockWith((clock) => {
    const { secure, socketPath, url } = place
    const deadline = new Deadline(clock, millis)
    const target: Target = {
      url,
      secure,
      hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: url.port === "" ? (secure ? 443 : 80) : Number(url.port),
      socketPath,
      enter: deadline.enter
    }
    const dialed = Effect.flatMap(dialer(target), (dialed) => {
      const transport = new HandshakeTransport(dialed)
      return Effect.map(transport.exchange(request, deadline), (answer) => ({ answer, transport }))
    })
    return Effect.mapError(deadline.limit(dialed), (error) =>
      error.url === undefined ? withUrl(error, ClientTarget.shown(url)) : error
    )
  })

const withUrl = (error: HandshakeError, url: string): HandshakeError => {
  const { body, cause, detail, headers, phase, reason, status } = error
  return new HandshakeError({ phase, reason, detail, url, status, headers, body, cause })
}

const phaseMillis = (options: Pick<ConnectOptions, "phaseTimeouts" | "handshakeTimeout">) => {
  const { dial, proxy, response, tls } = options.phaseTimeouts ?? {}
  const millis = (timeout: Duration.DurationInput | undefined) =>
    Duration.toMillis(timeout ?? options.handshakeTimeout ?? "10 seconds")
  return { Dial: millis(dial), Tls: millis(tls), Proxy: millis(proxy), Response: millis(response) }
}

// ---- over the platform's own WebSocket ------------------------------------------------------------------------------------

export type {
  /**
   * What {@link connectGlobal} can do: a part of {@link ConnectOptions}, and the limits that take the place of pausing.
   *
   * @since 0.1.0
   * @category models
   */
  GlobalOptions,
  /**
   * A class like browsers' `WebSocket`.
   *
   * @since 0.1.0
   * @category models
   */
  WebSocketConstructor,
  /**
   * The part of a platform's WebSocket that is used.
   *
   * @since 0.1.0
   * @category models
   */
  WebSocketLike
} from "./internal/GlobalConnection.js"

/**
 * Opens a connection by the platform's own WebSocket: `globalThis.WebSocket`, or another class of the same form
 * (`webSocket`). Relative URLs are resolved against the page.
 *
 * The connection is the same as any other, but that API can't do everything, so:
 * - reading can't pause: when more waits for the consumer than `maxQueuedBytes` or `maxQueuedMessages` the connection
 *   closes with 4008, and what waited can still be taken;
 * - a message larger than `maxMessageBytes` closes with 4009, after the platform has received it;
 * - `send` waits for room by looking at `bufferedAmount`;
 * - `close` takes 1000 and 3000 to 4999, other codes are defects. Leaving the Scope closes with 1000, also where another
 *   connection would say 1001; after a failure with 4011 where another would say 1011;
 * - `ping` and `pong` are defects, and there is no heartbeat;
 * - `sendFragments` collects the pieces (up to `maxCollectedBytes`, more is a defect) and sends one message, whole or not at all;
 * - `abort` ends the connection here at once; the platform closes its own in its own time.
 *
 * Fails with `HandshakeError`: the platform does not tell why, so the reason is `Failed`, `Timeout`, or `Invalid` for the URL and
 * the subprotocols.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connectGlobal = (
  url: string | URL,
  options: Global.GlobalOptions = {}
): Effect.Effect<Connection.Connection, HandshakeError, Scope.Scope> =>
  Effect.suspend(() => Global.connect(options.webSocket ?? globalWebSocket(), url, options))

const globalWebSocket = () => (globalThis as { readonly WebSocket?: Global.WebSocketConstructor }).WebSocket

/**
 * {@link WebSocketClient} over the platform's own WebSocket (browsers, workers, Deno, Bun, Node.js from 22 on): see
 * {@link connectGlobal}, whose options are all that it can do. `headers`, `origin`, `heartbeat` and the other options that it lacks
 * make `connect` fail (phase `Request`) rather than be ignored.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerGlobal: Layer.Layer<WebSocketClient> = Layer.sync(WebSocketClient, () =>
  Global.client(globalWebSocket)
)

/**
 * {@link layerGlobal} with another class of the same form.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConstructor = (constructor: Global.WebSocketConstructor): Layer.Layer<WebSocketClient> =>
  Layer.succeed(
    WebSocketClient,
    Global.client(() => constructor)
  )
