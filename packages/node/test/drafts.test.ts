/** The drafts over a server, and byte by byte against websocket-driver's own drivers. */
import { once } from "node:events"
import { createRequire } from "node:module"
import type { Duplex } from "node:stream"
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Broadcast, Connection, PlatformSocket, WebSocketRoute } from "@effect-ws/core"
import { type ConnectionProtocol, type Protocol, ServerHandshake } from "@effect-ws/core/engine"
import { NodeUpgrade, NodeWebSocketClient } from "@effect-ws/node"
import { Cause, Deferred, Effect, Exit, FastCheck, Layer, Runtime, type Scope, Stream } from "effect"
import * as Ws from "ws"
import { connect, plainServer, type RawClient, type Routes, serve } from "./support.js"

// ---- websocket-driver --------------------------------------------------------------------------------------------------

interface Driver {
  readonly version: string
  readonly io: Duplex
  on(event: "message", listener: (event: { readonly data: string }) => void): void
  on(event: "close" | "error", listener: (event: unknown) => void): void
  start(): boolean
  text(message: string): boolean
  close(): boolean
}
const drivers = createRequire(import.meta.url)("websocket-driver") as {
  http(request: unknown, options?: { readonly maxLength?: number }): Driver
}

type Fields = Readonly<Record<string, string>>

const headers75: Fields = {
  host: "example.com",
  upgrade: "WebSocket",
  connection: "Upgrade",
  origin: "http://example.com"
}
const headers76: Fields = {
  ...headers75,
  "sec-websocket-key1": "4 @1  46546xW%0l 1 5",
  "sec-websocket-key2": "12998 5 Y3 1  .P00"
}
const challenge = Buffer.from("^n:ds[4U")
const answer = "8jKS'y:G*Co,Wxa-"

/** What one side of the comparison wrote, and the messages that it got. */
interface Run {
  readonly version: string
  readonly output: Buffer
  readonly messages: ReadonlyArray<string>
  readonly closed: boolean
}

/** What happens on the way: bytes come, or a message is sent. */
type Step = Uint8Array | string

const theirs = (headers: Fields, steps: ReadonlyArray<Step>): Run => {
  const driver = drivers.http({ method: "GET", url: "/demo?a=b", headers, connection: {} })
  const output: Array<Buffer> = []
  const messages: Array<string> = []
  let closed = false
  driver.io.on("data", (bytes: Buffer) => output.push(bytes))
  driver.on("message", ({ data }) => messages.push(data))
  driver.on("error", () => {})
  driver.on("close", () => {
    closed = true
  })
  driver.start()
  for (const step of steps) {
    if (typeof step === "string") driver.text(step)
    else driver.io.write(Buffer.from(step))
  }
  return { version: driver.version, output: Buffer.concat(output), messages, closed }
}

const ours = (headers: Fields, steps: ReadonlyArray<Step>): Run => {
  const accepted = ServerHandshake.checkRequest({ method: "GET", headers, drafts: ["hixie-76", "hixie-75"] })
  if (accepted._tag === "Rejected") throw new Error(accepted.body)
  const head = ServerHandshake.formatAccept(accepted, { target: "/demo?a=b" })
  if (typeof head !== "string") throw new Error(head.message)
  const protocol: ConnectionProtocol = ServerHandshake.makeProtocol(accepted, {})
  const output: Array<Uint8Array> = [Buffer.from(head, "latin1")]
  const messages: Array<string> = []
  for (const step of steps) {
    let actions: ReadonlyArray<Protocol.Action> = []
    if (typeof step === "string") protocol.send(step)
    else actions = protocol.receive(Uint8Array.from(step))
    for (const action of actions) if (action._tag === "Deliver") messages.push(...(action.messages as Array<string>))
    output.push(...protocol.output.take().map((piece) => piece.slice()))
  }
  return {
    version: accepted.version,
    output: Buffer.concat(output),
    messages,
    closed: protocol.state._tag === "Closed"
  }
}

const text = (payload: string) => Buffer.concat([Buffer.of(0), Buffer.from(payload), Buffer.of(0xff)])

