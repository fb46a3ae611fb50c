/** Spans of upgrade requests: what the platform's own middleware makes, without its cost while nothing records them. */
import * as Http from "node:http"
import { HttpLayerRouter, HttpMiddleware, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Context, Deferred, Effect, Layer, Option, Tracer } from "effect"
import { connect } from "./support.js"

type Server = Layer.Layer<HttpServer.HttpServer, unknown>

const listen = { port: 0, host: "127.0.0.1" }
const ours: Server = NodeWebSocketServer.layer(Http.createServer, listen)
const platforms: Server = NodeHttpServer.layer(NodeWebSocketServer.attach(Http.createServer), listen)

interface Options {
  readonly refuse?: boolean
  readonly around?: (served: Layer.Layer<never, unknown, HttpServer.HttpServer>) => typeof served
  readonly within?: Layer.Layer<never>
  readonly traceparent?: string | undefined
}

const sampleParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

/** The span of an answered request, as `accept` saw it, with its attributes then. */
const spanOf = (server: Server, options: Options = {}) =>
  Effect.gen(function* () {
    const { around, refuse, traceparent, within }: Options = {
      around: (served) => served,
      within: Layer.empty,
      traceparent: sampleParent,
      ...options
    }
    const seen = yield* Deferred.make<Tracer.Span | undefined>()
    let during = {}
    const accept = () =>
      Effect.gen(function* () {
        const span = Option.getOrUndefined(yield* Effect.option(Effect.currentSpan))
        yield* Effect.annotateCurrentSpan({ "app.step": 1, "app.room": "blue" })
        yield* Effect.annotateCurrentSpan({ "app.step": 2, "url.path": "hidden" })
        during = Object.fromEntries(span?.attributes ?? [])
        yield* Deferred.succeed(seen, span)
        return refuse ? HttpServerResponse.text("no", { status: 418 }) : undefined
      })
    const route = WebSocketRoute.layer("/rooms/:room", { accept }, (socket) => socket.closed)
    const served = HttpLayerRouter.serve(route, { disableLogger: true, disableListenLog: true })
    const services = yield* Layer.build(around!(served).pipe(Layer.provideMerge(server), Layer.provide(within!)))
    const { address } = Context.get(services, HttpServer.HttpServer)
    const client = yield* connect(address._tag === "TcpAddress" ? address.port : 0)
    const headers = { traceparent, authorization: "secret", "user-agent": "test" }
    const answer = yield* client.upgrade("/rooms/blue?since=3", headers)
    assert.strictEqual(answer.status, refuse ? 418 : 101)
    const span = yield* Deferred.await(seen)
    return { span, during, status: span?.attributes.get("http.response.status_code") }
  }).pipe(Effect.scoped)

const rows: Record<string, Options> = {
  "a request that is accepted": {},
  "a request that is refused": { refuse: true },
  "with a name of the application's": {
    around: HttpMiddleware.withSpanNameGenerator((request) => `asked for ${request.url}`)
  },
  "within a span": { within: Layer.span("server"), traceparent: undefined },
  "with annotations for all spans": {
    around: (served) => Layer.annotateSpans(served, "deployment", "blue")
  },
  "without tracing for it": {
    around: HttpMiddleware.withTracerDisabledWhen((request) => request.url.startsWith("/rooms"))
  },
  "without any tracing": { within: Layer.setTracerEnabled(false) }
}

describe("the span of an upgrade request", () => {
  for (const [name, options] of Object.entries(rows)) {
    it.live(`${name}: has what the platform's has`, () =>
      Effect.gen(function* () {
        const expected = yield* spanOf(platforms, options)
        const actual = yield* spanOf(ours, options)
        assert.deepStrictEqual(actual.during, expected.during)
        assert.strictEqual(actual.status, expected.status)
        assert.strictEqual(actual.span?.name, expected.span?.name)
        assert.strictEqual(actual.span?.kind, expected.span?.kind)
        assert.strictEqual(actual.span?.traceId.length, expected.span?.traceId.length)
        assert.strictEqual(actual.span?.spanId.length, expected.span?.spanId.length)
        assert.strictEqual(actual.span?.status._tag, expected.span?.status._tag)
        const parentOf = ({ span }: typeof actual) => span && Option.getOrUndefined(span.parent)?.spanId
        assert.strictEqual(parentOf(actual) === undefined, parentOf(expected) === undefined)
        if (!("within" in options)) assert.strictEqual(parentOf(actual), parentOf(expected))
      })
    )
  }

  it.live("goes to a tracer that records, with all attributes", () =>
    Effect.gen(function* () {
      const recorded: Array<{ readonly name: string; readonly attributes: Map<string, unknown> }> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        span: (name, parent, context, links, startTime, kind) => {
          const span = native.span(name, parent, context, links, startTime, kind)
          recorded.push({ name, attributes: span.attributes as Map<string, unknown> })
          return span
        },
        context: (f) => f()
      })
      yield* spanOf(ours, { within: Layer.setTracer(tracer) })
      const request = recorded.find(({ name }) => name === "http.server GET")
      assert.strictEqual(request?.attributes.get("http.response.status_code"), 101)
      assert.strictEqual(request?.attributes.get("http.response.header.upgrade"), "websocket")
    })
  )
})
