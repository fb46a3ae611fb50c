import { readFileSync } from "node:fs"
import * as http from "node:http"
import * as http2 from "node:http2"
import * as https from "node:https"
import * as net from "node:net"
import {
  Cookies,
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApp,
  HttpLayerRouter,
  HttpMiddleware,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { NodeHttpServer, NodeHttpServerRequest } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  FiberRef,
  HashMap,
  Layer,
  Logger,
  LogLevel,
  Metric,
  Option,
  Schema,
  Scope,
  Stream,
  TestClock
} from "effect"
import { EventBroadcast, EventSchema, EventStream, EventStreamRoute, ServerSentEvent } from "../src/index.js"
import { get, raw, serve, serveUntil } from "./support.js"

const event = (data: string, id?: string) => ServerSentEvent.make({ data, id })
const two = Stream.make(event("a"), event("b", "2"))
const twoText = ":\n\ndata: a\n\nid: 2\ndata: b\n\n"

describe("a response over HTTP/1.1", () => {
  it.scopedLive("sends the head and a comment at once", () =>
    Effect.gen(function* () {
      const port = yield* serve(EventStreamRoute.layer("/silent", { headers: { "X-Room": "1" } }, () => Stream.never))
      const reader = yield* Effect.promise(() => get(port, "/silent"))
      assert.strictEqual(reader.status, 200)
      assert.strictEqual(reader.headers["content-type"], "text/event-stream")
      assert.strictEqual(reader.headers["cache-control"], "no-cache, no-transform")
      assert.strictEqual(reader.headers["x-accel-buffering"], "no")
      assert.strictEqual(reader.headers.connection, "close")
      assert.strictEqual(reader.headers["x-room"], "1")
      assert.strictEqual(yield* Effect.promise(() => reader.until((text) => text.length >= 3)), ":\n\n")
      reader.leave()
    })
  )

  it.scopedLive("sends the stream and ends with it", () =>
    Effect.gen(function* () {
      const port = yield* serve(EventStreamRoute.layer("/two", {}, () => two))
      const reader = yield* Effect.promise(() => get(port, "/two"))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      assert.strictEqual(reader.text(), twoText)
    })
  )

  it.scopedLive("sends the reconnection time first, comments and texts of any alphabet", () =>
    Effect.gen(function* () {
      const port = yield* serve(
        EventStreamRoute.layer("/", { retry: "2 seconds" }, () =>
          Stream.make(ServerSentEvent.comment("hé"), event("✓".repeat(9000)), ServerSentEvent.retry(5))
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/"))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      assert.strictEqual(reader.text(), `:\n\nretry: 2000\n\n: hé\n\ndata: ${"✓".repeat(9000)}\n\nretry: 5\n\n`)
    })
  )

  const failing: ReadonlyArray<readonly [string, Stream.Stream<ServerSentEvent.Outgoing, string>]> = [
    ["fails", Stream.concat(two, Stream.fail("boom"))],
    ["dies", Stream.concat(two, Stream.die("boom"))],
    ["has an event that cannot be written", Stream.concat(two, Stream.make(event("c", "1\n2")))],
    ["has one behind others of its chunk", Stream.make(event("a"), event("b", "2"), event("c", "1\n2"))]
  ]

  it.scopedLive.each(failing)("breaks when the stream %s, after what came before", ([, stream]) =>
    Effect.gen(function* () {
      const port = yield* serve(EventStreamRoute.layer("/", {}, () => stream))
      const reader = yield* Effect.promise(() => get(port, "/"))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "ECONNRESET")
      assert.strictEqual(reader.text(), twoText)
    })
  )

  it.scopedLive("interrupts the stream when the client resets the connection, or ends it", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const done = yield* Deferred.make<void>()
      const stream = (deferred: Deferred.Deferred<void>) =>
        Stream.ensuring(Stream.never, Deferred.succeed(deferred, undefined))
      const port = yield* serve(
        Layer.mergeAll(
          EventStreamRoute.layer("/reset", {}, () => stream(left)),
          EventStreamRoute.layer("/fin", {}, () => stream(done))
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/reset"))
      reader.leave()
      yield* Deferred.await(left)
      const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
      socket.write("GET /fin HTTP/1.1\r\nHost: x\r\n\r\n")
      socket.once("data", () => socket.end())
      yield* Deferred.await(done)
      socket.destroy()
    })
  )

  it.scopedLive("keeps the connection alive with comments", () =>
    Effect.gen(function* () {
      const port = yield* serve(EventStreamRoute.layer("/", { keepAlive: "5 millis" }, () => Stream.never))
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Effect.promise(() => reader.until((text) => text.startsWith(":\n\n:\n\n:\n\n:\n\n")))
      reader.leave()
    })
  )

  it.scoped("has a comment every 15 seconds, and none when that is off", () =>
    Effect.gen(function* () {
      const broadcast = yield* EventBroadcast.make()
      const port = yield* serve(
        Layer.merge(
          EventStreamRoute.layer("/default", {}, () => broadcast.subscribe()),
          EventStreamRoute.layer("/off", { keepAlive: false }, () => broadcast.subscribe())
        )
      )
      const [reader, silent] = yield* Effect.promise(() => Promise.all([get(port, "/default"), get(port, "/off")]))
      yield* Effect.promise(() => silent.until((text) => text === ":\n\n"))
      for (const comments of [1, 2, 3]) {
        yield* Effect.promise(() => reader.until((text) => text === ":\n\n".repeat(comments)))
        yield* TestClock.adjust("15 seconds")
      }
      yield* broadcast.publish(event("a"))
      yield* Effect.promise(() => silent.until((text) => text === ":\n\ndata: a\n\n"))
      yield* Effect.promise(() => reader.until((text) => text === `${":\n\n".repeat(4)}data: a\n\n`))
      for (const { leave } of [reader, silent]) leave()
    })
  )

  it.scopedLive("has the status that is asked for, and headers instead of its own", () =>
    Effect.gen(function* () {
      const options = { status: 203, headers: { "Cache-Control": "no-store" } }
      const port = yield* serve(EventStreamRoute.layer("/", options, () => two))
      const reader = yield* Effect.promise(() => get(port, "/"))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      assert.strictEqual(reader.status, 203)
      assert.strictEqual(reader.headers["cache-control"], "no-store")
    })
  )

  it.scopedLive("carries cookies, and the headers of middleware", () =>
    Effect.gen(function* () {
      const cors = HttpLayerRouter.cors({ allowedOrigins: ["https://example.com"] })
      const port = yield* serve(
        Layer.mergeAll(
          HttpLayerRouter.add(
            "GET",
            "/",
            Effect.flatMap(
              EventStream.response(two),
              HttpServerResponse.setCookies([
                ["a", "1", {}],
                ["b", "2", {}]
              ])
            ).pipe(Effect.orDie)
          ),
          cors
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/", { origin: "https://example.com" }))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      assert.strictEqual(reader.text(), twoText)
      assert.strictEqual(reader.headers["access-control-allow-origin"], "https://example.com")
      assert.deepStrictEqual(Cookies.fromSetCookie(reader.headers["set-cookie"]!).pipe(Cookies.toRecord), {
        a: "1",
        b: "2"
      })
    })
  )

  it.scopedLive("serves requests that were pipelined, one after the other", () =>
    Effect.gen(function* () {
      const port = yield* serve(
        Layer.mergeAll(
          HttpLayerRouter.add("GET", "/text", HttpServerResponse.text("hi")),
          EventStreamRoute.layer("/two", {}, () => two)
        )
      )
      const { ended, text } = yield* Effect.promise(() =>
        raw(port, "GET /text HTTP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n")
      )
      assert.strictEqual(ended, "end")
      assert.match(text, /\r\n\r\nhi/)
      assert.match(text.replace(/[0-9a-f]+\r\n|\r\n(?=[0-9a-f]+\r\n)/g, ""), /:\n\ndata: a\n\nid: 2\ndata: b\n\n\r\n/)
    })
  )
})

describe("over other protocols", () => {
  it.scopedLive("HTTP/1.0: the body ends with the connection, a failing one with a reset", () =>
    Effect.gen(function* () {
      const seen = yield* Deferred.make<void>()
      const failing = Stream.concat(two, Stream.fromEffect(Effect.zipRight(Deferred.await(seen), Effect.fail("boom"))))
      const port = yield* serve(
        Layer.mergeAll(
          EventStreamRoute.layer("/two", {}, () => two),
          EventStreamRoute.layer("/fail", {}, () => failing)
        )
      )
      const good = yield* Effect.promise(() => raw(port, "GET /two HTTP/1.0\r\n\r\n"))
      assert.strictEqual(good.ended, "end")
      assert.strictEqual(good.text.slice(good.text.indexOf("\r\n\r\n") + 4), twoText)
      // The client has read before the reset: Node's own reading may miss one that comes with the data.
      const bad = yield* Effect.promise(() =>
        raw(port, "GET /fail HTTP/1.0\r\n\r\n", (text) => {
          if (text.includes("data: b")) Deferred.unsafeDone(seen, Effect.void)
        })
      )
      assert.strictEqual(bad.ended, "ECONNRESET")
    })
  )

  it.scopedLive("TLS: a failing stream is one that lacks its end", () =>
    Effect.gen(function* () {
      const fixture = (name: string) => readFileSync(new URL(`../../node/test/fixtures/${name}`, import.meta.url))
      const port = yield* serve(
        Layer.mergeAll(
          EventStreamRoute.layer("/two", {}, () => two),
          EventStreamRoute.layer("/fail", {}, () => Stream.concat(two, Stream.fail("boom")))
        ),
        () => https.createServer({ cert: fixture("server.crt"), key: fixture("server.key") }) as unknown as http.Server
      )
      const read = (path: string) =>
        Effect.promise(
          () =>
            new Promise<{ readonly text: string; readonly complete: boolean }>((resolve) => {
              const ca = fixture("authority.crt")
              https.get({ port, path, host: "127.0.0.1", agent: false, ca }, (response) => {
                let text = ""
                response.setEncoding("utf8").on("data", (chunk: string) => {
                  text += chunk
                })
                response.on("error", () => {})
                response.on("close", () => resolve({ text, complete: response.complete }))
              })
            })
        )
      assert.deepStrictEqual(yield* read("/two"), { text: twoText, complete: true })
      assert.deepStrictEqual(yield* read("/fail"), { text: twoText, complete: false })
    })
  )

  it.scopedLive("HTTP/2", () =>
    Effect.gen(function* () {
      const port = yield* serve(
        Layer.mergeAll(
          EventStreamRoute.layer("/two", {}, () => two),
          EventStreamRoute.layer("/fail", {}, () => Stream.concat(two, Stream.fail("boom")))
        ),
        () => http2.createServer() as unknown as http.Server
      )
      const session = http2.connect(`http://127.0.0.1:${port}`)
      const read = (path: string) =>
        Effect.promise(
          () =>
            new Promise<{ text: string; code: number | undefined; type: unknown }>((resolve) => {
              const stream = session.request({ ":path": path })
              let text = ""
              let type: unknown
              stream.setEncoding("utf8")
              stream.on("response", (headers) => {
                type = headers["content-type"]
              })
              stream.on("data", (chunk: string) => {
                text += chunk
              })
              stream.on("error", () => {})
              stream.on("close", () => resolve({ text, code: stream.rstCode, type }))
            })
        )
      assert.deepStrictEqual(yield* read("/two"), { text: twoText, code: 0, type: "text/event-stream" })
      assert.strictEqual((yield* read("/fail")).code, http2.constants.NGHTTP2_INTERNAL_ERROR)
      session.close()
    })
  )

  it.live("HTTP/2: a client that leaves interrupts its stream, a shutdown ends the others", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const { port, shutdown } = yield* serveUntil(
        Layer.mergeAll(
          EventStreamRoute.layer("/left", {}, () => Stream.ensuring(Stream.never, Deferred.succeed(left, undefined))),
          EventStreamRoute.layer("/open", {}, () => Stream.concat(two, Stream.never))
        ),
        () => http2.createServer() as unknown as http.Server
      )
      const session = http2.connect(`http://127.0.0.1:${port}`)
      const leaving = session.request({ ":path": "/left" })
      leaving.once("data", () => leaving.close(http2.constants.NGHTTP2_CANCEL))
      yield* Deferred.await(left)
      const open = session.request({ ":path": "/open" })
      let text = ""
      const ended = new Promise<number | undefined>((resolve) => open.on("close", () => resolve(open.rstCode)))
      yield* Effect.async<void>((resume) => {
        open.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk
          if (text === twoText) resume(Effect.void)
        })
      })
      // The session is the client's to close: Node's server waits for it.
      open.on("close", () => session.close())
      yield* shutdown
      assert.strictEqual(yield* Effect.promise(() => ended), http2.constants.NGHTTP2_NO_ERROR)
      assert.strictEqual(text, twoText)
    })
  )
})

