/**
 * WebSocket routes behind the application's middleware, under a prefix: who is not logged in gets 401 instead of the 101.
 */
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Context, Effect, Layer } from "effect"
import { withServer } from "./local.js"

// #region middleware
class CurrentUser extends Context.Tag("CurrentUser")<CurrentUser, { readonly name: string }>() {}

const LoggedIn = HttpLayerRouter.middleware<{ provides: CurrentUser }>()(
  Effect.succeed((route) =>
    Effect.gen(function* () {
      const { headers } = yield* HttpServerRequest.HttpServerRequest
      const name = headers["x-user"]
      if (name === undefined) return HttpServerResponse.text("log in first", { status: 401 })
      return yield* Effect.provideService(route, CurrentUser, { name })
    })
  )
)

const Greeter = WebSocketRoute.layer("/live/greeter", {}, (socket) =>
  Effect.flatMap(CurrentUser, ({ name }) => socket.send(`hello ${name}`))
).pipe(Layer.provide(LoggedIn.layer))
// #endregion

withServer(Greeter, (address) =>
  Effect.gen(function* () {
    const url = `${address}/live/greeter`
    const socket = yield* WebSocketClient.connect(url, { headers: { "x-user": "Ada" } })
    yield* Console.log(`${yield* socket.take}`)
    const refused = yield* Effect.flip(WebSocketClient.connect(url))
    yield* Console.log(`${refused.status}: ${refused.body}`)
  }).pipe(Effect.scoped)
).pipe(Effect.provide(NodeWebSocketClient.layer), NodeRuntime.runMain)
