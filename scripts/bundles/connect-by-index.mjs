// The same as connect.mjs, imported by the index of the packages.
import { WebSocketClient } from "@effect-ws/core"
import { Effect } from "effect"

const program = Effect.gen(function* () {
  const socket = yield* WebSocketClient.connect("wss://example.com/echo")
  yield* socket.send("hello")
  return yield* socket.take
})

program.pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise).then(console.log)
