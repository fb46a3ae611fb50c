import {
  FetchHttpClient,
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  HttpClientResponse,
  HttpLayerRouter,
  HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Deferred,
  Effect,
  Fiber,
  Layer,
  Option,
  Schedule,
  Schema,
  Stream,
  SubscriptionRef,
  TestClock
} from "effect"
import { EventSchema, EventSource, EventStreamRoute, ServerSentEvent } from "../src/index.js"
import { serve } from "./support.js"

/** What a scripted server answers: a status, headers, and parts of a body, which may end, break or stay open. */
interface Answer {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: ReadonlyArray<string>
  readonly after?: "end" | "break" | "stay"
}

/** A client whose nth request gets the nth answer, and every one after the last fails. */
const scripted = (answers: ReadonlyArray<Answer | "refused">) => {
  const requests: Array<HttpClientRequest.HttpClientRequest> = []
  let open = 0
  const client = HttpClient.make((request) =>
    Effect.suspend(() => {
      const answer = answers[requests.length] ?? "refused"
      requests.push(request)
      if (answer === "refused") return new HttpClientError.RequestError({ request, reason: "Transport" })
      const status = answer.status ?? 200
      const headers = new Headers({ "content-type": "text/event-stream", ...answer.headers })
      open++
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => {
          for (const part of answer.body ?? []) controller.enqueue(new TextEncoder().encode(part))
          if (answer.after === undefined || answer.after === "end") controller.close()
          else if (answer.after === "break") setTimeout(() => controller.error(new Error("reset")), 0)
        },
        cancel: () => {
          open--
        }
      })
      const empty = status === 204 || status === 304
      return Effect.succeed(HttpClientResponse.fromWeb(request, new Response(empty ? null : body, { status, headers })))
    })
  )
  return {
    requests,
    open: () => open,
    lastEventIds: () => requests.map((request) => request.headers["last-event-id"]),
    layer: Layer.succeed(HttpClient.HttpClient, client)
  }
}

const url = "http://example.com/feed"

/** Runs a stream to its end, with the time that its waiting takes passing at once. */
const collect = <A, E>(stream: Stream.Stream<A, E, HttpClient.HttpClient>, layer: Layer.Layer<HttpClient.HttpClient>) =>
  Effect.gen(function* () {
    const items: Array<A> = []
    const fiber = yield* Effect.fork(
      Effect.exit(Stream.runForEach(stream, (item) => Effect.sync(() => items.push(item))))
    )
    while (fiber.unsafePoll() === null) {
      yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      yield* TestClock.adjust("1 minute")
    }
    return { items, exit: yield* Fiber.join(fiber) }
  }).pipe(Effect.provide(layer))

/** The same for streams that fail, with their error. */
const failure = <A, E>(stream: Stream.Stream<A, E, HttpClient.HttpClient>, layer: Layer.Layer<HttpClient.HttpClient>) =>
  Effect.flatMap(collect(stream, layer), ({ exit, items }) =>
    Effect.map(Effect.flip(exit), (error) => ({ items, error }))
  )

const dataOf = (events: ReadonlyArray<ServerSentEvent.Received>) => events.map((event) => event.data)

