/** This library with Streams: `Stream.run(messages, socket.sink)`. */
import { WebSocketClient } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Effect, Stream } from "effect"
import { run, url } from "./harness.js"

run((talk) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(url)
    yield* socket.sendAll(talk.first)
    yield* Stream.run(Stream.map(socket.messages, talk.next), socket.sink)
  }).pipe(Effect.scoped, Effect.provide(NodeWebSocketClient.layer), Effect.runPromise)
)
