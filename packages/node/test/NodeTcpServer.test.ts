/** Servers on bare TCP: heads cut in all ways, bad and slow ones, answers, and the end. */
import { readFileSync } from "node:fs"
import * as Net from "node:net"
import { Duplex, PassThrough } from "node:stream"
import * as Tls from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import type { Connection } from "@effect-ws/core"
import { NodeTcpServer, NodeWebSocketClient, PermessageDeflate } from "@effect-ws/node"
import { Cause, Deferred, Effect, Exit, Fiber, LogLevel, Queue, Scope, Stream, Supervisor } from "effect"
import {
  clientText,
  connect,
  countSockets,
  handshake,
  type LogLine,
  logsTo,
  portOf,
  RawClient,
  type RawHeaders,
  sampleAccept,
  sendsWhileAsked
} from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)
const acceptEcho = (request: NodeTcpServer.Request) => Effect.flatMap(request.accept(), echo)

interface Listening {
  readonly port: number
  readonly logs: ReadonlyArray<LogLine>
  readonly sockets: (count: number) => Effect.Effect<void>
  readonly stop: Effect.Effect<void>
}

/** Listens until the Scope closes, or `stop`. */
const listen = <E>(
  handler: NodeTcpServer.Handler<E, Scope.Scope>,
  options: NodeTcpServer.Options & { readonly createServer?: () => Net.Server } = {}
): Effect.Effect<Listening, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const logs: Array<LogLine> = []
    const count = countSockets()
    const createServer = () => {
      const server = (options.createServer ?? Net.createServer)()
      count.watch(server)
      return server
    }
    const listening = NodeTcpServer.listen(createServer, { port: 0, host: "127.0.0.1", ...options }, handler)
    const server = yield* Scope.extend(listening, scope).pipe(Effect.provide(logsTo(logs)), Effect.orDie)
    const stop = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => stop)
    return { port: portOf(server), logs, sockets: count.sockets, stop }
  })

/** What the server answers to these bytes, sent whole and byte by byte. */
const answersTo = (port: number, text: string) =>
  Effect.forEach(["whole", "bytes"] as const, (how) =>
    Effect.scoped(
      Effect.gen(function* () {
        const client = yield* connect(port)
        if (how === "whole") yield* client.write(Buffer.from(text, "latin1"))
        else {
          client.socket.setNoDelay(true)
          for (const byte of Buffer.from(text, "latin1")) yield* client.write(Uint8Array.of(byte))
        }
        const { body, status } = yield* client.answer
        yield* client.end
        yield* client.ended
        return { status, body }
      })
    )
  )

const problems = (logs: ReadonlyArray<LogLine>) =>
  logs.filter(({ level }) => LogLevel.greaterThan(level, LogLevel.Debug)).map(({ text }) => text)

