/** All open connections of a server: whatever route they came by, until nothing is left of them. */
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, Connections, PlatformSocket, TestTransport, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Deferred, Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import { open, type Routes, serve } from "./support.js"

/** A server with two routes and its connections. */
const serving = Effect.gen(function* () {
  const service = yield* Deferred.make<Connections.Service>()
  const opened = yield* Queue.unbounded<Connection.Connection>()
  const hold = (socket: Connection.Connection) =>
    Effect.zipRight(Queue.offer(opened, socket), Stream.runDrain(socket.messages))
  const served = yield* serve(
    Layer.mergeAll(
      WebSocketRoute.layer("/a", { heartbeat: false }, hold),
      WebSocketRoute.layer("/b", { heartbeat: false }, hold),
      HttpLayerRouter.add(
        "POST",
        "/announce",
        Effect.gen(function* () {
          const connections = yield* Connections.Connections
          yield* Deferred.succeed(service, connections)
          yield* connections.publish("an announcement")
          return HttpServerResponse.text(`${yield* connections.count}`)
        })
      )
    ) as Routes,
    { drainTimeout: 1 }
  )
  const announce = Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${served.port}/announce`, {
      method: "POST",
      headers: { connection: "close" }
    })
    return response.text()
  })
  const join = (path: string) =>
    Effect.gen(function* () {
      const client = yield* open(served.port, path)
      return { client, socket: yield* Queue.take(opened) }
    })
  return { served, announce, join, connections: Deferred.await(service) }
})

const until = (check: Effect.Effect<boolean>) =>
  Effect.repeat(
    Effect.zipRight(
      Effect.promise(() => new Promise<void>((resume) => setImmediate(resume))),
      check
    ),
    { until: (done) => done }
  )

describe("of a server", () => {
  it.scopedLive("a handler of any route counts, lists, and sends to all or all but one", () =>
    Effect.gen(function* () {
      const { announce, connections: ready, join } = yield* serving
      assert.strictEqual(yield* announce, "0")
      const [first, second] = [yield* join("/a"), yield* join("/b")]
      assert.strictEqual(yield* announce, "2")
      assert.strictEqual(yield* first.client.text, "an announcement")
      assert.strictEqual(yield* second.client.text, "an announcement")
      const connections = yield* ready
      assert.deepStrictEqual(yield* connections.list, [first.socket, second.socket])
      yield* connections.publish("not for the first", { except: first.socket })
      yield* connections.publish("for both")
      assert.strictEqual(yield* second.client.text, "not for the first")
      assert.strictEqual(yield* second.client.text, "for both")
      assert.strictEqual(yield* first.client.text, "for both")

      // Who leaves is gone, who comes is there.
      yield* first.client.close()
      yield* until(Effect.map(connections.count, (count) => count === 1))
      const third = yield* join("/a")
      yield* connections.publish("again")
      assert.strictEqual(yield* third.client.text, "again")
      assert.strictEqual(yield* second.client.text, "again")
    })
  )

  it.scopedLive("closeAll runs all closing handshakes; others may come", () =>
    Effect.gen(function* () {
      const { announce, connections: ready, join } = yield* serving
      yield* announce
      const connections = yield* ready
      const clients = [yield* join("/a"), yield* join("/b")]
      const closing = yield* Effect.fork(connections.closeAll(4000, "restart"))
      for (const { client } of clients) {
        assert.deepStrictEqual(yield* client.closeFrame, { code: 4000, reason: "restart" })
        yield* client.sendClose(4000)
        yield* client.end
      }
      yield* Fiber.join(closing)
      for (const { socket } of clients) assert.isTrue((yield* socket.closed).clean)
      yield* until(Effect.map(connections.count, (count) => count === 0))
      const late = yield* join("/a")
      assert.deepStrictEqual(yield* connections.list, [late.socket])
    })
  )

  it.scopedLive("closeAll says 1001 by default, abortAll nothing", () =>
    Effect.gen(function* () {
      const { announce, connections: ready, join, served } = yield* serving
      yield* announce
      const connections = yield* ready
      const polite = yield* join("/a")
      const closing = yield* Effect.fork(connections.closeAll())
      assert.strictEqual((yield* polite.client.closeFrame).code, 1001)
      yield* polite.client.sendClose(1001)
      yield* polite.client.end
      yield* Fiber.join(closing)
      const cut = yield* join("/a")
      yield* connections.abortAll
      assert.strictEqual((yield* cut.client.closeFrame).code, 1006)
      yield* served.sockets(0)
    })
  )

  it.scopedLive("the connections of request.upgrade are among them", () =>
    Effect.gen(function* () {
      const service = yield* Deferred.make<Connections.Service>()
      const { port } = yield* serve(
        Layer.mergeAll(
          HttpLayerRouter.add(
            "GET",
            "/legacy",
            Effect.gen(function* () {
              yield* Deferred.succeed(service, yield* Connections.Connections)
              const { upgrade } = yield* HttpServerRequest.HttpServerRequest
              const socket = yield* upgrade
              yield* Effect.ignore(socket.runRaw(() => {}))
              return HttpServerResponse.empty()
            })
          ),
          PlatformSocket.layerUpgrade({ heartbeat: false })
        ) as unknown as Routes
      )
      const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/legacy`, { heartbeat: false })
      const connections = yield* Deferred.await(service)
      yield* until(Effect.map(connections.count, (count) => count === 1))
      yield* connections.publish("hello")
      assert.strictEqual(yield* client.take, "hello")
      yield* client.close()
      yield* until(Effect.map(connections.count, (count) => count === 0))
    })
  )
})

describe("of one's own", () => {
  it.scoped("add holds a connection until its Scope closes", () =>
    Effect.gen(function* () {
      const connections = yield* Connections.make
      const [one, two] = [yield* TestTransport.connections(), yield* TestTransport.connections()]
      const scope = yield* Scope.make()
      yield* connections.add(one.server)
      yield* connections.publish("first")
      yield* Scope.extend(connections.add(two.server), scope)
      yield* connections.publish("second")
      assert.deepStrictEqual(yield* connections.list, [one.server, two.server])
      yield* Scope.close(scope, Exit.void)
      yield* connections.publish("third")
      assert.deepStrictEqual(yield* connections.list, [one.server])
      for (const text of ["first", "second", "third"]) assert.strictEqual(yield* one.client.take, text)
      assert.strictEqual(yield* two.client.take, "second")
      yield* Effect.all([one.client.close(), two.client.close()])
    })
  )

  it.scoped("as a Layer", () =>
    Effect.gen(function* () {
      const connections = yield* Connections.Connections
      assert.strictEqual(yield* connections.count, 0)
      yield* connections.publish("to nobody")
      yield* connections.closeAll()
    }).pipe(Effect.provide(Connections.layer))
  )
})
