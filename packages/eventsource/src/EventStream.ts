/**
 * Event streams as HTTP responses, for any handler: `HttpLayerRouter`, `HttpRouter` and `HttpApi`.
 *
 * Routes of their own are in `EventStreamRoute`; one source for many readers is in `EventBroadcast`.
 *
 * @since 0.1.0
 */
import * as Cookies from "@effect/platform/Cookies"
import * as Headers from "@effect/platform/Headers"
import * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Codec from "./codec/index.js"
import type { EventSchema } from "./EventSchema.js"
import { decodeHeader, quality } from "./internal/accept.js"
import * as Delivery from "./internal/delivery.js"
import * as Direct from "./internal/direct.js"
import * as Outlet from "./internal/outlet.js"
import * as Subscriber from "./internal/subscriber.js"
import { type Wire, wire } from "./internal/wire.js"
import * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * Options of a response.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Default: 200, the only one that browsers take. */
  readonly status?: number | undefined
  /** Headers besides `content-type`, `cache-control` and `x-accel-buffering`, or instead of them. */
  readonly headers?: Headers.Input | undefined
  /** The reconnection time that is sent first. Default: none is sent. */
  readonly retry?: Duration.DurationInput | undefined
  /** How often a comment shows both ends that the connection lives; `false`: never. Default: 15 seconds. */
  readonly keepAlive?: Duration.DurationInput | false | undefined
  /**
   * What becomes of a reader that does not keep up: `"wait"` stops pulling the stream, `"drop"` leaves events out (counted
   * in {@link droppedEvents}), `"cut"` breaks the connection, after which clients come back. Default: `"wait"`.
   */
  readonly slowReader?: Subscriber.SlowReader | undefined
  /**
   * How many unsent bytes are held before that, besides what the kernel holds and one write (some 32 KiB, or a longer
   * event). Not less than the transport's own mark, which is 16 KiB in Node. Default: 64 KiB.
   */
  readonly maxBufferedBytes?: number | undefined
}

/**
 * Options of a response whose elements are values of a schema.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypedOptions<A, R = never> extends Options {
  readonly schema: EventSchema<A, R>
}

/**
 * Counts the events that were left out for slow readers.
 *
 * @since 0.1.0
 * @category metrics
 */
export const droppedEvents: Metric.Metric.Counter<number> = Subscriber.droppedEvents

/**
 * Answers with a stream of events, or of values that a schema makes events of.
 *
 * The head and a comment are sent at once. Each chunk of the stream becomes one write. The stream runs with the services and
 * the `FiberRef`s of the handler, and is interrupted when the client leaves; the request's `Scope` is closed after it. A stream
 * that fails breaks the connection, so that clients see it and come back; a stream that ends, ends the response. An event which
 * cannot be written (`InvalidEvent`), or encoded by the schema, is a failure of the stream.
 *
 * In Node, over HTTP/1, the request itself is over when the head is sent: its span ends and the access log has its line, the
 * stream goes on in a fiber of its own, and says in the log why it failed.
 *
 * 406 where the request's `Accept` excludes event streams. HEAD gets the head alone, and the stream does not run.
 *
 * @example
 * import { HttpLayerRouter } from "@effect/platform"
 * import { EventStream, ServerSentEvent } from "@effect-ws/eventsource"
 * import { Schedule, Stream } from "effect"
 *
 * const ticks = Stream.fromSchedule(Schedule.spaced("1 second")).pipe(
 *   Stream.map((n) => ServerSentEvent.make({ event: "tick", data: String(n) }))
 * )
 * const Ticks = HttpLayerRouter.add("GET", "/ticks", EventStream.response(ticks))
 *
 * @since 0.1.0
 * @category constructors
 */
