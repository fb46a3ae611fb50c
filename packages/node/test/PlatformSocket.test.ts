/** Connections as Sockets of the platform, over real servers: RPC, applications that use `request.upgrade`, TCP Sockets. */
import * as Http from "node:http"
import * as Net from "node:net"
import {
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse,
  Socket
} from "@effect/platform"
import { NodeSocket } from "@effect/platform-node"
import { Rpc, RpcClient, RpcGroup, RpcSerialization, RpcServer } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Connection, PlatformSocket, TestTransport, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeTransport, NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Chunk, Deferred, Effect, Fiber, Layer, Queue, Schema, Stream } from "effect"
import { connect, handshake, open, portOf, type Routes, serve } from "./support.js"

// ---- RPC ---------------------------------------------------------------------------------------------------------------

class Calls extends RpcGroup.make(
  Rpc.make("Who", { success: Schema.String }),
  Rpc.make("Double", { payload: { value: Schema.Number }, success: Schema.Number }),
  Rpc.make("Count", { payload: { to: Schema.Number }, success: Schema.Number, stream: true }),
  Rpc.make("Fail", { error: Schema.String })
) {}

const Handlers = Calls.toLayer({
  Who: (_, { headers }) => Effect.succeed(headers["x-user"] ?? "nobody"),
  Double: ({ value }) => Effect.succeed(value * 2),
  Count: ({ to }) => Stream.range(1, to),
  Fail: () => Effect.fail("as told")
})

/** What every transport of RPC must carry. */
const talk = (who: string) =>
  Effect.gen(function* () {
    const client = yield* RpcClient.make(Calls)
    assert.strictEqual(yield* client.Who(), who)
    const many = yield* Effect.all(
      Array.from({ length: 50 }, (_, value) => client.Double({ value })),
      { concurrency: "unbounded" }
    )
    assert.deepStrictEqual(
      many,
      Array.from({ length: 50 }, (_, value) => value * 2)
    )
    const counted = yield* Stream.runCollect(client.Count({ to: 300 }))
    assert.deepStrictEqual(
      Chunk.toReadonlyArray(counted),
      Array.from({ length: 300 }, (_, i) => i + 1)
    )
    assert.strictEqual(yield* Effect.flip(client.Fail()), "as told")
    // A stream that is left in the middle, and another one at the same time
    const [some, others] = yield* Effect.all(
      [Stream.runCollect(Stream.take(client.Count({ to: 100_000 }), 5)), Stream.runCollect(client.Count({ to: 20 }))],
      { concurrency: "unbounded" }
    )
    assert.deepStrictEqual([some.length, others.length], [5, 20])
  })

const clientLayer = (open: Effect.Effect<Connection.Connection, unknown, any>, retry = false) =>
  RpcClient.layerProtocolSocket({ retryTransientErrors: retry }).pipe(
    Layer.provide(Layer.effect(Socket.Socket, PlatformSocket.make(open) as Effect.Effect<Socket.Socket>)),
    Layer.provide(RpcSerialization.layerNdjson)
  )

/** RPC's own WebSocket route, which knows nothing of this library. */
const rpcRoute = Layer.unwrapScoped(
  Effect.gen(function* () {
    const { httpApp, protocol } = yield* RpcServer.makeProtocolWithHttpAppWebsocket
    const server = RpcServer.layer(Calls).pipe(
      Layer.provide(Handlers),
      Layer.provide(Layer.succeed(RpcServer.Protocol, protocol))
    )
    return Layer.merge(server, HttpLayerRouter.add("GET", "/rpc", httpApp))
  })
).pipe(Layer.provide(RpcSerialization.layerNdjson))

