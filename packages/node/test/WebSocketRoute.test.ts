/** WebSocket routes over real sockets: a raw client says what it wants, and `ws` stands for programs. */
import * as Http from "node:http"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import {
  Cookies,
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApp,
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse
} from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, type Message, Upgrade, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketServer } from "@effect-ws/node"
import {
  Context,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberRef,
  Layer,
  LogLevel,
  Option,
  Queue,
  Schema,
  type Scope,
  Stream
} from "effect"
import { WebSocket } from "ws"
import {
  clientFrame,
  clientText,
  connect,
  departures,
  handshake,
  type LogLine,
  logsTo,
  open,
  portOf,
  type RawHeaders,
  type Serving,
  sampleAccept,
  serve
} from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)

/** Answers every message with the same JSON. */
const tell = (what: unknown) => (socket: Connection.Connection) =>
  socket.runForEach(() => socket.send(JSON.stringify(what)))

/** What a route says to the first message. */
const ask = (port: number, path: string, headers: RawHeaders = {}) =>
  Effect.gen(function* () {
    const client = yield* open(port, path, headers)
    yield* client.sendText("?")
    const answer = yield* client.text
    yield* client.close()
    return JSON.parse(answer) as unknown
  })

/** A connection whose client offered subprotocols, and the 101 that it got. */
const agreeing = (port: number, path: string, offered: string) =>
  Effect.gen(function* () {
    const client = yield* connect(port)
    const answer = yield* client.upgrade(path, { "Sec-WebSocket-Protocol": offered })
    assert.strictEqual(answer.status, 101)
    return { answer, client }
  })

/** The handshake's own headers of a 101 that agrees on the subprotocol v1. */
const agreed = {
  upgrade: "websocket",
  connection: "Upgrade",
  "sec-websocket-accept": sampleAccept,
  "sec-websocket-protocol": "v1"
}

/** The answer to a handshake which is not accepted; the connection is over then. */
const refused = (port: number, path: string, headers: RawHeaders = {}, startLine?: string) =>
  Effect.gen(function* () {
    const client = yield* connect(port)
    const answer = yield* client.upgrade(path, headers, startLine)
    yield* client.end
    assert.strictEqual(yield* client.ended, "end")
    return answer
  }).pipe(Effect.scoped)

const levels = (serving: Serving, level: LogLevel.LogLevel) => serving.logs.filter((line) => line.level === level)

/** Nothing is left on the server, and nothing was logged that a person has to look at. */
const quiet = (serving: Serving) =>
  Effect.gen(function* () {
    yield* serving.sockets(0)
    yield* serving.stop
    assert.deepStrictEqual(
      serving.logs.filter(({ level }) => LogLevel.greaterThan(level, LogLevel.Debug)),
      []
    )
  })

describe("the request", () => {
  const requestOf = { echo: "said" }
  it.scopedLive("path parameters, query and headers, raw", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/chat/:room/:user", {}, (socket, { headers, offeredSubprotocols, path, urlParams }) =>
          tell({ path, urlParams, agent: headers["x-agent"], offeredSubprotocols, ...requestOf })(socket)
        )
      )
      assert.deepStrictEqual(
        yield* ask(serving.port, "/chat/lob%20by/alice?a=1&b=2&b=3&empty=", {
          "X-Agent": "raw",
          "Sec-WebSocket-Protocol": "v2, v1"
        }),
        {
          path: { room: "lob by", user: "alice" },
          urlParams: { a: "1", b: ["2", "3"], empty: "" },
          agent: "raw",
          offeredSubprotocols: ["v2", "v1"],
          ...requestOf
        }
      )
      yield* quiet(serving)
    })
  )

  const Typed = WebSocketRoute.layer(
    "/typed/:id",
    {
      path: Schema.Struct({ id: Schema.NumberFromString.pipe(Schema.int()) }),
      urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
      headers: Schema.Struct({ "x-user": Schema.NonEmptyString })
    },
    (socket, { headers, path, urlParams }) => tell([path, urlParams, headers])(socket)
  )
  it.scopedLive("decoded by schema", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Typed)
      assert.deepStrictEqual(yield* ask(serving.port, "/typed/7?since=12", { "X-User": "alice" }), [
        { id: 7 },
        { since: 12 },
        { "x-user": "alice" }
      ])
      yield* quiet(serving)
    })
  )
  const mismatches: ReadonlyArray<readonly [string, string, RawHeaders]> = [
    ["path", "/typed/seven", { "X-User": "alice" }],
    ["query", "/typed/7?since=yesterday", { "X-User": "alice" }],
    ["header that is missing", "/typed/7", {}],
    ["header", "/typed/7", { "X-User": "" }]
  ]
  for (const [what, path, headers] of mismatches) {
    it.scopedLive(`400 when the schema refuses the ${what}`, () =>
      Effect.gen(function* () {
        const serving = yield* serve(Typed)
        assert.strictEqual((yield* refused(serving.port, path, headers)).status, 400)
        assert.deepStrictEqual(yield* ask(serving.port, "/typed/1", { "X-User": "bob" }), [
          { id: 1 },
          {},
          { "x-user": "bob" }
        ])
      })
    )
  }

  it.scopedLive("wildcards, prefixes, several routes, and ordinary ones next to them", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/a", {}, tell("a")),
          WebSocketRoute.layer("/files/*", {}, (socket, { path }) => tell(path)(socket)),
          HttpLayerRouter.use((router) =>
            router.prefixed("/api").add(
              "GET",
              "/ws/:id",
              WebSocketRoute.upgrade({}, (socket, { path, request }) => tell([path, request.url])(socket))
            )
          ),
          HttpLayerRouter.add("GET", "/health", HttpServerResponse.text("ok")),
          HttpLayerRouter.add("POST", "/a", HttpServerResponse.text("posted"))
        )
      )
      assert.strictEqual(yield* ask(serving.port, "/a"), "a")
      assert.deepStrictEqual(yield* ask(serving.port, "/files/x/y.txt"), { "*": "x/y.txt" })
      assert.deepStrictEqual(yield* ask(serving.port, "/api/ws/9"), [{ id: "9" }, "/ws/9"])
      const plain = yield* connect(serving.port)
      yield* plain.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
      // An ordinary answer with a length, on a connection that goes on.
      assert.strictEqual((yield* plain.answer).body, "ok")
      yield* plain.write("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
      assert.strictEqual((yield* plain.answer).body, "posted")
      yield* plain.write("GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.strictEqual((yield* plain.answer).status, 426)
      // The connection that was told so may still become one.
      assert.strictEqual((yield* plain.upgrade("/a")).status, 101)
      yield* plain.sendText("?")
      assert.strictEqual(yield* plain.text, '"a"')
      yield* plain.close()
      assert.strictEqual((yield* refused(serving.port, "/nowhere")).status, 404)
      assert.strictEqual((yield* refused(serving.port, "/health")).body, "ok")
    })
  )
})

