// A client that stays connected by a contract, with its messages checked.
import * as WebSocketClient from "@effect-ws/core/WebSocketClient"
import * as WebSocketContract from "@effect-ws/core/WebSocketContract"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

const Chat = WebSocketContract.make("/chat", {
  incoming: Schema.Struct({ say: Schema.String }),
  outgoing: Schema.Struct({ said: Schema.String })
})

const program = Effect.gen(function* () {
  const client = yield* WebSocketClient.reconnecting(Chat, { baseUrl: "wss://example.com" })
  yield* client.send({ say: "hello" })
  return yield* client.take
})

program.pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise).then(console.log)