describe("RPC", () => {
  it.scopedLive("server and client over a real server, with the headers of the handshake", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Layer.mergeAll(rpcRoute, PlatformSocket.layerUpgrade()) as Routes)
      const dial = NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/rpc`, { headers: { "x-user": "Ada" } })
      yield* Effect.scoped(Effect.provide(talk("Ada"), clientLayer(dial)))
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("a client connects again when its connection is lost", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Layer.mergeAll(rpcRoute, PlatformSocket.layerUpgrade()) as Routes)
      const dialed = yield* Queue.unbounded<Connection.Connection>()
      const dial = Effect.tap(NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/rpc`), (socket) =>
        Queue.offer(dialed, socket)
      )
      yield* Effect.gen(function* () {
        const client = yield* RpcClient.make(Calls)
        assert.strictEqual(yield* client.Double({ value: 1 }), 2)
        yield* (yield* Queue.take(dialed)).abort
        yield* Queue.take(dialed)
        const again = Effect.retry(client.Double({ value: 2 }), { while: () => true })
        assert.strictEqual(yield* again, 4)
      }).pipe(Effect.scoped, Effect.provide(clientLayer(dial, true)))
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("a client that is lost in the middle of a stream leaves nothing behind", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Layer.mergeAll(rpcRoute, PlatformSocket.layerUpgrade()) as Routes)
      const dialed = yield* Deferred.make<Connection.Connection>()
      const dial = Effect.tap(NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/rpc`), (socket) =>
        Deferred.succeed(dialed, socket)
      )
      yield* Effect.gen(function* () {
        const client = yield* RpcClient.make(Calls)
        const lost = yield* Effect.exit(
          Stream.runForEach(client.Count({ to: 1_000_000 }), (n) =>
            n === 100 ? Effect.flatMap(Deferred.await(dialed), ({ abort }) => abort) : Effect.void
          )
        )
        assert.isTrue(lost._tag === "Failure")
      }).pipe(Effect.scoped, Effect.provide(clientLayer(dial)))
      yield* serving.sockets(0)
      assert.deepStrictEqual(
        serving.logs.filter(({ level }) => level._tag === "Error" || level._tag === "Fatal"),
        []
      )
    })
  )

  it.scopedLive("server and client in memory", () =>
    Effect.gen(function* () {
      const { client, server } = yield* TestTransport.connections({ chunking: 7 })
      const socketServer = Layer.unwrapScoped(
        Effect.gen(function* () {
          const { httpApp, protocol } = yield* RpcServer.makeProtocolWithHttpAppWebsocket
          const request = {
            headers: { "x-user": "memory" },
            upgrade: Effect.succeed(PlatformSocket.fromConnection(server))
          } as unknown as HttpServerRequest.HttpServerRequest
          yield* Effect.forkScoped(
            Effect.provideService(Effect.scoped(httpApp), HttpServerRequest.HttpServerRequest, request)
          )
          return RpcServer.layer(Calls).pipe(
            Layer.provide(Handlers),
            Layer.provide(Layer.succeed(RpcServer.Protocol, protocol))
          )
        })
      ).pipe(Layer.provide(RpcSerialization.layerNdjson))
      yield* Layer.build(socketServer)
      const inMemory = RpcClient.layerProtocolSocket().pipe(
        Layer.provide(Layer.succeed(Socket.Socket, PlatformSocket.fromConnection(client))),
        Layer.provide(RpcSerialization.layerNdjson)
      )
      yield* Effect.scoped(Effect.provide(talk("memory"), inMemory))
    })
  )
})

// ---- request.upgrade ---------------------------------------------------------------------------------------------------

/** An application as it is written today. */
const existing = Layer.mergeAll(
  HttpLayerRouter.add(
    "GET",
    "/echo",
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const socket = yield* request.upgrade
      const write = yield* socket.writer
      yield* socket.runRaw((message) => write(message)).pipe(Effect.catchAll(() => Effect.void))
      return HttpServerResponse.empty()
    })
  ),
  HttpLayerRouter.add(
    "GET",
    "/channel",
    Stream.never.pipe(
      Stream.pipeThroughChannel(HttpServerRequest.upgradeChannel()),
      Stream.decodeText(),
      Stream.runHead,
      Effect.as(HttpServerResponse.empty())
    )
  ),
  HttpLayerRouter.use((router) =>
    router.prefixed("/deep").add(
      "GET",
      "/who",
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        const write = yield* socket.writer
        const tell = Effect.orDie(write(`${request.url} ${request.originalUrl} ${request.headers["x-user"]}`))
        yield* Effect.ignore(socket.runRaw(() => tell))
        return HttpServerResponse.empty()
      })
    )
  ),
  HttpLayerRouter.add("GET", "/plain", HttpServerResponse.text("plain"))
)

const serveExisting = (options?: PlatformSocket.UpgradeOptions) =>
  serve(Layer.mergeAll(existing, PlatformSocket.layerUpgrade(options)) as unknown as Routes)

describe("layerUpgrade", () => {
  it.scopedLive("puts our engine under request.upgrade of an existing application", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting({
        maxMessageBytes: 100,
        subprotocols: ["b"],
        responseHeaders: { "x-by": "effect-ws" },
        heartbeat: false
      })
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/echo`, {
        subprotocols: ["a", "b"],
        heartbeat: false
      })
      assert.deepStrictEqual([socket.subprotocol, socket.response?.headers["x-by"]], ["b", "effect-ws"])
      for (const message of ["text", Uint8Array.of(1, 2), ""]) {
        yield* socket.send(message)
        assert.deepStrictEqual(yield* socket.take, message)
      }
      // The limit is ours: ws would have taken 100 MiB.
      yield* socket.send(new Uint8Array(101))
      yield* Effect.exit(Stream.runDrain(socket.messages))
      assert.strictEqual((yield* socket.closed).code, 1009)
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("in a prefixed route, and with upgradeChannel", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting({ heartbeat: false })
      const who = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/deep/who`, {
        headers: { "x-user": "Ada" },
        heartbeat: false
      })
      yield* who.send("?")
      assert.strictEqual(yield* who.take, "/who /deep/who Ada")
      const channel = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/channel`, { heartbeat: false })
      yield* channel.send("one")
      yield* Stream.runDrain(channel.messages)
      assert.strictEqual((yield* channel.closed).clean, true)
    })
  )

  it.scopedLive("a frame that came with the request is not lost", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting()
      const { clientText } = yield* Effect.promise(() => import("./support.js"))
      const client = yield* connect(serving.port)
      yield* client.write(Buffer.concat([Buffer.from(handshake("/echo")), clientText("early")]))
      assert.strictEqual((yield* client.answer).status, 101)
      assert.strictEqual(yield* client.text, "early")
      yield* client.close()
    })
  )

  const refusals = [
    ["a bad key", { "Sec-WebSocket-Key": "short" }, 400],
    ["a foreign page", { Origin: "https://evil.example" }, 403],
    ["another version", { "Sec-WebSocket-Version": "7" }, 426]
  ] as const
  for (const [name, headers, status] of refusals) {
    it.scopedLive(`${name} is answered with ${status}, and no handler stays behind`, () =>
      Effect.gen(function* () {
        const serving = yield* serveExisting()
        const client = yield* connect(serving.port)
        assert.strictEqual((yield* client.upgrade("/echo", headers)).status, status)
        yield* client.end
        yield* serving.sockets(0)
      })
    )
  }

  it.scopedLive("a reset before the handler upgrades does no harm, nor does one after", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting()
      const before = yield* connect(serving.port)
      yield* before.write(handshake("/echo"))
      yield* before.reset
      const after = yield* open(serving.port, "/echo")
      yield* after.sendText("there?")
      assert.strictEqual(yield* after.text, "there?")
      yield* after.reset
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("shutdown closes with 1001", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting()
      const client = yield* open(serving.port, "/echo")
      yield* client.sendText("there?")
      assert.strictEqual(yield* client.text, "there?")
      const stopping = yield* Effect.fork(serving.stop)
      assert.strictEqual((yield* client.closeFrame).code, 1001)
      yield* client.sendClose(1001)
      yield* client.end
      yield* Fiber.join(stopping)
    })
  )

  it.scopedLive("requests that are no upgrade stay what they are", () =>
    Effect.gen(function* () {
      const serving = yield* serveExisting()
      const get = (path: string) => Effect.promise(() => fetch(`http://127.0.0.1:${serving.port}${path}`))
      assert.strictEqual(
        yield* Effect.flatMap(get("/plain"), (response) => Effect.promise(() => response.text())),
        "plain"
      )
      assert.strictEqual((yield* get("/echo")).status, 400)
    })
  )

  it.scopedLive("upgradeMiddleware for one application of HttpRouter", () =>
    Effect.gen(function* () {
      let server!: Http.Server
      const app = HttpRouter.empty.pipe(
        HttpRouter.get(
          "/echo",
          Effect.gen(function* () {
            const socket = yield* Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ upgrade }) => upgrade)
            const write = yield* socket.writer
            yield* Effect.ignore(socket.runRaw((message) => write(message)))
            return HttpServerResponse.empty()
          }).pipe(Effect.scoped)
        ),
        PlatformSocket.upgradeMiddleware({ maxMessageBytes: 5, heartbeat: false }),
        HttpServer.serve()
      )
      yield* Layer.build(
        app.pipe(
          Layer.provide(NodeWebSocketServer.layer(() => (server = Http.createServer()), { port: 0, host: "127.0.0.1" }))
        )
      )
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${portOf(server)}/echo`, { heartbeat: false })
      yield* socket.send("small")
      assert.strictEqual(yield* socket.take, "small")
      yield* socket.send("larger")
      yield* Effect.exit(Stream.runDrain(socket.messages))
      assert.strictEqual((yield* socket.closed).code, 1009)
    })
  )
})

// ---- TCP Sockets -------------------------------------------------------------------------------------------------------

describe("toTransport", () => {
  it.scopedLive("a client over NodeSocket against a route", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", {}, (socket) => Stream.run(socket.messages, socket.sink))
      )
      const net = yield* NodeSocket.makeNet({ port: serving.port, host: "127.0.0.1" })
      const socket = yield* WebSocketClient.overTransport(yield* PlatformSocket.toTransport(net), {
        url: `ws://127.0.0.1:${serving.port}/echo`
      })
      const large = new Uint8Array(500_000).fill(7)
      yield* socket.send(large)
      assert.deepStrictEqual(yield* socket.take, large)
      const { clean, code } = yield* socket.close()
      assert.deepStrictEqual([clean, code], [true, 1000])
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("tells a reset from an end", () =>
    Effect.gen(function* () {
      const accepted = yield* Deferred.make<Net.Socket>()
      const server = yield* Effect.acquireRelease(
        Effect.async<Net.Server>((resume) => {
          const server = Net.createServer((socket) => Deferred.unsafeDone(accepted, Effect.succeed(socket)))
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const net = yield* NodeSocket.makeNet({ port: portOf(server), host: "127.0.0.1" })
      const socket = yield* Connection.make(yield* PlatformSocket.toTransport(net), {
        role: "client",
        heartbeat: false
      })
      const peer = yield* Connection.make(NodeTransport.fromDuplex(yield* Deferred.await(accepted)), { role: "server" })
      yield* peer.send("x")
      assert.strictEqual(yield* socket.take, "x")
      yield* peer.abort
      const error = yield* Effect.flip(socket.take)
      assert.strictEqual(error._tag, "ConnectionClosed")
      assert.strictEqual((yield* socket.closed).code, 1006)
    })
  )
})