describe("a request", () => {
  it.scopedLive("is seen before it is accepted, with the bytes that came along, and none of them is lost", () =>
    Effect.gen(function* () {
      const seen = yield* Queue.unbounded<unknown>()
      const { port } = yield* listen((request) =>
        Effect.gen(function* () {
          const { body, headers, method, offeredSubprotocols, target } = request
          yield* Queue.offer(seen, [method, target, headers["x-a"], [...body], offeredSubprotocols])
          const socket = yield* request.accept({ headers: { "X-B": "2" }, subprotocol: "v1" })
          yield* Queue.offer(seen, [socket.subprotocol, socket.version, [...body]])
          yield* echo(socket)
        })
      )
      const client = yield* connect(port)
      const message = clientText("early")
      const head = handshake("/a?b=c", { "X-A": "1", "Sec-WebSocket-Protocol": "v2, v1" })
      yield* client.write(Buffer.concat([Buffer.from(head), message]))
      const answer = yield* client.answer
      assert.strictEqual(answer.status, 101)
      assert.strictEqual(answer.headers["sec-websocket-accept"], sampleAccept)
      assert.deepStrictEqual([answer.headers["x-b"], answer.headers["sec-websocket-protocol"]], ["2", "v1"])
      assert.strictEqual(yield* client.text, "early")
      assert.deepStrictEqual(yield* Queue.take(seen), ["GET", "/a?b=c", "1", [...message], ["v2", "v1"]])
      assert.deepStrictEqual(yield* Queue.take(seen), ["v1", "13", [...message]])
      assert.strictEqual((yield* client.close(1000)).code, 1000)
    })
  )

  it.scopedLive("may be cut anywhere, with frames behind it", () =>
    Effect.gen(function* () {
      const { port } = yield* listen(acceptEcho)
      const bytes = Buffer.concat([Buffer.from(handshake("/")), clientText("one"), clientText("two")])
      for (let at = 1; at < bytes.length; at += 7) {
        const client = yield* connect(port)
        client.socket.setNoDelay(true)
        yield* client.write(bytes.subarray(0, at))
        yield* Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
        yield* client.write(bytes.subarray(at))
        assert.strictEqual((yield* client.answer).status, 101)
        assert.deepStrictEqual([yield* client.text, yield* client.text], ["one", "two"])
      }
    })
  )

  it.scopedLive("that is no handshake is answered by the application", () =>
    Effect.gen(function* () {
      const { port, sockets } = yield* listen((request) => {
        const method = new TextEncoder().encode(`${request.method} with ${request.body.length} bytes`)
        switch (request.target) {
          case "/bytes":
            return request.respond({
              status: 200,
              body: method,
              headers: [
                ["Content-Type", "text/x"],
                ["Set-Cookie", "a"]
              ]
            })
          case "/text":
            return request.respond({ status: 404, body: "é" })
          case "/reason":
            return request.respond({ status: 299, reason: "Because" })
          case "/none":
            return request.respond({ status: 204 })
          default:
            return Effect.void
        }
      })
      const rows: ReadonlyArray<readonly [string, number, string, string | undefined]> = [
        ["POST /bytes HTTP/1.1\r\nContent-Length: 3", 200, "POST with 3 bytes", "text/x"],
        ["GET /text HTTP/1.1", 404, "\xc3\xa9", "text/plain; charset=utf-8"],
        ["GET /reason HTTP/1.1", 299, "", undefined],
        ["GET /none HTTP/1.1", 204, "", undefined],
        [
          "GET /nothing HTTP/1.1",
          426,
          "This is a WebSocket endpoint: connect with a WebSocket client (Upgrade: websocket).",
          "text/plain"
        ],
        ["DELETE /nothing HTTP/1.1", 405, "A WebSocket is opened with the method GET.", "text/plain"]
      ]
      for (const [head, status, body, type] of rows) {
        const client = yield* connect(port)
        yield* client.write(`${head}\r\nHost: x\r\n\r\n${head.startsWith("POST") ? "abc" : ""}`)
        const answer = yield* client.answer
        assert.deepStrictEqual([answer.status, answer.body, answer.headers["content-type"]], [status, body, type], head)
        assert.include(answer.headers.connection!.toLowerCase(), "close")
        yield* client.end
        assert.strictEqual(yield* client.ended, "end")
      }
      const head = yield* connect(port)
      yield* head.write("HEAD /text HTTP/1.1\r\nHost: x\r\n\r\n")
      const text = String(yield* head.bytes)
      assert.match(text, /^HTTP\/1.1 404 Not Found\r\n[\s\S]*Content-Length: 2\r\n[\s\S]*\r\n\r\n$/)
      yield* head.end
      yield* sockets(0)
    })
  )

  it.scopedLive("has one answer; a second, or one that can't be sent, is a defect", () =>
    Effect.gen(function* () {
      const exits = yield* Queue.unbounded<boolean>()
      const report = (effect: Effect.Effect<unknown, unknown, Scope.Scope>) =>
        Effect.flatMap(Effect.exit(effect), (exit) =>
          Queue.offer(exits, Exit.isFailure(exit) && Cause.isDie(exit.cause))
        )
      const { port } = yield* listen((request) => {
        switch (request.target) {
          case "/twice":
            return Effect.zipRight(request.respond({ status: 200 }), report(request.accept()))
          case "/header":
            return report(request.respond({ status: 200, headers: { "x-a": "1\r\nx-b: 2" } }))
          case "/framing":
            return report(request.respond({ status: 200, headers: { "Transfer-Encoding": "chunked" } }))
          case "/interim":
            return report(request.respond({ status: 101 }))
          default:
            return report(request.accept({ headers: { "Sec-WebSocket-Accept": "mine" } }))
        }
      })
      for (const [path, status] of [
        ["/twice", 200],
        ["/header", 500],
        ["/framing", 500],
        ["/interim", 500],
        ["/accept", 500]
      ] as const) {
        const client = yield* connect(port)
        assert.strictEqual((yield* client.upgrade(path)).status, status, path)
        assert.isTrue(yield* Queue.take(exits), path)
      }
    })
  )

  it.scopedLive("whose handler ends without an answer: 404, or 500 when it failed, which is logged", () =>
    Effect.gen(function* () {
      const { logs, port } = yield* listen((request) =>
        request.target === "/fail"
          ? Effect.fail("on purpose")
          : request.target === "/die"
            ? Effect.die("defect")
            : Effect.void
      )
      for (const [path, status] of [
        ["/", 404],
        ["/fail", 500],
        ["/die", 500]
      ] as const) {
        const client = yield* connect(port)
        const answer = yield* client.upgrade(path)
        assert.strictEqual(answer.status, status)
        assert.notInclude(answer.body, "purpose")
      }
      const lines = problems(logs)
      assert.strictEqual(lines.length, 2)
      assert.include(lines[0], "on purpose")
      assert.include(lines[1], "defect")
    })
  )

  const refusals: ReadonlyArray<readonly [string, RawHeaders, number, string]> = [
    ["a foreign page", { Origin: "http://evil.example" }, 403, "Origin"],
    ["another version", { "Sec-WebSocket-Version": "8" }, 426, "Version"],
    ["no key", { "Sec-WebSocket-Key": undefined }, 400, "Key"],
    ["no upgrade", { Upgrade: undefined }, 426, "Upgrade"]
  ]
  for (const [name, headers, status, rule] of refusals) {
    it.scopedLive(`accept answers ${name} with ${status} and fails, which nobody has to log`, () =>
      Effect.gen(function* () {
        const failures = yield* Queue.unbounded<unknown>()
        const { logs, port } = yield* listen((request) =>
          Effect.tapError(acceptEcho(request), (error) => Queue.offer(failures, error))
        )
        const client = yield* connect(port)
        assert.strictEqual((yield* client.upgrade("/", headers)).status, status)
        const failure = yield* Queue.take(failures)
        assert.isTrue(failure instanceof NodeTcpServer.RequestRejected)
        assert.deepInclude(failure, { status, rule })
        yield* client.end
        yield* client.ended
        assert.deepStrictEqual(problems(logs), [])
      })
    )
  }

  it.scopedLive("messages that come while the handler decides are not lost", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const decide = yield* Deferred.make<void>()
      const { port } = yield* listen((request) =>
        Effect.zipRight(
          Effect.zipRight(Deferred.succeed(began, undefined), Deferred.await(decide)),
          acceptEcho(request)
        )
      )
      yield* sendsWhileAsked(port, 40, began, decide)
    })
  )

  it.scopedLive("of a client that is gone: the handler is interrupted", () =>
    Effect.gen(function* () {
      const began = yield* Queue.unbounded<void>()
      const interrupted = yield* Queue.unbounded<void>()
      const { logs, port, sockets } = yield* listen(() =>
        Effect.onInterrupt(Effect.zipRight(Queue.offer(began, undefined), Effect.never), () =>
          Queue.offer(interrupted, undefined)
        )
      )
      for (const [leave, unread] of [
        ["reset", ""],
        ["end", ""],
        ["end", "bytes that nobody takes"]
      ] as const) {
        const client = yield* connect(port)
        yield* client.write(handshake("/"))
        yield* Queue.take(began)
        yield* client.write(clientText(unread))
        yield* client[leave]
        yield* Queue.take(interrupted)
        assert.strictEqual(yield* client.bytes, undefined)
      }
      yield* sockets(0)
      assert.deepStrictEqual(problems(logs), [])
    })
  )
})

