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
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import type * as Etag from "@effect/platform/Etag"
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpPlatform from "@effect/platform/HttpPlatform"
import * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import type { Connection, Transport } from "@effect-ws/core"
import { Connections, Upgrade } from "@effect-ws/core"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import * as Layer from "effect/Layer"
import { formatAnswer, guard, linger, refuse, shuttingDown, unguard } from "./internal/guard.js"
import { slab } from "./internal/natives.js"
import { ReadAhead } from "./internal/readAhead.js"
import { scheduler } from "./internal/scheduler.js"
import { isSecure } from "./internal/secure.js"
import * as NodeTransport from "./NodeTransport.js"

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
  /**
   * Versions of the protocol besides 13, for routes that say nothing themselves: `"8"`, `"hixie-76"`, `"hixie-75"`. Default none.
   */
  readonly drafts?: ReadonlyArray<Connection.Draft> | undefined
}

/**
 * Services that the layers provide: those of `NodeHttpServer.layer`, and the server's open connections.
 *
 * @since 0.1.0
 * @category models
 */
export type Services =
  | HttpPlatform.HttpPlatform
  | Etag.Generator
  | NodeContext.NodeContext
  | HttpServer.HttpServer
  | Connections.Connections

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
): Layer.Layer<Services, ServeError> =>
  Layer.suspend(() => {
    let server: Http.Server
    const attached = attach(evaluate, options)
    return Layer.map(
      NodeHttpServer.layer(() => (server = attached()), options),
      (services) =>
        services.pipe(
          Context.add(HttpServer.HttpServer, Upgrade.withLazySpans(Context.get(services, HttpServer.HttpServer))),
          Context.add(Connections.Connections, Connections.fromServer(upgradeServers.get(server)!))
        )
    )
  })

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
 * What Node's HTTP parser refuses (bad requests, headers above its limit of 16 KiB, requests that don't arrive in time) is answered
 * with Node's status and a sentence, unless the server has a `clientError` listener of its own.
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
      drainTimeoutMillis: Duration.toMillis(options.drainTimeout ?? "5 seconds"),
      drafts: options.drafts
    })
    upgradeServers.set(server, upgradeServer)
    let closing = false
    server.prependListener("upgrade", (request: Http.IncomingMessage, socket: Duplex, head: Buffer) => {
      guard(socket)
      Upgrade.register(request, new NodeUpgrade(upgradeServer, socket, head, isSecure(socket, request.headers)))
      // Behind a request that is not answered yet: two answers would get mixed up, and no client of RFC 6455 does it (§4.1).
      if (hasPendingResponse(socket)) socket.destroy()
      // Nobody serves any more (or yet), but the socket still accepts.
      if (closing || server.listenerCount("upgrade") === 1) refuse(socket)
    })
    server.prependListener("request", (_: Http.IncomingMessage, response: Http.ServerResponse) => {
      if (server.listenerCount("request") > 1) return
      response
        .writeHead(503, { "content-type": "text/plain", "retry-after": "1", connection: "close" })
        .end(shuttingDown)
    })
    server.prependListener("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
      if (server.listenerCount("clientError") === 1) answerBroken(error, socket)
    })
    // Responses that end only when they are told to (event streams) register here; `close` would wait for them.
    const beforeClose = new Set<() => void>()
    Object.assign(server, { [Symbol.for("@effect-ws/beforeClose")]: beforeClose })
    const close = server.close.bind(server)
    server.close = (callback) => {
      closing = true
      for (const end of beforeClose) end()
      Effect.runFork(upgradeServer.shutdown)
      return close(callback)
    }
    return server
  }

const upgradeServers = new WeakMap<Http.Server, Upgrade.UpgradeServer>()

/** Node answers the same statuses, without a sentence for the person who wrote the client. */
const answersToBroken: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: formatAnswer(
    "431 Request Header Fields Too Large",
    "The request headers are too large: send fewer or shorter headers and cookies.\n"
  ),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: formatAnswer("413 Payload Too Large", "The chunk extensions are too large.\n"),
  ERR_HTTP_REQUEST_TIMEOUT: formatAnswer("408 Request Timeout", "The request did not arrive in time.\n")
}
const badRequest = formatAnswer("400 Bad Request", "This is no HTTP/1.1 request: check what stands before it.\n")

