/** This library on a plain HTTP server, without the router: `NodeUpgrade.each`. */
import { createServer } from "node:http"
import { NodeRuntime } from "@effect/platform-node"
import { Broadcast } from "@effect-ws/core"
import { NodeUpgrade } from "@effect-ws/node"
import { Effect } from "effect"
import { listen } from "./harness.js"
import { maxMessageBytes } from "./ours.js"

const program = Effect.gen(function* () {
  const server = createServer()
  const room = yield* Broadcast.make()
  const echo = (options: NodeUpgrade.Options) =>
    NodeUpgrade.each(server, { maxMessageBytes, ...options }, (message, socket) => socket.send(message))
  yield* echo({ path: "/echo" })
  yield* echo({ path: "/echo-heartbeat", heartbeat: { interval: "20 seconds" } })
  yield* NodeUpgrade.serve(server, { path: "/broadcast", maxMessageBytes }, (socket) =>
    Effect.zipRight(
      room.join(socket),
      socket.runForEach((message) => room.publish(message))
    )
  )
  listen(server)
  return yield* Effect.never
})

NodeRuntime.runMain(Effect.scoped(program))