describe("accept", () => {
  class Denied extends Data.TaggedError("Denied") implements HttpServerRespondable.Respondable {
    [HttpServerRespondable.symbol]() {
      return HttpServerResponse.text("not you", { status: 403 })
    }
  }

  it.scopedLive("gives a value, or fails, or answers itself", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer(
          "/door/:who",
          {
            accept: ({ path }) =>
              Effect.gen(function* () {
                if (path.who === "denied") return yield* new Denied()
                if (path.who === "teapot") return yield* HttpServerResponse.text("short and stout", { status: 418 })
                if (path.who === "defect") return yield* Effect.die(new Error("secret"))
                return { user: path.who }
              })
          },
          (socket, { accepted }) => tell(accepted)(socket)
        )
      )
      assert.deepStrictEqual(yield* ask(serving.port, "/door/alice"), { user: "alice" })
      assert.deepInclude(yield* refused(serving.port, "/door/denied"), { status: 403, body: "not you" })
      assert.deepInclude(yield* refused(serving.port, "/door/teapot"), { status: 418, body: "short and stout" })
      assert.deepInclude(yield* refused(serving.port, "/door/defect"), { status: 500, body: "" })
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("Accept adds headers and cookies, and chooses the subprotocol", () =>
    Effect.gen(function* () {
      const cookies = Cookies.unsafeSet(Cookies.unsafeSet(Cookies.empty, "sid", "1"), "theme", "dark", { path: "/" })
      const serving = yield* serve(
        WebSocketRoute.layer(
          "/a",
          {
            subprotocols: ["v2", "v1"],
            responseHeaders: { "x-route": "all", "x-both": "route", upgrade: "nonsense" },
            accept: () =>
              Effect.succeed(
                WebSocketRoute.accept("value", {
                  headers: { "x-request": "this", "x-both": "request", connection: "close" },
                  cookies,
                  subprotocol: "v1"
                })
              )
          },
          (socket, { accepted, subprotocol }) => tell([accepted, subprotocol, socket.subprotocol])(socket)
        )
      )
      const { answer, client } = yield* agreeing(serving.port, "/a", "v0, v1, v2")
      assert.deepStrictEqual(answer.headers, {
        ...agreed,
        "x-route": "all",
        "x-both": "request",
        "x-request": "this"
      })
      assert.deepStrictEqual(answer.cookies, ["sid=1", "theme=dark; Path=/"])
      yield* client.sendText("?")
      assert.strictEqual(yield* client.text, '["value","v1","v1"]')
      yield* client.close()
      // One that the client does not offer is none.
      assert.deepStrictEqual(yield* ask(serving.port, "/a", { "Sec-WebSocket-Protocol": "v2" }), ["value", null, null])
    })
  )

  for (const [what, leave] of departures) {
    it.scopedLive(`${what} by the client interrupts it, and the process lives`, () =>
      Effect.gen(function* () {
        const began = yield* Deferred.make<void>()
        const how = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        const serving = yield* serve(
          Layer.mergeAll(
            WebSocketRoute.layer(
              "/slow",
              {
                accept: () =>
                  Effect.zipRight(Deferred.succeed(began, undefined), Effect.never).pipe(
                    Effect.onExit((exit) => Deferred.succeed(how, exit))
                  )
              },
              echo
            ),
            WebSocketRoute.layer("/echo", {}, tell("fine"))
          )
        )
        const client = yield* connect(serving.port)
        yield* client.write(handshake("/slow"))
        yield* Deferred.await(began)
        yield* leave(client)
        assert.isTrue(Exit.isInterrupted(yield* Deferred.await(how)))
        yield* client.ended
        yield* client.end
        yield* serving.sockets(0)
        assert.strictEqual(yield* ask(serving.port, "/echo"), "fine")
      })
    )
  }

  const arrivals: ReadonlyArray<readonly [string, ReadonlyArray<string>, ReadonlyArray<string>]> = [
    ["with the handshake", ["first"], []],
    ["after the handshake", [], ["second"]],
    ["with the handshake and after it", ["first"], ["second", "third"]],
    ["in large amounts", ["first"], Array.from({ length: 40 }, (_, i) => `${i} ${"x".repeat(10_000)}`)]
  ]
  for (const [when, early, late] of arrivals) {
    it.scopedLive(`messages that come ${when} while it decides are not lost`, () =>
      Effect.gen(function* () {
        const began = yield* Deferred.make<void>()
        const decide = yield* Deferred.make<void>()
        const serving = yield* serve(
          WebSocketRoute.layer(
            "/slow",
            { accept: () => Effect.zipRight(Deferred.succeed(began, undefined), Deferred.await(decide)) },
            echo
          )
        )
        const client = yield* connect(serving.port)
        yield* client.write(Buffer.concat([Buffer.from(handshake("/slow")), ...early.map(clientText)]))
        yield* Deferred.await(began)
        if (late.length > 0) yield* client.write(Buffer.concat(late.map(clientText)))
        // A whole request later the server has seen all of it.
        assert.strictEqual((yield* refused(serving.port, "/nowhere")).status, 404)
        yield* Deferred.succeed(decide, undefined)
        assert.strictEqual((yield* client.answer).status, 101)
        for (const message of [...early, ...late]) assert.strictEqual(yield* client.text, message)
        yield* client.close()
        yield* quiet(serving)
      })
    )
  }
})

