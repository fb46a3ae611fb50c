import * as WebSocketClient from "@effect-ws/core/WebSocketClient"
import * as Effect from "effect/Effect"
Effect.gen(function* () {
  const socket = yield* WebSocketClient.connect("ws://x/")
  yield* socket.send("hello")
  return yield* socket.take
}).pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise)
