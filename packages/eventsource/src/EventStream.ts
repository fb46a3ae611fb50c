/**
 * Event streams as HTTP responses, for any handler: `HttpLayerRouter`, `HttpRouter` and `HttpApi`.
 *
 * Routes of their own are in `EventStreamRoute`; one source for many readers is in `EventBroadcast`.
 *
 * @since 0.1.0
 */
import * as Cookies from "@effect/platform/Cookies"
import type * as Headers from "@effect/platform/Headers"
import * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Codec from "./codec/index.js"
import type { EventSchema } from "./EventSchema.js"
import { decodeHeader, quality } from "./internal/accept.js"
import * as Direct from "./internal/direct.js"
import * as Outlet from "./internal/outlet.js"
import { type SlowReader, Subscriber } from "./internal/subscriber.js"
import * as Ticker from "./internal/ticker.js"
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
  readonly slowReader?: SlowReader | undefined
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
export const droppedEvents = Metric.counter("eventsource_dropped_events_total", { incremental: true })

/**
 * Answers with a stream of events, or of values that a schema makes events of.
 *
 * The head and a comment are sent at once. Each chunk of the stream becomes one write. The stream runs in the fiber of the
 * request with the services of the handler, and is interrupted when the client leaves. A stream that fails breaks the
 * connection, so that clients see it and come back; a stream that ends, ends the response. An event which cannot be written
 * (`InvalidEvent`), or encoded by the schema, is a failure of the stream.
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
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest | R | RS> =>
  Effect.contextWithEffect((context: Context.Context<HttpServerRequest.HttpServerRequest | R | RS>) =>
    respond(stream, options ?? {}, context, Option.getOrUndefined(Context.getOption(context, OpenStreams)))
  )

/** @internal */
export const respond = <A, E, R, RS>(
  stream: Stream.Stream<A, E, R>,
  options: Options & { readonly schema?: EventSchema<A, RS> },
  context: Context.Context<HttpServerRequest.HttpServerRequest | R | RS>,
  openStreams: OpenStreams["Type"] | undefined
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const request = Context.get(context, HttpServerRequest.HttpServerRequest)
  if (!acceptsEventStream(request)) return Effect.succeed(notAcceptable)
  if (openStreams?.isStopped() === true) return Effect.succeed(closing)
  const direct = options.schema === undefined ? Direct.get(stream) : undefined
  const source = direct ?? pulled(stream, options.schema, context as Context.Context<R | RS>)
  const answer = HttpServerResponse.stream(body(request, openStreams, options, source), {
    status: options.status ?? 200,
    contentType: "text/event-stream",
    headers: headersOf(request, options)
  })
  const node = request.method === "HEAD" ? undefined : Outlet.nodeResponse(request)
  return node !== undefined && Outlet.ownsSocket(node)
    ? Effect.as(takeOver(node, answer.body, openStreams, options, source), answer)
    : Effect.succeed(answer)
}

/**
 * A stream that is pulled for its subscriber, in the subscriber's fiber. (`Stream.run` would fork another for each: 12 KB.)
 */
const pulled = <A, E, R, RS>(
  stream: Stream.Stream<A, E, R>,
  schema: EventSchema<A, RS> | undefined,
  context: Context.Context<R | RS>
): Direct.Subscribe<E | ServerSentEvent.InvalidEvent | ParseResult.ParseError> => {
  const write = (schema === undefined ? plain : typed(schema)) as Write<A, RS>
  return (subscriber) => ({
    run: Effect.provide(
      Effect.scoped(
        Effect.flatMap(Stream.toPull(stream), (pull) => {
          const next: Effect.Effect<void, E | ServerSentEvent.InvalidEvent | ParseResult.ParseError, R | RS> =
            Effect.matchEffect(pull, {
              onFailure: Option.match({ onNone: () => Effect.void, onSome: (error) => Effect.fail(error) }),
              onSuccess: (chunk) => Effect.zipRight(write(subscriber, chunk), next)
            })
          return next
        })
      ),
      context
    ),
    leave: () => {}
  })
}

/**
 * In Node, over HTTP/1, the last pre-response handler serves the stream, with the status and headers that all others made.
 * The platform then finds the response ended. (It would run the body the same way, with a tower of Channels around it, which
 * weighs 20 KB for each subscriber. Where something has replaced the body, that is what is sent.)
 */
const takeOver = <E>(
  node: Outlet.NodeResponse,
  body: HttpBody.HttpBody,
  openStreams: OpenStreams["Type"] | undefined,
  options: Options,
  source: Direct.Subscribe<E>
): Effect.Effect<void> =>
  HttpApp.appendPreResponseHandler((_, response) => {
    if (response.body !== body || node.writableEnded) return Effect.succeed(response)
    node.writeHead(response.status, {
      ...response.headers,
      ...(Cookies.isEmpty(response.cookies)
        ? undefined
        : {
            "set-cookie": [
              ...[response.headers["set-cookie"] ?? []].flat(),
              ...Cookies.toSetCookieHeaders(response.cookies)
            ]
          })
    })
    return Effect.as(
      Effect.interruptible(pump(Outlet.fromNode(node), openStreams, Outlet.beforeClose(node), options, source)),
      response
    ).pipe(Effect.orDie)
  })

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
    ...(options.headers === undefined ? undefined : Object.fromEntries(headerEntries(options.headers)))
  }
}

