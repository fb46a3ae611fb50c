/**
 * A room: who joins it gets what anybody in it says.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Broadcast, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Layer } from "effect"
import { withServer } from "./local.js"

// #region room
const Room = Layer.unwrapEffect(
  Effect.map(Broadcast.make({ slow: "disconnect", allowanceBytes: 0x40000 }), (room) =>
    WebSocketRoute.layer("/room", {}, (socket) =>
      Effect.gen(function* () {
        yield* room.join(socket)
        yield* socket.send("welcome")
        yield* socket.runForEach((message) => room.publish(message, { except: socket }))
      }).pipe(Effect.scoped)
    )
  )
)
// #endregion

withServer(Room, (address) =>
  Effect.gen(function* () {
    const [ada, bob, cyd] = yield* Effect.all([
      WebSocketClient.connect(`${address}/room`),
      WebSocketClient.connect(`${address}/room`),
      WebSocketClient.connect(`${address}/room`)
    ])
    for (const member of [ada, bob, cyd]) yield* member.take
    yield* ada.send("hello, everybody")
    yield* Console.log(`bob: ${yield* bob.take}`)
    yield* Console.log(`cyd: ${yield* cyd.take}`)
  }).pipe(Effect.scoped)
).pipe(Effect.provide(NodeWebSocketClient.layer), NodeRuntime.runMain)