describe("the specification's behaviour", () => {
  it.effect("asks for an event stream, and gives its events", () =>
    Effect.gen(function* () {
      const server = scripted([
        { body: ["id: 1\nevent: t\nda", "ta: a\n\n: comment\n\ndata: b\n\ndata: c\n"] },
        { status: 204 }
      ])
      const { items } = yield* collect(EventSource.stream(url), server.layer)
      assert.deepStrictEqual(items, [
        { _tag: "Event", event: "t", data: "a", id: "1", lastEventId: "1" },
        { _tag: "Event", event: "message", data: "b", id: undefined, lastEventId: "1" }
      ])
      const [first] = server.requests
      assert.strictEqual(first!.method, "GET")
      assert.strictEqual(first!.headers.accept, "text/event-stream")
      assert.strictEqual(first!.headers["cache-control"], "no-store")
      assert.deepStrictEqual(server.lastEventIds(), [undefined, "1"])
    })
  )

  it.effect("reconnects after an end, a break and a refusal, until the server answers 204", () =>
    Effect.gen(function* () {
      const server = scripted([
        { body: ["id: 1\ndata: a\n\n"] },
        "refused",
        { body: ["data: b\n\nid: 2\n\n", "id: 3\n"], after: "break" },
        { body: ["id: \ndata: c\n\n"] },
        { status: 204 }
      ])
      const { exit, items } = yield* collect(EventSource.stream(url), server.layer)
      assert.strictEqual(exit._tag, "Success")
      assert.deepStrictEqual(dataOf(items), ["a", "b", "c"])
      // A block without data sets the ID, one that was not complete does not, and an empty one resets it.
      assert.deepStrictEqual(server.lastEventIds(), [undefined, "1", "1", "2", undefined])
    })
  )

  it.effect("sends the last event ID as UTF-8, and the one it is given at first", () =>
    Effect.gen(function* () {
      const server = scripted([{ body: ["id: é✓\n\n"] }, { status: 204 }])
      yield* collect(EventSource.stream(url, { lastEventId: "41" }), server.layer)
      assert.deepStrictEqual(server.lastEventIds(), ["41", String.fromCharCode(...new TextEncoder().encode("é✓"))])
    })
  )

  it.effect("waits 2 seconds, or what the server said last", () =>
    Effect.gen(function* () {
      const server = scripted([{}, { body: ["retry: 500\nretry: 5000\n"] }, { status: 204 }])
      const source = yield* EventSource.make(url)
      const fiber = yield* Effect.fork(Effect.provide(Stream.runDrain(source.events), server.layer))
      const waiting = (count: number) =>
        source.status.changes.pipe(
          Stream.filter((status) => status._tag === "Waiting" && server.requests.length === count),
          Stream.runHead
        )
      yield* waiting(1)
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 millis")
      yield* waiting(2)
      yield* TestClock.adjust("4999 millis")
      assert.strictEqual(server.requests.length, 2)
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(fiber)
      assert.strictEqual(server.requests.length, 3)
    })
  )

  const final: ReadonlyArray<readonly [string, Answer, Partial<EventSource.EventSourceError>]> = [
    ["404", { status: 404, body: ["not here"] }, { reason: "Status", status: 404, body: "not here" }],
    ["503", { status: 503, headers: { "retry-after": "7" } }, { reason: "Status", status: 503, retryAfter: 7000 }],
    ["another content type", { headers: { "content-type": "text/html" } }, { reason: "ContentType", status: 200 }],
    ["none", { headers: { "content-type": "" } }, { reason: "ContentType" }],
    ["a line that is too long", { body: [`data: ${"x".repeat(200)}`] }, { reason: "Limit" }]
  ]

  it.effect.each(final)("fails on %s", ([, answer, expected]) =>
    Effect.gen(function* () {
      const server = scripted([answer])
      const { error } = yield* failure(EventSource.stream(url, { maxLineBytes: 100 }), server.layer)
      for (const [name, value] of Object.entries(expected)) assert.strictEqual(error[name as "status"], value as number)
      assert.strictEqual(server.requests.length, 1)
    })
  )

  it.effect("takes the content type with parameters", () =>
    Effect.gen(function* () {
      const server = scripted([
        { headers: { "content-type": "Text/Event-Stream;charset=utf-8" }, body: ["data: a\n\n"] },
        { status: 204 }
      ])
      assert.deepStrictEqual(dataOf((yield* collect(EventSource.stream(url), server.layer)).items), ["a"])
    })
  )

  it.effect("gives what came before a limit", () =>
    Effect.gen(function* () {
      const server = scripted([{ body: [`data: a\n\ndata: ${"x".repeat(200)}\n\n`] }])
      const { error, items } = yield* failure(EventSource.stream(url, { maxLineBytes: 100 }), server.layer)
      assert.deepStrictEqual(dataOf(items), ["a"])
      assert.strictEqual(error.reason, "Limit")
    })
  )

  it.live("closes the connection when its consumer leaves", () =>
    Effect.gen(function* () {
      const server = scripted([{ body: ["data: a\n\n"], after: "stay" }])
      const source = yield* EventSource.make(url)
      const events = yield* Stream.runCollect(Stream.take(source.events, 1)).pipe(Effect.provide(server.layer))
      assert.strictEqual(Chunk.size(events), 1)
      assert.strictEqual(server.open(), 0)
      assert.deepStrictEqual(
        yield* SubscriptionRef.get(source.status),
        EventSource.Status.Closed({ error: Option.none() })
      )
    })
  )
})

