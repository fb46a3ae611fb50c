/**
 * A server on bare TCP: the request is seen before it is accepted, and other requests are answered here too.
 */
// #region main
import { type AddressInfo, createServer } from "node:net"
import { HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { WebSocketClient } from "@effect-ws/core"
import { NodeTcpServer, NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Stream } from "effect"

const listen = NodeTcpServer.listen(createServer, { port: 0, host: "127.0.0.1" }, (request) =>
  request.target === "/echo"
    ? Effect.flatMap(request.accept(), (socket) => Stream.run(socket.messages, socket.sink))
    : request.respond({ status: 200, body: `hello from ${request.target}` })
)

const program = Effect.gen(function* () {
  const { port } = (yield* listen).address() as AddressInfo
  const response = yield* HttpClient.get(`http://127.0.0.1:${port}/`)
  yield* Console.log(`answered: ${response.status} ${yield* response.text}`)

  const socket = yield* WebSocketClient.connect(`ws://127.0.0.1:${port}/echo`)
  yield* socket.send("hello")
  yield* Console.log(`echoed: ${yield* socket.take}`)
}).pipe(Effect.scoped, Effect.provide([NodeWebSocketClient.layer, NodeHttpClient.layer]))

await Effect.runPromise(program)
// #endregion