describe("subprotocols", () => {
  const cases: ReadonlyArray<
    readonly [string, WebSocketRoute.SubprotocolChoice, string | undefined, string | undefined]
  > = [
    ["a function chooses, by what is offered", (offered) => offered.at(-1), "v1, v2", "v2"],
    ["a function chooses, by the request", (_, { headers }) => headers.host?.slice(0, 5), "v1, local", "local"],
    ["a function chooses none", () => undefined, "v1", undefined],
    ["what a function chooses must be offered (RFC 6455 §4.2.2)", () => "v3", "v1, v2", undefined],
    ["a function is not asked when nothing is offered", () => assert.fail("asked"), undefined, undefined],
    ["the server's preference decides", ["v2", "v1"], "v1, v2", "v2"],
    ["an offer that nobody knows is left out", ["v2", "v1"], "bogus, v1", "v1"],
    ["case counts", ["v2"], "V2", undefined],
    ["none in common: none", ["v2"], "v1", undefined],
    ["nothing offered: none", ["v2"], undefined, undefined],
    ["nothing supported: none", [], "v1", undefined]
  ]
  for (const [what, subprotocols, offered, expected] of cases) {
    it.scopedLive(what, () =>
      Effect.gen(function* () {
        const serving = yield* serve(
          WebSocketRoute.layer("/a", { subprotocols }, (socket, { subprotocol }) => tell(subprotocol ?? "none")(socket))
        )
        const client = yield* connect(serving.port)
        const answer = yield* client.upgrade("/a", { "Sec-WebSocket-Protocol": offered })
        assert.strictEqual(answer.headers["sec-websocket-protocol"], expected)
        yield* client.sendText("?")
        assert.strictEqual(yield* client.text, JSON.stringify(expected ?? "none"))
      })
    )
  }
})

describe("origins", () => {
  const cases: ReadonlyArray<readonly [WebSocketRoute.OriginPolicy | undefined, string | undefined, number]> = [
    [undefined, undefined, 101],
    [undefined, "http://localhost", 101],
    [undefined, "https://localhost", 101],
    [undefined, "http://evil.example", 403],
    [undefined, "null", 403],
    ["same", "http://localhost", 101],
    ["same", "http://localhost:81", 403],
    ["any", "http://evil.example", 101],
    [["https://app.example", "other.example"], "https://app.example", 101],
    [["https://app.example", "other.example"], "http://app.example", 403],
    [["https://app.example", "other.example"], "http://other.example", 101],
    [["https://app.example"], "http://localhost", 403],
    [["https://app.example"], undefined, 101],
    [(origin) => origin.endsWith(".example"), "http://some.example", 101],
    [(origin) => origin.endsWith(".example"), "http://localhost", 403]
  ]
  it.scopedLive("let pages in or not", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/health", {}, echo),
          ...cases.map(([origins], i) => WebSocketRoute.layer(`/route/${i}`, { origins }, echo))
        )
      )
      for (const [i, [policy, origin, status]] of cases.entries()) {
        const client = yield* connect(serving.port)
        const answer = yield* client.upgrade(`/route/${i}`, { Origin: origin })
        assert.strictEqual(answer.status, status, `${String(policy)} and ${origin}`)
        if (status === 403) assert.include(answer.body, String(origin))
      }
    })
  )
})

