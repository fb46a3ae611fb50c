/** This library with one loop in one fiber: `runForEach`. */
import { WebSocketClient } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Effect } from "effect"
import { run, url } from "./harness.js"

run((talk) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(url)
    yield* socket.sendAll(talk.first)
    yield* socket.runForEach((message) => socket.send(talk.next(message)))
  }).pipe(Effect.scoped, Effect.provide(NodeWebSocketClient.layer), Effect.runPromise)
)