describe("bad heads", () => {
  const request = (lines: string) => `GET / HTTP/1.1\r\nHost: x\r\n${lines}\r\n`
  // What lets two parsers disagree where a message ends (RFC 9112 §11.2), and what is no HTTP
  const rows: ReadonlyArray<readonly [string, string, number]> = [
    ["bare LF", "GET / HTTP/1.1\nHost: x\n\n", 400],
    ["bare LF in a header", request("a: b\nc: d\r\n"), 400],
    ["bare CR", request("a: b\rc: d\r\n"), 400],
    ["obs-fold", request("a: b\r\n c\r\n"), 400],
    ["a space before the colon", request("Content-Length : 3\r\n"), 400],
    ["two lengths", request("Content-Length: 3\r\nContent-Length: 4\r\n"), 400],
    ["one length twice", request("Content-Length: 3\r\nContent-Length: 3\r\n"), 400],
    ["a length that is no number", request("Content-Length: 3, 3\r\n"), 400],
    ["Transfer-Encoding and Content-Length", request("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400],
    ["NUL", request("a: \0\r\n"), 400],
    ["NUL in the target", "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400],
    ["two hosts", request("host: y\r\n"), 400],
    ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
    // websocket-driver shows such a request without a method
    ["no request line", "hello\r\nHost: x\r\n\r\n", 400],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505]
  ]
  it.scopedLive("are answered without the handler, whole or byte by byte", () =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      const { port, sockets } = yield* listen((request) => Effect.sync(() => handled.push(request.target)))
      for (const [name, text, status] of rows) {
        const [whole, bytes] = yield* answersTo(port, text)
        assert.strictEqual(whole!.status, status, name)
        assert.notStrictEqual(whole!.body, "", name)
        assert.deepStrictEqual(bytes, whole, name)
      }
      assert.deepStrictEqual(handled, [])
      yield* sockets(0)
    })
  )

  it.scopedLive(
    "limits hold however the bytes are cut (websocket-driver takes 200 KB in one chunk, and any number)",
    () =>
      Effect.gen(function* () {
        const { port, sockets } = yield* listen((request) => request.respond({ status: 200 }))
        const fixed = request("a: \r\n").length
        const counted = (count: number) => request(Array.from({ length: count - 1 }, (_, i) => `h${i}: v\r\n`).join(""))
        const limits: ReadonlyArray<readonly [string, number]> = [
          [request(`a: ${"x".repeat(16384 - fixed)}\r\n`), 200],
          [request(`a: ${"x".repeat(16385 - fixed)}\r\n`), 431],
          [counted(100), 200],
          [counted(101), 431],
          [`GET /${"x".repeat(16384)}`, 414]
        ]
        for (const [text, status] of limits) {
          for (const size of [text.length, 1000]) {
            const client = yield* connect(port)
            for (let at = 0; at < text.length; at += size) yield* client.write(text.slice(at, at + size))
            assert.strictEqual((yield* client.answer).status, status)
            yield* client.end
            yield* client.ended
          }
        }
        const large = yield* connect(port)
        yield* large.write(request(`a: ${"x".repeat(200_000)}\r\n`))
        assert.strictEqual((yield* large.answer).status, 431)
        yield* large.end
        yield* large.ended
        yield* sockets(0)
      })
  )

  it.scopedLive("limits of one's own", () =>
    Effect.gen(function* () {
      const { port } = yield* listen((request) => request.respond({ status: 200 }), {
        maxHeaderBytes: 100,
        maxHeaderCount: 2
      })
      assert.strictEqual((yield* answersTo(port, request("a: b\r\n")))[0]!.status, 200)
      assert.strictEqual((yield* answersTo(port, request("a: b\r\nc: d\r\n")))[0]!.status, 431)
      assert.strictEqual((yield* answersTo(port, request(`a: ${"b".repeat(100)}\r\n`)))[0]!.status, 431)
    })
  )

  it.scopedLive("late ones get 408; more than there is room for 503; an end is the end", () =>
    Effect.gen(function* () {
      const slow = yield* listen(acceptEcho, { headTimeout: 20 })
      const late = yield* connect(slow.port)
      yield* late.write("GET / HT")
      assert.strictEqual((yield* late.answer).status, 408)

      const { port, sockets } = yield* listen(acceptEcho, { maxPendingHeads: 2 })
      const pending = yield* Effect.forEach([1, 2], () => connect(port))
      yield* sockets(2)
      const refused = yield* connect(port)
      const answer = yield* refused.answer
      assert.deepStrictEqual([answer.status, answer.headers["retry-after"]], [503, "1"])
      yield* refused.end
      yield* sockets(2)
      assert.strictEqual((yield* pending[0]!.upgrade("/")).status, 101)
      yield* pending[1]!.write("GET / HTTP/1.1\r\n")
      yield* pending[1]!.end
      assert.strictEqual(yield* pending[1]!.bytes, undefined)
      yield* sockets(1)
      assert.strictEqual((yield* (yield* connect(port)).upgrade("/")).status, 101)
    })
  )
})

