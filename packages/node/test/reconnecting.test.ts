/** A client that stays connected, over real sockets: `ws` servers that go away and come back. */
import { once } from "node:events"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { type Reconnecting, WebSocketClient } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Effect, Exit, Fiber, Option, Queue, Schedule, Scope, Stream } from "effect"
import { WebSocketServer, type WebSocket as Ws } from "ws"

interface Running {
  readonly port: number
  readonly connections: Queue.Dequeue<{ readonly socket: Ws; readonly request: Http.IncomingMessage }>
  /** Open sockets, upgraded ones included. */
  readonly sockets: () => number
}

/** A server that greets with its name and echoes; the Scope's end cuts all. */
const listen = (name: string, port = 0): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.gen(function* () {
    const connections = yield* Queue.unbounded<{ readonly socket: Ws; readonly request: Http.IncomingMessage }>()
    const server = Http.createServer()
    const open = new Set<object>()
    server.on("connection", (socket) => {
      open.add(socket)
      socket.on("close", () => open.delete(socket))
    })
    const webSockets = new WebSocketServer({ server })
    webSockets.on("connection", (socket, request) => {
      socket.on("message", (data, binary) => socket.send(data, { binary }))
      socket.send(name)
      connections.unsafeOffer({ socket, request })
    })
    yield* Effect.acquireRelease(
      Effect.promise(async () => {
        server.listen(port, "127.0.0.1")
        await once(server, "listening")
      }),
      () =>
        Effect.promise(async () => {
          for (const socket of webSockets.clients) socket.terminate()
          server.close()
          server.closeAllConnections()
          await once(server, "close")
        })
    )
    return { port: (server.address() as AddressInfo).port, connections, sockets: () => open.size }
  })

const until = (client: Reconnecting.Reconnecting<any, any, any>, tag: Reconnecting.Status<unknown>["_tag"]) =>
  client.status.changes.pipe(
    Stream.filter((status) => status._tag === tag),
    Stream.runHead,
    Effect.map(Option.getOrThrow)
  )

describe("over sockets", () => {
  it.scopedLive("a server that is restarted: messages go on, and what was sent meanwhile arrives", () =>
    Effect.gen(function* () {
      const firstScope = yield* Scope.make()
      const first = yield* Scope.extend(listen("first"), firstScope)
      const client = yield* WebSocketClient.reconnecting(`ws://127.0.0.1:${first.port}/`, {
        schedule: Schedule.spaced("20 millis"),
        onOpen: (socket) => socket.send("subscribe")
      })
      assert.strictEqual(yield* client.take, "first")
      assert.strictEqual(yield* client.take, "subscribe")
      yield* client.send("a")
      assert.strictEqual(yield* client.take, "a")
      yield* Scope.close(firstScope, Exit.void)
      // Cut, and then refused as long as nobody listens.
      const refused = yield* client.status.changes.pipe(
        Stream.filter((status) => status._tag === "Waiting" && status.attempt > 1),
        Stream.runHead,
        Effect.map(Option.getOrThrow)
      )
      assert.deepInclude((refused as { readonly cause: object }).cause, { _tag: "HandshakeError", reason: "Failed" })
      yield* client.send("b")
      const second = yield* listen("second", first.port)
      for (const message of ["second", "subscribe", "b"]) assert.strictEqual(yield* client.take, message)
      assert.deepInclude(yield* until(client, "Open"), { connections: 2 })
      yield* client.close()
      assert.deepInclude(yield* Effect.flip(client.take), { _tag: "Stopped", reason: "Closed" })
      assert.strictEqual((yield* Queue.takeAll(second.connections)).length, 1)
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("a token per attempt; 1012 is retried, 1000 ends", () =>
    Effect.gen(function* () {
      const server = yield* listen("hello")
      let token = 0
      const client = yield* WebSocketClient.reconnecting(`ws://127.0.0.1:${server.port}/`, {
        schedule: Schedule.spaced("1 millis"),
        headers: Effect.sync(() => ({ authorization: `Bearer ${++token}` }))
      })
      const all = yield* Effect.fork(Stream.runCollect(client.messages))
      const first = yield* Queue.take(server.connections)
      first.socket.close(1012)
      const second = yield* Queue.take(server.connections)
      second.socket.close(1000)
      assert.deepStrictEqual([...(yield* Fiber.join(all))], ["hello", "hello"])
      assert.strictEqual(first.request.headers.authorization, "Bearer 1")
      assert.strictEqual(second.request.headers.authorization, "Bearer 2")
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("the Scope's end closes with 1000, and nothing is left", () =>
    Effect.gen(function* () {
      const server = yield* listen("hello")
      const closed = yield* Effect.gen(function* () {
        const client = yield* WebSocketClient.reconnecting(`ws://127.0.0.1:${server.port}/`)
        assert.strictEqual(yield* client.take, "hello")
        const { socket } = yield* Queue.take(server.connections)
        return new Promise<number>((resolve) => socket.once("close", resolve))
      }).pipe(
        Effect.map((closed) => () => closed),
        Effect.scoped
      )
      assert.strictEqual(yield* Effect.promise(closed), 1000)
      assert.isTrue(Option.isNone(yield* Queue.poll(server.connections)))
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )
})
