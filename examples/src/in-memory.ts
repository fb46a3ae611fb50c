/**
 * Two connections with a line in memory between them: no server, no socket, the same code as over a network.
 */
// #region main
import { TestTransport } from "@effect-ws/core"
import { Console, Effect, Stream } from "effect"

const program = Effect.gen(function* () {
  // Two ends of one connection, the line between them in memory, cut into single bytes
  const { client, server } = yield* TestTransport.connections({ chunking: "every byte" })

  // The server sends every message back
  yield* Effect.fork(Stream.run(server.messages, server.sink))

  yield* client.sendAll(["hello", "from", "effect-ws"])
  yield* client.messages.pipe(
    Stream.take(3),
    Stream.runForEach((message) => Console.log(`echoed: ${message}`))
  )

  const end = yield* client.close(1000, "enough")
  yield* Console.log(`closed with ${end.code} by the ${end.initiator} side`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
// #endregion