describe("the end", () => {
  it.scopedLive("of a handler closes: 1000, 1011 after a failure", () =>
    Effect.gen(function* () {
      const { logs, port, sockets } = yield* listen((request) =>
        Effect.zipRight(request.accept(), request.target === "/fail" ? Effect.fail("on purpose") : Effect.void)
      )
      for (const [path, code] of [
        ["/", 1000],
        ["/fail", 1011]
      ] as const) {
        const client = yield* connect(port)
        yield* client.upgrade(path)
        assert.strictEqual((yield* client.closeFrame).code, code)
        yield* client.sendClose(code)
        yield* client.end
      }
      yield* sockets(0)
      assert.strictEqual(problems(logs).length, 1)
    })
  )

  it.scopedLive("of a connection ends a handler that goes on without it", () =>
    Effect.gen(function* () {
      const interrupted = yield* Deferred.make<void>()
      const { port, sockets } = yield* listen(
        (request) =>
          Effect.zipRight(
            request.accept(),
            Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
          ),
        { handlerTimeout: 1 }
      )
      const client = yield* connect(port)
      yield* client.upgrade("/")
      yield* client.reset
      yield* Deferred.await(interrupted)
      yield* sockets(0)
    })
  )

  it.scopedLive("of the server: 1001 to all at once, no waiting for heads and handlers", () =>
    Effect.gen(function* () {
      const { port, sockets, stop } = yield* listen(
        (request) => (request.target === "/never" ? Effect.never : acceptEcho(request)),
        { drainTimeout: "1 hour" }
      )
      const open = yield* connect(port)
      yield* open.upgrade("/")
      const half = yield* connect(port)
      yield* half.write("GET / HTT")
      const undecided = yield* connect(port)
      yield* undecided.write(handshake("/never"))
      yield* sockets(3)
      const stopping = yield* Effect.fork(stop)
      assert.strictEqual((yield* open.closeFrame).code, 1001)
      yield* open.sendClose(1001)
      yield* open.end
      yield* Effect.all([half.ended, undecided.ended])
      yield* Fiber.join(stopping)
      yield* sockets(0)
      const refused = yield* Effect.exit(
        Effect.async<void, Error>((resume) => {
          const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.void))
          socket.on("error", (error) => resume(Effect.fail(error)))
        })
      )
      assert.isTrue(Exit.isFailure(refused))
    })
  )

  it.scopedLive("of the server by interruption of its fiber waits for closing handshakes too", () =>
    Effect.gen(function* () {
      const listening = yield* Deferred.make<Listening>()
      const serving = yield* Effect.fork(
        Effect.scoped(
          Effect.zipRight(
            Effect.flatMap(listen(acceptEcho, { drainTimeout: "1 hour" }), (it) => Deferred.succeed(listening, it)),
            Effect.never
          )
        )
      )
      const { port, sockets } = yield* Deferred.await(listening)
      const client = yield* connect(port)
      yield* client.upgrade("/")
      const stopping = yield* Effect.fork(Fiber.interrupt(serving))
      assert.strictEqual((yield* client.closeFrame).code, 1001)
      // The server is still there to read it: a socket that is gone would reset.
      yield* client.sendClose(1001)
      assert.strictEqual(yield* client.ended, "end")
      yield* client.end
      yield* Fiber.join(stopping)
      yield* sockets(0)
    })
  )

  it.scopedLive("of a server that was begun in an uninterruptible region: its handlers can be interrupted", () =>
    Effect.gen(function* () {
      const { port, stop } = yield* Effect.uninterruptible(
        listen((request) => Effect.zipRight(request.accept(), Effect.never), { drainTimeout: 100 })
      )
      const client = yield* connect(port)
      yield* client.upgrade("/")
      yield* Effect.fork(stop)
      assert.strictEqual((yield* client.closeFrame).code, 1001)
    })
  )

  it.scopedLive("of the server cuts who does not answer, and whose handler can't be interrupted", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const { port, sockets, stop } = yield* listen(
        (request) =>
          Effect.zipRight(
            request.accept(),
            request.target === "/stuck" ? Effect.uninterruptible(Deferred.await(release)) : Effect.never
          ),
        { drainTimeout: 20 }
      )
      const clients = yield* Effect.forEach(["/silent", "/stuck"], (path) =>
        Effect.tap(connect(port), (client) => client.upgrade(path))
      )
      yield* stop
      yield* sockets(0)
      for (const client of clients) yield* client.ended
      yield* Deferred.succeed(release, undefined)
    })
  )

  it.scopedLive("a port that is taken is a ServeError", () =>
    Effect.gen(function* () {
      const { port } = yield* listen(acceptEcho)
      const taken = NodeTcpServer.listen(Net.createServer, { port, host: "127.0.0.1" }, acceptEcho)
      assert.strictEqual((yield* Effect.flip(taken))._tag, "ServeError")
    })
  )
})

