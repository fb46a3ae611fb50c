/**
 * A WebSocket endpoint in an HttpApi, beside the others and behind the same middleware.
 */
import { createServer } from "node:http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Console, Effect, Layer, Schema, Stream } from "effect"

// #region api
const Api = HttpApi.make("api").add(
  HttpApiGroup.make("live")
    .add(HttpApiEndpoint.get("version", "/version").addSuccess(Schema.String))
    .add(HttpApiEndpoint.get("echo", "/echo"))
)

// Made once: its options and limits are the route's
const echo = WebSocketRoute.upgrade({}, (socket) => Stream.run(socket.messages, socket.sink))

const Live = HttpApiBuilder.group(Api, "live", (handlers) =>
  handlers.handle("version", () => Effect.succeed("1.0")).handleRaw("echo", () => Effect.orDie(echo))
)
// #endregion

const Server = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide(Live),
  Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

HttpServer.addressFormattedWith((address) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(`${address}/echo`)
    yield* socket.send("through HttpApi")
    yield* Console.log(`echoed: ${yield* socket.take}`)
  }).pipe(Effect.scoped)
).pipe(Effect.provide([Server, NodeWebSocketClient.layer]), NodeRuntime.runMain)