describe("what is no handshake gets", () => {
  const many = Object.fromEntries(Array.from({ length: 120 }, (_, i) => [`x-${i}`, "1"]))
  const cases: ReadonlyArray<
    readonly [string, number, RawHeaders, string | undefined, Readonly<Record<string, string>>]
  > = [
    ["no key", 400, { "Sec-WebSocket-Key": undefined }, undefined, {}],
    ["a short key", 400, { "Sec-WebSocket-Key": "c2hvcnQ=" }, undefined, {}],
    ["no version", 426, { "Sec-WebSocket-Version": undefined }, undefined, { "sec-websocket-version": "13" }],
    ["version 8", 426, { "Sec-WebSocket-Version": "8" }, undefined, { "sec-websocket-version": "13" }],
    ["another upgrade", 426, { Upgrade: "h2c" }, undefined, { upgrade: "websocket" }],
    ["a broken offer of subprotocols", 400, { "Sec-WebSocket-Protocol": "a b" }, undefined, {}],
    ["a broken offer of extensions", 400, { "Sec-WebSocket-Extensions": "a;;b" }, undefined, {}],
    ["two origins", 400, { Origin: "http://a, http://b" }, undefined, {}],
    ["HTTP/1.0", 400, {}, "GET /echo HTTP/1.0", {}],
    ["a foreign origin", 403, { Origin: "http://evil.example" }, undefined, {}],
    ["too many headers", 431, many, undefined, {}]
  ]
  for (const [what, status, headers, startLine, expected] of cases) {
    it.scopedLive(`${status} with a sentence: ${what}`, () =>
      Effect.gen(function* () {
        const serving = yield* serve(WebSocketRoute.layer("/echo", {}, tell("still here")))
        const answer = yield* refused(serving.port, "/echo", headers, startLine)
        assert.strictEqual(answer.status, status)
        assert.match(answer.body, /^[A-Z][ -~]+\.\n$|^[A-Z][ -~]+\n$/)
        assert.deepInclude(answer.headers, { "content-type": "text/plain", ...expected })
        assert.strictEqual(yield* ask(serving.port, "/echo"), "still here")
        assert.include(levels(serving, LogLevel.Debug)[0]!.text, `rejected with ${status}`)
        yield* quiet(serving)
      })
    )
  }

  it.scopedLive("405 when a route takes other methods too", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        HttpLayerRouter.add("*", "/any", WebSocketRoute.upgrade({}, echo), { uninterruptible: true })
      )
      const answer = yield* refused(serving.port, "/any", {}, "POST /any HTTP/1.1")
      assert.strictEqual(answer.status, 405)
      assert.strictEqual(answer.headers.allow, "GET")
      assert.include(answer.body, "GET")
    })
  )

  it.scopedLive("426 for an ordinary GET", () =>
    Effect.gen(function* () {
      const serving = yield* serve(WebSocketRoute.layer("/echo", {}, echo))
      const answer = yield* Effect.promise(() => fetch(`http://127.0.0.1:${serving.port}/echo`))
      assert.strictEqual(answer.status, 426)
      assert.strictEqual(answer.headers.get("upgrade"), "websocket")
      assert.include(yield* Effect.promise(() => answer.text()), "WebSocket")
    })
  )

  it.scopedLive("a client that is refused and stays, or sends on, is not kept", () =>
    Effect.gen(function* () {
      const serving = yield* serve(WebSocketRoute.layer("/echo", {}, echo))
      const talker = yield* connect(serving.port)
      yield* talker.write(Buffer.concat([Buffer.from(handshake("/nowhere")), clientText("x".repeat(100_000))]))
      assert.strictEqual((yield* talker.answer).status, 404)
      yield* talker.write(clientText("more".repeat(100_000)))
      yield* talker.end
      yield* talker.ended
      yield* serving.sockets(0)
      assert.strictEqual(serving.server.listenerCount("upgrade"), 2)
    })
  )
})