it.scopedLive("extensions are agreed on", () =>
  Effect.gen(function* () {
    const { port } = yield* listen(acceptEcho, { extensions: [PermessageDeflate.small] })
    const url = `ws://127.0.0.1:${port}/`
    const socket = yield* NodeWebSocketClient.connect(url, { extensions: [PermessageDeflate.small] })
    assert.deepStrictEqual(
      socket.extensions.map(({ name }) => name),
      ["permessage-deflate"]
    )
    const text = "again and ".repeat(1000)
    yield* socket.send(text)
    assert.strictEqual(yield* socket.take, text)
    const plain = yield* NodeWebSocketClient.connect(url)
    assert.deepStrictEqual(plain.extensions, [])
  })
)

/** Ways to break a connection. */
const ways: ReadonlyArray<(client: RawClient) => Effect.Effect<unknown>> = [
  (client) => client.reset,
  (client) => Effect.zipRight(client.end, client.ended),
  (client) => Effect.zipRight(client.write("GET / HT"), client.reset),
  (client) => Effect.zipRight(client.write("GET / HT"), Effect.zipRight(client.end, client.ended)),
  (client) => Effect.zipRight(client.write("no HTTP\r\n\r\n"), Effect.zipRight(client.end, client.ended)),
  (client) => Effect.zipRight(client.write(`GET /${"x".repeat(20_000)}`), client.reset),
  (client) => Effect.zipRight(client.write(handshake("/echo")), client.reset),
  (client) => Effect.zipRight(client.write(handshake("/never")), client.reset),
  (client) => Effect.zipRight(client.write(handshake("/fail")), Effect.zipRight(client.end, client.ended)),
  (client) => Effect.zipRight(client.upgrade("/echo", { Upgrade: undefined }), client.reset),
  (client) => Effect.zipRight(client.upgrade("/echo"), client.reset),
  (client) => Effect.zipRight(client.upgrade("/echo"), Effect.zipRight(client.end, client.ended)),
  (client) => Effect.zipRight(client.upgrade("/idle"), client.reset),
  (client) =>
    Effect.zipRight(
      client.write("GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n\0half"),
      client.reset
    )
]

