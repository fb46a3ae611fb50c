import { assert, describe, it } from "@effect/vitest"
import { Connection, TestTransport, type Transport, WebSocketClient, type WebSocketError } from "@effect-ws/core"
import { Chunk, Deferred, Duration, Effect, Exit, Fiber, Layer, type Scope, Stream, TestClock } from "effect"
import { header, latin1, onRequest, switching } from "./rawServer.js"

// ---- a server that says what the test says --------------------------------------------------------------------------------

type Reply =
  | string
  | Uint8Array
  | { readonly write: string | Uint8Array; readonly end: true }
  | { readonly abort: true }

/** Reads a request's head, gives it to `answer` and does what that says; `undefined` says nothing. */
const serve = (transport: Transport.Transport, answer: (request: string) => Reply | undefined): void => {
  onRequest(transport, (request) => {
    const reply = answer(request)
    if (reply === undefined) return
    // Nothing is called from inside a call.
    queueMicrotask(() => {
      if (typeof reply === "object" && "abort" in reply) return transport.abort()
      const bytes = typeof reply === "object" && "end" in reply ? reply.write : reply
      transport.write([typeof bytes === "string" ? latin1(bytes) : bytes])
      if (typeof reply === "object" && "end" in reply) transport.end()
    })
  })
}

interface Line {
  readonly target: WebSocketClient.Target
  readonly client: TestTransport.TestTransport
  readonly server: TestTransport.TestTransport
}

/** A client whose server is `answer`; every line that was dialed is in `lines`. */
const clientOf = (
  answer: (request: string, target: WebSocketClient.Target) => Reply | undefined,
  options?: TestTransport.Options
): { readonly service: WebSocketClient.Service; readonly lines: Array<Line>; readonly requests: Array<string> } => {
  const lines: Array<Line> = []
  const requests: Array<string> = []
  const service = WebSocketClient.fromDialer((target) =>
    Effect.gen(function* () {
      const [client, server] = yield* TestTransport.pair(options)
      yield* Effect.addFinalizer(() => Effect.sync(() => client.abort()))
      lines.push({ target, client, server })
      serve(server, (request) => {
        requests.push(request)
        return answer(request, target)
      })
      return client
    })
  )
  return { service, lines, requests }
}

const failure = <A>(effect: Effect.Effect<A, WebSocketError.HandshakeError, Scope.Scope>) =>
  Effect.flip(Effect.scoped(effect))

const hi = new Uint8Array([0x81, 0x02, 0x68, 0x69])