describe("byte by byte as websocket-driver", () => {
  const anyText = FastCheck.string({ unit: "binary", maxLength: 30 })
  const anyInput = FastCheck.oneof(
    { weight: 4, arbitrary: anyText.map((value) => text(value)) },
    // Not FF, at which websocket-driver ends what is to be skipped.
    {
      weight: 1,
      arbitrary: FastCheck.array(FastCheck.nat(0xfe), { minLength: 1, maxLength: 127 }).map((bytes) =>
        Buffer.of(0x80, bytes.length, ...bytes)
      )
    },
    { weight: 1, arbitrary: FastCheck.constant(Buffer.of(0x80, 0)) }
  )
  const anyStep: FastCheck.Arbitrary<Step> = FastCheck.oneof(anyInput, anyText)

  /** All the bytes that come in pieces of at most `size`. */
  const cut = (steps: ReadonlyArray<Step>, size: number): ReadonlyArray<Step> =>
    steps.flatMap((step): ReadonlyArray<Step> => {
      if (typeof step === "string") return [step]
      const pieces = Math.ceil(step.length / size)
      return Array.from({ length: pieces }, (_, i) => step.subarray(i * size, (i + 1) * size))
    })

  const compare = (headers: Fields, before: ReadonlyArray<Step>, after: ReadonlyArray<Step>) =>
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(anyStep, { maxLength: 8 }),
        FastCheck.integer({ min: 1, max: 40 }),
        (steps, size) => {
          const all = cut([...before, ...steps, ...after], size)
          assert.deepStrictEqual(ours(headers, all), theirs(headers, all))
        }
      )
    )

  it("hixie-76: handshake, late and cut challenge, what was sent before it, messages, the peer's close", () => {
    for (const steps of [[], ["early"], [challenge.subarray(0, 7)], [challenge.subarray(0, 7), "early"]]) {
      assert.deepStrictEqual(ours(headers76, steps), theirs(headers76, steps))
    }
    compare(headers76, [challenge], [])
    compare(headers76, ["early", challenge], [])
    compare(headers76, ["early", "again", challenge], [Buffer.of(0xff, 0)])
    const run = ours(headers76, ["early", challenge, text("x"), Buffer.of(0xff, 0)])
    assert.strictEqual(run.output.toString("latin1").split("\r\n\r\n")[1], `${answer}\0early\xff\xff\0`)
    assert.deepStrictEqual([run.messages, run.closed], [["x"], true])
  })

  it("hixie-75: handshake, messages, FF 00 is nothing", () => {
    compare(headers75, [], [])
    compare(headers75, ["early"], [Buffer.of(0xff, 0), text("x")])
    assert.deepStrictEqual(ours(headers75, [Buffer.of(0xff, 0), text("x")]).messages, ["x"])
  })
})

// ---- over a server -----------------------------------------------------------------------------------------------------

const request = (path: string, headers: Fields, body: string | Uint8Array = "") =>
  Buffer.concat([
    Buffer.from(
      `GET ${path} HTTP/1.1\r\n${Object.entries(headers)
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join("")}\r\n`
    ),
    Buffer.from(body)
  ])

const local75: Fields = { ...headers75, host: "127.0.0.1", origin: "http://127.0.0.1" }
const local76: Fields = { ...headers76, host: "127.0.0.1", origin: "http://127.0.0.1" }

/** What was read of a client's input and not looked at. */
const unread = new WeakMap<RawClient, Buffer>()

/** Reads exactly these bytes. */
const expectBytes = (client: RawClient, expected: string | Uint8Array) =>
  Effect.gen(function* () {
    const wanted = Buffer.from(expected)
    let got = unread.get(client) ?? Buffer.alloc(0)
    while (got.length < wanted.length) {
      const bytes = yield* client.bytes
      if (bytes === undefined) break
      got = Buffer.concat([got, bytes])
    }
    assert.deepStrictEqual(got.subarray(0, wanted.length).toString("latin1"), wanted.toString("latin1"))
    unread.set(client, got.subarray(wanted.length))
  })

/** Nothing more comes. */
const expectEnd = (client: RawClient) =>
  Effect.map(client.bytes, (bytes) => assert.deepStrictEqual([bytes, unread.get(client)?.length ?? 0], [undefined, 0]))

const head76 = (path: string) =>
  "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n" +
  `Sec-WebSocket-Origin: http://127.0.0.1\r\nSec-WebSocket-Location: ws://127.0.0.1${path}\r\n\r\n`
