/**
 * A proxy from WebSocket to WebSocket that decodes nothing: both opening handshakes are its own, the frames pass as they are.
 */
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Transport, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Stream } from "effect"
import { withServer } from "./local.js"

const Origin = WebSocketRoute.layer("/origin", { subprotocols: ["chat.v2"] }, (socket) =>
  Stream.run(socket.messages, socket.sink)
)

// #region proxy
const proxyTo = (origin: string) =>
  HttpLayerRouter.add(
    "GET",
    "/proxy",
    Effect.gen(function* () {
      // Refused by the origin: the client gets the origin's status
      const upstream = yield* NodeWebSocketClient.detach(origin, { subprotocols: ["chat.v2", "chat.v1"] }).pipe(
        Effect.mapError(({ status = 502 }) => HttpServerResponse.empty({ status }))
      )
      const downstream = yield* WebSocketRoute.detach({ subprotocols: () => upstream.subprotocol })
      // Until both are gone; each side waits for the other when it does not read
      yield* Effect.ignore(Transport.join(downstream.transport, upstream.transport))
      return HttpServerResponse.empty()
    })
  )
// #endregion

const visit = (address: string) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(`${address}/proxy`, { subprotocols: ["chat.v1", "chat.v2"] })
    yield* Console.log(`through the proxy, subprotocol ${socket.subprotocol}`)
    yield* socket.send("hello")
    yield* Console.log(`echoed: ${yield* socket.take}`)
    const { code } = yield* socket.close(3000, "enough")
    yield* Console.log(`closed with ${code} by the origin's own closing handshake`)
  }).pipe(Effect.scoped)

withServer(Origin, (origin) => withServer(proxyTo(`${origin}/origin`), visit)).pipe(
  Effect.provide(NodeWebSocketClient.layer),
  NodeRuntime.runMain
)
