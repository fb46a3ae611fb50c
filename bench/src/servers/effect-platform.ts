/** The socket which `@effect/platform` itself gives a route: `request.upgrade`, read by `Socket.runRaw`. */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer, HttpServerRequest, HttpServerResponse, type Socket } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { ready } from "./harness.js"

type Write = (message: string | Uint8Array | Socket.CloseEvent) => Effect.Effect<void, Socket.SocketError>

const Echo = HttpLayerRouter.add(
  "GET",
  "/echo",
  Effect.gen(function* () {
    const socket = yield* Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => request.upgrade)
    const write = yield* socket.writer
    yield* socket.runRaw((message) => write(message))
    return HttpServerResponse.empty()
  })
)

const members = new Set<Write>()

const Broadcast = HttpLayerRouter.add(
  "GET",
  "/broadcast",
  Effect.gen(function* () {
    const socket = yield* Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => request.upgrade)
    const write = yield* socket.writer
    yield* Effect.acquireRelease(
      Effect.sync(() => members.add(write)),
      () => Effect.sync(() => members.delete(write))
    )
    yield* socket.runRaw((message) => Effect.forEach(members, (member) => member(message), { discard: true }))
    return HttpServerResponse.empty()
  })
)

const Ready = HttpServer.addressWith((address) =>
  Effect.sync(() => {
    if (address._tag === "TcpAddress") ready(address.port)
  })
)

HttpLayerRouter.serve(Layer.mergeAll(Echo, Broadcast), { disableLogger: true, disableListenLog: true }).pipe(
  Layer.merge(Layer.effectDiscard(Ready)),
  Layer.provide(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1", backlog: 4096 })),
  Layer.launch,
  NodeRuntime.runMain
)