describe("middleware", () => {
  it.scopedLive("CORS, cookies and mapped responses reach the 101", () =>
    Effect.gen(function* () {
      const mapped = HttpLayerRouter.middleware(
        (effect) =>
          Effect.map(effect, (response) =>
            HttpServerResponse.unsafeSetCookie(HttpServerResponse.setHeader(response, "x-mapped", "yes"), "seen", "1")
          ),
        { global: true }
      )
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", { origins: "any" }, tell("fine")).pipe(
          Layer.provide(HttpLayerRouter.cors({ allowedOrigins: ["http://page.example"], credentials: true })),
          Layer.provide(mapped)
        )
      )
      const client = yield* connect(serving.port)
      const answer = yield* client.upgrade("/echo", { Origin: "http://page.example" })
      assert.strictEqual(answer.status, 101)
      assert.deepInclude(answer.headers, {
        "access-control-allow-origin": "http://page.example",
        "access-control-allow-credentials": "true",
        "x-mapped": "yes"
      })
      assert.deepStrictEqual(answer.cookies, ["seen=1"])
      yield* client.sendText("?")
      assert.strictEqual(yield* client.text, '"fine"')
    })
  )

  it.scopedLive("one that sets headers of the handshake does not break it", () =>
    Effect.gen(function* () {
      const closing = HttpLayerRouter.middleware(
        (effect) =>
          Effect.map(effect, (response) =>
            HttpServerResponse.setHeaders(response, {
              connection: "close",
              "sec-websocket-accept": "mine",
              "sec-websocket-protocol": "none",
              "content-length": "0",
              "x-mapped": "yes"
            })
          ),
        { global: true }
      )
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", { subprotocols: ["v1"] }, tell("fine")).pipe(Layer.provide(closing))
      )
      const { answer, client } = yield* agreeing(serving.port, "/echo", "v1")
      assert.deepStrictEqual(answer.headers, { ...agreed, "x-mapped": "yes" })
      yield* client.sendText("?")
      assert.strictEqual(yield* client.text, '"fine"')
    })
  )

  it.scopedLive("one that replaces the 101 refuses the connection", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", {}, () => Effect.die("must not run")).pipe(
          Layer.provide(
            HttpLayerRouter.middleware(
              (effect) => Effect.as(effect, HttpServerResponse.text("full", { status: 503 })),
              {
                global: true
              }
            )
          )
        )
      )
      assert.deepInclude(yield* refused(serving.port, "/echo"), { status: 503, body: "full" })
      yield* quiet(serving)
    })
  )

  it.scopedLive("a header that can't be sent is an error before anything is taken over", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", { responseHeaders: { "x-broken": "a\r\nx-injected: b" } }, echo)
      )
      const answer = yield* refused(serving.port, "/echo")
      assert.isAtLeast(answer.status, 500)
      assert.notProperty(answer.headers, "x-injected")
      yield* serving.sockets(0)
    })
  )

  class User extends Context.Tag("User")<User, { readonly name: string }>() {}
  const auth = HttpLayerRouter.middleware<{ provides: User }>()(
    Effect.succeed((effect) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        const name = request.headers.authorization?.replace("Bearer ", "")
        return name === undefined
          ? Effect.succeed(HttpServerResponse.text("who are you?", { status: 401 }))
          : Effect.provideService(effect, User, { name })
      })
    )
  ).layer

  it.scopedLive("authentication: 401, or a service of the handler", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer("/me", {}, (socket) => Effect.flatMap(User, ({ name }) => tell(name)(socket))).pipe(
          Layer.provide(auth)
        )
      )
      assert.deepInclude(yield* refused(serving.port, "/me"), { status: 401, body: "who are you?" })
      assert.strictEqual(yield* ask(serving.port, "/me", { Authorization: "Bearer alice" }), "alice")
      yield* quiet(serving)
    })
  )

  it.scopedLive("what it puts into FiberRefs is kept in the handler", () =>
    Effect.gen(function* () {
      const tenant = FiberRef.unsafeMake("nobody")
      const serving = yield* serve(
        WebSocketRoute.layer("/me", {}, (socket) =>
          Effect.gen(function* () {
            yield* Effect.logInfo("handling")
            yield* tell(yield* FiberRef.get(tenant))(socket)
          })
        ).pipe(
          Layer.provide(
            HttpLayerRouter.middleware(
              (effect) => Effect.annotateLogs(Effect.locally(effect, tenant, "acme"), "request", "42"),
              { global: true }
            )
          )
        )
      )
      assert.strictEqual(yield* ask(serving.port, "/me"), "acme")
      assert.deepStrictEqual(
        levels(serving, LogLevel.Info).map(({ annotations, text }) => [text, annotations]),
        [["handling", { request: "42" }]]
      )
    })
  )

  it.scopedLive("a request timeout bounds the handshake, not the connection", () =>
    Effect.gen(function* () {
      const timeouts = yield* Queue.unbounded<void>()
      // A timeout that the test fires: it ends the request if that still runs.
      const fire = yield* Deferred.make<void>()
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/fast", {}, echo),
          WebSocketRoute.layer("/slow", { accept: () => Effect.never }, echo)
        ).pipe(
          Layer.provide(
            HttpLayerRouter.middleware(
              (effect) =>
                Effect.race(
                  effect,
                  Deferred.await(fire).pipe(
                    Effect.zipRight(Queue.offer(timeouts, undefined)),
                    Effect.as(HttpServerResponse.text("too late", { status: 504 })),
                    // As `Effect.timeout` does: the server runs requests uninterruptible.
                    Effect.interruptible
                  )
                ),
              { global: true }
            )
          )
        )
      )
      const fast = yield* open(serving.port, "/fast")
      const slow = yield* connect(serving.port)
      yield* slow.write(handshake("/slow"))
      yield* fast.sendText("before")
      assert.strictEqual(yield* fast.text, "before")
      yield* Deferred.succeed(fire, undefined)
      assert.deepInclude(yield* slow.answer, { status: 504, body: "too late" })
      yield* Queue.take(timeouts)
      yield* fast.sendText("after")
      assert.strictEqual(yield* fast.text, "after")
    })
  )

  it.scopedLive("the request's Scope is open until the connection has ended", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const released = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const resource = Effect.acquireRelease(
        Effect.sync(() => order.push("acquired")),
        (_, exit) =>
          Effect.zipRight(
            Effect.sync(() => order.push("released")),
            Deferred.succeed(released, exit)
          )
      )
      const serving = yield* serve(
        WebSocketRoute.layer("/scoped", { accept: () => resource }, (socket) =>
          Effect.zipRight(
            socket.runForEach((message) => void order.push(String(message))),
            Effect.addFinalizer(() => Effect.sync(() => order.push("handler's")))
          )
        )
      )
      const client = yield* open(serving.port, "/scoped")
      yield* client.sendText("message")
      yield* client.close()
      assert.isTrue(Exit.isSuccess(yield* Deferred.await(released)))
      assert.deepStrictEqual(order, ["acquired", "message", "handler's", "released"])
    })
  )

  it.scopedLive("services that the server provides are those of the handler", () =>
    Effect.gen(function* () {
      class Db extends Context.Tag("Db")<Db, { readonly name: string }>() {}
      const server = yield* listenPlain
      const served = HttpLayerRouter.serve(
        WebSocketRoute.layer("/db", {}, (socket) => Effect.flatMap(Db, ({ name }) => tell(name)(socket))),
        { disableListenLog: true, disableLogger: true }
      ).pipe(Layer.provide(server.layer), Layer.provide(Layer.succeed(Db, { name: "postgres" })))
      yield* Layer.build(served)
      assert.strictEqual(yield* ask(server.port(), "/db"), "postgres")
    })
  )
})

/** A layer of our server and its port. */
const listenPlain = Effect.sync(() => {
  let server: Http.Server | undefined
  const createServer = () => (server = Http.createServer())
  const options = { port: 0, host: "127.0.0.1" }
  return {
    port: () => portOf(server!),
    layer: NodeWebSocketServer.layer(createServer, options),
    withoutUpgrades: NodeHttpServer.layer(createServer, options)
  }
})