describe("a web handler", () => {
  const answer = (app: HttpApp.Default<never, Scope.Scope>, request = new Request("http://localhost/")) =>
    Effect.promise(() => HttpApp.toWebHandler(app)(request))

  it.effect("has the same bytes", () =>
    Effect.gen(function* () {
      const response = yield* answer(EventStream.response(two))
      assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
      assert.isNull(response.headers.get("connection"))
      assert.strictEqual(yield* Effect.promise(() => response.text()), twoText)
    })
  )

  it.effect("breaks when the stream fails", () =>
    Effect.gen(function* () {
      const response = yield* answer(EventStream.response(Stream.concat(two, Stream.fail("boom"))))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(() => response.text()))))
    })
  )

  it.live("ends when all were stopped before its body was asked for, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const streams = yield* Scope.extend(EventStream.makeOpenStreams, yield* Scope.make())
      // Stopped behind the check for it, when the body is about to begin
      const app = Effect.zipLeft(EventStream.response(Stream.never), streams.stop)
      const response = yield* answer(Effect.provideService(app, EventStream.OpenStreams, streams))
      assert.strictEqual(response.status, 200)
      assert.strictEqual(yield* Effect.promise(() => response.text()), ":\n\n")
      assert.strictEqual(yield* streams.count, 0)
    })
  )

  it.effect("interrupts the stream when the reader leaves", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const response = yield* answer(
        EventStream.response(Stream.ensuring(Stream.never, Deferred.succeed(left, undefined)))
      )
      const reader = response.body!.getReader()
      yield* Effect.promise(() => reader.read())
      yield* Effect.promise(() => reader.cancel())
      yield* Deferred.await(left)
    })
  )

  /** Some turns of the event loop, in which everything that can go on without a reader does. */
  const settle = Effect.promise(async () => {
    for (let turn = 0; turn < 100; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
  })

  const kilobyte = event("x".repeat(1000))

  it.effect("waits for a slow reader: nothing is pulled beyond the allowance", () =>
    Effect.gen(function* () {
      let pulled = 0
      const endless = Stream.repeatEffect(
        Effect.sync(() => {
          pulled++
          return kilobyte
        })
      )
      const response = yield* answer(EventStream.response(endless, { maxBufferedBytes: 50_000 }))
      const reader = response.body!.getReader()
      yield* Effect.promise(() => reader.read())
      yield* settle
      const before = pulled
      assert.isAtLeast(before, 49)
      // What is buffered, and what the ReadableStream took.
      assert.isAtMost(before, 160)
      yield* settle
      assert.strictEqual(pulled, before)
      for (let read = 0; read < before; read++) yield* Effect.promise(() => reader.read())
      yield* settle
      assert.isAbove(pulled, before)
      yield* Effect.promise(() => reader.cancel())
    })
  )

  it.effect("leaves events out for a slow reader, and counts them", () =>
    Effect.gen(function* () {
      const many = Stream.range(1, 200).pipe(
        Stream.rechunk(1),
        Stream.map((n) => event(`${n} ${"x".repeat(1000)}`)),
        Stream.concat(Stream.never)
      )
      const before = (yield* Metric.value(EventStream.droppedEvents)).count
      const response = yield* answer(EventStream.response(many, { slowReader: "drop", maxBufferedBytes: 50_000 }))
      const reader = response.body!.getReader()
      yield* Effect.promise(() => reader.read())
      yield* settle
      assert.isAtLeast((yield* Metric.value(EventStream.droppedEvents)).count - before, 40)
      yield* Effect.promise(() => reader.cancel())
    })
  )

  it.effect("cuts a slow reader", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const many = Stream.repeatValue(kilobyte).pipe(
        Stream.rechunk(1),
        Stream.ensuring(Deferred.succeed(left, undefined))
      )
      const response = yield* answer(EventStream.response(many, { slowReader: "cut", maxBufferedBytes: 50_000 }))
      yield* Deferred.await(left)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(() => response.text()))))
    })
  )

  const accepts: ReadonlyArray<readonly [string | undefined, number]> = [
    [undefined, 200],
    ["text/event-stream", 200],
    ["*/*", 200],
    ["text/*;q=0.1", 200],
    ["application/json, text/event-stream", 200],
    ["TEXT/EVENT-STREAM; q=0.5", 200],
    ["application/json", 406],
    ["text/html, text/event-stream;q=0", 406],
    ["text/event-stream;q=0, */*", 406]
  ]

  it.effect.each(accepts)("Accept: %s", ([accept, status]) =>
    Effect.gen(function* () {
      const request = new Request("http://localhost/", accept === undefined ? {} : { headers: { accept } })
      const response = yield* answer(EventStream.response(two), request)
      assert.strictEqual(response.status, status)
      yield* Effect.promise(() => response.text())
    })
  )
})