it.scopedLive("broken connections leave no fiber and no socket behind", () =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor.track
    const { port, sockets } = yield* listen<unknown>(
      (request) => {
        switch (request.target) {
          case "/never":
            return Effect.never
          case "/fail":
            return Effect.fail("on purpose")
          case "/idle":
            return Effect.zipRight(request.accept(), Effect.never)
          default:
            return acceptEcho(request)
        }
      },
      { drafts: ["hixie-75"], handlerTimeout: 1 }
    ).pipe(Effect.provide(Supervisor.addSupervisor(supervisor)))
    const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
    const running = Effect.map(supervisor.value, (all) => all.filter((fiber) => fiber.unsafePoll() === null).length)
    const before = yield* running
    let most = 0
    for (let round = 0; round < 10; round++) {
      yield* Effect.forEach(ways, (way) => Effect.scoped(Effect.flatMap(connect(port), way)), {
        concurrency: "unbounded",
        discard: true
      })
      most = Math.max(most, yield* running)
    }
    yield* sockets(0)
    yield* Effect.repeat(Effect.zipRight(turn, running), { until: (count) => count <= before })
    assert.isAbove(most, before)
  })
)

it.scopedLive("a handler that ends by itself soon after its connection leaves no watchdog behind", () =>
  Effect.gen(function* () {
    const supervisor = yield* Supervisor.track
    const gone = yield* Deferred.make<void>()
    const end = yield* Deferred.make<void>()
    const { port, sockets } = yield* listen(
      (request) =>
        Effect.flatMap(request.accept(), (socket) =>
          Effect.zipRight(Effect.zipRight(socket.closed, Deferred.succeed(gone, undefined)), Deferred.await(end))
        ),
      { handlerTimeout: "1 hour" }
    ).pipe(Effect.provide(Supervisor.addSupervisor(supervisor)))
    const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
    const running = Effect.map(supervisor.value, (all) => all.filter((fiber) => fiber.unsafePoll() === null).length)
    const before = yield* running
    const client = yield* connect(port)
    yield* client.upgrade("/")
    yield* client.reset
    yield* Deferred.await(gone)
    assert.isAbove(yield* running, before)
    yield* Deferred.succeed(end, undefined)
    yield* sockets(0)
    yield* Effect.repeat(Effect.zipRight(turn, running), { until: (count) => count <= before })
  })
)

