/** Servers: shutting down, their layers, TLS, and what happens to requests at the wrong moment. */
import { readFileSync } from "node:fs"
import * as Http from "node:http"
import * as Https from "node:https"
import * as Tls from "node:tls"
import { HttpClient, HttpLayerRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Config, ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, LogLevel, Queue, Scope, Stream } from "effect"
import { connect, handshake, open, portOf, serve } from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)
const Echo = WebSocketRoute.layer("/echo", {}, echo)
const quietly = { disableListenLog: true, disableLogger: true } as const

describe("shutdown", () => {
  it.scopedLive("tells all connections 1001 at once, and is done when they have answered", () =>
    Effect.gen(function* () {
      const exits = yield* Queue.unbounded<Exit.Exit<unknown, unknown>>()
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/stream", {}, (socket) =>
            Effect.onExit(echo(socket), (exit) => Queue.offer(exits, exit))
          ),
          WebSocketRoute.each("/each", {}, (message, socket) => socket.send(message)),
          WebSocketRoute.layer("/never", {}, () => Effect.never)
        ),
        // Whoever does not tell all at once would wait for this.
        { drainTimeout: "1 hour" }
      )
      const clients = yield* Effect.forEach(
        ["/stream", "/stream", "/each", "/each", "/never"].flatMap((path) => Array.from({ length: 5 }, () => path)),
        (path) => open(serving.port, path)
      )
      const stopping = yield* Effect.fork(serving.stop)
      for (const client of clients) assert.deepStrictEqual(yield* client.closeFrame, { code: 1001, reason: "" })
      for (const client of clients) {
        yield* client.sendClose(1001)
        yield* client.end
      }
      yield* Fiber.join(stopping)
      for (const client of clients) yield* client.ended
      for (let i = 0; i < 10; i++) assert.isTrue(Exit.isInterrupted(yield* Queue.take(exits)))
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("lets handlers say good-bye first", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/a", {}, (socket) =>
          Effect.onInterrupt(Effect.never, () => Effect.ignore(socket.send("bye")))
        )
      )
      const client = yield* open(serving.port, "/a")
      const stopping = yield* Effect.fork(serving.stop)
      assert.strictEqual(yield* client.text, "bye")
      assert.strictEqual((yield* client.closeFrame).code, 1001)
      yield* client.sendClose(1001)
      yield* client.end
      yield* Fiber.join(stopping)
    })
  )

  it.scopedLive("cuts who does not answer when the drain timeout is over", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo, { drainTimeout: 20 })
      const silent = yield* open(serving.port, "/echo")
      const stalled = yield* open(serving.port, "/echo")
      stalled.socket.pause()
      yield* serving.stop
      yield* serving.sockets(0)
      assert.strictEqual((yield* silent.closeFrame).code, 1001)
      yield* silent.ended
    })
  )

  it.scopedLive("cuts the connection of a handler that can't be interrupted", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const serving = yield* serve(
        WebSocketRoute.layer("/a", {}, () => Effect.uninterruptible(Deferred.await(release))),
        { drainTimeout: 20 }
      )
      const client = yield* open(serving.port, "/a")
      yield* serving.stop
      yield* client.ended
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.scopedLive("answers 503 while it drains, to handshakes and ordinary requests", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        Layer.merge(Echo, HttpLayerRouter.add("GET", "/health", HttpServerResponse.text("ok"))),
        { drainTimeout: "1 hour" }
      )
      const idle = yield* open(serving.port, "/echo")
      const early = yield* connect(serving.port)
      const ordinary = yield* connect(serving.port)
      const stopping = yield* Effect.fork(serving.stop)
      assert.strictEqual((yield* idle.closeFrame).code, 1001)
      const answer = yield* early.upgrade("/echo")
      assert.deepInclude(answer, { status: 503, body: "The server is shutting down.\n" })
      assert.strictEqual(answer.headers["retry-after"], "1")
      yield* early.end
      yield* early.ended
      yield* ordinary.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.strictEqual((yield* ordinary.answer).status, 503)
      yield* ordinary.ended
      yield* ordinary.end
      yield* idle.sendClose(1001)
      yield* idle.end
      yield* Fiber.join(stopping)
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("ends a handshake that is not decided", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const exit = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const serving = yield* serve(
        WebSocketRoute.layer(
          "/slow",
          {
            accept: () =>
              Effect.onExit(Effect.zipRight(Deferred.succeed(began, undefined), Effect.never), (how) =>
                Deferred.succeed(exit, how)
              )
          },
          echo
        )
      )
      const client = yield* connect(serving.port)
      yield* client.write(handshake("/slow"))
      yield* Deferred.await(began)
      const stopping = yield* Effect.fork(serving.stop)
      assert.isTrue(Exit.isInterrupted(yield* Deferred.await(exit)))
      assert.strictEqual((yield* client.answer).status, 503)
      yield* client.end
      yield* Fiber.join(stopping)
    })
  )

  it.scopedLive("close of an attached server does the same without a router", () =>
    Effect.gen(function* () {
      const server = NodeWebSocketServer.attach(Http.createServer, { drainTimeout: "1 hour" })()
      const scope = yield* Effect.scope
      const layer = HttpLayerRouter.serve(Echo, quietly).pipe(
        Layer.provide(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" }))
      )
      yield* Layer.buildWithScope(layer, scope)
      const client = yield* open(portOf(server), "/echo")
      const closed = yield* Deferred.make<void>()
      server.close(() => Deferred.unsafeDone(closed, Exit.void))
      assert.strictEqual((yield* client.closeFrame).code, 1001)
      yield* client.sendClose(1001)
      yield* client.end
      yield* Deferred.await(closed)
    })
  )
})

