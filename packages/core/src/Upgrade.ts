/**
 * What a platform's HTTP server offers so that an HTTP request can become a WebSocket connection. Routes find it by the
 * request's `source`; `@effect-ws/node` registers it for every upgrade request of a server that it wraps.
 *
 * @since 0.1.0
 */
import type * as HttpServer from "@effect/platform/HttpServer"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import type * as Effect from "effect/Effect"
import * as FiberRefs from "effect/FiberRefs"
import type * as Runtime from "effect/Runtime"
import type * as Scheduler from "effect/Scheduler"
import type { Draft } from "./Connection.js"
import * as Connection from "./Connection.js"
import type * as Extension from "./engine/Extension.js"
import * as BatchScheduler from "./internal/batchScheduler.js"
import { ConnectionSet } from "./internal/ConnectionSet.js"
import { Handled } from "./internal/handled.js"
import { withRequestSpans } from "./internal/RequestSpan.js"
import type { Message } from "./Message.js"
import type { Transport } from "./Transport.js"

/**
 * What all upgrade requests of one server share.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpgradeServer {
  /** How connections of this server are made. */
  readonly platform: Connection.PlatformOptions
  /** Runs the fibers of connections, unless the application chose a scheduler itself. */
  readonly scheduler: Scheduler.Scheduler | undefined
  /** How long connections may take to end when the server or a route shuts down, in milliseconds. */
  readonly drainTimeoutMillis: number
  /** Versions of the protocol besides 13 that routes speak which say nothing themselves. */
  readonly drafts: ReadonlyArray<Draft>
  /** @internal */
  readonly connections: ConnectionSet
  /** Whether no connection is let in any more. */
  readonly isDraining: () => boolean
  /** Lets no connection in any more, closes all with 1001, and cuts what is left after the drain timeout. */
  readonly shutdown: Effect.Effect<void>
}

/**
 * What the upgrade requests of one server share.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeServer = (options: {
  readonly platform: Connection.PlatformOptions
  readonly scheduler?: Scheduler.Scheduler | undefined
  readonly drainTimeoutMillis: number
  readonly drafts?: ReadonlyArray<Draft> | undefined
}): UpgradeServer => {
  const connections = new ConnectionSet()
  return {
    platform: options.platform,
    scheduler: options.scheduler,
    drainTimeoutMillis: options.drainTimeoutMillis,
    drafts: options.drafts ?? [],
    connections,
    isDraining: () => connections.draining,
    shutdown: connections.shutdown(options.drainTimeoutMillis)
  }
}

/**
 * A scheduler that runs all connection fibers which were woken in one turn of the event loop together; `defer` starts a batch
 * after the loop has polled (`setImmediate` on Node).
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeScheduler: (defer: (run: () => void) => void) => Scheduler.Scheduler = BatchScheduler.make

/**
 * Runs `handler` over a transport whose opening handshake was accepted outside a router. When it ends, the connection closes: 1000 after
 * success, 1001 after interruption (shutdown of `server`), 1011 after a failure, which is logged. A handler that goes on although
 * its connection is gone and all messages are taken is interrupted after `handlerTimeoutMillis`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const start = <R>(
  server: UpgradeServer,
  options: {
    readonly transport: Transport
    readonly settings: Connection.Settings
    readonly subprotocol: string | undefined
    readonly extensions: ReadonlyArray<Extension.Agreed>
    /** Default: version 13. */
    readonly opened?: Connection.Opened | undefined
    readonly runtime: Runtime.Runtime<R>
    readonly handlerTimeoutMillis: number
    readonly handler: UpgradeHandler<R>
  }
): void => {
  const { extensions, handler, handlerTimeoutMillis, opened, runtime, settings, subprotocol, transport } = options
  const clock = Context.get(FiberRefs.getOrDefault(runtime.fiberRefs, DefaultServices.currentServices), Clock.Clock)
  const connection = Connection.unsafeStart(transport, settings, subprotocol, clock, extensions, opened)
  const each = "each" in handler ? handler.each : undefined
  const upgraded = new Upgraded(connection, runtime, clock, server, handlerTimeoutMillis, each)
  if ("run" in handler) upgraded.start(() => handler.run(connection))
  else upgraded.startEach()
}

