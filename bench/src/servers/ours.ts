/** What both of this library's servers share: all but the handler of `/echo`. */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Broadcast, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Effect, Layer } from "effect"
import { ready } from "./harness.js"

export const maxMessageBytes = 100 * 1024 * 1024

const Room = Layer.unwrapEffect(
  Effect.map(Broadcast.make(), (room) =>
    WebSocketRoute.layer("/broadcast", { maxMessageBytes }, (socket) =>
      Effect.zipRight(
        room.join(socket),
        socket.runForEach((message) => room.publish(message))
      )
    )
  )
)

const Ready = HttpServer.addressWith((address) =>
  Effect.sync(() => {
    if (address._tag === "TcpAddress") ready(address.port)
  })
)

/** Serves `echo` and the fan-out. */
export const serve = (
  echo: Layer.Layer<never, never, HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Error", unknown>>
): void =>
  HttpLayerRouter.serve(Layer.mergeAll(echo, Room), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.merge(Layer.effectDiscard(Ready)),
    Layer.provide(NodeWebSocketServer.layer(() => createServer(), { port: 0, host: "127.0.0.1", backlog: 4096 })),
    Layer.launch,
    NodeRuntime.runMain
  )
