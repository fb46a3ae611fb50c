// A client that stays connected to a URL.
import * as WebSocketClient from "@effect-ws/core/WebSocketClient"
import * as Effect from "effect/Effect"

const program = Effect.gen(function* () {
  const client = yield* WebSocketClient.reconnecting("wss://example.com/chat")
  yield* client.send("hello")
  return yield* client.take
})

program.pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise).then(console.log)
