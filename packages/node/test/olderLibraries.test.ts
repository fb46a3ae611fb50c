/** Options and properties of ws and faye-websocket that no other file tests, by what takes their place (docs/coming-from.md). */
import { once } from "node:events"
import * as Http from "node:http"
import type * as Net from "node:net"
import { Cookies, HttpLayerRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { ClientAddress, type Connection, type Message, PlatformSocket, Upgrade, WebSocketRoute } from "@effect-ws/core"
import { NodeUpgrade, NodeWebSocketClient, NodeWebSocketServer, PermessageDeflate } from "@effect-ws/node"
import { Deferred, Effect, Fiber, Layer, Queue, type Scope, Stream } from "effect"
import { WebSocket, WebSocketServer } from "ws"
import { open, portOf, type Routes, serve } from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)
const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))

describe("servers", () => {
  it.scopedLive("a listener of one's own: host, port, backlog; and its address", () =>
    Effect.gen(function* () {
      let listened: unknown
      const createServer = () => {
        const server = Http.createServer()
        const listen = server.listen.bind(server)
        server.listen = ((options: Net.ListenOptions, done: () => void) => {
          listened = options
          return listen(options, done)
        }) as typeof server.listen
        return server
      }
      const context = yield* Layer.build(
        HttpLayerRouter.serve(WebSocketRoute.layer("/", {}, echo), {
          disableListenLog: true,
          disableLogger: true
        }).pipe(Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1", backlog: 7 })))
      )
      assert.include(listened, { port: 0, host: "127.0.0.1", backlog: 7 })
      const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
      assert.strictEqual(address._tag, "TcpAddress")
      if (address._tag !== "TcpAddress") return
      assert.strictEqual(address.hostname, "127.0.0.1")
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${address.port}/`)
      yield* socket.send("hello")
      assert.strictEqual(yield* socket.take, "hello")
    })
  )

  it.scopedLive("an address that is in use: the layer fails", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(WebSocketRoute.layer("/", {}, echo))
      const second = Layer.build(NodeWebSocketServer.layer(Http.createServer, { port, host: "127.0.0.1" }))
      const error = yield* Effect.flip(second)
      assert.deepStrictEqual(
        [error._tag, (error.cause as { readonly code?: string }).code],
        ["ServeError", "EADDRINUSE"]
      )
    })
  )

  it.scopedLive("what the probes of watershed count: operators on both sides of a handler", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const probe = (direction: string) => (message: Message.Message) =>
        Effect.sync(() => seen.push(`${direction} ${message}`))
      const { port } = yield* serve(
        WebSocketRoute.layer("/", {}, ({ messages, sink }) =>
          Stream.run(messages.pipe(Stream.tap(probe("recv")), Stream.map(String), Stream.tap(probe("send"))), sink)
        )
      )
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`)
      yield* socket.send("a")
      yield* socket.take
      assert.deepStrictEqual(seen, ["recv a", "send a"])
    })
  )

  const compressing = { extensions: [PermessageDeflate.make({ threshold: 0 })], heartbeat: false } as const
  const ways: Readonly<Record<string, Effect.Effect<number, never, Scope.Scope>>> = {
    "a plain server": Effect.gen(function* () {
      const server = Http.createServer()
      yield* Effect.acquireRelease(
        Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening")),
        () => Effect.sync(() => server.close())
      )
      yield* NodeUpgrade.serve(server, compressing, echo)
      return portOf(server)
    }),
    "request.upgrade": Effect.map(
      serve(
        Layer.mergeAll(
          HttpLayerRouter.add(
            "GET",
            "/",
            Effect.gen(function* () {
              const socket = yield* (yield* HttpServerRequest.HttpServerRequest).upgrade
              const write = yield* socket.writer
              yield* Effect.ignore(socket.runRaw((message) => write(message)))
              return HttpServerResponse.empty()
            })
          ),
          PlatformSocket.layerUpgrade(compressing)
        ) as unknown as Routes
      ),
      ({ port }) => port
    )
  }
  for (const [name, listening] of Object.entries(ways)) {
    it.scopedLive(`perMessageDeflate of ws, agreed on with ${name}`, () =>
      Effect.gen(function* () {
        const socket = new WebSocket(`ws://127.0.0.1:${yield* listening}/`)
        yield* Effect.promise(() => once(socket, "open"))
        assert.strictEqual(socket.extensions, "permessage-deflate")
        const text = "the same again and again, ".repeat(100)
        socket.send(text)
        const [data] = yield* Effect.promise(() => once(socket, "message"))
        assert.strictEqual(String(data), text)
        socket.close()
        yield* Effect.promise(() => once(socket, "close"))
      })
    )
  }

  it.scopedLive("the response's headers before they are sent: a middleware changes those of the 101", () =>
    Effect.gen(function* () {
      const stamped = HttpLayerRouter.middleware(
        (app) =>
          Effect.gen(function* () {
            const { url } = yield* HttpServerRequest.HttpServerRequest
            const response = yield* app
            return response.status === 101 ? HttpServerResponse.setHeader(response, "x-path", url) : response
          }),
        { global: true }
      )
      const { port } = yield* serve(Layer.mergeAll(WebSocketRoute.layer("/a", {}, echo), stamped) as Routes)
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/a`)
      assert.strictEqual(socket.response?.headers["x-path"], "/a")
    })
  )

  it.scopedLive("verification by a middleware, before the route is asked", () =>
    Effect.gen(function* () {
      const verified = HttpLayerRouter.middleware(
        (app) =>
          Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
            Upgrade.isWebSocket(request) && request.headers.authorization !== "let me in"
              ? Effect.succeed(HttpServerResponse.text("who are you?", { status: 401 }))
              : app
          ),
        { global: true }
      )
      const { port } = yield* serve(Layer.mergeAll(WebSocketRoute.layer("/a", {}, echo), verified) as Routes)
      const refused = yield* Effect.flip(NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/a`))
      assert.deepStrictEqual([refused.status, refused.body], [401, "who are you?"])
      yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/a`, { headers: { authorization: "let me in" } })
    })
  )

  it.scopedLive("the client's address behind proxies, and whether it is secure", () =>
    Effect.gen(function* () {
      const clients = ClientAddress.make({ trusted: ["127.0.0.1"] })
      const { port } = yield* serve(
        WebSocketRoute.layer("/", {}, (socket, { request }) => socket.send(JSON.stringify(clients.of(request))))
      )
      const ask = (headers: Record<string, string>) =>
        Effect.gen(function* () {
          const client = yield* open(port, "/", headers)
          const { address, secure } = JSON.parse(yield* client.text)
          yield* client.close()
          return [address, secure]
        })
      assert.deepStrictEqual(yield* ask({}), ["127.0.0.1", false])
      assert.deepStrictEqual(yield* ask({ "X-Forwarded-For": "6.6.6.6, 198.51.100.1", "X-Forwarded-Proto": "https" }), [
        "198.51.100.1",
        true
      ])
    })
  )
})

describe("clients", () => {
  it.scopedLive("the response's headers, each cookie apart", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(
        WebSocketRoute.layer(
          "/",
          {
            accept: () =>
              Effect.succeed(
                WebSocketRoute.accept(undefined, {
                  headers: { "x-a": "1" },
                  cookies: Cookies.fromIterable([
                    Cookies.unsafeMakeCookie("a", "1", { expires: new Date(0) }),
                    Cookies.unsafeMakeCookie("b", "2")
                  ])
                })
              )
          },
          (socket) => socket.send(String(socket.response))
        )
      )
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`)
      const { headers, setCookies, status } = socket.response!
      assert.deepStrictEqual([status, headers["x-a"], setCookies.length], [101, "1", 2])
      assert.deepStrictEqual(Cookies.toRecord(Cookies.fromSetCookie(setCookies)), { a: "1", b: "2" })
      // At the server there is none.
      assert.strictEqual(yield* socket.take, "undefined")
    })
  )

  it.scopedLive("a response that is no 101: status, headers and body", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = Http.createServer().on("upgrade", (_, socket) =>
            socket.end("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlater")
          )
          await once(server.listen(0, "127.0.0.1"), "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const error = yield* Effect.flip(NodeWebSocketClient.connect(`ws://127.0.0.1:${portOf(server)}/`))
      assert.deepStrictEqual(
        [error.phase, error.reason, error.status, error.headers?.["retry-after"], error.body],
        ["Response", "Refused", 503, "7", "later"]
      )
    })
  )

  it.scopedLive("options of net.connect (net of faye-websocket): lookup and localAddress", () =>
    Effect.gen(function* () {
      const addresses = yield* Queue.unbounded<string | undefined>()
      const { port, server } = yield* serve(WebSocketRoute.layer("/", {}, echo))
      server.on("connection", (socket: Net.Socket) => addresses.unsafeOffer(socket.remoteAddress))
      const tcp = {
        localAddress: "127.0.0.2",
        lookup: ((_name: string, options: { readonly all?: boolean }, done: (...args: Array<unknown>) => void) =>
          options.all
            ? done(null, [{ address: "127.0.0.1", family: 4 }])
            : done(null, "127.0.0.1", 4)) as Net.LookupFunction
      }
      const socket = yield* NodeWebSocketClient.connect(`ws://elsewhere.example:${port}/`, { tcp })
      yield* socket.send("hello")
      assert.strictEqual(yield* socket.take, "hello")
      assert.strictEqual(yield* Queue.take(addresses), "127.0.0.2")
      // The options are the caller's still (faye-websocket writes into them).
      assert.deepStrictEqual(Object.keys(tcp), ["localAddress", "lookup"])
    })
  )

  it.scopedLive("ping of faye-websocket: the heartbeat pings, and its pongs keep a silent connection alive", () =>
    Effect.gen(function* () {
      const pings = yield* Queue.unbounded<Buffer>()
      const server = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
          server.on("connection", (socket) => socket.on("ping", (data) => pings.unsafeOffer(data)))
          await once(server, "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = server.address() as Net.AddressInfo
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, {
        heartbeat: { interval: "5 millis", timeout: "10 seconds" }
      })
      for (let i = 0; i < 3; i++) yield* Queue.take(pings)
      assert.isTrue(yield* socket.trySend("open still"))
      for (const client of server.clients) client.terminate()
    })
  )

  it.scopedLive("maxLength of faye-websocket: a larger message is refused with 1009, and the program sees why", () =>
    Effect.gen(function* () {
      const seen = yield* Deferred.make<number>()
      const { port } = yield* serve(
        WebSocketRoute.layer("/", {}, (socket) =>
          Effect.gen(function* () {
            yield* socket.send("12345")
            yield* socket.send("123456")
            yield* Effect.ignore(Stream.runDrain(socket.messages))
            yield* Deferred.succeed(seen, (yield* socket.closed).code)
          })
        )
      )
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, { maxMessageBytes: 5 })
      assert.strictEqual(yield* socket.take, "12345")
      const error = yield* Effect.flip(socket.take)
      assert.strictEqual(error._tag, "ProtocolError")
      assert.strictEqual(yield* Deferred.await(seen), 1009)
    })
  )

  it.scopedLive("pause and resume of ws: who does not pull makes the server wait, in bufferedBytes and in send", () =>
    Effect.gen(function* () {
      const server = yield* Deferred.make<Connection.Connection>()
      const { port } = yield* serve(
        WebSocketRoute.layer("/", { heartbeat: false }, (socket) =>
          Effect.zipRight(Deferred.succeed(server, socket), Effect.never)
        ),
        { drainTimeout: 1 }
      )
      const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, { heartbeat: false })
      const socket = yield* Deferred.await(server)
      const message = new Uint8Array(0x40000)
      let sent = 0
      const sending = yield* Effect.fork(Effect.forever(Effect.tap(socket.send(message), () => sent++)))
      const stuck = Effect.gen(function* () {
        const before = sent
        for (let i = 0; i < 50; i++) yield* turn
        return before > 0 && sent === before
      })
      yield* Effect.repeat(stuck, { until: (still) => still })
      assert.isAbove(yield* socket.bufferedBytes, 0)
      assert.isFalse(yield* socket.trySend("no room"))
      const before = sent
      yield* Effect.repeat(client.take, { until: () => sent > before + 10 })
      yield* Fiber.interrupt(sending)
      yield* client.abort
    })
  )

  it.scopedLive("terminate of ws: abort cuts at once, and both ends see 1006", () =>
    Effect.gen(function* () {
      const code = yield* Deferred.make<number>()
      const serving = yield* serve(
        WebSocketRoute.layer("/", {}, (socket) =>
          Effect.flatMap(socket.closed, (info) => Deferred.succeed(code, info.code))
        )
      )
      const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/`)
      yield* client.abort
      assert.strictEqual((yield* client.closed).code, 1006)
      assert.strictEqual(yield* Deferred.await(code), 1006)
      yield* serving.sockets(0)
    })
  )
})
