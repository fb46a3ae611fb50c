/** The contract of connections over real sockets: TCP, and a route with our client at its other end. */
import { once } from "node:events"
import * as Net from "node:net"
import { Connection, WebSocketRoute } from "@effect-ws/core"
import { NodeTcpServer, NodeTransport, NodeWebSocketClient } from "@effect-ws/node"
import { Deferred, Effect, type Scope } from "effect"
import { connectionContract, type Pair, type PairOptions } from "../../core/test/contract/connectionContract.js"
import { portOf, serve } from "./support.js"

/** Both ends of a TCP connection on the loopback. */
const sockets: Effect.Effect<readonly [Net.Socket, Net.Socket], never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = Net.createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1")
    await once(server, "listening")
    const client = Net.connect({ port: portOf(server), host: "127.0.0.1", allowHalfOpen: true })
    const [[accepted]] = (await Promise.all([once(server, "connection"), once(client, "connect")])) as [
      [Net.Socket],
      unknown
    ]
    server.close()
    return [client, accepted] as const
  }),
  (both) =>
    Effect.sync(() => {
      for (const socket of both) socket.destroy()
    })
)

const overTcp = (options: PairOptions = {}): Effect.Effect<Pair, never, Scope.Scope> =>
  Effect.gen(function* () {
    const [clientSocket, serverSocket] = yield* sockets
    const client = yield* Connection.make(NodeTransport.fromDuplex(clientSocket), { ...options.client, role: "client" })
    const server = yield* Connection.make(NodeTransport.fromDuplex(serverSocket), { ...options.server, role: "server" })
    return { client, server }
  })

const overRoute = (options: PairOptions = {}) =>
  Effect.gen(function* () {
    const accepted = yield* Deferred.make<Connection.Connection>()
    const serving = yield* serve(
      WebSocketRoute.layer("/", { closeTimeout: "1 second", ...options.server }, (socket) =>
        Effect.zipRight(Deferred.succeed(accepted, socket), Effect.never)
      ),
      { drainTimeout: 1 }
    )
    const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/`, { ...options.client })
    return { client, server: yield* Deferred.await(accepted) }
  })

const overTcpServer = (options: PairOptions = {}) =>
  Effect.gen(function* () {
    const accepted = yield* Deferred.make<Connection.Connection>()
    const listening = yield* NodeTcpServer.listen(
      Net.createServer,
      { port: 0, host: "127.0.0.1", drainTimeout: 1, closeTimeout: "1 second", ...options.server },
      (request) =>
        Effect.flatMap(request.accept(), (socket) => Effect.zipRight(Deferred.succeed(accepted, socket), Effect.never))
    )
    const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${portOf(listening)}/`, { ...options.client })
    return { client, server: yield* Deferred.await(accepted) }
  }).pipe(Effect.orDie)

connectionContract("TCP", overTcp)
connectionContract("a bare TCP server and our client", overTcpServer)
connectionContract("a route and our client", overRoute)
