/**
 * Spans of upgrade requests where nothing records spans: Effect's own tracer keeps them only for who asks for the current one.
 * Making what the platform's middleware puts into them (URL, all headers, address, random identities) costs 58 of 245
 * microseconds of an opening handshake, so here it is made when it is asked for.
 */
import * as Headers from "@effect/platform/Headers"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as HttpTraceContext from "@effect/platform/HttpTraceContext"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

type App = HttpApp.Default<any, any>

/**
 * `server` with such spans for the requests that `isUpgrade` tells. Where another tracer is set, or anything about spans is
 * configured, it serves as it is.
 */
export const withRequestSpans = (
  server: HttpServer.HttpServer,
  isUpgrade: (request: HttpServerRequest.HttpServerRequest) => boolean
): HttpServer.HttpServer =>
  HttpServer.make({
    address: server.address,
    serve: (app, middleware) =>
      Effect.flatMap(isUnrecorded, (unrecorded) => {
        if (!unrecorded) return middleware === undefined ? server.serve(app) : server.serve(app, middleware)
        return Effect.flatMap(FiberRef.get(HttpMiddleware.currentTracerDisabledWhen), (isDisabled) =>
          server
            .serve(app, (handled: App) => {
              const inner: App = middleware === undefined ? handled : (middleware(handled) as App)
              return traced(inner, (request) => isUpgrade(request) && !isDisabled(request))
            })
            .pipe(
              Effect.locally(
                HttpMiddleware.currentTracerDisabledWhen,
                (request) => isUpgrade(request) || isDisabled(request)
              )
            )
        )
      })
  })

const nativeTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether spans go nowhere, and look as they do by default. */
const isUnrecorded = Effect.tracerWith((tracer) =>
  Effect.withFiberRuntime<boolean>((fiber) =>
    Effect.succeed(
      tracer === nativeTracer &&
        fiber.getFiberRef(FiberRef.currentTracerEnabled) &&
        HashMap.isEmpty(fiber.getFiberRef(FiberRef.currentTracerSpanAnnotations)) &&
        fiber.getFiberRef(FiberRef.currentTracerSpanLinks).length === 0
    )
  )
)

/** What `HttpMiddleware.tracer` does, for the requests that `wants` tells. */
const traced = (app: App, wants: (request: HttpServerRequest.HttpServerRequest) => boolean): App =>
  Effect.withFiberRuntime((fiber) => {
    const context = fiber.currentContext as Context.Context<any>
    const request = Context.unsafeGet(context, HttpServerRequest.HttpServerRequest)
    if (!wants(request)) return app
    const redacted = fiber.getFiberRef(Headers.currentRedactedNames)
    const clock = Context.get(fiber.getFiberRef(DefaultServices.currentServices), Clock.Clock)
    const span = new RequestSpan(request, context, redacted, clock.unsafeCurrentTimeNanos())
    // As `withParentSpan`, but never taken back: the fiber is the request's own, and nothing else of it follows.
    const entered = FiberRef.set(FiberRef.currentContext, Context.add(context, Tracer.ParentSpan, span))
    return Effect.flatMap(Effect.zipRight(entered, Effect.exit(app)), (exit) => {
      span.responded(clock, exit)
      return exit
    })
  })

interface Attribute {
  readonly key: string
  value: unknown
  readonly before: Attribute | undefined
}

/** See the module. */
export class RequestSpan implements Tracer.Span {
  readonly _tag = "Span"
  readonly kind = "server"
  readonly sampled = true
  readonly context = Context.empty()
  private readonly around: Tracer.AnySpan | undefined
  private readonly nameOf: (request: HttpServerRequest.HttpServerRequest) => string
  private identity: { readonly spanId: string; readonly traceId: string } | undefined
  private ended: { readonly endTime: bigint; readonly exit: Exit.Exit<unknown, unknown> } | undefined
  private responseStatus: number | undefined
  /** The latest first; mostly one, for which a Map would take 200 bytes as long as the connection lives. */
  private own: Attribute | undefined

  constructor(
    private readonly request: HttpServerRequest.HttpServerRequest,
    context: Context.Context<never>,
    private readonly redacted: Parameters<typeof Headers.redact>[1],
    private readonly startTime: bigint
  ) {
    this.around = context.unsafeMap.get(Tracer.ParentSpan.key)
    this.nameOf = Context.get(context, HttpMiddleware.SpanNameGenerator)
  }

  get name(): string {
    return this.nameOf(this.request)
  }

  get parent(): Option.Option<Tracer.AnySpan> {
    return Option.orElse(HttpTraceContext.fromHeaders(this.request.headers), () => Option.fromNullable(this.around))
  }

  get spanId(): string {
    return this.identify().spanId
  }

  get traceId(): string {
    return this.identify().traceId
  }

  /** Identities as the native tracer makes them. */
  private identify(): { readonly spanId: string; readonly traceId: string } {
    if (this.identity === undefined) {
      const { spanId, traceId } = nativeTracer.span("", this.parent, this.context, [], this.startTime, this.kind)
      this.identity = { spanId, traceId }
    }
    return this.identity
  }

  get status(): Tracer.SpanStatus {
    const { ended, startTime } = this
    return ended === undefined ? { _tag: "Started", startTime } : { _tag: "Ended", startTime, ...ended }
  }

  get links(): ReadonlyArray<Tracer.SpanLink> {
    return []
  }

  get attributes(): ReadonlyMap<string, unknown> {
    const { request } = this
    const attributes = new Map<string, unknown>([["http.request.method", request.method]])
    const url = Option.getOrUndefined(HttpServerRequest.toURL(request))
    if (url !== undefined) {
      if (url.username !== "" || url.password !== "") url.username = url.password = "REDACTED"
      attributes.set("url.full", url.toString()).set("url.path", url.pathname)
      if (url.search.length > 1) attributes.set("url.query", url.search.slice(1))
      attributes.set("url.scheme", url.protocol.slice(0, -1))
    }
    const { "user-agent": userAgent } = request.headers
    if (userAgent !== undefined) attributes.set("user_agent.original", userAgent)
    const headers = Headers.redact(request.headers, this.redacted)
    for (const name in headers) attributes.set(`http.request.header.${name}`, String(headers[name]))
    if (request.remoteAddress._tag === "Some") attributes.set("client.address", request.remoteAddress.value)
    if (this.responseStatus !== undefined) attributes.set("http.response.status_code", this.responseStatus)
    const own: Array<Attribute> = []
    for (let one = this.own; one !== undefined; one = one.before) own.unshift(one)
    for (const { key, value } of own) attributes.set(key, value)
    return attributes
  }

  /** The request is over; a connection may keep its span, so that does not keep the response. */
  responded(clock: Clock.Clock, exit: Exit.Exit<HttpServerResponse.HttpServerResponse, unknown>): void {
    this.responseStatus = HttpServerError.exitResponse(exit).status
    this.end(clock.unsafeCurrentTimeNanos(), exit._tag === "Success" ? Exit.void : exit)
  }

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.ended = { endTime, exit }
  }

  attribute(key: string, value: unknown): void {
    for (let one = this.own; one !== undefined; one = one.before) {
      if (one.key === key) {
        one.value = value
        return
      }
    }
    this.own = { key, value, before: this.own }
  }

  /** Events of a span can't be read again, and a connection may log for days. */
  event(): void {}

  addLinks(): void {}
}