describe("requests", () => {
  const request = (headers: Record<string, string>, method = "GET") =>
    HttpServerRequest.fromWeb(new Request("http://localhost/", { headers, method }))

  const wishes: ReadonlyArray<readonly [string, string, boolean]> = [
    ["text/event-stream", "GET", true],
    ["text/html, Text/Event-Stream;q=0.9", "GET", true],
    ["text/event-stream;q=0", "GET", false],
    ["*/*", "GET", false],
    ["text/event-streams", "GET", false],
    ["text/event-stream", "POST", false]
  ]

  it.each(wishes)("isEventSource: %s %s", (accept, method, expected) => {
    assert.strictEqual(EventStream.isEventSource(request({ accept }, method)), expected)
  })

  it("lastEventId is UTF-8, or else what it is", () => {
    const latin1 = (text: string) => String.fromCharCode(...new TextEncoder().encode(text))
    assert.strictEqual(EventStream.lastEventId(request({})), "")
    assert.strictEqual(EventStream.lastEventId(request({ "last-event-id": "7" })), "7")
    assert.strictEqual(EventStream.lastEventId(request({ "last-event-id": latin1("é✓") })), "é✓")
    assert.strictEqual(EventStream.lastEventId(request({ "last-event-id": "\xe9" })), "\xe9")
  })
})