describe("limits of a route", () => {
  it.scopedLive("a message over the limit: 1009, on this route only", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/small", { maxMessageBytes: 10 }, echo),
          WebSocketRoute.layer("/large", {}, echo)
        )
      )
      const small = yield* open(serving.port, "/small")
      yield* small.sendText("x".repeat(10))
      assert.strictEqual((yield* small.text).length, 10)
      yield* small.sendText("x".repeat(11))
      assert.strictEqual((yield* small.closeFrame).code, 1009)
      yield* small.ended
      yield* small.end
      const large = yield* open(serving.port, "/large")
      yield* large.sendText("x".repeat(11))
      assert.strictEqual((yield* large.text).length, 11)
      yield* large.close()
      yield* quiet(serving)
      assert.include(
        levels(serving, LogLevel.Debug)
          .map(({ text }) => text)
          .join("\n"),
        "WebSocket connection ended"
      )
    })
  )

  it.scopedLive("the heartbeat of a route finds a client that does not answer, and keeps one that does", () =>
    Effect.gen(function* () {
      const failure = yield* Deferred.make<unknown>()
      const serving = yield* serve(
        Layer.mergeAll(
          WebSocketRoute.layer("/dead", { heartbeat: { interval: 20, timeout: 20 } }, (socket) =>
            Effect.tapError(Stream.runDrain(socket.messages), (error) => Deferred.succeed(failure, error))
          ),
          WebSocketRoute.layer("/live", { heartbeat: { interval: 5, timeout: 5000 } }, echo)
        )
      )
      const dead = yield* open(serving.port, "/dead")
      assert.strictEqual((yield* dead.frame)?.opcode, 9)
      assert.strictEqual(((yield* Deferred.await(failure)) as Connection.Failure)._tag, "HeartbeatTimeout")
      yield* dead.ended
      const live = yield* open(serving.port, "/live")
      for (let i = 0; i < 3; i++) {
        const ping = yield* live.frame
        assert.strictEqual(ping?.opcode, 9)
        yield* live.write(clientFrame({ opcode: 10, payload: ping!.payload }))
      }
    })
  )
})

describe("the end of a handler", () => {
  class Boom extends Data.TaggedError("Boom")<{ readonly secret: string }> {}
  const boom = new Boom({ secret: "s3cret" })

  const ends: ReadonlyArray<
    readonly [
      what: string,
      handler: (socket: Connection.Connection) => Effect.Effect<unknown, unknown>,
      code: number,
      logged: string | undefined
    ]
  > = [
    ["success", () => Effect.void, 1000, undefined],
    ["interruption of itself", () => Effect.interrupt, 1001, undefined],
    ["failure", () => Effect.fail(boom), 1011, "the handler of a WebSocket route failed"],
    ["defect", () => Effect.die(new Error("s3cret")), 1011, "the handler of a WebSocket route failed"],
    [
      "a function that throws",
      () => {
        throw new Error("s3cret")
      },
      1011,
      "the handler of a WebSocket route failed"
    ],
    ["its own close", (socket) => socket.close(4000, "own"), 4000, undefined]
  ]
  for (const [what, handler, code, logged] of ends) {
    it.scopedLive(`${what}: ${code}`, () =>
      Effect.gen(function* () {
        const serving = yield* serve(WebSocketRoute.layer("/a", {}, handler))
        const client = yield* open(serving.port, "/a")
        const frame = yield* client.closeFrame
        assert.strictEqual(frame.code, code)
        assert.notInclude(frame.reason, "s3cret")
        yield* client.sendClose(code)
        yield* client.end
        yield* client.ended
        yield* serving.sockets(0)
        const errors = levels(serving, LogLevel.Error)
        assert.strictEqual(errors.length, logged === undefined ? 0 : 1)
        if (logged !== undefined) {
          assert.include(errors[0]!.text, logged)
          assert.match(errors[0]!.text, /s3cret|Boom/)
        }
      })
    )
  }

  const errors: ReadonlyArray<
    readonly [
      what: string,
      onError: (error: Boom) => { readonly code: number; readonly reason?: string } | undefined,
      code: number,
      reason: string,
      logs: number
    ]
  > = [
    ["names the close frame", () => ({ code: 4001, reason: "boom" }), 4001, "boom", 0],
    ["may leave it", () => undefined, 1011, "", 1],
    ["must not give a code that is never sent", () => ({ code: 1006 }), 1011, "", 1],
    [
      "must not throw",
      () => {
        throw new Error("in onError")
      },
      1011,
      "",
      1
    ]
  ]
  for (const [what, onError, code, reason, logs] of errors) {
    it.scopedLive(`onError ${what}`, () =>
      Effect.gen(function* () {
        const serving = yield* serve(WebSocketRoute.layer("/a", { onError }, () => Effect.fail(boom)))
        const client = yield* open(serving.port, "/a")
        assert.deepStrictEqual(yield* client.closeFrame, { code, reason })
        yield* client.sendClose(code)
        yield* client.end
        yield* client.ended
        yield* serving.sockets(0)
        assert.strictEqual(levels(serving, LogLevel.Error).length, logs)
      })
    )
  }

  it.scopedLive("onError does not wait behind messages that nobody takes", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.layer(
          "/a",
          { onError: () => ({ code: 4001 }), maxQueuedMessages: 1, closeTimeout: "1 hour" },
          (socket) => Effect.zipRight(socket.take, Effect.fail(boom))
        )
      )
      const client = yield* open(serving.port, "/a")
      const flood = Array.from({ length: 50 }, () => clientText("x".repeat(10_000)))
      yield* client.write(Buffer.concat([...flood, clientFrame({ opcode: 8, payload: Uint8Array.of(0x0f, 0xa1) })]))
      assert.strictEqual((yield* client.closeFrame).code, 4001)
      yield* client.end
      yield* client.ended
      yield* serving.sockets(0)
    })
  )

  it.scopedLive("the end of the connection, when the client is gone: at debug level only", () =>
    Effect.gen(function* () {
      const serving = yield* serve(WebSocketRoute.layer("/a", {}, echo))
      const client = yield* open(serving.port, "/a")
      yield* client.sendText("hi")
      yield* client.text
      yield* client.reset
      assert.deepInclude(yield* serving.logged("WebSocket connection ended"), { level: LogLevel.Debug })
      yield* quiet(serving)
    })
  )

  it.scopedLive("a handler that goes on without its connection is interrupted after handlerTimeout", () =>
    Effect.gen(function* () {
      const exit = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const serving = yield* serve(
        WebSocketRoute.layer("/a", { handlerTimeout: 1 }, () =>
          Effect.onExit(Effect.never, (how) => Deferred.succeed(exit, how))
        )
      )
      const client = yield* open(serving.port, "/a")
      yield* client.close()
      assert.isTrue(Exit.isInterrupted(yield* Deferred.await(exit)))
      yield* quiet(serving)
    })
  )

  it.scopedLive("but not one that ends by itself before, nor one with messages to take", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const gone = yield* Deferred.make<void>()
      const taken = yield* Deferred.make<ReadonlyArray<unknown>>()
      const serving = yield* serve(
        WebSocketRoute.layer("/a", { handlerTimeout: 1 }, (socket) =>
          Effect.gen(function* () {
            yield* Deferred.await(gate)
            yield* Effect.yieldNow()
            const messages = yield* Stream.runCollect(socket.messages)
            yield* Deferred.succeed(taken, [...messages])
          })
        )
      )
      const client = yield* open(serving.port, "/a")
      yield* client.write(Buffer.concat([clientText("1"), clientText("2")]))
      yield* client.sendClose(1000)
      yield* client.end
      // The server's part of the closing handshake waits for the handler, which has messages to take.
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Deferred.await(taken), ["1", "2"])
      yield* Deferred.succeed(gone, undefined)
      assert.strictEqual((yield* client.closeFrame).code, 1000)
      yield* quiet(serving)
    })
  )
})