/**
 * What handles a connection: with `run` from its beginning to its end in one fiber, with `each` one message after the other, without a fiber
 * as long as what it gives is nothing or a `send` that is done at once.
 *
 * @since 0.1.0
 * @category models
 */
export type UpgradeHandler<R> =
  | { readonly run: (connection: Connection.Connection) => Effect.Effect<unknown, unknown, R> }
  | { readonly each: EachHandler<R> }

type EachHandler<R> = (message: Message, connection: Connection.Connection) => Effect.Effect<unknown, unknown, R> | void

/** One connection that was accepted outside a router. */
class Upgraded<R> extends Handled {
  constructor(
    connection: Connection.Connection,
    runtime: Runtime.Runtime<R>,
    clock: Clock.Clock,
    server: UpgradeServer,
    protected readonly handlerTimeoutMillis: number,
    private readonly each: EachHandler<R> | undefined
  ) {
    super(connection, runtime, clock, server)
  }

  protected get subject(): string {
    return "a WebSocket connection"
  }

  onMessage(message: Message): Effect.Effect<unknown, unknown, R> | void {
    return this.each!(message, this.connection)
  }
}

/**
 * One upgrade request that is not answered yet.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpgradeRequest {
  readonly server: UpgradeServer
  /** Whether the request came over TLS, here or at a proxy before: the answers of hixie-76 and hixie-75 tell. */
  readonly secure: boolean
  /**
   * A route decides now, perhaps for long: from here on a client that leaves should interrupt the request at once, whatever it sent
   * before. What it sent is still the transport's.
   */
  readonly deciding?: (() => void) | undefined
  /**
   * Takes the connection of `outer` over from the HTTP server, writes `head` (a whole 101 response, in Latin-1) and gives the
   * transport, unread bytes included; `undefined` if the client is gone or the request was answered already. `inner` is the
   * request as the handler keeps it (a prefix route changes it); neither has a response any more.
   */
  readonly take: (
    outer: HttpServerRequest.HttpServerRequest,
    inner: HttpServerRequest.HttpServerRequest,
    head: string
  ) => Transport | undefined
}

/**
 * Whether a request asks for a WebSocket: `GET` with `Upgrade: websocket`, of any version. Takes `HttpServerRequest`s and Node's
 * `IncomingMessage`s. What else must be right the answer to the handshake says.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isWebSocket = (request: {
  readonly method?: string | undefined
  readonly headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
}): boolean => {
  const { connection, upgrade } = request.headers
  return request.method === "GET" && hasToken(connection, "upgrade") && hasToken(upgrade, "websocket")
}

/** RFC 6455 §4.2.1 items 3 and 4: tokens in a list, in any case. */
const hasToken = (header: string | ReadonlyArray<string> | undefined, token: string): boolean =>
  header !== undefined &&
  String(header)
    .split(",")
    .some((entry) => entry.trim().toLowerCase() === token)

// A property of the request, since a WeakMap with an entry per connection costs the collector more than the look-up saves.
const registered = Symbol.for("@effect-ws/core/Upgrade")

interface Upgradable {
  [registered]?: UpgradeRequest
}

/**
 * Makes `source` (a platform's own request object) upgradable.
 *
 * @since 0.1.0
 * @category registry
 */
export const register = (source: object, request: UpgradeRequest): void => {
  ;(source as Upgradable)[registered] = request
}

/**
 * What was registered for the request, if its server can upgrade it.
 *
 * @since 0.1.0
 * @category registry
 */
export const find = (request: HttpServerRequest.HttpServerRequest): UpgradeRequest | undefined =>
  typeof request.source === "object" && request.source !== null ? (request.source as Upgradable)[registered] : undefined

/**
 * A server whose spans of upgrade requests are cheap while nothing records them, that is with Effect's own tracer: what belongs
 * into them is made when it is asked for. With any other tracer (OpenTelemetry) it is `server` as it is.
 *
 * @since 0.1.0
 * @category constructors
 */
export const withLazySpans = (server: HttpServer.HttpServer): HttpServer.HttpServer =>
  withRequestSpans(server, (request) => find(request) !== undefined)