class Greeting extends Context.Tag("Greeting")<Greeting, string>() {}

describe("routes", () => {
  it.scopedLive("give the handler its request, and the stream its services", () =>
    Effect.gen(function* () {
      const route = EventStreamRoute.layer("/rooms/:room", {}, ({ lastEventId, params, url }) =>
        Stream.fromEffect(Effect.map(Greeting, (greeting) => event(`${greeting} ${params.room} ${url} ${lastEventId}`)))
      )
      const greeting = HttpLayerRouter.middleware<{ provides: Greeting }>()((effect) =>
        Effect.provideService(effect, Greeting, "hello")
      ).layer
      const port = yield* serve(Layer.provide(route, greeting))
      const reader = yield* Effect.promise(() => get(port, "/rooms/7?a=1", { "last-event-id": "41" }))
      yield* Effect.promise(() => reader.ended)
      assert.strictEqual(reader.text(), ":\n\ndata: hello 7 /rooms/7?a=1 41\n\n")
    })
  )

  it.scopedLive("take services when the layer is built", () =>
    Effect.gen(function* () {
      const route = EventStreamRoute.layerEffect(
        "/",
        {},
        Effect.map(Greeting, (greeting) => () => Stream.make(event(greeting)))
      )
      const port = yield* serve(Layer.provide(route, Layer.succeed(Greeting, "hi")))
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Effect.promise(() => reader.ended)
      assert.strictEqual(reader.text(), ":\n\ndata: hi\n\n")
    })
  )

  it.scopedLive("may answer otherwise", () =>
    Effect.gen(function* () {
      const route = EventStreamRoute.layer(
        "/:code",
        {
          accept: ({ params }) =>
            params.code === "200" ? Effect.void : HttpServerResponse.text("no", { status: Number(params.code) })
        },
        () => two
      )
      const port = yield* serve(route)
      const refused = yield* Effect.promise(() => get(port, "/401"))
      assert.strictEqual(refused.status, 401)
      const reader = yield* Effect.promise(() => get(port, "/200"))
      yield* Effect.promise(() => reader.ended)
      assert.strictEqual(reader.text(), twoText)
    })
  )

  it.scopedLive("answer HEAD without running the stream", () =>
    Effect.gen(function* () {
      let ran = false
      const port = yield* serve(
        EventStreamRoute.layer("/", {}, () =>
          Stream.fromEffect(
            Effect.sync(() => {
              ran = true
              return event("a")
            })
          )
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/", {}, "HEAD"))
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      assert.strictEqual(reader.headers["content-type"], "text/event-stream")
      assert.strictEqual(reader.text(), "")
      assert.isFalse(ran)
    })
  )

  it.live("end with their layer: a shutdown waits for the streams' finalizers, not for their clients", () =>
    Effect.gen(function* () {
      const finalized: Array<string> = []
      const stream = (name: string) =>
        Stream.ensuring(
          Stream.concat(two, Stream.never),
          Effect.sync(() => finalized.push(name))
        )
      const { port, shutdown } = yield* serveUntil(
        Layer.mergeAll(
          EventStreamRoute.layer("/a", {}, () => stream("a")),
          EventStreamRoute.layer("/b", {}, () => stream("b"))
        )
      )
      const readers = yield* Effect.promise(() => Promise.all([get(port, "/a"), get(port, "/b"), get(port, "/b")]))
      yield* Effect.promise(() => Promise.all(readers.map((reader) => reader.until((text) => text === twoText))))
      yield* shutdown
      assert.deepStrictEqual(finalized.sort(), ["a", "b", "b"])
      assert.deepStrictEqual(yield* Effect.promise(() => Promise.all(readers.map((reader) => reader.ended))), [
        "end",
        "end",
        "end"
      ])
    })
  )

  it.live("end before their server closes, where it tells", () =>
    Effect.gen(function* () {
      const hooks = new Set<() => void>()
      const finalized = yield* Deferred.make<void>()
      const port = yield* Scope.extend(
        serve(
          HttpLayerRouter.add(
            "GET",
            "/",
            EventStream.response(Stream.ensuring(Stream.never, Deferred.succeed(finalized, undefined)))
          ),
          () => Object.assign(http.createServer(), { [Symbol.for("@effect-ws/beforeClose")]: hooks })
        ),
        yield* Scope.make()
      )
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Effect.promise(() => reader.until((text) => text.length > 0))
      assert.strictEqual(hooks.size, 1)
      for (const hook of hooks) hook()
      assert.strictEqual(yield* Effect.promise(() => reader.ended), "end")
      yield* Deferred.await(finalized)
      assert.strictEqual(hooks.size, 0)
    })
  )
})

class Progress extends Schema.TaggedClass<Progress>()("Progress", { percent: Schema.Number }) {}
class Done extends Schema.TaggedClass<Done>()("Done", { at: Schema.Date }) {}
const JobEvent = EventSchema.json(Schema.Union(Progress, Done), {
  id: (value) => (value._tag === "Progress" ? String(value.percent) : undefined)
})

describe("typed events", () => {
  it.scopedLive("are named by their tags", () =>
    Effect.gen(function* () {
      const values = Stream.make(new Progress({ percent: 50 }), new Done({ at: new Date(0) }))
      const port = yield* serve(EventStreamRoute.layer("/", { schema: JobEvent }, () => values))
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Effect.promise(() => reader.ended)
      assert.strictEqual(
        reader.text(),
        ':\n\nevent: Progress\nid: 50\ndata: {"percent":50,"_tag":"Progress"}\n\nevent: Done\ndata: {"at":"1970-01-01T00:00:00.000Z","_tag":"Done"}\n\n'
      )
    })
  )

  it.effect("may be told apart by name alone", () =>
    Effect.gen(function* () {
      const Feed = EventSchema.named({ tick: Schema.Struct({ n: Schema.Number }), alert: Schema.String })
      const encoded = yield* Schema.encode(Feed)({ event: "tick", data: { n: 1 }, id: "7" })
      assert.deepStrictEqual(encoded, { event: "tick", data: '{"n":1}', id: "7" })
      assert.deepStrictEqual(yield* Schema.decode(Feed)({ event: "alert", data: '"fire"' }), {
        event: "alert",
        data: "fire"
      })
      assert.strictEqual((yield* Effect.flip(Schema.decode(Feed)({ event: "other", data: "1" })))._tag, "ParseError")
      assert.strictEqual((yield* Effect.flip(Schema.decode(JobEvent)({ event: "x", data: "{" })))._tag, "ParseError")
    })
  )
})

describe("in other routers", () => {
  const read = (port: number, path: string) =>
    Effect.promise(async () => {
      const reader = await get(port, path)
      return [await reader.ended, reader.text()]
    })

  const portOf = Effect.map(HttpServer.HttpServer, ({ address }) => (address._tag === "TcpAddress" ? address.port : 0))

  it.scopedLive("HttpRouter", () =>
    Effect.gen(function* () {
      yield* HttpRouter.empty.pipe(
        HttpRouter.get("/two", EventStream.response(two)),
        HttpRouter.get("/fail", EventStream.response(Stream.concat(two, Stream.fail("boom")))),
        HttpServer.serveEffect(HttpMiddleware.cors())
      )
      const port = yield* portOf
      assert.deepStrictEqual(yield* read(port, "/two"), ["end", twoText])
      assert.deepStrictEqual(yield* read(port, "/fail"), ["ECONNRESET", twoText])
    }).pipe(Effect.provide(NodeHttpServer.layer(http.createServer, { port: 0, host: "127.0.0.1" })))
  )

  it.live("HttpApi, whose shutdown ends streams too", () =>
    Effect.gen(function* () {
      const Api = HttpApi.make("api").add(
        HttpApiGroup.make("feed")
          .add(HttpApiEndpoint.get("two", "/two").addSuccess(Schema.Unknown))
          .add(HttpApiEndpoint.get("open", "/open").addSuccess(Schema.Unknown))
      )
      const Feed = HttpApiBuilder.group(Api, "feed", (handlers) =>
        handlers
          .handleRaw("two", () => EventStream.response(two))
          .handleRaw("open", () => EventStream.response(Stream.never))
      ).pipe(Layer.provide(EventStream.layerOpenStreams))
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        HttpApiBuilder.serve().pipe(
          Layer.provide(HttpApiBuilder.api(Api).pipe(Layer.provide(Feed))),
          Layer.provideMerge(NodeHttpServer.layer(http.createServer, { port: 0, host: "127.0.0.1" }))
        ),
        scope
      )
      const port = yield* Effect.provide(portOf, context)
      assert.deepStrictEqual(yield* read(port, "/two"), ["end", twoText])
      const open = yield* Effect.promise(() => get(port, "/open"))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Effect.promise(() => open.ended), "end")
    })
  )
})