const headerEntries = (
  headers: Headers.Input
): Iterable<readonly [string, string | ReadonlyArray<string> | undefined]> =>
  Symbol.iterator in headers
    ? Array.from(headers, ([name, value]) => [name.toLowerCase(), value] as const)
    : Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value as string] as const)

/**
 * The body: bytes for platforms that take them. In Node it has none: when the platform has written the head and runs the
 * body, that writes to the socket.
 */
const body = <E>(
  request: HttpServerRequest.HttpServerRequest,
  openStreams: OpenStreams["Type"] | undefined,
  options: Options,
  source: Direct.Subscribe<E>
): Stream.Stream<Uint8Array, unknown> =>
  Stream.suspend(() => {
    const node = Outlet.nodeResponse(request)
    if (node !== undefined) {
      return Stream.fromChannel(
        Channel.fromEffect(pump(Outlet.fromNode(node), openStreams, Outlet.beforeClose(node), options, source))
      )
    }
    const { body, outlet } = Outlet.portable()
    return Stream.unwrapScoped(
      Effect.map(Effect.forkScoped(pump(outlet, openStreams, undefined, options, source)), (fiber) =>
        Stream.concat(
          body,
          Stream.execute(Effect.flatMap(Fiber.await(fiber), (exit) => (isBroken(exit) ? exit : Effect.void)))
        )
      )
    )
  })

/** Whether a stream failed, rather than ended or was told to end. */
const isBroken = <E>(exit: Exit.Exit<unknown, E>): exit is Exit.Failure<never, E> =>
  Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)

/** A reader was too slow, and the policy is to cut. */
class SlowReaderCut extends Error {
  override readonly name = "SlowReaderCut"
  override readonly message = "The reader of an event stream was too slow, and was cut"
}

/** Serves one response from its first byte to its last. */
const pump = <E>(
  outlet: Outlet.Outlet,
  openStreams: OpenStreams["Type"] | undefined,
  beforeClose: Set<() => void> | undefined,
  options: Options,
  source: Direct.Subscribe<E>
): Effect.Effect<void, E> =>
  Effect.clockWith((clock) =>
    Effect.withFiberRuntime((fiber) => {
      const subscriber = new Subscriber(
        outlet,
        { slowReader: options.slowReader ?? "wait", maxBufferedBytes: options.maxBufferedBytes ?? 64 * 1024 },
        countDropped
      )
      const interrupt = () => fiber.unsafeInterruptAsFork(FiberId.none)
      const stop = () => {
        outlet.end(Outlet.patience)
        interrupt()
      }
      let cut = false
      subscriber.onCut = () => {
        if (cut) return
        cut = true
        outlet.abort(interrupt)
      }
      const forget = openStreams?.add({ stop, fiber })
      beforeClose?.add(stop)
      const { keepAlive = Duration.seconds(15) } = options
      const sleep =
        keepAlive === false
          ? undefined
          : Ticker.join(clock, Duration.toMillis(keepAlive), () => {
              if (outlet.bufferedBytes() === 0) outlet.write(heartbeat)
            })
      outlet.open(options.retry === undefined ? heartbeat : firstBlock(options.retry))
      const { leave, run } = source(subscriber)
      return Effect.onExit(run, (exit) => {
        leave()
        sleep?.()
        forget?.()
        beforeClose?.delete(stop)
        if (isBroken(exit)) return Effect.async<void>((resume) => outlet.abort(() => resume(Effect.void)))
        if (cut) return Effect.die(new SlowReaderCut())
        outlet.end()
        return Effect.void
      })
    })
  )

const heartbeat: Wire = wire(Codec.heartbeat)

const firstBlock = (retry: Duration.DurationInput): Wire => {
  const text = Codec.encode(ServerSentEvent.retry(retry))
  return wire(Codec.heartbeat + (typeof text === "string" ? text : ""))
}

const countDropped = (events: number): void => droppedEvents.unsafeUpdate(events, [])

/** How chunks of a stream are written to a subscriber. */
type Write<A, R> = (
  subscriber: Subscriber,
  chunk: Chunk.Chunk<A>
) => Effect.Effect<void, ServerSentEvent.InvalidEvent | ParseResult.ParseError, R>

/** Text is collected up to about this length for one write. Joining 256 KiB was measured at a quarter of the speed of 64. */
const writeLength = 32 * 1024

const plain = (
  subscriber: Subscriber,
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

/** A response that is being written. */
interface OpenStream {
  readonly stop: () => void
  readonly fiber: Fiber.RuntimeFiber<unknown, unknown>
}

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
    readonly isStopped: () => boolean
    /** @internal */
    readonly add: (stream: OpenStream) => () => void
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
    const streams = new Set<OpenStream>()
    let stopped = false
    return {
      count: Effect.sync(() => streams.size),
      stop: Effect.suspend(() => {
        stopped = true
        const open = Array.from(streams)
        for (const stream of open) stream.stop()
        return Effect.forEach(open, ({ fiber }) => Fiber.await(fiber), { discard: true })
      }),
      isStopped: () => stopped,
      add: (stream) => {
        streams.add(stream)
        return () => streams.delete(stream)
      }
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
