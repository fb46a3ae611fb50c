/**
 * A conversation that goes on over lost connections: nothing is lost, nothing comes twice.
 */
import { NodeRuntime } from "@effect/platform-node"
import { type Connection, Resume, WebSocketClient, WebSocketContract, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Schedule, Schema } from "effect"
import { withServer } from "./local.js"

// #region contract
const Squares = WebSocketContract.make("/squares", { incoming: Schema.Number, outgoing: Schema.Number })
// #endregion

// #region server
const SquaresLive = WebSocketRoute.implement(Squares).toLayer(
  (socket) =>
    Effect.zipRight(
      Console.log("a session begins"),
      socket.runForEach((n) => socket.send(n * n))
    ),
  { resume: Resume.memory({ ttl: "5 minutes" }) }
)
// #endregion

const program = (baseUrl: string, cutLine: Effect.Effect<void>) =>
  Effect.gen(function* () {
    // #region client
    const squares = yield* WebSocketClient.reconnecting(Squares, {
      baseUrl,
      schedule: Schedule.spaced("100 millis"),
      resume: Resume.memory(),
      onGap: (gap) => Console.log(`${gap.reason}: ${gap.unacknowledged.length} messages may be lost`)
    })
    // #endregion
    for (let n = 1; n <= 6; n++) {
      yield* squares.send(n)
      // What is on its way to the server or back is lost with its connection, and sent again over the next.
      if (n === 2 || n === 4) yield* cutLine
      yield* Console.log(`${n} * ${n} = ${yield* squares.take}`)
    }
    const status = yield* squares.status
    if (status._tag === "Open") yield* Console.log(`over ${status.connections} connections`)
  }).pipe(Effect.scoped)

/** A client whose last connection can be cut. */
const fragile = Effect.map(WebSocketClient.WebSocketClient, (client) => {
  let last: Connection.Connection | undefined
  return {
    cutLine: Effect.suspend(() => last?.abort ?? Effect.void),
    client: WebSocketClient.WebSocketClient.of({
      connect: (url, options) =>
        Effect.tap(client.connect(url, options), (socket) => {
          last = socket
        })
    })
  }
})

withServer(SquaresLive, (address) =>
  Effect.flatMap(fragile, ({ client, cutLine }) =>
    Effect.provideService(program(address, cutLine), WebSocketClient.WebSocketClient, client)
  )
).pipe(Effect.provide(NodeWebSocketClient.layer), NodeRuntime.runMain)