const head75 = (path: string) =>
  "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n" +
  `WebSocket-Origin: http://127.0.0.1\r\nWebSocket-Location: ws://127.0.0.1${path}\r\n\r\n`

const all = ["8", "hixie-76", "hixie-75"] as const

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)
const Echo = WebSocketRoute.layer("/echo", { drafts: all }, echo)

/** A client of hixie-76 with an open connection. */
const open76 = (port: number, path: string) =>
  Effect.gen(function* () {
    const client = yield* connect(port)
    yield* client.write(request(path, local76, challenge))
    yield* expectBytes(client, head76(path) + answer)
    return client
  })

const open75 = (port: number, path: string) =>
  Effect.gen(function* () {
    const client = yield* connect(port)
    yield* client.write(request(path, local75))
    yield* expectBytes(client, head75(path))
    return client
  })

describe("a server with drafts", () => {
  it.scopedLive("hixie-76: the challenge comes with the head, late, in pieces, with messages behind it", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(Echo)
      const messages = Buffer.concat([text("one"), text("two")])
      const whole = Buffer.concat([challenge, messages])
      for (let cut = 0; cut <= challenge.length + 4; cut++) {
        const client = yield* connect(port)
        yield* client.write(request("/echo", local76, whole.subarray(0, cut)))
        // Proxies let the body through when they have seen the 101
        yield* expectBytes(client, head76("/echo") + (cut >= 8 ? answer : ""))
        yield* client.write(whole.subarray(cut))
        yield* expectBytes(client, Buffer.concat([Buffer.from(cut >= 8 ? "" : answer), messages]))
        yield* client.write(Buffer.of(0xff, 0))
        yield* expectBytes(client, Buffer.of(0xff, 0))
        assert.strictEqual(yield* Effect.zipLeft(client.ended, client.end), "end")
      }
    })
  )

  it.scopedLive(
    "hixie-76: what the handler sends before the challenge is answered goes behind the answer, in order",
    () =>
      Effect.gen(function* () {
        const sent = yield* Deferred.make<void>()
        const { port } = yield* serve(
          WebSocketRoute.layer("/early", { drafts: ["hixie-76"] }, (socket) =>
            Effect.zipRight(
              socket.sendAll(["1", "2"]),
              Effect.zipRight(Deferred.succeed(sent, undefined), echo(socket))
            )
          )
        )
        const client = yield* connect(port)
        yield* client.write(request("/early", local76))
        yield* expectBytes(client, head76("/early"))
        yield* Deferred.await(sent)
        yield* client.write(challenge)
        yield* expectBytes(client, Buffer.concat([Buffer.from(answer), text("1"), text("2")]))
        yield* client.write(text("3"))
        yield* expectBytes(client, text("3"))
      })
  )

  it.scopedLive("hixie-76: a challenge that never comes is cut off after the close timeout", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(
        WebSocketRoute.layer("/short", { drafts: ["hixie-76"], closeTimeout: 1 }, () => Effect.never)
      )
      const client = yield* connect(port)
      yield* client.write(request("/short", local76, "1234567"))
      yield* expectBytes(client, head76("/short"))
      yield* expectEnd(client)
    })
  )

  it.scopedLive("hixie-75: messages, and FIN as the close, by either side", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<unknown>()
      const { port } = yield* serve(
        Layer.merge(
          Echo,
          WebSocketRoute.layer("/hello", { drafts: ["hixie-75"] }, (socket) =>
            Effect.gen(function* () {
              yield* socket.send("hello")
              const { code, clean } = yield* socket.close(4000, "stays here")
              yield* Deferred.succeed(closed, [socket.version, code, clean])
            })
          )
        )
      )
      const client = yield* open75(port, "/echo")
      yield* client.write(Buffer.concat([text("é"), Buffer.of(0xff, 0), text("")]))
      yield* expectBytes(client, Buffer.concat([text("é"), text("")]))
      yield* client.end
      assert.strictEqual(yield* client.ended, "end")

      const other = yield* open75(port, "/hello")
      yield* expectBytes(other, text("hello"))
      yield* expectEnd(other)
      yield* other.end
      assert.deepStrictEqual(yield* Deferred.await(closed), ["hixie-75", 1005, true])
    })
  )

  it.scopedLive("drafts are off by default, per server or per route on, and the route has the last word", () =>
    Effect.gen(function* () {
      const routes = Layer.mergeAll(
        WebSocketRoute.layer("/default", {}, echo),
        WebSocketRoute.layer("/none", { drafts: [] }, echo),
        WebSocketRoute.layer("/some", { drafts: ["hixie-75"] }, echo)
      )
      const statuses = (port: number) =>
        Effect.forEach(["/default", "/none", "/some"], (path) =>
          Effect.scoped(
            Effect.flatMap(connect(port), (client) =>
              Effect.zipRight(
                client.write(request(path, local76)),
                Effect.map(client.answer, ({ status }) => status)
              )
            )
          )
        )
      assert.deepStrictEqual(yield* statuses((yield* serve(routes)).port), [426, 426, 426])
      assert.deepStrictEqual(yield* statuses((yield* serve(routes, { drafts: all })).port), [101, 426, 426])
    })
  )

  it.scopedLive("a page of another origin, and keys that are none, are refused", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(Echo)
      const rows: ReadonlyArray<readonly [Fields, number]> = [
        [{ ...local75, origin: "http://evil.example" }, 403],
        [{ ...local76, origin: "http://evil.example" }, 403],
        [{ ...local76, "sec-websocket-key1": "12" }, 400]
      ]
      for (const [headers, status] of rows) {
        const client = yield* connect(port)
        yield* client.write(request("/echo", headers))
        assert.strictEqual((yield* client.answer).status, status)
      }
    })
  )

  it.scopedLive("behind a proxy with TLS the location is wss:", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(Echo)
      const client = yield* connect(port)
      yield* client.write(request("/echo", { ...local75, "x-forwarded-proto": "https" }))
      assert.strictEqual((yield* client.answer).headers["websocket-location"], "wss://127.0.0.1/echo")
    })
  )

  it.scopedLive("cookies and headers of the route come behind the handshake's own", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(
        WebSocketRoute.layer("/more", { drafts: all, responseHeaders: { "x-a": "1" }, subprotocols: ["sample"] }, echo)
      )
      const client = yield* connect(port)
      yield* client.write(request("/more", { ...local75, "websocket-protocol": "sample" }))
      const expected = head75("/more").replace("\r\n\r\n", "\r\nWebSocket-Protocol: sample\r\nx-a: 1\r\n\r\n")
      yield* expectBytes(client, expected)
    })
  )

  it.scopedLive("bytes and pings are defects of the sender, and nothing of them is sent", () =>
    Effect.gen(function* () {
      const defects = yield* Deferred.make<ReadonlyArray<boolean>>()
      const { port } = yield* serve(
        WebSocketRoute.layer("/bytes", { drafts: all }, (socket) =>
          Effect.gen(function* () {
            const bytes = Uint8Array.of(1)
            const attempts: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
              socket.send(bytes),
              socket.sendAll(["x", bytes]),
              socket.trySend(bytes),
              Effect.sync(() => socket.unsafeTrySend(bytes)),
              Stream.run(Stream.make("x", bytes), socket.sink),
              socket.sendFragments("binary", Stream.make(bytes)),
              socket.sendFragments("binary", Stream.empty),
              socket.ping(),
              socket.pong()
            ]
            const exits = yield* Effect.forEach(attempts, Effect.exit)
            yield* Deferred.succeed(
              defects,
              exits.map((exit) => Exit.isFailure(exit) && Cause.isDie(exit.cause))
            )
            yield* socket.sendFragments("text", Stream.make("a", "b"))
          })
        )
      )
      const client = yield* open76(port, "/bytes")
      assert.deepStrictEqual(yield* Deferred.await(defects), Array(9).fill(true))
      yield* expectBytes(client, Buffer.concat([text("ab"), Buffer.of(0xff, 0)]))
    })
  )

  it.scopedLive(
    "a room with all versions: each gets its own frames; bytes close the members that can't have them",
    () =>
      Effect.gen(function* () {
        const room = yield* Broadcast.make()
        const joined = yield* Effect.makeSemaphore(0)
        const { port } = yield* serve(
          WebSocketRoute.layer("/room", { drafts: all }, (socket) =>
            Effect.gen(function* () {
              yield* room.join(socket)
              yield* joined.release(1)
              yield* Stream.runDrain(socket.messages)
            }).pipe(Effect.scoped)
          )
        )
        const old = yield* open76(port, "/room")
        const older = yield* open75(port, "/room")
        const modern = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/room`)
        yield* joined.take(3)
        yield* room.publish("a")
        yield* room.publish("b")
        yield* expectBytes(old, Buffer.concat([text("a"), text("b")]))
        yield* expectBytes(older, Buffer.concat([text("a"), text("b")]))
        assert.deepStrictEqual([yield* modern.take, yield* modern.take], ["a", "b"])
        yield* room.publish(Uint8Array.of(1))
        yield* expectBytes(old, Buffer.of(0xff, 0))
        yield* expectEnd(older)
        assert.deepStrictEqual(yield* modern.take, Uint8Array.of(1))
      })
  )

  it.scopedLive("a heartbeat does not take a peer without pongs for dead", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(
        WebSocketRoute.layer("/beat", { drafts: all, heartbeat: { interval: 1, timeout: 1 } }, echo)
      )
      const client = yield* open76(port, "/beat")
      // The same options are deadly to a connection of version 13 that stays silent.
      const modern = yield* connect(port)
      yield* modern.upgrade("/beat")
      yield* modern.ended
      yield* client.write(text("alive"))
      yield* expectBytes(client, text("alive"))
    })
  )

  it.scopedLive("shutdown closes all versions", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Echo)
      const old = yield* open76(serving.port, "/echo")
      const older = yield* open75(serving.port, "/echo")
      const opening = yield* connect(serving.port)
      yield* opening.write(request("/echo", local76))
      yield* expectBytes(opening, head76("/echo"))
      const stop = yield* Effect.fork(serving.stop)
      yield* expectBytes(old, Buffer.of(0xff, 0))
      yield* old.write(Buffer.of(0xff, 0))
      yield* expectEnd(older)
      yield* expectEnd(opening)
      yield* Effect.forEach([old, older, opening], ({ end }) => end)
      yield* stop
    })
  )
})

// ---- without routes ------------------------------------------------------------------------------------------------------

describe("drafts without routes", () => {
  it.scopedLive("NodeUpgrade.serve and each, chosen by the request's headers", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      yield* NodeUpgrade.serve(server, { path: "/serve", drafts: all }, (socket) =>
        Effect.zipRight(socket.send(socket.version), echo(socket))
      )
      yield* NodeUpgrade.each(server, { path: "/each", drafts: all }, (message, socket) => socket.send(message))
      yield* NodeUpgrade.serve(server, { path: "/off" }, echo)
      const off = yield* connect(port)
      yield* off.write(request("/off", local76, challenge))
      assert.strictEqual((yield* off.answer).status, 426)

      const old = yield* open76(port, "/serve")
      yield* old.write(text("x"))
      yield* expectBytes(old, Buffer.concat([text("hixie-76"), text("x")]))
      const late = yield* connect(port)
      yield* late.write(request("/each", local76))
      yield* expectBytes(late, head76("/each"))
      yield* late.write(Buffer.concat([challenge, text("late")]))
      yield* expectBytes(late, Buffer.concat([Buffer.from(answer), text("late")]))
      const older = yield* open75(port, "/serve")
      yield* expectBytes(older, text("hixie-75"))
      const eight = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/serve`, { version: 8 })
      assert.strictEqual(yield* eight.take, "8")
    })
  )

  it.scopedLive("detach and attach speak version 8, and say so", () =>
    Effect.gen(function* () {
      const { port, server } = yield* plainServer
      const versions: Array<string> = []
      const run = yield* Effect.runtime<Scope.Scope>()
      server.on("upgrade", (request, stream, head) => {
        const drafts = request.url === "/on" ? (["8"] as const) : []
        NodeUpgrade.detach(request, stream, head, { drafts }).pipe(
          Effect.flatMap(({ stream, version }) => NodeUpgrade.attach(stream, { role: "server", version })),
          Effect.tap((socket) => Effect.sync(() => versions.push(socket.version))),
          Effect.flatMap(echo),
          Effect.ignore,
          Runtime.runFork(run)
        )
      })
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/on`, { version: 8 })
      yield* socket.send("x")
      assert.strictEqual(yield* socket.take, "x")
      const refused = yield* Effect.flip(NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/off`, { version: 8 }))
      assert.deepStrictEqual([refused.status, versions], [426, ["8"]])
    })
  )

  it.scopedLive("a route that detaches, and request.upgrade", () =>
    Effect.gen(function* () {
      const detaching = HttpLayerRouter.add(
        "GET",
        "/detach",
        Effect.gen(function* () {
          const { transport, version } = yield* WebSocketRoute.detach({ drafts: ["8"] })
          const socket = yield* Connection.make(transport, { role: "server", version })
          yield* socket.send(socket.version)
          yield* Effect.ignore(echo(socket))
          return HttpServerResponse.empty()
        })
      )
      const upgrading = HttpLayerRouter.add(
        "GET",
        "/upgrade",
        Effect.gen(function* () {
          const socket = yield* (yield* HttpServerRequest.HttpServerRequest).upgrade
          const write = yield* socket.writer
          yield* Effect.ignore(socket.runRaw((message) => Effect.orDie(write(message))))
          return HttpServerResponse.empty()
        })
      )
      const routes = Layer.mergeAll(detaching, upgrading, PlatformSocket.layerUpgrade({ drafts: all }))
      const { port } = yield* serve(routes as unknown as Routes)
      const eight = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/detach`, { version: 8 })
      assert.strictEqual(yield* eight.take, "8")
      const old = yield* open76(port, "/upgrade")
      yield* old.write(text("x"))
      yield* expectBytes(old, text("x"))
      const older = yield* open75(port, "/upgrade")
      yield* older.write(text("y"))
      yield* expectBytes(older, text("y"))
    })
  )
})

// ---- version 8 ---------------------------------------------------------------------------------------------------------

describe("version 8", () => {
  it.scopedLive("a client of ws with version 8, and what its origin is compared with", () =>
    Effect.gen(function* () {
      const versions: Array<string> = []
      const { port } = yield* serve(
        WebSocketRoute.layer("/v8", { drafts: ["8"] }, (socket) => {
          versions.push(socket.version)
          return echo(socket)
        })
      )
      const url = `ws://127.0.0.1:${port}/v8`
      const socket = new Ws.WebSocket(url, { protocolVersion: 8, origin: `http://127.0.0.1:${port}` })
      yield* Effect.addFinalizer(() => Effect.sync(() => socket.terminate()))
      const received = yield* Effect.promise(async () => {
        await once(socket, "open")
        socket.send("hello")
        return String(((await once(socket, "message")) as [Buffer])[0])
      })
      assert.deepStrictEqual([received, versions], ["hello", ["8"]])
      const foreign = new Ws.WebSocket(url, { protocolVersion: 8, origin: "http://evil.example" })
      const [error] = (yield* Effect.promise(() => once(foreign, "error"))) as [Error]
      assert.include(error.message, "403")
    })
  )

  it.scopedLive("our client with version 8 at a server of ws", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const server = new Ws.WebSocketServer({ port: 0, host: "127.0.0.1" })
      yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
      server.on("connection", (socket, { headers }) => {
        seen.push(headers["sec-websocket-version"], headers["sec-websocket-origin"], headers.origin)
        socket.on("message", (data, binary) => socket.send(data, { binary }))
      })
      yield* Effect.promise(() => once(server, "listening"))
      const { port } = server.address() as { readonly port: number }
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, {
        version: 8,
        origin: "http://a.example"
      })
      assert.strictEqual(socket.version, "8")
      yield* socket.sendAll(["text", Uint8Array.of(1, 2)])
      assert.deepStrictEqual([yield* socket.take, yield* socket.take], ["text", Uint8Array.of(1, 2)])
      yield* socket.ping()
      assert.isTrue((yield* socket.close()).clean)
      assert.deepStrictEqual(seen, ["8", "http://a.example", undefined])
    })
  )

  it.scopedLive("our client and our server, and 426 without the draft", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(
        Layer.merge(WebSocketRoute.layer("/on", { drafts: ["8"] }, echo), WebSocketRoute.layer("/off", {}, echo))
      )
      const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/on`, { version: 8 })
      yield* socket.send("x")
      assert.strictEqual(yield* socket.take, "x")
      const refused = yield* Effect.flip(NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/off`, { version: 8 }))
      assert.strictEqual(refused.status, 426)
    })
  )
})
