/** WebSockets on a plain http.Server, on upgraded sockets, and handshakes whose bytes are given away. */
import { once } from "node:events"
import * as Http from "node:http"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, Transport, WebSocketContract, type WebSocketError, WebSocketRoute } from "@effect-ws/core"
import { NodeDuplex, NodeUpgrade, NodeWebSocketClient } from "@effect-ws/node"
import { Context, Deferred, Effect, Exit, Fiber, Queue, Schema, Scope, Stream } from "effect"
import { WebSocket } from "ws"
import {
  clientText,
  connect,
  departures,
  handshake,
  type LogLine,
  logsTo,
  open,
  plainServer,
  sampleAccept,
  sendsWhileAsked,
  serve
} from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)

describe("serve", () => {
  it.scopedLive("several on one server by path; other requests stay the server's", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.serve(server, { path: "/echo" }, echo)
      yield* NodeUpgrade.each(server, { path: "/upper" }, (message, socket) =>
        socket.send(String(message).toUpperCase())
      )
      yield* NodeUpgrade.serve(server, { path: (path) => path.startsWith("/at/") }, (socket, { request }) =>
        socket.send(request.url!)
      )
      const ask = (path: string, text: string) =>
        Effect.gen(function* () {
          const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}${path}`)
          yield* Effect.ignore(socket.send(text))
          return yield* socket.take
        }).pipe(Effect.scoped)
      assert.strictEqual(yield* ask("/echo?x=1", "hello"), "hello")
      assert.strictEqual(yield* ask("/upper", "hello"), "HELLO")
      assert.strictEqual(yield* ask("/at/home?x=1", "hello"), "/at/home?x=1")
      const elsewhere = yield* connect(port)
      const { body, status } = yield* elsewhere.upgrade("/elsewhere")
      assert.deepStrictEqual([status, body], [404, "No WebSocket is served here.\n"])
      const response = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/`))
      assert.strictEqual(yield* Effect.promise(() => response.text()), "an ordinary answer")
    })
  )

  it.scopedLive("a predicate of the path that throws is answered with 500 and logged; the process lives", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const logs: Array<LogLine> = []
      yield* NodeUpgrade.serve(server, { path: (path) => decodeURIComponent(path) === "/ä" }, echo).pipe(
        Effect.provide(logsTo(logs))
      )
      const client = yield* connect(port)
      assert.strictEqual((yield* client.upgrade("/%")).status, 500)
      assert.isTrue(logs.some(({ text }) => text.includes("URIError")))
      assert.strictEqual((yield* Effect.flatMap(connect(port), (other) => other.upgrade("/%C3%A4"))).status, 101)
    })
  )

  it.scopedLive("leaves what it does not know to other listeners", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      server.on("upgrade", (request: Http.IncomingMessage, socket: Duplex) => {
        if (request.url === "/other") socket.end("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n")
      })
      yield* NodeUpgrade.serve(server, { path: "/echo" }, echo)
      assert.strictEqual((yield* (yield* connect(port)).upgrade("/other")).status, 418)
    })
  )

  const refusals: ReadonlyArray<{
    readonly name: string
    readonly options?: NodeUpgrade.Options<unknown>
    readonly headers?: Readonly<Record<string, string | undefined>>
    readonly status: number
    readonly body: string
  }> = [
    {
      name: "a bad key",
      headers: { "Sec-WebSocket-Key": "short" },
      status: 400,
      body: "Sec-WebSocket-Key must be 16 random bytes in base64 (24 characters).\n"
    },
    {
      name: "another version",
      headers: { "Sec-WebSocket-Version": "7" },
      status: 426,
      body: "This server speaks WebSocket version 13 (Sec-WebSocket-Version: 13).\n"
    },
    {
      name: "a foreign page",
      headers: { Origin: "https://evil.example" },
      status: 403,
      body: "Pages of https://evil.example may not connect here.\n"
    },
    {
      name: "what accept refuses",
      options: { accept: () => Effect.fail(new NodeUpgrade.Refusal({ status: 401, body: "who are you?" })) },
      status: 401,
      body: "who are you?\n"
    },
    { name: "a defect of accept", options: { accept: () => Effect.dieMessage("bug") }, status: 500, body: "" },
    {
      name: "a header that can't be sent",
      options: { responseHeaders: { "x-evil": "a\r\nb: c" } },
      status: 500,
      body: ""
    },
    {
      name: "a refusal whose header can't be sent",
      options: { accept: () => Effect.fail(new NodeUpgrade.Refusal({ status: 401, headers: { "x-evil": "a\r\nb" } })) },
      status: 500,
      body: ""
    },
    {
      name: "a choice of subprotocol that throws",
      options: {
        subprotocols: () => {
          throw new Error("bug")
        }
      },
      headers: { "Sec-WebSocket-Protocol": "a" },
      status: 500,
      body: ""
    }
  ]
  for (const { body, headers, name, options, status } of refusals) {
    it.scopedLive(`answers ${name} with ${status}, and logs only what is our own fault`, () =>
      Effect.gen(function* () {
        const { port, server, sockets } = yield* plainServer
        const logs: Array<LogLine> = []
        yield* NodeUpgrade.serve(server, options ?? {}, echo).pipe(Effect.provide(logsTo(logs)))
        const client = yield* connect(port)
        const answer = yield* client.upgrade("/", headers)
        assert.deepStrictEqual([answer.status, answer.body], [status, body])
        yield* client.end
        yield* sockets(0)
        assert.strictEqual(logs.length, status === 500 && !name.startsWith("a refusal") ? 1 : 0)
      })
    )
  }

  it.scopedLive("accept sees the request, with services, and its value reaches the handler", () =>
    Effect.gen(function* () {
      class Users extends Context.Tag("Users")<Users, ReadonlyMap<string, string>>() {}
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.serve(
        server,
        {
          accept: ({ headers }) => Effect.map(Users, (users) => users.get(headers.authorization ?? "")),
          responseHeaders: { "set-cookie": "a=1" },
          subprotocols: (offered, request) => offered.find((name) => name === request.headers["x-wish"])
        },
        (socket, { accepted, subprotocol }) => socket.send(`${accepted} ${subprotocol}`)
      ).pipe(Effect.provideService(Users, new Map([["token", "Ada"]])))
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}`, {
        headers: { authorization: "token", "x-wish": "b" },
        subprotocols: ["a", "b"]
      })
      assert.strictEqual(yield* socket.take, "Ada b")
      assert.deepStrictEqual(socket.response?.setCookies, ["a=1"])
    })
  )

  /** An `accept` that never ends by itself, and tells when it begins and that it was interrupted. */
  const undecided = Effect.map(Effect.all([Deferred.make<void>(), Deferred.make<void>()]), ([asked, interrupted]) => ({
    asked,
    interrupted,
    accept: () =>
      Effect.onInterrupt(Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never), () =>
        Deferred.succeed(interrupted, undefined)
      )
  }))

  for (const [what, leave] of departures) {
    it.scopedLive(`${what} by the client while accept decides interrupts it`, () =>
      Effect.gen(function* () {
        const { port, server, sockets } = yield* plainServer
        const { accept, asked, interrupted } = yield* undecided
        yield* NodeUpgrade.serve(server, { accept }, echo)
        const client = yield* connect(port)
        yield* client.write(handshake("/"))
        yield* Deferred.await(asked)
        yield* leave(client)
        yield* Deferred.await(interrupted)
        yield* sockets(0)
      })
    )
  }

  for (const count of [2, 40]) {
    it.scopedLive(`${count} messages that come while accept decides are not lost`, () =>
      Effect.gen(function* () {
        const { port, server } = yield* plainServer
        const asked = yield* Deferred.make<void>()
        const decide = yield* Deferred.make<void>()
        const accept = () => Effect.zipRight(Deferred.succeed(asked, undefined), Deferred.await(decide))
        yield* NodeUpgrade.serve(server, { accept }, echo)
        yield* sendsWhileAsked(port, count, asked, decide)
      })
    )
  }

  it.scopedLive("leaving the Scope while accept decides interrupts it and answers 503", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const { accept, asked, interrupted } = yield* undecided
      const scope = yield* Scope.make()
      yield* Scope.extend(NodeUpgrade.serve(server, { accept }, echo), scope)
      const client = yield* connect(port)
      yield* client.write(handshake("/"))
      yield* Deferred.await(asked)
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(interrupted)
      assert.strictEqual((yield* client.answer).status, 503)
    })
  )

  it.scopedLive("begun in an uninterruptible region its handlers can be interrupted", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const scope = yield* Scope.make()
      yield* NodeUpgrade.serve(server, { drainTimeout: 100 }, () => Effect.never).pipe(
        Effect.uninterruptible,
        Scope.extend(scope)
      )
      const client = yield* open(port, "/")
      yield* Effect.fork(Scope.close(scope, Exit.void))
      assert.strictEqual((yield* client.closeFrame).code, 1001)
    })
  )

  it.scopedLive("leaving the Scope closes the connections with 1001 and stops; the server goes on", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const scope = yield* Scope.make()
      yield* Scope.extend(NodeUpgrade.serve(server, {}, echo), scope)
      yield* Scope.extend(
        NodeUpgrade.each(server, { path: "/2" }, () => {}),
        scope
      )
      const client = yield* open(port, "/")
      yield* client.sendText("there?")
      assert.strictEqual(yield* client.text, "there?")
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* client.closeFrame, { code: 1001, reason: "" })
      yield* client.sendClose(1001)
      yield* client.ended
      yield* client.end
      yield* Fiber.join(closing)
      assert.strictEqual(server.listenerCount("upgrade"), 0)
      const response = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/`))
      assert.strictEqual(response.status, 200)
    })
  )

  it.scopedLive("each: connections without a message are closed too, by either side", () =>
    Effect.gen(function* () {
      const { port, server, sockets } = yield* plainServer
      const scope = yield* Scope.make()
      yield* Scope.extend(
        NodeUpgrade.each(server, { heartbeat: false }, () => {}),
        scope
      )
      const leaving = yield* open(port, "/")
      assert.strictEqual((yield* leaving.close(1000)).code, 1000)
      const lost = yield* open(port, "/")
      yield* lost.reset
      yield* sockets(0)
      const silent = yield* open(port, "/")
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      assert.strictEqual((yield* silent.closeFrame).code, 1001)
      yield* silent.sendClose(1001)
      yield* silent.end
      yield* Fiber.join(closing)
      yield* sockets(0)
    })
  )

  it.scopedLive("the handler's Scope ends with it; its failure is logged and closes with 1011", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const logs: Array<LogLine> = []
      const released = yield* Deferred.make<void>()
      yield* NodeUpgrade.serve(server, {}, (socket) =>
        Effect.zipRight(
          Effect.addFinalizer(() => Deferred.succeed(released, undefined)),
          Effect.flatMap(Effect.orDie(socket.take), (message) => Effect.fail(String(message)))
        )
      ).pipe(Effect.provide(logsTo(logs)))
      const client = yield* open(port, "/")
      yield* client.sendText("no")
      assert.strictEqual((yield* client.closeFrame).code, 1011)
      yield* Deferred.await(released)
      assert.include(logs.map(({ text }) => text).join(), "the handler of a WebSocket connection failed")
    })
  )

  it.scopedLive("a message that does not fit a contract closes with 1008, and is no failure for the log", () =>
    Effect.gen(function* () {
      const { port, server, sockets } = yield* plainServer
      const logs: Array<LogLine> = []
      const Numbers = WebSocketContract.make("/", { incoming: Schema.Struct({ n: Schema.Number }) })
      yield* NodeUpgrade.serve(server, {}, (socket) =>
        Effect.flatMap(Numbers.server(socket), ({ messages }) => Stream.runDrain(messages))
      ).pipe(Effect.provide(logsTo(logs)))
      const client = yield* open(port, "/")
      yield* client.sendText('{"n":"one"}')
      assert.strictEqual((yield* client.closeFrame).code, 1008)
      yield* client.sendClose(1008)
      yield* client.end
      yield* sockets(0)
      assert.deepStrictEqual([...new Set(logs.map(({ level }) => level._tag))], ["Debug"])
      assert.isTrue(logs.some(({ text }) => text.includes("WebSocket connection ended")))
    })
  )

  it.scopedLive("speaks with ws", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.each(server, { path: "/echo" }, (message, socket) => socket.send(message))
      const socket = new WebSocket(`ws://127.0.0.1:${port}/echo`)
      yield* Effect.promise(() => once(socket, "open"))
      socket.send("hello")
      const [data] = yield* Effect.promise(() => once(socket, "message"))
      assert.strictEqual(String(data), "hello")
      socket.close(1000)
      const [code] = yield* Effect.promise(() => once(socket, "close"))
      assert.strictEqual(code, 1000)
    })
  )
})