describe("policies", () => {
  it.effect("a schedule decides how long, and for how many times; it begins again after an event", () =>
    Effect.gen(function* () {
      const server = scripted(["refused", "refused", { body: ["data: a\n\n"] }, "refused", "refused"])
      const { error, items } = yield* failure(EventSource.stream(url, { schedule: Schedule.recurs(2) }), server.layer)
      assert.deepStrictEqual(dataOf(items), ["a"])
      assert.strictEqual(error.reason, "Network")
      assert.strictEqual(server.requests.length, 5)
    })
  )

  it.effect("a status may be retryable, and its Retry-After is waited for", () =>
    Effect.gen(function* () {
      const server = scripted([{ status: 503, headers: { "retry-after": "30" } }, { status: 204 }])
      const source = yield* EventSource.make(url, { retryable: () => true, schedule: Schedule.spaced("1 second") })
      const fiber = yield* Effect.fork(Effect.provide(Stream.runDrain(source.events), server.layer))
      const waiting = yield* source.status.changes.pipe(
        Stream.filter((status) => status._tag === "Waiting"),
        Stream.runHead
      )
      assert.strictEqual(Option.getOrThrow(waiting)._tag, "Waiting")
      yield* TestClock.adjust("29 seconds")
      assert.strictEqual(server.requests.length, 1)
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.join(fiber)
    })
  )

  it.effect("a silent server is lost after the idle timeout", () =>
    Effect.gen(function* () {
      const server = scripted([{ body: ["data: a\n\n"], after: "stay" }, { status: 204 }])
      const { items } = yield* collect(EventSource.stream(url, { idleTimeout: "30 seconds" }), server.layer)
      assert.deepStrictEqual(dataOf(items), ["a"])
      assert.strictEqual(server.requests.length, 2)
    })
  )

  it.effect("without reconnections the stream ends with the body, and fails with the network", () =>
    Effect.gen(function* () {
      const ended = scripted([{ body: ["data: a\n\n"] }])
      const good = yield* collect(EventSource.stream(url, { reconnect: false }), ended.layer)
      assert.deepStrictEqual([good.exit._tag, dataOf(good.items)], ["Success", ["a"]])
      const broken = scripted([{ body: ["data: a\n\n"], after: "break" }])
      const { error } = yield* failure(EventSource.stream(url, { reconnect: false }), broken.layer)
      assert.strictEqual(error.reason, "Network")
    })
  )

  it.effect("the request is made anew for every attempt, and its failure is the stream's", () =>
    Effect.gen(function* () {
      let attempt = 0
      const request = Effect.suspend(() =>
        ++attempt > 2
          ? Effect.fail("no token" as const)
          : Effect.succeed(HttpClientRequest.get(url).pipe(HttpClientRequest.bearerToken(`t${attempt}`)))
      )
      const server = scripted([{}, {}])
      const { error } = yield* failure(EventSource.stream(request), server.layer)
      assert.strictEqual(error, "no token")
      assert.deepStrictEqual(
        server.requests.map((request) => request.headers.authorization),
        ["Bearer t1", "Bearer t2"]
      )
    })
  )

  it.effect("status tells the life of the source", () =>
    Effect.gen(function* () {
      const server = scripted(["refused", { body: ["data: a\n\n"], after: "stay" }])
      const source = yield* EventSource.make(url)
      const seen: Array<string> = []
      const watching = yield* Effect.fork(
        Stream.runForEach(source.status.changes, (status) => Effect.sync(() => seen.push(status._tag)))
      )
      yield* Effect.yieldNow()
      const fiber = yield* Effect.fork(Effect.provide(Stream.runHead(source.events), server.layer))
      yield* source.status.changes.pipe(
        Stream.filter((status) => status._tag === "Waiting"),
        Stream.runHead
      )
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(fiber)
      yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      yield* Fiber.interrupt(watching)
      assert.deepStrictEqual(seen, ["Idle", "Connecting", "Waiting", "Connecting", "Open", "Closed"])
    })
  )
})

class Tick extends Schema.TaggedClass<Tick>()("Tick", { n: Schema.Number }) {}

describe("typed events", () => {
  it.effect("are decoded, and what does not fit is an error", () =>
    Effect.gen(function* () {
      const server = scripted([{ body: ['event: Tick\ndata: {"_tag":"Tick","n":1}\n\n', "data: 2\n\n"] }])
      const { error, items } = yield* failure(EventSource.stream(url, { schema: EventSchema.json(Tick) }), server.layer)
      assert.deepStrictEqual(items, [new Tick({ n: 1 })])
      assert.strictEqual(error.reason, "Schema")
    })
  )
})