describe("layers", () => {
  it.scopedLive("layerConfig reads the options of listen and ours", () =>
    Effect.gen(function* () {
      let server: Http.Server | undefined
      const layer = HttpLayerRouter.serve(
        WebSocketRoute.layer("/a", {}, () => Effect.never),
        quietly
      ).pipe(
        Layer.provide(
          NodeWebSocketServer.layerConfig(() => (server = Http.createServer()), {
            port: Config.integer("PORT"),
            host: Config.string("HOST"),
            drainTimeout: Config.duration("DRAIN")
          })
        ),
        Layer.provide(
          Layer.setConfigProvider(
            ConfigProvider.fromMap(
              new Map([
                ["PORT", "0"],
                ["HOST", "127.0.0.1"],
                ["DRAIN", "20 millis"]
              ])
            )
          )
        )
      )
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(layer, scope)
      const client = yield* open(portOf(server!), "/a")
      // A client that does not answer is cut after the configured time: leaving the Scope ends.
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* client.closeFrame).code, 1001)
    })
  )

  it.effect("layerConfig fails with the error of Config", () =>
    Effect.gen(function* () {
      const layer = NodeWebSocketServer.layerConfig(Http.createServer, { port: Config.integer("PORT") })
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer))).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map()))
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.include(String(exit), "PORT")
    })
  )

  const Test = HttpLayerRouter.serve(
    Layer.merge(Echo, HttpLayerRouter.add("GET", "/hello", HttpServerResponse.text("hello"))),
    quietly
  ).pipe(Layer.provideMerge(NodeWebSocketServer.layerTest), Layer.provideMerge(NodeWebSocketClient.layer))

  it.scopedLive("layerTest: a free port, an HttpClient for it, and its address", () =>
    Effect.gen(function* () {
      const answer = yield* HttpClient.get("/hello")
      assert.strictEqual(yield* answer.text, "hello")
      const url = yield* HttpServer.addressFormattedWith((address) => Effect.succeed(address.replace("http", "ws")))
      const socket = yield* WebSocketClient.connect(`${url}/echo`)
      yield* socket.send("there and back")
      assert.strictEqual(yield* socket.take, "there and back")
    }).pipe(Effect.provide(Test))
  )

  it.scopedLive("two of them do not share anything", () =>
    Effect.gen(function* () {
      const port = Effect.map(HttpServer.HttpServer, ({ address }) =>
        address._tag === "TcpAddress" ? address.port : 0
      )
      const first = yield* Layer.build(NodeWebSocketServer.layerTest).pipe(
        Effect.flatMap((c) => Effect.provide(port, c))
      )
      const second = yield* Layer.build(Layer.fresh(NodeWebSocketServer.layerTest)).pipe(
        Effect.flatMap((c) => Effect.provide(port, c))
      )
      assert.notStrictEqual(first, second)
    })
  )
})