describe("a stream over HTTP/1 is detached from its request", () => {
  it.scopedLive("which is over when the head is sent; its Scope lives as long as the stream", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const closed = yield* Deferred.make<void>()
      const responded = yield* Deferred.make<void>()
      const platform = yield* Deferred.make<HttpServerRequest.HttpServerRequest>()
      const route = EventStreamRoute.layer(
        "/",
        {
          accept: ({ request }) =>
            Effect.zipRight(
              Deferred.succeed(platform, request),
              Effect.addFinalizer(() =>
                Effect.zipRight(
                  Effect.sync(() => order.push("request")),
                  Deferred.succeed(closed, undefined)
                )
              )
            )
        },
        () =>
          Stream.ensuring(
            Stream.concat(two, Stream.never),
            Effect.sync(() => order.push("stream"))
          )
      )
      const whole = HttpLayerRouter.middleware(
        (handled) => Effect.ensuring(handled, Deferred.succeed(responded, undefined)),
        { global: true }
      )
      const port = yield* serve(Layer.merge(route, whole))
      const reader = yield* Effect.promise(() => get(port, "/"))
      yield* Effect.promise(() => reader.until((text) => text === twoText))
      yield* Deferred.await(responded)
      assert.deepStrictEqual(order, [])
      // Nothing holds the request's fiber any more.
      const response = NodeHttpServerRequest.toServerResponse(yield* Deferred.await(platform))
      assert.strictEqual(response.listenerCount("close"), 1)
      reader.leave()
      yield* Deferred.await(closed)
      assert.deepStrictEqual(order, ["stream", "request"])
    })
  )

  it.scopedLive("also where a middleware gives it a Scope that it closes with the head", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const closed = yield* Deferred.make<void>()
      const note = (what: string) => Effect.sync(() => order.push(what))
      const stream = Stream.scoped(Effect.addFinalizer(() => note("stream"))).pipe(
        Stream.flatMap(() => Stream.concat(two, Stream.never)),
        Stream.ensuring(Deferred.succeed(closed, undefined))
      )
      yield* HttpRouter.empty.pipe(
        HttpRouter.get("/", EventStream.response(stream)),
        HttpServer.serveEffect((app) =>
          Effect.scoped(
            Effect.zipRight(
              Effect.addFinalizer(() => note("head")),
              app
            )
          )
        )
      )
      const { address } = yield* HttpServer.HttpServer
      const reader = yield* Effect.promise(() => get(address._tag === "TcpAddress" ? address.port : 0, "/"))
      yield* Effect.promise(() => reader.until((text) => text === twoText))
      assert.deepStrictEqual(order, ["head"])
      reader.leave()
      yield* Deferred.await(closed)
      assert.deepStrictEqual(order, ["head", "stream"])
    }).pipe(Effect.provide(NodeHttpServer.layer(http.createServer, { port: 0, host: "127.0.0.1" })))
  )

  const middlewares: ReadonlyArray<readonly [string, HttpMiddleware.HttpMiddleware]> = [
    ["that makes a request of its own", HttpMiddleware.xForwardedHeaders],
    ["that runs it in a fiber of its own", (app) => Effect.orDie(Effect.timeout(app, "1 minute"))],
    ["that does both", (app) => HttpMiddleware.xForwardedHeaders(Effect.orDie(Effect.timeout(app, "1 minute")))],
    ["that goes on after it", (app) => Effect.tap(app, () => Effect.yieldNow())]
  ]

  it.scopedLive.each(middlewares)("behind a middleware %s, too", ([, middleware]) =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const stream = Stream.ensuring(Stream.concat(two, Stream.never), Deferred.succeed(left, undefined))
      yield* HttpRouter.empty.pipe(
        HttpRouter.get("/", EventStream.response(stream)),
        HttpRouter.get("/two", EventStream.response(two)),
        HttpServer.serveEffect(middleware)
      )
      const { address } = yield* HttpServer.HttpServer
      const port = address._tag === "TcpAddress" ? address.port : 0
      const reader = yield* Effect.promise(() => get(port, "/", { "x-forwarded-host": "example.com" }))
      yield* Effect.promise(() => reader.until((text) => text === twoText))
      reader.leave()
      yield* Deferred.await(left)
      const whole = yield* Effect.promise(() => get(port, "/two", { "x-forwarded-host": "example.com" }))
      assert.strictEqual(yield* Effect.promise(() => whole.ended), "end")
      assert.strictEqual(whole.text(), twoText)
    }).pipe(Effect.provide(NodeHttpServer.layer(http.createServer, { port: 0, host: "127.0.0.1" })))
  )

  it.live("and ended when all were stopped while it was about to begin", () =>
    Effect.gen(function* () {
      const about = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const wait = Effect.zipRight(Deferred.succeed(about, undefined), Deferred.await(go))
      const streams = yield* Scope.extend(EventStream.makeOpenStreams, yield* Scope.make())
      const handler = Effect.zipRight(
        HttpApp.appendPreResponseHandler((_, response) => Effect.as(wait, response)),
        EventStream.response(Stream.never)
      ).pipe(Effect.provideService(EventStream.OpenStreams, streams))
      const { port, shutdown } = yield* serveUntil(HttpLayerRouter.add("GET", "/", handler))
      const reading = get(port, "/")
      yield* Deferred.await(about)
      yield* streams.stop
      yield* Deferred.succeed(go, undefined)
      assert.strictEqual(yield* Effect.promise(async () => (await reading).ended), "end")
      yield* shutdown
      assert.strictEqual(yield* streams.count, 0)
    })
  )

  it.scopedLive("and has the FiberRefs and the trace of its handler", () =>
    Effect.gen(function* () {
      const seen = Effect.gen(function* () {
        const annotations = yield* FiberRef.get(FiberRef.currentLogAnnotations)
        const span = yield* Effect.currentParentSpan
        return event(`${Option.getOrUndefined(HashMap.get(annotations, "user"))} ${span.traceId}`)
      })
      const annotate = HttpLayerRouter.middleware(Effect.annotateLogs("user", "ada")).layer
      const port = yield* serve(
        Layer.provide(
          EventStreamRoute.layer("/", {}, () => Stream.fromEffect(seen)),
          annotate
        )
      )
      const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
      const reader = yield* Effect.promise(() => get(port, "/", { traceparent: `00-${traceId}-00f067aa0ba902b7-01` }))
      yield* Effect.promise(() => reader.ended)
      assert.strictEqual(reader.text(), `:\n\ndata: ada ${traceId}\n\n`)
    })
  )

  it.scopedLive("and says in the log why it failed, not that its client left", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logged = yield* Deferred.make<void>()
      const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
        if (LogLevel.lessThan(logLevel, LogLevel.Info)) return
        lines.push(`${logLevel.label} ${String(message)}: ${Cause.pretty(cause).split("\n")[0]}`)
        Deferred.unsafeDone(logged, Effect.void)
      })
      const left = yield* Deferred.make<void>()
      const port = yield* Effect.provide(
        serve(
          Layer.merge(
            EventStreamRoute.layer("/left", {}, () => Stream.ensuring(Stream.never, Deferred.succeed(left, undefined))),
            EventStreamRoute.layer("/fails", {}, () => Stream.fail("boom"))
          )
        ),
        Logger.replace(Logger.defaultLogger, logger)
      )
      const reader = yield* Effect.promise(() => get(port, "/left"))
      reader.leave()
      yield* Deferred.await(left)
      yield* Effect.promise(() => get(port, "/fails"))
      yield* Deferred.await(logged)
      assert.deepStrictEqual(lines, ["ERROR an event stream failed, and its connection was broken: Error: boom"])
    })
  )

  it.scopedLive("or of its broadcast, which needs no fiber", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const broadcast = yield* EventBroadcast.make()
      const port = yield* serve(
        EventStreamRoute.layer(
          "/",
          { accept: () => Effect.addFinalizer(() => Deferred.succeed(closed, undefined)) },
          () => broadcast.subscribe()
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/"))
      assert.strictEqual(yield* broadcast.subscribers, 1)
      reader.leave()
      yield* Deferred.await(closed)
      assert.strictEqual(yield* broadcast.subscribers, 0)
    })
  )
})