export const response: {
  <A, E, R, RS>(
    stream: Stream.Stream<A, E, R>,
    options: TypedOptions<A, RS>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest | R | RS>
  <E, R>(
    stream: Stream.Stream<ServerSentEvent.Outgoing, E, R>,
    options?: Options
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest | R>
} = <A, E, R, RS>(
  stream: Stream.Stream<A, E, R>,
  options?: Options & { readonly schema?: EventSchema<A, RS> }
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest | R | RS> => {
  const prepared = prepare(options ?? {})
  return Effect.contextWithEffect((context: Context.Context<HttpServerRequest.HttpServerRequest | R | RS>) =>
    respond(stream, prepared, context, Option.getOrUndefined(Context.getOption(context, OpenStreams)))
  )
}

/** Options, and what is made of them once for all responses. */
interface Prepared<A, R> {
  readonly options: Options & { readonly schema?: unknown }
  readonly settings: Delivery.Settings
  readonly write: Write<A, R>
}

/** @internal */
export const prepare = <A, R>(options: Options & { readonly schema?: EventSchema<A, R> }): Prepared<A, R> => {
  const { keepAlive = "15 seconds", maxBufferedBytes = 64 * 1024, retry, schema, slowReader = "wait" } = options
  return {
    options,
    settings: {
      first: retry === undefined ? Delivery.heartbeat : firstBlock(retry),
      keepAlive: keepAlive === false ? undefined : Duration.toMillis(keepAlive),
      allowance: { slowReader, maxBufferedBytes }
    },
    write: (schema === undefined ? plain : typed(schema)) as Write<A, R>
  }
}

/** @internal */
export const respond = <A, E, R, RS>(
  stream: Stream.Stream<A, E, R>,
  { options, settings, write }: Prepared<A, RS>,
  context: Context.Context<HttpServerRequest.HttpServerRequest | R | RS>,
  openStreams: OpenStreams["Type"] | undefined
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  if (!acceptsEventStream(request)) return Effect.succeed(notAcceptable)
  if (openStreams?.together.stopped === true) return Effect.succeed(closing)
  const direct = options.schema === undefined ? Direct.get(stream) : undefined
  const serving: Serving<unknown, R | RS> = {
    settings,
    context: direct === undefined ? (context as Context.Context<R | RS>) : (Context.empty() as Context.Context<any>),
    openStreams: openStreams?.together,
    source: direct ?? pulled(stream, write)
  }
  const answer = HttpServerResponse.stream(body(request, serving), {
    status: options.status ?? 200,
    contentType: "text/event-stream",
    headers: headersOf(request, options)
  })
  const node = request.method === "HEAD" ? undefined : Outlet.nodeResponse(request)
  return node !== undefined && Outlet.ownsSocket(node)
    ? Effect.as(takeOver(node, answer.body, serving), answer)
    : Effect.succeed(answer)
}

/** What one response takes. */
interface Serving<E, R> {
  readonly settings: Delivery.Settings
  readonly context: Context.Context<R>
  readonly openStreams: Delivery.Together | undefined
  readonly source: Direct.Subscribe<E, R>
}

/**
 * A stream that is pulled for its subscriber, in the subscriber's fiber. (`Stream.run` would fork another for each: 12 KB.)
 */
const pulled =
  <A, E, R, RS>(
    stream: Stream.Stream<A, E, R>,
    write: Write<A, RS>
  ): Direct.Subscribe<E | ServerSentEvent.InvalidEvent | ParseResult.ParseError, R | RS> =>
  (subscriber) => ({
    run: Effect.flatMap(Stream.toPull(stream), (pull) => {
      const next: Effect.Effect<void, E | ServerSentEvent.InvalidEvent | ParseResult.ParseError, R | RS> =
        Effect.matchEffect(pull, {
          onFailure: ended,
          onSuccess: (chunk) => Effect.zipRight(write(subscriber, chunk), next)
        })
      return next
    }),
    leave: nothing
  })

const ended: <E>(end: Option.Option<E>) => Effect.Effect<void, E> = Option.match({
  onNone: () => Effect.void,
  onSome: (error) => Effect.fail(error)
})

const nothing = () => {}

/**
 * In Node, over HTTP/1, the last pre-response handler sends the head, with the status and headers that all others made, and
 * detaches the stream from the request, which is over then. Where something has replaced the body, that is what is sent.
 *
 * (The platform would run the body in the request's fiber, with a tower of Channels around it: 40 KB for each subscriber.)
 */
const takeOver = <E, R>(
  node: Outlet.NodeResponse,
  body: HttpBody.HttpBody,
  { context, openStreams, settings, source }: Serving<E, R>
): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    const refs = fiber.getFiberRefs()
    return HttpApp.appendPreResponseHandler((_, response) =>
      Effect.withFiberRuntime((fiber) => {
        if (response.body !== body || !Outlet.isOpen(node)) return Effect.succeed(response)
        node.writeHead(response.status, nodeHeaders(response))
        const scope = Context.unsafeGet(
          fiber.currentContext as Context.Context<Scope.Scope>,
          Scope.Scope
        ) as Scope.CloseableScope
        HttpApp.ejectDefaultScopeClose(scope)
        Outlet.settle(node)
        fiber.addObserver(() => Outlet.forgetFiber(node))
        const place = { outlet: Outlet.fromNode(node), openStreams, beforeClose: Outlet.beforeClose(node) }
        Delivery.detach(place, settings, source, {
          clock: Context.get(fiber.getFiberRef(DefaultServices.currentServices), Clock.Clock),
          context,
          refs,
          scope,
          onClose: (left) => node.on("close", left)
        })
        return Effect.succeed(response)
      })
    )
  })

const nodeHeaders = (
  response: HttpServerResponse.HttpServerResponse
): Readonly<Record<string, string | ReadonlyArray<string>>> =>
  Cookies.isEmpty(response.cookies)
    ? response.headers
    : {
        ...response.headers,
        "set-cookie": [
          ...[response.headers["set-cookie"] ?? []].flat(),
          ...Cookies.toSetCookieHeaders(response.cookies)
        ]
      }

const notAcceptable = HttpServerResponse.text("This resource is an event stream (text/event-stream)\n", { status: 406 })

const closing = HttpServerResponse.text("The server is shutting down\n", {
  status: 503,
  headers: { connection: "close" }
})

/** Caches and proxies pass events on as they come; the connection is not kept for another request after them. */
const headersOf = (request: HttpServerRequest.HttpServerRequest, options: Options): Headers.Input => {
  const node = Outlet.nodeResponse(request)
  return {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    // With it, a server that stops need not wait for idle connections. HTTP/2 has no such header.
    ...(node !== undefined && Outlet.isHttp1(node) ? { connection: "close" } : undefined),
    ...Headers.fromInput(options.headers)
  }
}

/**
 * The body: bytes for platforms that take them. In Node it has none: when the platform has written the head and runs the
 * body, that writes to the socket.
 */
const body = <E, R>(
  request: HttpServerRequest.HttpServerRequest,
  { context, openStreams, settings, source }: Serving<E, R>
): Stream.Stream<Uint8Array, unknown> =>
  Stream.suspend(() => {
    const node = Outlet.nodeResponse(request)
    if (node !== undefined) {
      const place = { outlet: Outlet.fromNode(node), openStreams, beforeClose: Outlet.beforeClose(node) }
      return Stream.fromChannel(Channel.fromEffect(Delivery.serve(place, settings, source, context)))
    }
    const { body, outlet } = Outlet.portable()
    const place = { outlet, openStreams, beforeClose: undefined }
    return Stream.unwrapScoped(
      Effect.map(Effect.forkScoped(Delivery.serve(place, settings, source, context)), (fiber) =>
        Stream.concat(
          body,
          Stream.execute(Effect.flatMap(Fiber.await(fiber), (exit) => (Delivery.isBroken(exit) ? exit : Effect.void)))
        )
      )
    )
  })

const firstBlock = (retry: Duration.DurationInput): Wire => {
  const text = Codec.encode(ServerSentEvent.retry(retry))
  return wire(Codec.heartbeat + (typeof text === "string" ? text : ""))
}

/** How chunks of a stream are written to a subscriber. */
type Write<A, R> = (
  subscriber: Subscriber.Subscriber,
  chunk: Chunk.Chunk<A>
) => Effect.Effect<void, ServerSentEvent.InvalidEvent | ParseResult.ParseError, R>

/** Text is collected up to about this length for one write. Joining 256 KiB was measured at a quarter of the speed of 64. */
const writeLength = 32 * 1024

const plain = (
  subscriber: Subscriber.Subscriber,
  chunk: Chunk.Chunk<ServerSentEvent.Outgoing>
): Effect.Effect<void, ServerSentEvent.InvalidEvent> => {
  const values = Chunk.toReadonlyArray(chunk)
  let index = 0
  const next = (): Effect.Effect<void, ServerSentEvent.InvalidEvent> => {
    let text = ""
    const first = index
    while (index < values.length && text.length < writeLength) {
      const block = Codec.encode(values[index]!)
      if (typeof block !== "string") {
        const sent = text === "" ? Effect.void : subscriber.send(text, index - first)
        return Effect.zipRight(sent, new ServerSentEvent.InvalidEvent(block))
      }
      text += block
      index++
    }
    if (text === "") return Effect.void
    const sent = subscriber.send(text, index - first)
    return index === values.length ? sent : Effect.flatMap(sent, next)
  }
  return next()
}

const typed = <A, R>(schema: EventSchema<A, R>): Write<A, R> => {
  const encode = Schema.encode(schema)
  return (subscriber, chunk) =>
    Effect.flatMap(
      Effect.forEach(chunk, (value) => encode(value)),
      (fields) => plain(subscriber, Chunk.map(Chunk.unsafeFromArray(fields), ServerSentEvent.make))
    )
}

/**
 * Whether a request asks for an event stream: GET, with `text/event-stream` named in its `Accept`, as every browser's
 * `EventSource` sends it. For handlers that answer one URL in several ways.
 *
 * @since 0.1.0
 * @category requests
 */
export const isEventSource = (request: HttpServerRequest.HttpServerRequest): boolean => {
  const accepted = quality(request.headers.accept ?? "")
  return request.method === "GET" && accepted !== undefined && accepted.exact && accepted.q > 0
}

/** Whether an event stream may be the answer: `Accept` is absent, or does not exclude it. */
const acceptsEventStream = (request: HttpServerRequest.HttpServerRequest): boolean => {
  const { accept } = request.headers
  return accept === undefined || accept.trim() === "" || (quality(accept)?.q ?? 0) > 0
}

/**
 * The last event ID that a client sent when it came back; `""` on its first connection.
 *
 * @since 0.1.0
 * @category requests
 */
export const lastEventId = (request: HttpServerRequest.HttpServerRequest): string =>
  decodeHeader(request.headers["last-event-id"] ?? "")

/**
 * The event streams that are open, so that a shutdown ends them: a server waits for its clients, and those of an event
 * stream do not leave. Routes of `EventStreamRoute` have one of their own; {@link response} uses the one in its context.
 *
 * @since 0.1.0
 * @category services
 */
export class OpenStreams extends Context.Tag("@effect-ws/eventsource/EventStream/OpenStreams")<
  OpenStreams,
  {
    /** How many there are. */
    readonly count: Effect.Effect<number>
    /** Ends them all, waits until their streams are finalized, and lets no other begin (503). */
    readonly stop: Effect.Effect<void>
    /** @internal */
    readonly together: Delivery.Together
  }
>() {}

/**
 * A set of open streams that is stopped with its scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeOpenStreams: Effect.Effect<OpenStreams["Type"], never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync((): OpenStreams["Type"] => {
    const together: Delivery.Together = { deliveries: new Set(), stopped: false }
    return {
      count: Effect.sync(() => together.deliveries.size),
      stop: Effect.suspend(() => {
        together.stopped = true
        const open = Array.from(together.deliveries)
        for (const delivery of open) delivery.stop()
        return Effect.forEach(open, (delivery) => delivery.gone, { discard: true })
      }),
      together
    }
  }),
  (openStreams) => openStreams.stop
)

/**
 * Ends the event streams of handlers when the layer is released: provide it to the layer of the handlers, so that this
 * happens before the server waits for them.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerOpenStreams: Layer.Layer<OpenStreams> = Layer.scoped(OpenStreams, makeOpenStreams)