describe("over TLS", () => {
  const fixture = (name: string) => readFileSync(new URL(`./fixtures/${name}`, import.meta.url))
  const tls = { cert: fixture("server.crt"), key: fixture("server.key") }
  const ca = fixture("authority.crt")

  it.scopedLive("routes work the same", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo, { createServer: () => Https.createServer(tls) })
      const client = yield* connect(serving.port, () =>
        Tls.connect({ port: serving.port, host: "127.0.0.1", servername: "localhost", ca })
      )
      assert.strictEqual((yield* client.upgrade("/echo")).status, 101)
      const long = "x".repeat(100_000)
      yield* client.sendText(long)
      assert.strictEqual(yield* client.text, long)
      yield* client.close()
      yield* serving.sockets(0)
      const refused = yield* connect(serving.port, () =>
        Tls.connect({ port: serving.port, host: "127.0.0.1", servername: "localhost", ca })
      )
      assert.strictEqual((yield* refused.upgrade("/echo", { Origin: "https://evil.example" })).status, 403)
      yield* refused.end
      yield* refused.ended
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("with our own client, and 1001 at shutdown", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo, { createServer: () => Https.createServer(tls), drainTimeout: "1 hour" })
      const socket = yield* NodeWebSocketClient.connect(`wss://localhost:${serving.port}/echo`, { tls: { ca } })
      yield* socket.send("secret")
      assert.strictEqual(yield* socket.take, "secret")
      const stopping = yield* Effect.fork(serving.stop)
      assert.strictEqual((yield* socket.closed).code, 1001)
      yield* Fiber.join(stopping)
    })
  )

  it.scopedLive("no answer for who does not speak TLS", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo, { createServer: () => Https.createServer(tls) })
      const client = yield* connect(serving.port)
      yield* client.write(handshake("/echo"))
      assert.isUndefined(yield* client.bytes)
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("a client that is reset inside a handshake harms nobody", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo, { createServer: () => Https.createServer(tls) })
      const broken = yield* connect(serving.port)
      yield* broken.write(handshake("/echo"))
      yield* broken.ended
      yield* broken.end
      yield* serving.sockets(0)
    })
  )
})

describe("a request at the wrong moment", () => {
  it.scopedLive("before anybody serves: 503", () =>
    Effect.gen(function* () {
      let server: Http.Server | undefined
      yield* Layer.build(
        NodeWebSocketServer.layer(() => (server = Http.createServer()), { port: 0, host: "127.0.0.1" })
      )
      const client = yield* connect(portOf(server!))
      assert.strictEqual((yield* client.upgrade("/echo")).status, 503)
      const ordinary = yield* connect(portOf(server!))
      yield* ordinary.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.strictEqual((yield* ordinary.answer).status, 503)
    })
  )

  it.scopedLive("behind a request that is not answered yet: both end, and nothing stays", () =>
    Effect.gen(function* () {
      const exit = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const serving = yield* serve(
        Layer.merge(
          Echo,
          HttpLayerRouter.add(
            "GET",
            "/slow",
            Effect.onExit(Effect.never, (how) => Deferred.succeed(exit, how))
          )
        )
      )
      const client = yield* connect(serving.port)
      yield* client.write(`GET /slow HTTP/1.1\r\nHost: x\r\n\r\n${handshake("/echo")}`)
      assert.isUndefined(yield* client.bytes)
      assert.isTrue(Exit.isInterrupted(yield* Deferred.await(exit)))
      yield* client.end
      yield* serving.sockets(0)
      const other = yield* open(serving.port, "/echo")
      yield* other.close()
      yield* serving.stop
      assert.deepStrictEqual(
        serving.logs.filter(({ level }) => LogLevel.greaterThan(level, LogLevel.Debug)),
        []
      )
    })
  )
})