/** What the HTTP parser refuses, or does not get in time. */
const answerBroken = (error: NodeJS.ErrnoException, socket: Duplex & { readonly _httpMessage?: unknown }): void => {
  const code = error.code ?? ""
  const answer = answersToBroken[code] ?? (code.startsWith("HPE_") ? badRequest : undefined)
  const pending = socket._httpMessage as Http.ServerResponse | null | undefined
  // An error of the network or of TLS, or inside of another answer
  if (answer === undefined || pending?.headersSent === true) return void socket.destroy(error)
  // The parser complains of every further piece of a request that has its answer
  if (socket.destroyed || socket.writableEnded) return
  // A request before it, which is not answered yet, will not be: its handler is interrupted
  socket.once("finish", pending == null ? linger : socket.destroy)
  socket.end(answer)
}

/** Node keeps the response that a socket is busy with in a property of it. */
const hasPendingResponse = (socket: Duplex & { readonly _httpMessage?: unknown }): boolean =>
  socket._httpMessage != null

const noBytes = Buffer.alloc(0)

class NodeUpgrade implements Upgrade.UpgradeRequest {
  private readonly closeListeners: number
  private ahead: ReadAhead | undefined

  constructor(
    readonly server: Upgrade.UpgradeServer,
    private readonly socket: Duplex,
    private head: Buffer,
    readonly secure: boolean
  ) {
    this.closeListeners = socket.listenerCount("close")
  }

  deciding(): void {
    this.ahead ??= new ReadAhead(this.socket)
  }

  take(
    outer: HttpServerRequest.HttpServerRequest,
    inner: HttpServerRequest.HttpServerRequest,
    head: string
  ): Transport.Transport | undefined {
    const { socket } = this
    if (socket.destroyed || !socket.writable) return undefined
    if (!leaveUnanswered(outer, socket)) return undefined
    unguard(socket)
    forgetResponse(outer)
    forgetResponse(inner)
    const { ahead, head: rest } = this
    // The request keeps all this, and may be kept as long as the connection.
    this.ahead = undefined
    this.head = noBytes
    process.nextTick(forgetRequest, socket, this.closeListeners)
    const received = ahead === undefined ? rest : ahead.stop(rest)
    return NodeTransport.fromAnswered(socket, received, Buffer.from(head, "latin1"))
  }
}

/**
 * Takes the platform's own listener off the socket, which would keep the request's fiber in memory as long as the connection
 * lives. The platform adds it after the fiber's first run, so it may not be there yet when that takes the socket over.
 */
const forgetRequest = (socket: Duplex, closeListeners: number): void => {
  for (const listener of socket.listeners("close").slice(closeListeners)) {
    if (!NodeTransport.ownsListener(listener)) socket.removeListener("close", listener as () => void)
  }
}

/**
 * Keeps Node's own response from answering the request; `false` if it did already. Mostly there is none, since the platform makes it when
 * somebody asks for it.
 */
const leaveUnanswered = (request: HttpServerRequest.HttpServerRequest, socket: Duplex): boolean => {
  if (!hasPendingResponse(socket) && typeof (request as { response?: unknown }).response === "function") return true
  const response = NodeHttpServerRequest.toServerResponse(request)
  if (response.writableEnded || response.headersSent) return false
  // The platform ends the socket when the response is finished. Detached it writes nothing, and with `finished` set it counts
  // as sent (`writableEnded` reads it) without building the head that `end` would build for nobody.
  response.removeAllListeners("finish")
  response.detachSocket(socket as Net.Socket)
  ;(response as { finished: boolean }).finished = true
  if (!response.writableEnded) response.end()
  return true
}

/**
 * Lets go of what the platform's request object needs for an answer: closures that also hold the request's fiber. A handler that
 * keeps its request would keep all of it alive, 9 KB per connection.
 */
const forgetResponse = (request: HttpServerRequest.HttpServerRequest): void => {
  const platform = request as { response?: unknown; upgradeEffect?: unknown }
  if (typeof platform.response === "function") platform.response = endedResponse()
  if (platform.upgradeEffect !== undefined) platform.upgradeEffect = undefined
}

/** A response that was sent, which is what the platform looks for when the request's fiber ends. */
const endedResponse = (): Http.ServerResponse => {
  if (ended === undefined) {
    ended = new Http.ServerResponse(new Http.IncomingMessage(new Net.Socket()))
    ended.end()
  }
  return ended
}
let ended: Http.ServerResponse | undefined