describe("attach", () => {
  /** A server that does the opening handshake itself and gives the socket away. */
  const upgraded = Effect.gen(function* () {
    const { port, server, sockets } = yield* plainServer
    const streams = yield* Queue.unbounded<{ readonly stream: Duplex; readonly head: Buffer }>()
    server.on("upgrade", (_, stream: Duplex, head: Buffer) => {
      stream.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${sampleAccept}\r\n\r\n`
      )
      streams.unsafeOffer({ stream, head })
    })
    return { port, sockets, next: Queue.take(streams) }
  })

  it.scopedLive("the server's side, with the bytes that came with the request", () =>
    Effect.gen(function* () {
      const { next, port } = yield* upgraded
      const client = yield* connect(port)
      yield* client.write(Buffer.concat([Buffer.from(handshake("/")), clientText("early")]))
      const { head, stream } = yield* next
      assert.isAbove(head.length, 0)
      const socket = yield* NodeUpgrade.attach(stream, { role: "server", head, subprotocol: "given" })
      assert.deepStrictEqual([socket.role, socket.subprotocol], ["server", "given"])
      assert.strictEqual(yield* socket.take, "early")
      yield* client.answer
      yield* socket.send("answer")
      assert.strictEqual(yield* client.text, "answer")
      yield* client.close()
    })
  )

  it.scopedLive("the client's side, with a key of makeKey", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.serve(server, {}, echo)
      const key = NodeUpgrade.makeKey()
      assert.match(key, /^[A-Za-z0-9+/]{22}==$/)
      assert.notStrictEqual(key, NodeUpgrade.makeKey())
      const request = Http.get({
        port,
        host: "127.0.0.1",
        headers: {
          Connection: "Upgrade",
          Upgrade: "websocket",
          "Sec-WebSocket-Version": "13",
          "Sec-WebSocket-Key": key
        }
      })
      const [, stream, head] = (yield* Effect.promise(() => once(request, "upgrade"))) as [unknown, Net.Socket, Buffer]
      const socket = yield* NodeUpgrade.attach(stream, { role: "client", head })
      yield* socket.send("masked")
      assert.strictEqual(yield* socket.take, "masked")
    })
  )

  it.scopedLive("a clean close and a lost connection are told apart", () =>
    Effect.gen(function* () {
      const { next, port, sockets } = yield* upgraded
      const attached = Effect.gen(function* () {
        const client = yield* open(port, "/")
        const { head, stream } = yield* next
        return { client, socket: yield* NodeUpgrade.attach(stream, { role: "server", head }) }
      })

      const clean = yield* attached
      yield* clean.client.sendClose(1001)
      yield* Stream.runDrain(clean.socket.messages)
      const info = yield* clean.socket.closed
      assert.deepStrictEqual([info.clean, info.code, info.initiator], [true, 1001, "remote"])
      yield* clean.client.end

      // FIN without a close frame, which watershed calls connectionReset
      const ended = yield* attached
      yield* ended.client.end
      const lost = yield* Effect.flip(Stream.runDrain(ended.socket.messages))
      assert.deepStrictEqual([lost._tag, (yield* ended.socket.closed).code], ["ConnectionClosed", 1006])

      const reset = yield* attached
      yield* reset.client.sendText("first")
      assert.strictEqual(yield* reset.socket.take, "first")
      yield* reset.client.reset
      const error = (yield* Effect.flip(reset.socket.take)) as WebSocketError.ConnectionClosed
      assert.deepStrictEqual([error.code, error.info.clean, error.info.initiator], [1006, false, "transport"])
      yield* sockets(0)
    })
  )
})

describe("detach", () => {
  it.scopedLive("gives the raw stream of a plain server, unread bytes first", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const results = yield* Queue.unbounded<{ readonly stream: Duplex; readonly subprotocol: string | undefined }>()
      server.on("upgrade", (request: Http.IncomingMessage, stream: Duplex, head: Buffer) => {
        NodeUpgrade.detach(request, stream, head, { subprotocols: ["b"], responseHeaders: { "x-a": "1" } }).pipe(
          Effect.flatMap((detached) => Queue.offer(results, detached)),
          Effect.runFork
        )
      })
      const client = yield* connect(port)
      const early = clientText("early")
      yield* client.write(Buffer.concat([Buffer.from(handshake("/", { "Sec-WebSocket-Protocol": "a, b" })), early]))
      const answer = yield* client.answer
      assert.deepStrictEqual(
        [answer.status, answer.headers["sec-websocket-accept"], answer.headers["sec-websocket-protocol"]],
        [101, sampleAccept, "b"]
      )
      assert.strictEqual(answer.headers["x-a"], "1")
      const { stream, subprotocol } = yield* Queue.take(results)
      assert.strictEqual(subprotocol, "b")
      assert.strictEqual(stream.listenerCount("error") + stream.listenerCount("data"), 0)
      const [bytes] = yield* Effect.promise(() => once(stream, "data"))
      assert.deepStrictEqual(Buffer.from(bytes), Buffer.from(early))
      stream.destroy()
    })
  )

  it.scopedLive("refuses, and says why", () =>
    Effect.gen(function* () {
      const { port, server, sockets } = yield* plainServer
      const refusals = yield* Queue.unbounded<NodeUpgrade.Refusal>()
      server.on("upgrade", (request: Http.IncomingMessage, stream: Duplex, head: Buffer) => {
        NodeUpgrade.detach(request, stream, head).pipe(
          Effect.catchAll((refusal) => Queue.offer(refusals, refusal)),
          Effect.runFork
        )
      })
      const client = yield* connect(port)
      assert.strictEqual((yield* client.upgrade("/", { "Sec-WebSocket-Version": "99" })).status, 426)
      assert.strictEqual((yield* Queue.take(refusals)).status, 426)
      yield* client.end
      yield* sockets(0)
    })
  )

  /** A route that gives the bytes of its connections away. */
  const rawRoute = Effect.gen(function* () {
    const detached = yield* Queue.unbounded<WebSocketRoute.Detached>()
    const release = yield* Deferred.make<void>()
    const serving = yield* serve(
      HttpLayerRouter.add(
        "GET",
        "/raw",
        Effect.gen(function* () {
          yield* Queue.offer(detached, yield* WebSocketRoute.detach({ subprotocols: (offered) => offered[1] }))
          yield* Deferred.await(release)
          return HttpServerResponse.text("ignored")
        })
      )
    )
    return { serving, next: Queue.take(detached), release: Deferred.succeed(release, undefined) }
  })

  it.scopedLive("in a route: the frame that came with the request is untouched", () =>
    Effect.gen(function* () {
      const { next, release, serving } = yield* rawRoute
      const client = yield* connect(serving.port)
      const early = clientText("early")
      yield* client.write(Buffer.concat([Buffer.from(handshake("/raw", { "Sec-WebSocket-Protocol": "a, b" })), early]))
      assert.strictEqual((yield* client.answer).headers["sec-websocket-protocol"], "b")
      const { subprotocol, transport } = yield* next
      assert.strictEqual(subprotocol, "b")
      const stream = NodeDuplex.fromTransport(transport)
      const [bytes] = yield* Effect.promise(() => once(stream, "data"))
      assert.deepStrictEqual(Buffer.from(bytes), Buffer.from(early))
      stream.write("anything")
      assert.strictEqual(Buffer.from((yield* client.bytes)!).toString(), "anything")
      yield* release
      yield* client.ended
      yield* serving.sockets(0)
      assert.deepStrictEqual(
        serving.logs.filter(({ text }) => text.includes("Error")),
        []
      )
    })
  )

  it.scopedLive("in a route: what can't be accepted gets its answer", () =>
    Effect.gen(function* () {
      const { serving } = yield* rawRoute
      const rows = [
        [{ "Sec-WebSocket-Key": "short" }, 400],
        [{ Origin: "https://evil.example" }, 403],
        [{ "Sec-WebSocket-Version": "99" }, 426]
      ] as const
      for (const [headers, status] of rows) {
        const client = yield* connect(serving.port)
        assert.strictEqual((yield* client.upgrade("/raw", headers)).status, status)
        yield* client.end
      }
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("a client's handshake: the raw bytes after it", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.serve(server, { subprotocols: ["a"], responseHeaders: { "x-a": "1" } }, (socket) =>
        socket.send("hi")
      )
      const { response, subprotocol, transport } = yield* NodeWebSocketClient.detach(`ws://127.0.0.1:${port}/`, {
        subprotocols: ["a"]
      })
      assert.deepStrictEqual([subprotocol, response.status, response.headers["x-a"]], ["a", 101, "1"])
      const stream = NodeDuplex.fromTransport(transport)
      let all = Buffer.alloc(0)
      while (all.length < 4) {
        const [bytes] = yield* Effect.promise(() => once(stream, "data"))
        all = Buffer.concat([all, bytes])
      }
      assert.deepStrictEqual(all.subarray(0, 4), Buffer.from([0x81, 2, 0x68, 0x69]))
    })
  )
})