describe("redirects", () => {
  const redirect = (status: number, location: string): Answer => ({ status, headers: { location } })
  const post = HttpClientRequest.post(url).pipe(
    HttpClientRequest.setHeaders({ authorization: "secret", "x-kept": "1" }),
    HttpClientRequest.bodyText("hello")
  )

  const rows: ReadonlyArray<readonly [number, string, string, string, string | undefined]> = [
    [301, "/other?a=1", "GET", "http://example.com/other?a=1", "secret"],
    [302, "other", "GET", "http://example.com/other", "secret"],
    [303, "/", "GET", "http://example.com/", "secret"],
    [307, "/", "POST", "http://example.com/", "secret"],
    [308, "http://elsewhere.com/", "POST", "http://elsewhere.com/", undefined]
  ]

  it.effect.each(rows)("%s to %s: %s %s", ([status, location, method, target, authorization]) =>
    Effect.gen(function* () {
      const server = scripted([redirect(status, location), { body: ["data: a\n\n"] }])
      const { items } = yield* collect(EventSource.stream(post, { reconnect: false }), server.layer)
      assert.deepStrictEqual(dataOf(items), ["a"])
      const request = server.requests[1]!
      const query = request.urlParams.map(([name, value]) => `${name}=${value}`).join("&")
      assert.strictEqual(request.method, method)
      assert.strictEqual(request.url + (query === "" ? "" : `?${query}`), target)
      assert.strictEqual(request.headers.authorization, authorization)
      assert.strictEqual(request.headers["x-kept"], "1")
      assert.strictEqual(request.body._tag, method === "POST" ? "Uint8Array" : "Empty")
    })
  )

  it.effect("are limited", () =>
    Effect.gen(function* () {
      const server = scripted(Array.from({ length: 5 }, () => redirect(302, "/")))
      const { error } = yield* failure(EventSource.stream(url, { maxRedirects: 2 }), server.layer)
      assert.strictEqual(error.reason, "Redirect")
      assert.strictEqual(server.requests.length, 3)
    })
  )

  it.effect("to an invalid URL fail", () =>
    Effect.gen(function* () {
      const { error } = yield* failure(EventSource.stream(url), scripted([redirect(302, "http://[")]).layer)
      assert.strictEqual(error.reason, "Redirect")
    })
  )
})

const clients: ReadonlyArray<readonly [string, Layer.Layer<HttpClient.HttpClient>]> = [
  ["node:http", NodeHttpClient.layer],
  ["undici", NodeHttpClient.layerUndici],
  ["fetch", FetchHttpClient.layer]
]

describe.each(clients)("over loopback, by %s", (name, layer) => {
  it.scopedLive("resumes at our own server, and leaves it", () =>
    Effect.gen(function* () {
      const left = yield* Deferred.make<void>()
      const numbers = EventStreamRoute.layer("/numbers", { retry: "1 millis" }, ({ lastEventId }) => {
        const from = Number(lastEventId) + 1
        const three = Stream.range(from, from + 2).pipe(
          Stream.map((n) => ServerSentEvent.make({ id: String(n), event: "n", data: String(n) }))
        )
        // Ends, then fails, then stays.
        if (from === 1) return three
        return from === 4
          ? Stream.concat(three, Stream.fail("boom"))
          : Stream.ensuring(Stream.concat(three, Stream.never), Deferred.succeed(left, undefined))
      })
      const port = yield* serve(Layer.mergeAll(numbers))
      const events = yield* EventSource.stream(`http://127.0.0.1:${port}/numbers`).pipe(
        Stream.take(9),
        Stream.runCollect,
        Effect.provide(layer)
      )
      assert.deepStrictEqual(dataOf(Chunk.toReadonlyArray(events)), ["1", "2", "3", "4", "5", "6", "7", "8", "9"])
      yield* Deferred.await(left)
    })
  )

  it.scopedLive("posts, follows a redirect, and reads to a sentinel", () =>
    Effect.gen(function* () {
      const answer = HttpLayerRouter.add(
        "POST",
        "/chat",
        Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
          Effect.map(Effect.orDie(request.text), (prompt) =>
            HttpServerResponse.text(`${[...prompt].map((c) => `data: ${c}\n\n`).join("")}data: [DONE]\n\n`, {
              contentType: "text/event-stream"
            })
          )
        )
      )
      const moved = HttpLayerRouter.add("POST", "/moved", HttpServerResponse.redirect("/chat", { status: 307 }))
      const port = yield* serve(Layer.mergeAll(answer, moved))
      // The fetch of Node 20 cannot send a body again: it has detached it.
      const path = name === "fetch" ? "/chat" : "/moved"
      const request = HttpClientRequest.post(`http://127.0.0.1:${port}${path}`).pipe(HttpClientRequest.bodyText("hé!"))
      const text = yield* EventSource.stream(request, { reconnect: false }).pipe(
        Stream.map((event) => event.data),
        Stream.takeWhile((data) => data !== "[DONE]"),
        Stream.mkString,
        Effect.provide(layer)
      )
      assert.strictEqual(text, "hé!")
    })
  )
})
