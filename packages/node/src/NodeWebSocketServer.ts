/**
 * HTTP servers of `@effect/platform-node` that can upgrade requests to WebSocket connections: drop-in for `NodeHttpServer`.
 *
 * Besides letting WebSocket routes take connections over, the wrapper keeps the bytes that came with the request, listens
 * to errors of sockets that wait for their answer (without which a reset by the client ends the process), and makes shutdown
 * prompt.
 *
 * @since 0.1.0
 */
import * as Http from "node:http"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"
import type { Transport } from "@effect-ws/core"
import { Upgrade } from "@effect-ws/core"
import type * as HttpPlatform from "@effect/platform/HttpPlatform"
import * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as Etag from "@effect/platform/Etag"
import type * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import * as Layer from "effect/Layer"
import * as NodeTransport from "./NodeTransport.js"
import { slab } from "./internal/natives.js"

/**
 * Options of a server, besides those of `listen`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * How long connections may take to close when the server shuts down (they get 1001 at once); then they are cut. Default
   * 5 seconds.
   */
  readonly drainTimeout?: Duration.DurationInput | undefined
}

/**
 * Services that the layers provide, those of `NodeHttpServer.layer`.
 *
 * @since 0.1.0
 * @category models
 */
export type Services = HttpPlatform.HttpPlatform | Etag.Generator | NodeContext.NodeContext | HttpServer.HttpServer

/**
 * `NodeHttpServer.layer` for a server with WebSocket routes.
 *
 * @example
 * import { createServer } from "node:http"
 * import { NodeWebSocketServer } from "@effect-ws/node"
 *
 * const Server = NodeWebSocketServer.layer(createServer, { port: 8080 })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  evaluate: LazyArg<Http.Server>,
  options: Net.ListenOptions & Options
): Layer.Layer<Services, ServeError> => NodeHttpServer.layer(attach(evaluate, options), options)

/**
 * {@link layer} with its options from Config.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  evaluate: LazyArg<Http.Server>,
  options: Config.Config.Wrap<Net.ListenOptions & Options>
): Layer.Layer<Services, ConfigError.ConfigError | ServeError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), (options) => layer(evaluate, options)))

/**
 * A server on a free port of the loopback interface, and an HttpClient whose base URL it is: for tests.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerTest: Layer.Layer<Services | HttpClient.HttpClient, ServeError> = Layer.suspend(() =>
  HttpServer.layerTestClient.pipe(
    Layer.provide(NodeHttpClient.layerWithoutAgent),
    Layer.provide(NodeHttpClient.makeAgentLayer({ keepAlive: false })),
    Layer.provideMerge(layer(Http.createServer, { port: 0, host: "127.0.0.1" }))
  )
)

/**
 * Makes the servers that `evaluate` gives upgradable, for whatever takes a `createServer`: `NodeHttpServer.layer(attach(createServer), ...)`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const attach =
  <Server extends Http.Server>(evaluate: LazyArg<Server>, options: Options = {}): LazyArg<Server> =>
  () => {
    const server = evaluate()
    const upgradeServer = Upgrade.makeServer({
      platform: { role: "server", slab },
      scheduler,
      drainTimeoutMillis: Duration.toMillis(options.drainTimeout ?? "5 seconds")
    })
    let closing = false
    server.prependListener("upgrade", (request: Http.IncomingMessage, socket: Duplex, head: Buffer) => {
      // Node's own listener is gone by now; without one a reset by the client would end the process.
      socket.on("error", ignore)
      Upgrade.register(request, new NodeUpgrade(upgradeServer, socket, head))
      // Nobody serves any more (or yet), but the socket still accepts.
      if (closing || server.listenerCount("upgrade") === 1) refuse(socket)
    })
    const close = server.close.bind(server)
    server.close = (callback) => {
      closing = true
      Effect.runFork(upgradeServer.shutdown)
      return close(callback)
    }
    return server
  }

/** Batches of connection fibers run when the event loop has polled. */
const scheduler = Upgrade.makeScheduler(setImmediate)

const ignore = () => {}

const refuse = (socket: Duplex): void => {
  const body = "The server is shutting down.\n"
  socket.end(
    `HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nRetry-After: 1\r\n` +
      `Connection: close\r\n\r\n${body}`
  )
}

class NodeUpgrade implements Upgrade.UpgradeRequest {
  private readonly closeListeners: number

  constructor(
    readonly server: Upgrade.UpgradeServer,
    private readonly socket: Duplex,
    private readonly head: Buffer
  ) {
    this.closeListeners = socket.listenerCount("close")
  }

  take(request: HttpServerRequest.HttpServerRequest, head: string): Transport.Transport | undefined {
    const { socket } = this
    const response = NodeHttpServerRequest.toServerResponse(request)
    if (response.writableEnded || response.headersSent || socket.destroyed || !socket.writable) return undefined
    // The platform ends the socket when the response is finished. Detached, the response writes nothing, and counts as sent.
    response.removeAllListeners("finish")
    response.detachSocket(socket as Net.Socket)
    response.end()
    socket.removeListener("error", ignore)
    // The platform's listener would keep the request's fiber in memory as long as the connection lives.
    for (const listener of socket.listeners("close").slice(this.closeListeners)) {
      socket.removeListener("close", listener as () => void)
    }
    const transport = NodeTransport.fromDuplex(socket, this.head)
    socket.write(head, "latin1")
    return transport
  }
}