describe("each", () => {
  it.scopedLive("runs for every message, with or without an Effect", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.each("/each/:name", {}, (message, socket, { path }) =>
          message === "effect"
            ? Effect.zipRight(Effect.yieldNow(), socket.send(`${path.name}: effect`))
            : void socket.unsafeTrySend(`${path.name}: ${String(message)}`)
        )
      )
      const client = yield* open(serving.port, "/each/alice")
      yield* client.write(Buffer.concat([clientText("a"), clientText("effect"), clientText("b")]))
      assert.strictEqual(yield* client.text, "alice: a")
      assert.strictEqual(yield* client.text, "alice: effect")
      assert.strictEqual(yield* client.text, "alice: b")
      assert.strictEqual((yield* client.close()).code, 1000)
      yield* quiet(serving)
    })
  )

  it.scopedLive("has no fiber while it only sends, and one when a message takes more", () =>
    Effect.gen(function* () {
      const fibers: Array<boolean> = []
      const serving = yield* serve(
        WebSocketRoute.each("/each", {}, (message, socket) => {
          fibers.push(Option.isSome(Fiber.getCurrentFiber()))
          return message === "effect"
            ? Effect.asVoid(Effect.zip(Effect.yieldNow(), socket.send("done")))
            : socket.send(message)
        })
      )
      const client = yield* open(serving.port, "/each")
      for (const text of ["a", "b", "effect", "c"]) {
        yield* client.sendText(text)
        assert.strictEqual(yield* client.text, text === "effect" ? "done" : text)
      }
      assert.deepStrictEqual(fibers, [false, false, false, true])
      assert.strictEqual((yield* client.close()).code, 1000)
      yield* quiet(serving)
    })
  )

  it.scopedLive("a handler that throws closes with 1011, and the log says why", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.each("/each", {}, () => {
          throw new Error("no such room")
        })
      )
      const client = yield* open(serving.port, "/each")
      yield* client.sendText("why")
      assert.strictEqual((yield* client.closeFrame).code, 1011)
      assert.isTrue(serving.logs.some(({ text }) => text.includes("no such room")))
    })
  )

  it.scopedLive("fails as a handler does", () =>
    Effect.gen(function* () {
      const serving = yield* serve(
        WebSocketRoute.each(
          "/each",
          { onError: (error: Message.Message) => ({ code: 4000, reason: String(error) }) },
          (message) => Effect.fail(message)
        )
      )
      const client = yield* open(serving.port, "/each")
      yield* client.sendText("why")
      assert.deepStrictEqual(yield* client.closeFrame, { code: 4000, reason: "why" })
    })
  )
})

describe("a connection that is kept after its end", () => {
  it.scopedLive("keeps neither its request nor its socket", () =>
    Effect.gen(function* () {
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      const kept: Array<Connection.Connection> = []
      const requests: Array<WeakRef<object>> = []
      const serving = yield* serve(
        WebSocketRoute.layer("/echo", {}, (socket, { request }) => {
          kept.push(socket)
          requests.push(new WeakRef(request.source as object))
          return Stream.run(socket.messages, socket.sink)
        })
      )
      for (let i = 0; i < 3; i++) {
        const client = yield* open(serving.port, "/echo")
        yield* client.sendText("hello")
        assert.strictEqual(yield* client.text, "hello")
        yield* client.close()
      }
      yield* serving.sockets(0)
      // A weak reference holds until the turn ends, and Node lets go of the last socket's parts some turns later.
      for (let pass = 0; pass < 10 && requests.some((request) => request.deref() !== undefined); pass++) {
        yield* Effect.sleep(10)
        collect()
      }
      assert.deepStrictEqual(
        requests.map((request) => request.deref()),
        [undefined, undefined, undefined]
      )
      for (const socket of kept) {
        assert.strictEqual(yield* socket.bufferedBytes, 0)
        assert.isFalse(socket.unsafeTrySend("too late"))
      }
    })
  )
})

