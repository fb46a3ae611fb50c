/**
 * A WebSocket route beside an ordinary one, and a client that visits both.
 */
// #region main
import { createServer } from "node:http"
import { HttpClient, HttpLayerRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Console, Effect, Layer, Stream } from "effect"

const Echo = WebSocketRoute.layer("/echo", {}, (socket) => Stream.run(socket.messages, socket.sink))
const Health = HttpLayerRouter.add("GET", "/health", HttpServerResponse.text("ok"))

// Port 0 is any free port; a real server says 8080 and ends in Layer.launch
const Server = HttpLayerRouter.serve(Layer.mergeAll(Echo, Health), { disableLogger: true }).pipe(
  Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

const visit = HttpServer.addressFormattedWith((address) =>
  Effect.gen(function* () {
    const health = yield* HttpClient.get(`${address}/health`)
    yield* Console.log(`health: ${yield* health.text}`)

    const socket = yield* WebSocketClient.connect(`${address}/echo`)
    yield* socket.send("hello")
    yield* Console.log(`echoed: ${yield* socket.take}`)
  }).pipe(Effect.scoped)
)

visit.pipe(Effect.provide([Server, NodeWebSocketClient.layer, NodeHttpClient.layer]), NodeRuntime.runMain)
// #endregion
