/**
 * What a platform's HTTP server offers so that an HTTP request can become a WebSocket connection. Routes find it by the
 * request's `source`; `@effect-ws/node` registers it for every upgrade request of a server that it wraps.
 *
 * @since 0.1.0
 */
import type * as HttpServer from "@effect/platform/HttpServer"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"
import type { PlatformOptions } from "./Connection.js"
import * as BatchScheduler from "./internal/batchScheduler.js"
import { ConnectionSet } from "./internal/ConnectionSet.js"
import { withRequestSpans } from "./internal/RequestSpan.js"
import type { Transport } from "./Transport.js"

/**
 * What all upgrade requests of one server share.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpgradeServer {
  /** How connections of this server are made. */
  readonly platform: PlatformOptions
  /** Runs the fibers of connections, unless the application chose a scheduler itself. */
  readonly scheduler: Scheduler.Scheduler | undefined
  /** How long connections may take to end when the server or a route shuts down, in milliseconds. */
  readonly drainTimeoutMillis: number
  /** @internal */
  readonly connections: ConnectionSet
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
  readonly platform: PlatformOptions
  readonly scheduler?: Scheduler.Scheduler | undefined
  readonly drainTimeoutMillis: number
}): UpgradeServer => {
  const connections = new ConnectionSet()
  return {
    platform: options.platform,
    scheduler: options.scheduler,
    drainTimeoutMillis: options.drainTimeoutMillis,
    connections,
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
 * One upgrade request that is not answered yet.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpgradeRequest {
  readonly server: UpgradeServer
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