describe("elsewhere", () => {
  it.scopedLive("an endpoint of HttpApi", () =>
    Effect.gen(function* () {
      const api = HttpApi.make("api").add(
        HttpApiGroup.make("rooms").add(
          HttpApiEndpoint.get("room", "/rooms/:id").setPath(Schema.Struct({ id: Schema.NumberFromString }))
        )
      )
      const upgrade = WebSocketRoute.upgrade({ subprotocols: ["v1"] }, (socket, { path, subprotocol }) =>
        tell([path, subprotocol])(socket)
      )
      const group = HttpApiBuilder.group(api, "rooms", (handlers) =>
        handlers.handleRaw("room", () => Effect.orDie(upgrade), { uninterruptible: true })
      )
      const serving = yield* serve(
        HttpLayerRouter.addHttpApi(api).pipe(
          Layer.provide(group),
          Layer.provide(HttpServer.layerContext)
        ) as unknown as Parameters<typeof serve>[0]
      )
      assert.deepStrictEqual(yield* ask(serving.port, "/rooms/5", { "Sec-WebSocket-Protocol": "v1" }), [
        { id: "5" },
        "v1"
      ])
      assert.strictEqual((yield* refused(serving.port, "/rooms/five")).status, 400)
    })
  )

  it.scopedLive("the classic HttpRouter", () =>
    Effect.gen(function* () {
      const server = yield* listenPlain
      const upgrade = WebSocketRoute.upgrade({}, (socket, { path, urlParams }) => tell([path, urlParams])(socket))
      const app = HttpRouter.empty.pipe(
        HttpRouter.get("/rooms/:id", upgrade),
        HttpRouter.get("/hello", HttpServerResponse.text("hello")),
        HttpServer.serve(),
        Layer.provide(server.layer)
      )
      yield* Layer.build(app)
      assert.deepStrictEqual(yield* ask(server.port(), "/rooms/5?q=1"), [{ id: "5" }, { q: "1" }])
      const hello = yield* Effect.promise(() => fetch(`http://127.0.0.1:${server.port()}/hello`))
      assert.strictEqual(yield* Effect.promise(() => hello.text()), "hello")
    })
  )

  it.scopedLive("a server without our wrapper: 500 and a line in the log which says what to do", () =>
    Effect.gen(function* () {
      const server = yield* listenPlain
      const logs: Array<LogLine> = []
      const app = HttpLayerRouter.serve(WebSocketRoute.layer("/echo", {}, echo), {
        disableListenLog: true,
        disableLogger: true
      }).pipe(Layer.provide(server.withoutUpgrades), Layer.provide(logsTo(logs)))
      yield* Layer.build(app)
      assert.deepInclude(yield* refused(server.port(), "/echo"), {
        status: 500,
        body: "This server is not set up for WebSockets.\n"
      })
      assert.include(logs.find(({ level }) => level === LogLevel.Error)!.text, "NodeWebSocketServer.layer")
    })
  )

  it.scopedLive("a web handler, which has no sockets: 500 too", () =>
    Effect.gen(function* () {
      const handler = HttpApp.toWebHandler(WebSocketRoute.upgrade({}, echo))
      // A web Request can't carry the headers of a connection: it is no handshake.
      const answer = yield* Effect.promise(() => handler(new Request("http://localhost/echo")))
      assert.strictEqual(answer.status, 426)
      assert.isUndefined(Upgrade.find(HttpServerRequest.fromWeb(new Request("http://localhost/echo"))))
    })
  )
})

describe("a program with ws", () => {
  it.scopedLive("talks to a route", () =>
    Effect.gen(function* () {
      const serving = yield* serve(WebSocketRoute.layer("/echo", {}, echo))
      const peer = yield* program(`ws://127.0.0.1:${serving.port}/echo`)
      peer.socket.send("text")
      peer.socket.send(Buffer.from([1, 2, 3]))
      assert.strictEqual(yield* Queue.take(peer.messages), "text")
      assert.deepStrictEqual(yield* Queue.take(peer.messages), Buffer.from([1, 2, 3]))
      peer.socket.close(4000, "done")
      assert.deepStrictEqual(yield* Deferred.await(peer.closed), [4000, "done"])
      yield* quiet(serving)
    })
  )
})

const program = (
  url: string
): Effect.Effect<
  {
    readonly socket: WebSocket
    readonly messages: Queue.Queue<string | Buffer>
    readonly closed: Deferred.Deferred<readonly [number, string]>
  },
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const messages = yield* Queue.unbounded<string | Buffer>()
    const closed = yield* Deferred.make<readonly [number, string]>()
    const socket = yield* Effect.acquireRelease(
      Effect.async<WebSocket>((resume) => {
        const socket = new WebSocket(url)
        socket.on("message", (data, binary) => messages.unsafeOffer(binary ? (data as Buffer) : String(data)))
        socket.on("close", (code, reason) => Deferred.unsafeDone(closed, Exit.succeed([code, String(reason)] as const)))
        socket.on("open", () => resume(Effect.succeed(socket)))
        socket.on("error", (error) => resume(Effect.die(error)))
      }),
      (socket) => Effect.sync(() => socket.terminate())
    )
    return { socket, messages, closed }
  })