describe("other servers and streams", () => {
  it.scopedLive("TLS", () =>
    Effect.gen(function* () {
      const fixture = (name: string) => readFileSync(new URL(`./fixtures/${name}`, import.meta.url))
      const { port, stop } = yield* listen(acceptEcho, {
        drafts: ["hixie-75"],
        drainTimeout: 20,
        createServer: () => Tls.createServer({ cert: fixture("server.crt"), key: fixture("server.key") })
      })
      // One that never finishes its TLS handshake does not hold up the end.
      yield* connect(port)
      const client = yield* connect(port, () => Tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false }))
      yield* client.write("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n")
      assert.strictEqual((yield* client.answer).headers["websocket-location"], "wss://x/")
      const modern = yield* connect(port, () => Tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false }))
      assert.strictEqual((yield* modern.upgrade("/")).status, 101)
      yield* modern.sendText("hello")
      assert.strictEqual(yield* modern.text, "hello")
      yield* Effect.fork(stop)
      yield* modern.ended
    })
  )

  it.scopedLive("a server that somebody else listens with", () =>
    Effect.gen(function* () {
      const server = Net.createServer()
      const count = countSockets()
      count.watch(server)
      yield* Effect.acquireRelease(
        Effect.async<void>((resume) => {
          server.listen(0, "127.0.0.1", () => resume(Effect.void))
        }),
        () => Effect.sync(() => server.close())
      )
      const scope = yield* Scope.make()
      yield* Scope.extend(NodeTcpServer.serve(server, { drainTimeout: 1 }, acceptEcho), scope)
      const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${portOf(server)}/`)
      yield* client.send("hello")
      assert.strictEqual(yield* client.take, "hello")
      const listeners = server.listenerCount("connection")
      yield* Scope.close(scope, Exit.void)
      yield* count.sockets(0)
      assert.isTrue(server.listening)
      assert.isBelow(server.listenerCount("connection"), listeners)
    })
  )

  it.scopedLive("any Duplex; hixie-76 whose challenge comes later", () =>
    Effect.gen(function* () {
      const up = new PassThrough()
      const down = new PassThrough()
      const near = Duplex.from({ readable: up, writable: down })
      const fiber = yield* Effect.fork(NodeTcpServer.handle(near, { drafts: ["hixie-76"] }, acceptEcho))
      const client = new RawClient(Duplex.from({ readable: down, writable: up }) as Net.Socket)
      yield* client.write(
        "GET /demo HTTP/1.1\r\nHost: example.com\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: http://example.com\r\n" +
          "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n^n:ds"
      )
      const answer = yield* client.answer
      assert.strictEqual(answer.headers["sec-websocket-location"], "ws://example.com/demo")
      yield* client.write(Buffer.from("[4U\0hello\xff\xff\0", "latin1"))
      let text = ""
      while (!text.endsWith("\xff\0")) text += (yield* client.bytes)!.toString("latin1")
      assert.strictEqual(text, "8jKS'y:G*Co,Wxa-\0hello\xff\xff\0")
      yield* client.end
      yield* Fiber.join(fiber)
      assert.isTrue(near.destroyed)
    })
  )
})
