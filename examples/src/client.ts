/**
 * One connection in a Scope: sending, receiving, how it ends, and what to do with each error.
 */
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Layer, Stream } from "effect"
import { withServer } from "./local.js"

const Feed = WebSocketRoute.layer("/feed", { subprotocols: ["feed.v2", "feed.v1"] }, (socket) =>
  Effect.gen(function* () {
    const topic = yield* socket.take
    yield* Stream.run(
      Stream.map(Stream.range(1, 3), (n) => `${topic} ${n}`),
      socket.sink
    )
  })
)
const Private = HttpLayerRouter.add("GET", "/private", HttpServerResponse.text("who are you?", { status: 401 }))

// #region connect
const readFeed = (url: string) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(url, { subprotocols: ["feed.v1"], handshakeTimeout: "5 seconds" })
    yield* Console.log(`connected, subprotocol ${socket.subprotocol}`)
    yield* socket.send("prices")
    // Ends when the server has closed with 1000, 1001 or no code
    yield* Stream.runForEach(socket.messages, (message) => Console.log(message))
    const { code, initiator } = yield* socket.closed
    yield* Console.log(`closed with ${code} by the ${initiator} side`)
  }).pipe(
    // Leaving the Scope closes what is still open
    Effect.scoped
  )
// #endregion

// #region errors
const carefully = (url: string) =>
  readFeed(url).pipe(
    Effect.catchTags({
      HandshakeError: (error) =>
        Console.log(`no connection: ${error.phase}, ${error.reason}, ${error.status}, ${error.body}`),
      ConnectionClosed: (error) => Console.log(`ended with ${error.code}, "${error.reason}"`),
      ProtocolError: (error) => Console.log(`the server broke RFC 6455 §${error.section}: ${error.detail}`),
      HeartbeatTimeout: () => Console.log("the server fell silent")
    })
  )
// #endregion

withServer(Layer.merge(Feed, Private), (address) =>
  Effect.zipRight(carefully(`${address}/feed`), carefully(`${address}/private`))
).pipe(
  // #region provide
  Effect.provide(NodeWebSocketClient.layer),
  // #endregion
  NodeRuntime.runMain
)