describe("WebSocketClient", () => {
  describe("over a transport", () => {
    it.effect.each(["as written", "every byte", "together", 7] satisfies Array<TestTransport.Chunking>)(
      "the request goes out, and bytes behind the response's head reach the connection (chunking: %s)",
      (chunking) =>
        Effect.scoped(
          Effect.gen(function* () {
            const { requests, service } = clientOf(
              (request) => switching(request, {}, Uint8Array.from([...hi, ...hi])),
              {
                chunking
              }
            )
            const socket = yield* service.connect("ws://example.com:8080/a%20b?c=d", {
              subprotocols: ["v2", "v1"],
              origin: "http://example.org",
              headers: { "X-Trace": "1", Cookie: ["a=1", "b=2"] }
            })
            assert.strictEqual(socket.role, "client")
            assert.strictEqual(socket.subprotocol, undefined)
            assert.strictEqual(
              requests[0]!.replace(/(Sec-WebSocket-Key: )\S+/, "$1KEY"),
              [
                "GET /a%20b?c=d HTTP/1.1",
                "Host: example.com:8080",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: KEY",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Protocol: v2, v1",
                "Origin: http://example.org",
                "x-trace: 1",
                "cookie: a=1; b=2",
                "",
                ""
              ].join("\r\n")
            )
            assert.strictEqual(yield* socket.take, "hi")
            assert.strictEqual(yield* socket.take, "hi")
            yield* socket.abort
          })
        )
    )

    it.scoped("what comes with the 101, a close frame and the end of the transport among it, is not lost", () =>
      Effect.gen(function* () {
        // RFC 6455 §5.5.1: close with 1000
        const after = Uint8Array.from([...hi, 0x88, 0x02, 0x03, 0xe8])
        const { service } = clientOf((request) => ({ write: switching(request, {}, after), end: true }))
        const socket = yield* service.connect("ws://a/")
        yield* Effect.yieldNow()
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(socket.messages)), ["hi"])
        assert.strictEqual((yield* socket.closed).code, 1000)
      })
    )

    it.scoped("more than the inbound budget behind the 101 waits for the consumer", () =>
      Effect.gen(function* () {
        const count = 100
        const after = Uint8Array.from(Array.from({ length: count }, () => [...hi]).flat())
        const { service } = clientOf((request) => switching(request, {}, after), { chunking: 11 })
        const socket = yield* service.connect("ws://a/", { maxQueuedMessages: 2 })
        const received = yield* Stream.runCollect(Stream.take(socket.messages, count))
        assert.strictEqual(received.length, count)
        yield* socket.abort
      })
    )

    it.scoped("the transport is lost between the 101 and the first message", () =>
      Effect.gen(function* () {
        const { lines, service } = clientOf((request) => switching(request, {}, hi))
        const socket = yield* service.connect("ws://a/")
        yield* lines[0]!.server.cut
        assert.strictEqual((yield* socket.closed).code, 1006)
        assert.strictEqual(yield* socket.take, "hi")
        assert.strictEqual((yield* Effect.flip(socket.take))._tag, "ConnectionClosed")
      })
    )

    it.scoped("interim responses are skipped (RFC 9110 §15.2)", () =>
      Effect.gen(function* () {
        const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        const { service } = clientOf((request) => Uint8Array.from([...latin1(interim), ...switching(request)]))
        const socket = yield* service.connect("ws://a/")
        yield* socket.abort
      })
    )

    it.scoped("a whole conversation by overTransport, and the scope's close code", () =>
      Effect.gen(function* () {
        const [clientEnd, serverEnd] = yield* TestTransport.pair()
        let key = ""
        // The server: our own opening handshake by hand, then a Connection on what follows it.
        const accepted = yield* Deferred.make<void>()
        let listener: Transport.Listener | undefined
        serverEnd.open({
          onData: (chunk) => {
            if (listener !== undefined) return listener.onData(chunk)
            key = header(String.fromCharCode(...chunk), "sec-websocket-key")!
            queueMicrotask(() => {
              serverEnd.write([switching(`Sec-WebSocket-Key: ${key}\r\n`, { "Sec-WebSocket-Protocol": "v1" })])
              Effect.runSync(Deferred.succeed(accepted, undefined))
            })
          },
          onDrain: () => listener?.onDrain(),
          onEnd: () => listener?.onEnd(),
          onClose: (error) => listener?.onClose(error)
        })
        const server = Effect.gen(function* () {
          yield* Deferred.await(accepted)
          const rest: Transport.Transport = { ...serverEnd, open: (next) => void (listener = next) }
          const socket = yield* Connection.make(rest, { role: "server" })
          yield* Stream.run(socket.messages, socket.sink)
          return yield* socket.closed
        })
        const serving = yield* Effect.fork(Effect.scoped(server))
        const echoed = yield* Effect.scoped(
          Effect.gen(function* () {
            const socket = yield* WebSocketClient.overTransport(clientEnd, { url: "ws://a/", subprotocols: ["v1"] })
            assert.strictEqual(socket.subprotocol, "v1")
            yield* socket.send("hello")
            return yield* socket.take
          })
        )
        assert.strictEqual(echoed, "hello")
        assert.deepStrictEqual((yield* Fiber.join(serving)).received, { code: 1000, reason: "" })
        assert.isTrue(yield* clientEnd.isClosed)
      })
    )

    it.effect("connect by the service in the context", () =>
      Effect.gen(function* () {
        const { service } = clientOf((request) => switching(request))
        const socket = WebSocketClient.connect("ws://a/")
        const closed = yield* Effect.flatMap(socket, (socket) => Effect.zipRight(socket.abort, socket.closed)).pipe(
          Effect.scoped,
          Effect.provide(Layer.succeed(WebSocketClient.WebSocketClient, service))
        )
        assert.strictEqual(closed.code, 1006)
      })
    )
  })

  describe("what can't be sent fails in phase Request, before anyone dials", () => {
    const rows: ReadonlyArray<
      readonly [rule: string, url: string, options: WebSocketClient.ConnectOptions, detail: RegExp]
    > = [
      ["no URL", "example.com/x", {}, /not valid/],
      ["relative URL", "/x", {}, /not valid/],
      ["empty URL", "", {}, /not valid/],
      ["another scheme", "ftp://a/", {}, /scheme/],
      ["RFC 6455 §3: fragment", "ws://a/#b", {}, /fragment/],
      ["RFC 6455 §3: empty fragment", "ws://a/#", {}, /fragment/],
      ["subprotocol with a space", "ws://a/", { subprotocols: ["a b"] }, /subprotocol is a token/],
      ["empty subprotocol", "ws://a/", { subprotocols: [""] }, /subprotocol is a token/],
      ["subprotocol twice", "ws://a/", { subprotocols: ["a", "b", "a"] }, /given twice/],
      ["line break in a header", "ws://a/", { headers: { a: "b\r\nc: d" } }, /control character/],
      ["header name with a space", "ws://a/", { headers: { "a b": "c" } }, /token/],
      ["a header of the handshake", "ws://a/", { headers: { "Sec-WebSocket-Key": "x" } }, /can't be given/],
      ["a header of a body", "ws://a/", { headers: [["Content-Length", "1"]] }, /can't be given/],
      ["line break in the origin", "ws://a/", { origin: "a\nb" }, /control character/],
      ["two origins", "ws://a/", { origin: "http://a", headers: { Origin: "http://b" } }, /given twice/],
      ["bad percent-encoding of credentials", "ws://%E0%A4%A:b@a/", {}, /credentials/],
      ["colon in the user name (RFC 7617 §2)", "ws://a%3Ab:c@a/", {}, /credentials/],
      ["ws+unix: without a socket", "ws+unix:", {}, /no socket/],
      ["ws+unix: with a host", "ws+unix://host/path:/", {}, /no socket/]
    ]
    it.effect.each(rows)("%s", ([, url, options, detail]) =>
      Effect.gen(function* () {
        const { lines, service } = clientOf(() => undefined)
        const error = yield* failure(service.connect(url, options))
        assert.deepStrictEqual([error._tag, error.phase, error.reason], ["HandshakeError", "Request", "Invalid"])
        assert.match(error.detail, detail)
        assert.strictEqual(lines.length, 0)
        // Secrets stay out of what is logged.
        assert.notMatch(error.message, /:c@|:b@/)
      })
    )

    it.effect("overTransport aborts its transport then too", () =>
      Effect.gen(function* () {
        const [client] = yield* TestTransport.pair()
        yield* failure(WebSocketClient.overTransport(client, { url: "nowhere" }))
        assert.isTrue(yield* client.isClosed)
      })
    )
  })

  describe("where it dials", () => {
    const rows: ReadonlyArray<
      readonly [
        url: string,
        host: string,
        port: number,
        secure: boolean,
        socketPath: string | undefined,
        line: string,
        hostHeader: string
      ]
    > = [
      ["ws://a/", "a", 80, false, undefined, "/", "a"],
      ["ws://a:80", "a", 80, false, undefined, "/", "a"],
      ["wss://A.example/x?y", "a.example", 443, true, undefined, "/x?y", "a.example"],
      ["wss://a:80/", "a", 80, true, undefined, "/", "a:80"],
      ["http://a/", "a", 80, false, undefined, "/", "a"],
      ["https://a/", "a", 443, true, undefined, "/", "a"],
      ["ws://[::1]:81/é", "::1", 81, false, undefined, "/%C3%A9", "[::1]:81"],
      ["ws+unix:/run/a.sock:/x?y=z", "", 80, false, "/run/a.sock", "/x?y=z", "localhost"],
      ["ws+unix:///run/a%20b.sock", "", 80, false, "/run/a b.sock", "/", "localhost"],
      ["ws+unix:./rel.sock:/:x", "", 80, false, "./rel.sock", "/:x", "localhost"]
    ]
    it.effect.each(rows)("%s", ([url, hostname, port, secure, socketPath, path, host]) =>
      Effect.gen(function* () {
        const { lines, requests, service } = clientOf(() => ({ abort: true }))
        yield* failure(service.connect(url))
        const { target } = lines[0]!
        assert.deepStrictEqual(
          [target.hostname, target.port, target.secure, target.socketPath],
          [hostname, port, secure, socketPath]
        )
        assert.strictEqual(requests[0]!.split("\r\n")[0], `GET ${path} HTTP/1.1`)
        assert.strictEqual(header(requests[0]!, "host"), host)
      })
    )

    it.effect("the caller's URL is not changed, and its credentials are percent-decoded (RFC 7617)", () =>
      Effect.gen(function* () {
        const { lines, requests, service } = clientOf(() => ({ abort: true }))
        const url = new URL("https://us%40er:p%C3%A4ss@a/")
        yield* failure(service.connect(url))
        assert.strictEqual(url.href, "https://us%40er:p%C3%A4ss@a/")
        assert.strictEqual(lines[0]!.target.url.href, "wss://a/")
        assert.strictEqual(
          header(requests[0]!, "authorization"),
          `Basic ${Buffer.from("us@er:päss").toString("base64")}`
        )
      })
    )

    it.effect("Authorization among the headers counts more than the URL's credentials, Host more than its host", () =>
      Effect.gen(function* () {
        const { requests, service } = clientOf(() => ({ abort: true }))
        yield* failure(service.connect("ws://u:p@a/", { headers: { AUTHORIZATION: "Bearer t", host: "b:1" } }))
        assert.strictEqual(header(requests[0]!, "authorization"), "Bearer t")
        assert.strictEqual(requests[0]!.match(/authorization/gi)!.length, 1)
        assert.strictEqual(header(requests[0]!, "host"), "b:1")
      })
    )
  })

  describe("answers that break a rule fail in phase Response (RFC 6455 §4.1)", () => {
    type Row = readonly [
      rule: string,
      reason: WebSocketError.HandshakeError["reason"],
      detail: RegExp,
      answer: (request: string) => Reply
    ]
    const rows: ReadonlyArray<Row> = [
      ["not HTTP", "Invalid", /no HTTP/, () => "SSH-2.0-OpenSSH_9\r\n"],
      ["HTTP/2 preface", "Invalid", /no HTTP/, () => "HTTP/2 200\r\n\r\n"],
      ["HTTP/1.0", "Invalid", /1\.0/, (r) => switching(r, {}, undefined, "HTTP/1.0 101 Switching Protocols")],
      ["bare LF", "Invalid", /LF/, () => "HTTP/1.1 101 x\n\n"],
      ["header beyond 16 KiB", "Invalid", /limit/, () => `HTTP/1.1 101 x\r\na: ${"b".repeat(16384)}`],
      ["101 headers", "Invalid", /headers/, () => `HTTP/1.1 101 x\r\n${"a: b\r\n".repeat(101)}`],
      ["no Upgrade", "Invalid", /no Upgrade/, (r) => switching(r, { Upgrade: undefined })],
      ["Upgrade: h2c", "Invalid", /h2c/, (r) => switching(r, { Upgrade: "h2c" })],
      ["no Connection", "Invalid", /no Connection/, (r) => switching(r, { Connection: undefined })],
      ["Connection: close", "Invalid", /close/, (r) => switching(r, { Connection: "close" })],
      ["no accept", "Invalid", /no Sec-WebSocket-Accept/, (r) => switching(r, { "Sec-WebSocket-Accept": undefined })],
      [
        "another accept",
        "Invalid",
        /does not answer the key/,
        (r) => switching(r, { "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" })
      ],
      ["subprotocol not offered", "Invalid", /not offered/, (r) => switching(r, { "Sec-WebSocket-Protocol": "v9" })],
      ["two subprotocols", "Invalid", /more than one/, (r) => switching(r, { "Sec-WebSocket-Protocol": "v1, v2" })],
      [
        "extension not offered",
        "Invalid",
        /not offered/,
        (r) => switching(r, { "Sec-WebSocket-Extensions": "permessage-deflate" })
      ],
      ["eleven interim responses", "Invalid", /interim/, () => "HTTP/1.1 100 Continue\r\n\r\n".repeat(11)],
      ["the transport ends at once", "Failed", /ended the transport/, () => ({ write: "", end: true })],
      [
        "the transport ends in the head",
        "Failed",
        /ended the transport/,
        () => ({ write: "HTTP/1.1 101 Switch", end: true })
      ],
      ["the transport is lost", "Failed", /was lost/, () => ({ abort: true })]
    ]
    it.effect.each(rows)("%s", ([, reason, detail, answer]) =>
      Effect.gen(function* () {
        const { lines, service } = clientOf(answer, { chunking: "together" })
        const error = yield* failure(service.connect("ws://u:p@a/path?secret=1", { subprotocols: ["v1", "v2"] }))
        assert.deepStrictEqual([error.phase, error.reason, error.url], ["Response", reason, "ws://a/path"])
        assert.match(error.detail, detail)
        assert.isTrue(yield* lines[0]!.client.isClosed)
      })
    )
  })

  describe("a refusal shows status, headers and body", () => {
    type Row = readonly [what: string, reply: Reply, status: number, body: string]
    const chunked = "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n"
    const rows: ReadonlyArray<Row> = [
      [
        "Content-Length",
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\nnope and more",
        401,
        "nope"
      ],
      ["no body", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n", 403, ""],
      ["204", "HTTP/1.1 204 No Content\r\nRetry-After: 7\r\n\r\n", 204, ""],
      ["304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\n", 304, ""],
      ["chunks", `${chunked}5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n`, 503, "hello world"],
      ["chunks, UTF-8 cut in two", `${chunked}1\r\n\xc3\r\n1\r\n\xa9\r\n0\r\n\r\n`, 503, "é"],
      ["chunks that are none", `${chunked}x\r\nhello`, 503, ""],
      ["chunk size beyond reason", `${chunked}fffffffff\r\nhello`, 503, ""],
      ["chunk sizes of leading zeros without end", chunked + "0".repeat(5000), 503, ""],
      ["until the end", { write: "HTTP/1.1 500 x\r\nRetry-After: 7\r\n\r\nall of it", end: true }, 500, "all of it"],
      [
        "cut short",
        { write: "HTTP/1.1 500 x\r\nContent-Length: 99\r\nRetry-After: 7\r\n\r\nhalf", end: true },
        500,
        "half"
      ],
      [
        "redirect, not followed",
        "HTTP/1.1 302 Found\r\nLocation: ws://b/\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n",
        302,
        ""
      ],
      ["200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nhi", 200, "hi"],
      [
        "64 KiB of more",
        `HTTP/1.1 500 x\r\nContent-Length: 999999\r\nRetry-After: 7\r\n\r\n${"a".repeat(70000)}`,
        500,
        "a".repeat(65536)
      ],
      ["64 KiB of endless chunks", `${chunked}11170\r\n${"a".repeat(70000)}`, 503, "a".repeat(65536)]
    ]
    for (const chunking of ["as written", 1000, 3] satisfies Array<TestTransport.Chunking>) {
      it.effect.each(rows)(`%s (chunking: ${chunking})`, ([, reply, status, body]) =>
        Effect.gen(function* () {
          const { lines, service } = clientOf(() => reply, { chunking })
          const error = yield* failure(service.connect("ws://a/"))
          assert.deepStrictEqual([error.phase, error.reason, error.status], ["Response", "Refused", status])
          assert.strictEqual(error.headers?.["retry-after"], "7")
          assert.strictEqual(error.body, body)
          assert.isTrue(yield* lines[0]!.client.isClosed)
        })
      )
    }
  })

  describe("deadlines", () => {
    const waiting = (effect: Effect.Effect<unknown, WebSocketError.HandshakeError, Scope.Scope>) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(failure(effect))
        // The fiber runs until it waits.
        yield* Effect.yieldNow()
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        return fiber
      })

    it.effect.each(["Dial", "Tls", "Proxy"] as const)(
      "a dialer that hangs in phase %s, 10 seconds by default",
      (phase) =>
        Effect.gen(function* () {
          let released = false
          const service = WebSocketClient.fromDialer((target) =>
            Effect.gen(function* () {
              yield* Effect.addFinalizer(() => Effect.sync(() => (released = true)))
              target.enter(phase)
              return yield* Effect.never
            })
          )
          const fiber = yield* waiting(service.connect("ws://a/"))
          yield* TestClock.adjust("9999 millis")
          assert.isTrue((yield* Fiber.poll(fiber))._tag === "None")
          yield* TestClock.adjust("1 millis")
          const error = yield* Fiber.join(fiber)
          assert.deepStrictEqual([error.phase, error.reason], [phase, "Timeout"])
          assert.isTrue(released)
        })
    )

    it.effect("each phase has its own time, and its own option", () =>
      Effect.gen(function* () {
        let enter: WebSocketClient.Target["enter"] | undefined
        const service = WebSocketClient.fromDialer((target) => {
          enter = target.enter
          return Effect.never
        })
        const fiber = yield* waiting(
          service.connect("ws://a/", { handshakeTimeout: "3 seconds", phaseTimeouts: { tls: "1 second" } })
        )
        yield* TestClock.adjust("2 seconds")
        enter!("Proxy")
        yield* TestClock.adjust("2 seconds")
        enter!("Tls")
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([error.phase, error.reason], ["Tls", "Timeout"])
        assert.match(error.detail, /1000 ms/)
      })
    )

    it.effect("a server that says nothing", () =>
      Effect.gen(function* () {
        const { lines, service } = clientOf(() => undefined)
        const fiber = yield* waiting(service.connect("ws://a/", { handshakeTimeout: 500 }))
        yield* TestClock.adjust(500)
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([error.phase, error.reason], ["Response", "Timeout"])
        assert.isTrue(yield* lines[0]!.client.isClosed)
      })
    )

    it.effect("a refusal whose body does not end is told with what came of it", () =>
      Effect.gen(function* () {
        const { service } = clientOf(() => "HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nlater")
        const fiber = yield* waiting(service.connect("ws://a/"))
        yield* TestClock.adjust("10 seconds")
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([error.reason, error.status, error.body], ["Refused", 503, "later"])
      })
    )

    it.effect("an infinite timeout is none, and an open connection has no deadline", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { service } = clientOf((request) => switching(request))
          const socket = yield* service.connect("ws://a/", { handshakeTimeout: Duration.infinity, heartbeat: false })
          const other = yield* service.connect("ws://a/", { heartbeat: false })
          yield* TestClock.adjust("1 hour")
          assert.isTrue(yield* socket.trySend("a"))
          assert.isTrue(yield* other.trySend("a"))
          yield* Effect.all([socket.abort, other.abort])
        })
      )
    )
  })

  describe("interruption leaves nothing behind", () => {
    it.effect("while dialing", () =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        let released = false
        const service = WebSocketClient.fromDialer(() =>
          Effect.zipRight(
            Effect.acquireRelease(Deferred.succeed(begun, undefined), () => Effect.sync(() => (released = true))),
            Effect.never
          )
        )
        const fiber = yield* Effect.fork(Effect.scoped(service.connect("ws://a/")))
        yield* Deferred.await(begun)
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        assert.isTrue(released)
      })
    )

    it.effect("while waiting for the response, and in the middle of it", () =>
      Effect.gen(function* () {
        for (const partial of [undefined, "HTTP/1.1 101 Swit", "HTTP/1.1 500 x\r\n\r\nbody"]) {
          const asked = yield* Deferred.make<void>()
          const { lines, service } = clientOf(() => {
            Effect.runSync(Deferred.succeed(asked, undefined))
            return partial
          })
          const fiber = yield* Effect.fork(Effect.scoped(service.connect("ws://a/")))
          yield* Deferred.await(asked)
          yield* Effect.yieldNow()
          assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
          assert.isTrue(yield* lines[0]!.client.isClosed)
          assert.isTrue(yield* lines[0]!.server.isClosed)
        }
      })
    )

    it.effect("at any step on the way to the open connection", () =>
      Effect.gen(function* () {
        for (let steps = 0; steps < 60; steps++) {
          const { lines, service } = clientOf((request) => switching(request), { chunking: 32 })
          const fiber = yield* Effect.fork(Effect.scoped(Effect.zipRight(service.connect("ws://a/"), Effect.never)))
          for (let i = 0; i < steps; i++) yield* Effect.promise(() => Promise.resolve())
          // The peer never answers the close frame, so what is open by then waits for its deadline.
          const interrupted = yield* Effect.fork(Fiber.interrupt(fiber))
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          yield* TestClock.adjust("10 seconds")
          yield* Fiber.join(interrupted)
          for (const line of lines) assert.isTrue(yield* line.client.isClosed, `after ${steps} steps`)
        }
      })
    )
  })

  describe("redirects", () => {
    const moved = (location: string, status = 302) =>
      `HTTP/1.1 ${status} Moved\r\nLocation: ${location}\r\nContent-Length: 0\r\n\r\n`
    const lines_ = (request: string) => request.split("\r\n")[0]

    it.scoped("are followed on request, relative ones too, each over its own transport", () =>
      Effect.gen(function* () {
        const { lines, requests, service } = clientOf((request) => {
          const line = lines_(request)
          return line === "GET /a/b HTTP/1.1"
            ? moved("c?d", 307)
            : line === "GET /a/c?d HTTP/1.1"
              ? moved("/e", 301)
              : switching(request)
        })
        const socket = yield* service.connect("ws://h/a/b", { followRedirects: true })
        assert.deepStrictEqual(requests.map(lines_), ["GET /a/b HTTP/1.1", "GET /a/c?d HTTP/1.1", "GET /e HTTP/1.1"])
        assert.deepStrictEqual(yield* Effect.all(lines.map(({ client }) => client.isClosed)), [true, true, false])
        // RFC 6455 §4.1: a key is used once
        assert.strictEqual(new Set(requests.map((request) => header(request, "sec-websocket-key"))).size, 3)
        yield* socket.abort
      })
    )

    it.effect.each([
      [true, 10],
      [2, 2],
      [0, 0],
      [false, 0]
    ] as const)("followRedirects: %s follows %i and no more", ([followRedirects, count]) =>
      Effect.gen(function* () {
        const { requests, service } = clientOf(() => moved("/again"))
        const error = yield* failure(service.connect("ws://h/", { followRedirects }))
        assert.strictEqual(requests.length, count + 1)
        assert.deepStrictEqual([error.phase, error.reason, error.status], ["Response", "Refused", 302])
        assert.strictEqual(error.headers?.location, "/again")
      })
    )

    const places: ReadonlyArray<readonly [why: string, location: string, detail: RegExp]> = [
      ["no URL", "http://[", /no valid URL/],
      ["another scheme", "file:///etc/passwd", /scheme/],
      ["a Unix socket", "ws+unix:/run/x.sock:/", /scheme/],
      ["a fragment", "/x#y", /fragment/]
    ]
    it.effect.each(places)("to %s are refused", ([, location, detail]) =>
      Effect.gen(function* () {
        const { requests, service } = clientOf(() => moved(location))
        const error = yield* failure(service.connect("ws://h/", { followRedirects: true }))
        assert.deepStrictEqual([error.phase, error.reason, error.status], ["Response", "Invalid", 302])
        assert.match(error.detail, detail)
        assert.strictEqual(requests.length, 1)
      })
    )

    const kept = ["Basic dTpw", "s=1", "given", "kept"]
    const rows: ReadonlyArray<
      readonly [what: string, from: string, to: string, sent: ReadonlyArray<string | undefined>]
    > = [
      ["same host", "ws://u:p@h/", "/x", kept],
      ["same host by http:", "ws://u:p@h/", "http://h/x", kept],
      ["to TLS on the same host", "ws://u:p@h/", "https://h/x", kept],
      ["another host", "ws://u:p@h/", "ws://g/x", [undefined, undefined, "g", "kept"]],
      ["a subdomain", "ws://u:p@h/", "ws://a.h/x", [undefined, undefined, "a.h", "kept"]],
      ["another port", "ws://u:p@h/", "ws://h:81/x", [undefined, undefined, "h:81", "kept"]],
      ["downgrade", "wss://u:p@h/", "ws://h/x", [undefined, undefined, "given", "kept"]],
      ["credentials of the redirect itself", "ws://u:p@h/", "ws://a:b@g/x", ["Basic YTpi", undefined, "g", "kept"]]
    ]
    it.scoped.each(rows)("credentials: %s", ([, from, to, sent]) =>
      Effect.gen(function* () {
        const { requests, service } = clientOf((request) =>
          lines_(request)!.includes("/x") ? switching(request) : moved(to)
        )
        const headers = { cookie: "s=1", host: "given", "x-other": "kept" }
        const socket = yield* service.connect(from, { followRedirects: true, headers })
        assert.deepStrictEqual(
          ["authorization", "cookie", "host", "x-other"].map((name) => header(requests[1]!, name)),
          sent
        )
        yield* socket.abort
      })
    )

    it.scoped("credentials that were dropped do not come back", () =>
      Effect.gen(function* () {
        const { requests, service } = clientOf((request, { hostname }) =>
          hostname === "g" ? moved("ws://h/x") : lines_(request)!.includes("/x") ? switching(request) : moved("ws://g/")
        )
        const socket = yield* service.connect("ws://u:p@h/", { followRedirects: true, headers: { cookie: "s=1" } })
        assert.strictEqual(header(requests[2]!, "authorization"), undefined)
        assert.strictEqual(header(requests[2]!, "cookie"), undefined)
        yield* socket.abort
      })
    )

    it.scoped("on a Unix socket a relative redirect stays there", () =>
      Effect.gen(function* () {
        const { lines, service } = clientOf((request) =>
          lines_(request)!.includes("/x") ? switching(request) : moved("/x")
        )
        const socket = yield* service.connect("ws+unix:/run/a.sock:/", { followRedirects: true })
        assert.deepStrictEqual(
          lines.map(({ target }) => target.socketPath),
          ["/run/a.sock", "/run/a.sock"]
        )
        yield* socket.abort
      })
    )
  })
})
