/** The socket which `@effect/platform` itself gives a route: `request.upgrade`, read by `Socket.runRaw`. */
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse, type Socket } from "@effect/platform"
import { Effect, Layer } from "effect"
import { serve } from "./effect.js"
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

serve(Layer.mergeAll(Echo, Broadcast), ready)