describe("slow readers of a socket", () => {
  const big = event("x".repeat(100_000))

  /** A client that has sent its request, and reads nothing before it is told to. */
  const stall = (port: number, path: string): Effect.Effect<net.Socket, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const socket = net.connect(port, "127.0.0.1", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`))
        socket.on("error", () => {})
        return socket.pause()
      }),
      (socket) => Effect.sync(() => socket.destroy())
    )

  const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

  it.scopedLive("wait: the stream is not pulled until they read", () =>
    Effect.gen(function* () {
      let pulled = 0
      const counted = Effect.sync(() => {
        pulled++
        return big
      })
      const port = yield* serve(EventStreamRoute.layer("/", {}, () => Stream.repeatEffect(counted)))
      const socket = yield* stall(port, "/")
      // What the kernel takes; then nothing changes any more.
      for (let still = 0, before = 0; still < 200 || pulled === 0; before = pulled) {
        yield* turn
        still = pulled === before ? still + 1 : 0
      }
      const before = pulled
      let bytes = 0
      socket.on("data", (chunk) => {
        bytes += chunk.length
      })
      socket.resume()
      yield* Effect.repeat(turn, { until: () => pulled > before + 10 })
      assert.isAtMost(before * 100_000, 32 * 1024 * 1024)
      assert.isAbove(bytes, 1_000_000)
    })
  )

  it.scopedLive("drop: they miss events, and the stream goes on", () =>
    Effect.gen(function* () {
      const before = (yield* Metric.value(EventStream.droppedEvents)).count
      const endless = Stream.repeatEffect(Effect.as(turn, big))
      const port = yield* serve(EventStreamRoute.layer("/", { slowReader: "drop" }, () => endless))
      yield* stall(port, "/")
      const dropped = Effect.map(Metric.value(EventStream.droppedEvents), ({ count }) => count - before)
      yield* Effect.repeat(Effect.zipRight(turn, dropped), { until: (count) => count > 10 })
    })
  )

  it.scopedLive("cut: their connection is broken, and the stream is over", () =>
    Effect.gen(function* () {
      const over = yield* Deferred.make<void>()
      const endless = Stream.ensuring(Stream.repeatEffect(Effect.as(turn, big)), Deferred.succeed(over, undefined))
      const port = yield* serve(EventStreamRoute.layer("/", { slowReader: "cut" }, () => endless))
      const socket = yield* stall(port, "/")
      const closed = new Promise<string>((resolve) => {
        let text = ""
        socket.on("close", () => resolve(text))
        socket.on("data", (chunk) => {
          text = (text + chunk.toString("latin1")).slice(-5)
        })
        socket.pause()
      })
      yield* Deferred.await(over)
      socket.resume()
      // Without the last chunk of the body, "0\r\n\r\n".
      assert.notStrictEqual(yield* Effect.promise(() => closed), "0\r\n\r\n")
    })
  )
})

describe("a firehose", () => {
  it.scopedLive("arrives whole, whatever the reader's pace", () =>
    Effect.gen(function* () {
      const lines = Array.from({ length: 4000 }, (_, n) => `${n} ${"é".repeat(n % 700)}`)
      const chunks = Stream.fromIterable(lines).pipe(
        Stream.rechunk(37),
        Stream.map((line) => event(line))
      )
      const port = yield* serve(EventStreamRoute.layer("/", {}, () => chunks))
      const text = yield* Effect.promise(
        () =>
          new Promise<string>((resolve) => {
            http.get({ port, host: "127.0.0.1", agent: false }, async (response) => {
              response.setEncoding("utf8")
              let text = ""
              for await (const chunk of response) {
                text += chunk
                response.pause()
                await new Promise<void>((resolve) => setImmediate(resolve))
                response.resume()
              }
              resolve(text)
            })
          })
      )
      assert.strictEqual(text, `:\n\n${lines.map((line) => `data: ${line}\n\n`).join("")}`)
    })
  )

  it.scopedLive("leaves others their turn, and ends when its reader leaves", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const endless = Stream.forever(Stream.make(event("x".repeat(100)))).pipe(
        Stream.ensuring(Deferred.succeed(left, undefined))
      )
      const port = yield* serve(
        Layer.mergeAll(
          EventStreamRoute.layer("/endless", {}, () => endless),
          EventStreamRoute.layer("/two", {}, () => two)
        )
      )
      const reader = yield* Effect.promise(() => get(port, "/endless"))
      const other = yield* Effect.promise(() => get(port, "/two"))
      assert.strictEqual(yield* Effect.promise(() => other.ended), "end")
      reader.leave()
      yield* Deferred.await(left)
    })
  )
})
