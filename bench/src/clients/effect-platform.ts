/** The socket client of `@effect/platform`, on Node as `@effect/platform-node` provides it. */
import { Socket } from "@effect/platform"
import { NodeSocket } from "@effect/platform-node"
import { Effect } from "effect"
import { run, url } from "./harness.js"

run((talk) =>
  Effect.gen(function* () {
    const socket = yield* Socket.makeWebSocket(url)
    const write = yield* socket.writer
    yield* socket.runRaw((message) => write(talk.next(message)), {
      onOpen: Effect.forEach(talk.first, (message) => write(message), { discard: true, concurrency: "unbounded" }).pipe(
        Effect.orDie
      )
    })
  }).pipe(Effect.scoped, Effect.provide(NodeSocket.layerWebSocketConstructor), Effect.runPromise)
)