describe("Transport.join", () => {
  /** A proxy in front of a server with a plain listener. */
  const proxied = (handler: (socket: Connection.Connection) => Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      const origin = yield* plainServer
      yield* NodeUpgrade.serve(origin.server, { subprotocols: ["b", "a"], heartbeat: false }, handler)
      const joined = yield* Queue.unbounded<Exit.Exit<void, WebSocketError.TransportError>>()
      const proxy = yield* serve(
        HttpLayerRouter.add(
          "GET",
          "/proxy",
          Effect.gen(function* () {
            const upstream = yield* Effect.orDie(
              NodeWebSocketClient.detach(`ws://127.0.0.1:${origin.port}/`, { subprotocols: ["a", "b"] })
            )
            const downstream = yield* WebSocketRoute.detach({ subprotocols: () => upstream.subprotocol })
            const exit = yield* Effect.exit(Transport.join(downstream.transport, upstream.transport))
            yield* Queue.offer(joined, exit)
            return HttpServerResponse.empty()
          })
        )
      )
      const client = (subprotocols: ReadonlyArray<string> = ["a", "b"]) =>
        NodeWebSocketClient.connect(`ws://127.0.0.1:${proxy.port}/proxy`, { subprotocols, heartbeat: false })
      return { origin, proxy, client, joined: Queue.take(joined) }
    })

  it.scopedLive("proxies messages, pings and the closing handshake without decoding", () =>
    Effect.gen(function* () {
      const { client, joined, origin, proxy } = yield* proxied((socket) => Stream.run(socket.messages, socket.sink))
      const socket = yield* client()
      assert.strictEqual(socket.subprotocol, "b")
      yield* socket.send("hello")
      assert.strictEqual(yield* socket.take, "hello")
      const large = new Uint8Array(900_000).fill(7)
      yield* socket.send(large)
      assert.deepStrictEqual(yield* socket.take, large)
      yield* socket.ping()
      const { clean, code } = yield* socket.close(3000, "enough")
      assert.deepStrictEqual([clean, code], [true, 3000])
      assert.isTrue(Exit.isSuccess(yield* joined))
      yield* proxy.sockets(0)
      yield* origin.sockets(0)
    })
  )

  it.scopedLive("the server's shutdown ends it, and its clients are cut", () =>
    Effect.gen(function* () {
      const { client, origin, proxy } = yield* proxied((socket) => Stream.run(socket.messages, socket.sink))
      const socket = yield* client()
      yield* socket.send("hello")
      assert.strictEqual(yield* socket.take, "hello")
      yield* proxy.stop
      assert.strictEqual((yield* socket.closed).code, 1006)
      yield* origin.sockets(0)
    })
  )

  it.scopedLive("a lost connection is lost on the other side too", () =>
    Effect.gen(function* () {
      const seen = yield* Queue.unbounded<number>()
      const { joined, origin, proxy } = yield* proxied((socket) =>
        Effect.zipRight(
          Effect.ignore(Stream.runDrain(socket.messages)),
          Effect.flatMap(socket.closed, ({ code }) => Queue.offer(seen, code))
        )
      )
      const client = yield* open(proxy.port, "/proxy")
      yield* client.reset
      assert.strictEqual(yield* Queue.take(seen), 1006)
      yield* joined
      yield* proxy.sockets(0)
      yield* origin.sockets(0)
    })
  )

  it.scopedLive("waits for the side that does not read", () =>
    Effect.gen(function* () {
      const sockets = yield* Queue.unbounded<Connection.Connection>()
      const { client } = yield* proxied((socket) => Effect.zipRight(Queue.offer(sockets, socket), Effect.never))
      const socket = yield* client()
      const stalled = yield* Queue.take(sockets)
      // More than the kernels' buffers hold: without backpressure the proxy would take it all.
      const chunk = new Uint8Array(0x80000)
      let sent = 0
      const sending = yield* Effect.fork(
        Effect.forever(
          Effect.tap(socket.send(chunk), () => {
            sent++
          })
        )
      )
      yield* Effect.repeat(Effect.yieldNow(), { until: () => sent > 2 })
      const stuck = Effect.gen(function* () {
        const before = sent
        for (let i = 0; i < 200; i++) yield* Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
        return sent === before
      })
      yield* Effect.repeat(stuck, { until: (still) => still })
      assert.isBelow(sent, 128)
      assert.strictEqual((yield* stalled.take).length, chunk.length)
      yield* Fiber.interrupt(sending)
      yield* socket.abort
      yield* stalled.abort
    })
  )
})
