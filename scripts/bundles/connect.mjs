// One connection by the platform's own WebSocket.
import * as WebSocketClient from "@effect-ws/core/WebSocketClient"
import * as Effect from "effect/Effect"

const program = Effect.gen(function* () {
  const socket = yield* WebSocketClient.connect("wss://example.com/echo")
  yield* socket.send("hello")
  return yield* socket.take
})

program.pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise).then(console.log)