describe("what the HTTP parser refuses gets", () => {
  const slow = () => Http.createServer({ headersTimeout: 20, connectionsCheckingInterval: 10 })
  const post = (body: string) => `POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${body}`
  const cases: ReadonlyArray<
    readonly [what: string, status: number, body: RegExp, bytes: string, createServer?: () => Http.Server]
  > = [
    ["20 KiB of headers", 431, /headers are too large/, handshake("/echo", { "X-Long": "x".repeat(0x5000) })],
    [
      "2 MiB of headers, still being sent",
      431,
      /headers are too large/,
      handshake("/echo", { "X-Long": "x".repeat(0x200000) })
    ],
    ["a start line of another protocol", 400, /no HTTP\/1.1 request/, "SSH-2.0-OpenSSH_9.6\r\n"],
    ["a method that nobody knows", 400, /no HTTP\/1.1 request/, "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["a header without a name", 400, /no HTTP\/1.1 request/, "GET / HTTP/1.1\r\n: x\r\n\r\n"],
    ["a chunk without a length", 400, /no HTTP\/1.1 request/, post("z\r\n")],
    ["17 KiB of chunk extensions", 413, /chunk extensions/, post(`1;${"x".repeat(0x4400)}\r\n`)],
    ["a request that does not get on", 408, /not arrive in time/, "GET / HTTP/1.1\r\nHo", slow]
  ]
  // Reads no body, and answers never: the parser is first
  const Hello = HttpLayerRouter.add("*", "/hello", Effect.never)
  for (const [what, status, body, bytes, createServer] of cases) {
    it.scopedLive(`${status} with a sentence: ${what}`, () =>
      Effect.gen(function* () {
        const serving = yield* serve(Layer.merge(Echo, Hello), createServer === undefined ? {} : { createServer })
        const client = yield* connect(serving.port)
        yield* client.write(bytes)
        const answer = yield* client.answer
        assert.strictEqual(answer.status, status)
        assert.match(answer.body, body)
        assert.deepInclude(answer.headers, { connection: "close", "content-type": "text/plain" })
        assert.strictEqual(yield* client.ended, "end")
        yield* client.end
        yield* serving.sockets(0)
        const other = yield* open(serving.port, "/echo")
        assert.strictEqual((yield* other.close()).code, 1000)
      })
    )
  }

  it.scopedLive("nothing from us when the program answers itself", () =>
    Effect.gen(function* () {
      const createServer = () =>
        Http.createServer().on("clientError", (error: NodeJS.ErrnoException, socket) => {
          socket.end(`HTTP/1.1 418 Teapot\r\nContent-Length: ${error.code!.length}\r\n\r\n${error.code}`)
        })
      const serving = yield* serve(Echo, { createServer })
      const client = yield* connect(serving.port)
      yield* client.write("SSH-2.0-OpenSSH_9.6\r\n")
      assert.deepInclude(yield* client.answer, { status: 418, body: "HPE_INVALID_METHOD" })
      assert.isUndefined(yield* client.bytes)
    })
  )

  it.scopedLive("no second answer inside of one that was begun", () =>
    Effect.gen(function* () {
      const stream = HttpServerResponse.stream(Stream.concat(Stream.make(new Uint8Array([0x68, 0x69])), Stream.never))
      const serving = yield* serve(HttpLayerRouter.add("GET", "/stream", stream))
      const client = yield* connect(serving.port)
      yield* client.write("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.strictEqual((yield* client.answer).status, 200)
      yield* client.write("SSH-2.0-OpenSSH_9.6\r\n")
      let rest = ""
      for (let chunk = yield* client.bytes; chunk !== undefined; chunk = yield* client.bytes) rest += chunk.toString()
      assert.notInclude(rest, "HTTP/1.1")
      yield* client.end
      yield* serving.sockets(0)
    })
  )
})
