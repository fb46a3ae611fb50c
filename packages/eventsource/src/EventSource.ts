/**
 * The client: events of a URL as a Stream that outlives connections (WHATWG HTML §9.2).
 *
 * It needs an `HttpClient`, so it works in Node and wherever there is fetch. In Node, prefer `NodeHttpClient.layer`: undici, and
 * Node's fetch, give a body up that is silent for five minutes.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Codec from "./codec/index.js"
import type { EventSchema } from "./EventSchema.js"
import { encodeHeader } from "./internal/accept.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * Why a connection could not be made, or did not last.
 *
 * - `Network`: the request failed, or the connection broke. `Ended`: the server ended the stream. `Idle`: no byte came for
 *   `idleTimeout`. These are followed by a reconnection.
 * - `Status`: another status than 200 and 204; `status`, the start of the `body`, and `retryAfter` in milliseconds if the
 *   server gave it. `ContentType`: not `text/event-stream`. `Redirect`: too many, or to nowhere. `Limit`: a line or an
 *   event was too long. `Schema`: an event does not fit its schema. These are final, unless `retryable` says otherwise.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventSourceError extends Data.TaggedError("EventSourceError")<{
  readonly reason: "Network" | "Ended" | "Idle" | "Status" | "ContentType" | "Redirect" | "Limit" | "Schema"
  readonly detail: string
  readonly status?: number | undefined
  readonly body?: string | undefined
  readonly retryAfter?: number | undefined
  readonly cause?: unknown
}> {
  override get message(): string {
    return `Event source: ${this.detail}`
  }
}

/**
 * Where a client is.
 *
 * @since 0.1.0
 * @category models
 */
export type Status = Data.TaggedEnum<{
  /** Before its stream is run. */
  readonly Idle: Record<never, never>
  /** A request is under way: the first, or the nth in a row without an event. */
  readonly Connecting: { readonly attempt: number }
  readonly Open: Record<never, never>
  /** Until the next request. */
  readonly Waiting: { readonly delay: Duration.Duration; readonly error: EventSourceError }
  /** For good: the server said so (204), the policy gave up, or the consumer left. */
  readonly Closed: { readonly error: Option.Option<unknown> }
}>

/**
 * Constructors and matchers of statuses.
 *
 * @since 0.1.0
 * @category models
 */
export const Status = Data.taggedEnum<Status>()

/**
 * What to ask for: a URL, a request of any method with its headers and body, or an Effect that makes one for every
 * attempt, with a fresh token for instance.
 *
 * @since 0.1.0
 * @category models
 */
export type Request<E = never, R = never> =
  | string
  | URL
  | HttpClientRequest.HttpClientRequest
  | Effect.Effect<HttpClientRequest.HttpClientRequest, E, R>

/**
 * Options of a client. By default it behaves as the specification has it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /** Whether another connection follows one that was lost. False: its end is the end of the stream. Default: true. */
  readonly reconnect?: boolean | undefined
  /** The time before a reconnection, as long as the server gives none. Default: 2 seconds. */
  readonly reconnectionTime?: Duration.DurationInput | undefined
  /**
   * The delays of reconnections, and their end; begun again after a connection that gave an event. What the server asks for
   * (`retry`, `Retry-After`) is waited for at least. Default: the reconnection time, for ever.
   */
  readonly schedule?: Schedule.Schedule<unknown, EventSourceError, R> | undefined
  /** Which errors are followed by a reconnection. Default: those of the network, as {@link isRetryable} has it. */
  readonly retryable?: ((error: EventSourceError) => boolean) | undefined
  /** The last event ID to begin with. Default: `""`, which is not sent. */
  readonly lastEventId?: string | undefined
  /** How long a server may be silent; comments count as life. Default: for ever. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** How many redirects are followed; those of fetch are its own. Credentials stay with their origin. Default: 10. */
  readonly maxRedirects?: number | undefined
  /** The longest line, in bytes. Default: 1 MiB. */
  readonly maxLineBytes?: number | undefined
  /** The longest event, in bytes. Default: 4 MiB. */
  readonly maxEventBytes?: number | undefined
}

/**
 * Options of a client whose elements are values of a schema.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypedOptions<A, RS = never, R = never> extends Options<R> {
  readonly schema: EventSchema<A, RS>
}

/**
 * A client whose status can be watched.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventSource<A, E, R> {
  /** Connects when it is run, and closes when it ends. Run it once at a time. */
  readonly events: Stream.Stream<A, EventSourceError | E, HttpClient.HttpClient | R>
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  /** What the next connection would send. */
  readonly lastEventId: Effect.Effect<string>
}

/**
 * Whether the specification has a client reconnect after this.
 *
 * @since 0.1.0
 * @category errors
 */
export const isRetryable = (error: EventSourceError): boolean =>
  error.reason === "Network" || error.reason === "Ended" || error.reason === "Idle"

/**
 * The events of a URL.
 *
 * Sends `Accept: text/event-stream` and, once there is one, `Last-Event-ID`. The stream ends when the server answers 204, and
 * fails with what `retryable` calls final, or when the schedule is done. An interrupted or finished consumer closes the
 * connection.
 *
 * @example
 * import { HttpClientRequest } from "@effect/platform"
 * import { EventSource } from "@effect-ws/eventsource"
 * import { Schedule, Stream } from "effect"
 *
 * const ticks = EventSource.stream("https://example.com/ticks", {
 *   schedule: Schedule.exponential("200 millis").pipe(Schedule.jittered, Schedule.union(Schedule.spaced("30 seconds"))),
 *   idleTimeout: "1 minute"
 * })
 *
 * // An answer of a language model, in parts
 * const answer = EventSource.stream(
 *   HttpClientRequest.post("https://example.com/v1/chat").pipe(HttpClientRequest.bodyUnsafeJson({ stream: true })),
 *   { reconnect: false }
 * ).pipe(Stream.map((event) => event.data), Stream.takeWhile((data) => data !== "[DONE]"))
 *
 * @since 0.1.0
 * @category constructors
 */
export const stream: {
  <A, RS, E = never, R = never, RP = never>(
    request: Request<E, R>,
    options: TypedOptions<A, RS, RP>
  ): Stream.Stream<A, EventSourceError | E, HttpClient.HttpClient | R | RS | RP>
  <E = never, R = never, RP = never>(
    request: Request<E, R>,
    options?: Options<RP>
  ): Stream.Stream<ServerSentEvent.Received, EventSourceError | E, HttpClient.HttpClient | R | RP>
} = <E, R, RP>(
  request: Request<E, R>,
  options?: Options<RP>
): Stream.Stream<ServerSentEvent.Received, EventSourceError | E, HttpClient.HttpClient | R | RP> =>
  Stream.unwrap(Effect.map(make(request, options), ({ events }) => events))

/**
 * The same with its status.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: {
  <A, RS, E = never, R = never, RP = never>(
    request: Request<E, R>,
    options: TypedOptions<A, RS, RP>
  ): Effect.Effect<EventSource<A, E, R | RS | RP>>
  <E = never, R = never, RP = never>(
    request: Request<E, R>,
    options?: Options<RP>
  ): Effect.Effect<EventSource<ServerSentEvent.Received, E, R | RP>>
} = <E, R, RP, RS>(
  request: Request<E, R>,
  options: Options<RP> & { readonly schema?: EventSchema<ServerSentEvent.Received, RS> } = {}
): Effect.Effect<EventSource<ServerSentEvent.Received, E, R | RP | RS>> =>
  Effect.map(SubscriptionRef.make<Status>(Status.Idle()), (status) => {
    const memory: Memory = { lastEventId: options.lastEventId ?? "", retry: undefined }
    const received = Stream.unwrapScoped(
      Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        const scope = yield* Effect.scope
        yield* Effect.addFinalizer((exit) =>
          SubscriptionRef.update(status, (last) =>
            last._tag === "Closed"
              ? last
              : Status.Closed({ error: Exit.isFailure(exit) ? Cause.failureOption(exit.cause) : Option.none() })
          )
        )
        return Stream.repeatEffectChunkOption(
          loop({ client, scope, request: requestOf(request), options, status, memory })
        )
      })
    )
    const { schema } = options
    return {
      events: schema === undefined ? received : Stream.mapEffect(received, decodeWith(schema)),
      status,
      lastEventId: Effect.sync(() => memory.lastEventId)
    }
  })

const decodeWith = <A, R>(schema: EventSchema<A, R>) => {
  const decode = Schema.decode(schema)
  return (event: ServerSentEvent.Received): Effect.Effect<A, EventSourceError, R> =>
    Effect.mapError(
      decode(event),
      (cause) =>
        new EventSourceError({
          reason: "Schema",
          detail: `an event of type "${event.event}" does not fit its schema`,
          cause
        })
    )
}

const requestOf = <E, R>(request: Request<E, R>): Effect.Effect<HttpClientRequest.HttpClientRequest, E, R> =>
  typeof request === "string" || request instanceof URL
    ? Effect.succeed(HttpClientRequest.get(request))
    : Effect.isEffect(request)
      ? request
      : Effect.succeed(request)

/** What outlives connections. */
interface Memory {
  lastEventId: string
  /** The server's reconnection time, in milliseconds. */
  retry: number | undefined
}

interface Environment<E, R, RP> {
  readonly client: HttpClient.HttpClient
  readonly scope: Scope.Scope
  readonly request: Effect.Effect<HttpClientRequest.HttpClientRequest, E, R>
  readonly options: Options<RP>
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  readonly memory: Memory
}

type Pull<E, R> = Effect.Effect<Chunk.Chunk<ServerSentEvent.Received>, Option.Option<EventSourceError | E>, R>

/** One connection; `"stop"`: the server wants none (204). */
interface Connection {
  readonly pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<EventSourceError>>
  readonly decoder: Codec.Decoder
  readonly close: Effect.Effect<void>
}

/** Pulls events, connecting whenever there is no connection. */
const loop = <E, R, RP>(env: Environment<E, R, RP>): Pull<E, R | RP> => {
  const { memory, options, status } = env
  const { schedule } = options
  const reconnectionTime = Duration.toMillis(options.reconnectionTime ?? "2 seconds")
  const retryable = options.retryable ?? isRetryable
  let connection: Connection | undefined
  let attempt = 0
  let scheduleState: unknown = schedule?.initial

  const open: Pull<E, R | RP> = Effect.suspend(() =>
    SubscriptionRef.set(status, Status.Connecting({ attempt: ++attempt })).pipe(
      Effect.zipRight(connect(env)),
      Effect.matchEffect({
        onFailure: (error) => (error instanceof EventSourceError ? lost(error) : Effect.fail(Option.some(error))),
        onSuccess: (opened) => {
          if (opened === "stop") return Effect.fail(Option.none())
          connection = opened
          return Effect.zipRight(SubscriptionRef.set(status, Status.Open()), pull)
        }
      })
    )
  )

  const read = (current: Connection): Pull<E, R | RP> =>
    Effect.matchEffect(current.pull, {
      onFailure: (end) => {
        connection = undefined
        const error = Option.getOrElse(
          end,
          () => new EventSourceError({ reason: "Ended", detail: "the server ended the stream" })
        )
        return Effect.zipRight(current.close, lost(error))
      },
      onSuccess: (chunks) => {
        const events: Array<ServerSentEvent.Received> = []
        for (const bytes of chunks) {
          for (const item of current.decoder.push(bytes)) {
            if (item._tag === "Event") events.push(item)
            else if (item._tag === "Retry") memory.retry = item.milliseconds
            else if (item._tag === "LimitExceeded") {
              const limit = new EventSourceError({
                reason: "Limit",
                detail: `${item.limit} (${item.bytes}) is exceeded`
              })
              return failAfter(events, limit)
            }
          }
        }
        memory.lastEventId = current.decoder.lastEventId
        if (events.length === 0) return pull
        attempt = 0
        scheduleState = schedule?.initial
        return Effect.succeed(Chunk.unsafeFromArray(events))
      }
    })

  /** Gives what was decoded before a limit was passed; the connection fails at the next pull. */
  const failAfter = (events: Array<ServerSentEvent.Received>, error: EventSourceError): Pull<E, R | RP> => {
    const { close, decoder } = connection!
    connection = { close, decoder, pull: Effect.fail(Option.some(error)) }
    memory.lastEventId = decoder.lastEventId
    return events.length === 0 ? pull : Effect.succeed(Chunk.unsafeFromArray(events))
  }

  /** After a connection: waits for the next one, or ends the stream. */
  const lost = (error: EventSourceError): Pull<E, R | RP> => {
    if (options.reconnect === false && error.reason === "Ended") return Effect.fail(Option.none())
    if (options.reconnect === false || !retryable(error)) return Effect.fail(Option.some(error))
    return Effect.flatMap(nextDelay(error), (delay) =>
      delay === undefined
        ? Effect.fail(Option.some(error))
        : SubscriptionRef.set(status, Status.Waiting({ delay: Duration.millis(delay), error })).pipe(
            Effect.zipRight(Effect.sleep(Duration.millis(delay))),
            Effect.zipRight(open)
          )
    )
  }

  /** In milliseconds; undefined when the schedule is done. */
  const nextDelay = (error: EventSourceError): Effect.Effect<number | undefined, never, RP> => {
    const asked = Math.max(memory.retry ?? 0, error.retryAfter ?? 0)
    if (schedule === undefined) return Effect.succeed(Math.max(memory.retry ?? reconnectionTime, error.retryAfter ?? 0))
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.map(schedule.step(now, error, scheduleState), ([state, _, decision]) => {
        scheduleState = state
        return ScheduleDecision.isDone(decision)
          ? undefined
          : Math.max(asked, ScheduleIntervals.start(decision.intervals) - now)
      })
    )
  }

  const pull: Pull<E, R | RP> = Effect.suspend(() => (connection === undefined ? open : read(connection)))
  return pull
}

/** Makes one connection, in a scope of its own below that of the stream. */
const connect = <E, R, RP>(env: Environment<E, R, RP>): Effect.Effect<Connection | "stop", EventSourceError | E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { memory, options } = env
      const scope = yield* Scope.fork(env.scope, ExecutionStrategy.sequential)
      const close = Scope.close(scope, Exit.void)
      const attempt = Effect.gen(function* () {
        const request = yield* env.request
        const response = yield* follow(
          env.client,
          prepare(request, memory.lastEventId),
          scope,
          options.maxRedirects ?? 10
        )
        if (response.status === 204) return "stop" as const
        yield* check(response)
        const pull = yield* Scope.extend(Stream.toPull(response.stream), scope)
        const chunks = Effect.mapError(pull, Option.map(networkError))
        const decoder = new Codec.Decoder({
          lastEventId: memory.lastEventId,
          maxLineBytes: options.maxLineBytes,
          maxEventBytes: options.maxEventBytes
        })
        return {
          pull: options.idleTimeout === undefined ? chunks : withIdleTimeout(chunks, options.idleTimeout),
          decoder,
          close
        }
      })
      return yield* Effect.tap(
        Effect.onError(restore(attempt), () => close),
        (connection) => (connection === "stop" ? close : Effect.void)
      )
    })
  )

const prepare = (
  request: HttpClientRequest.HttpClientRequest,
  lastEventId: string
): HttpClientRequest.HttpClientRequest => {
  const headers = { accept: "text/event-stream", "cache-control": "no-store", ...request.headers }
  return HttpClientRequest.setHeaders(
    request,
    lastEventId === "" ? headers : { ...headers, "last-event-id": encodeHeader(lastEventId) }
  )
}

const networkError = (cause: unknown): EventSourceError =>
  new EventSourceError({
    reason: "Network",
    detail: cause instanceof Error ? cause.message : "the connection was lost",
    cause
  })

const withIdleTimeout = (pull: Connection["pull"], idleTimeout: Duration.DurationInput): Connection["pull"] =>
  Effect.timeoutFail(pull, {
    duration: idleTimeout,
    onTimeout: () => {
      const detail = `the server was silent for ${Duration.format(Duration.decode(idleTimeout))}`
      return Option.some(new EventSourceError({ reason: "Idle", detail }))
    }
  })

const redirects = new Set([301, 302, 303, 307, 308])

/** Sends a request and follows redirects (WHATWG Fetch §4.4). The response lives as long as the scope. */
const follow = (
  client: HttpClient.HttpClient,
  request: HttpClientRequest.HttpClientRequest,
  scope: Scope.Scope,
  left: number
): Effect.Effect<HttpClientResponse.HttpClientResponse, EventSourceError> =>
  Effect.gen(function* () {
    const hop = yield* Scope.fork(scope, ExecutionStrategy.sequential)
    const response = yield* HttpClient.withScope(client)
      .execute(request)
      .pipe(Scope.extend(hop), Effect.mapError(networkError))
    const { location } = response.headers
    if (!redirects.has(response.status) || location === undefined) return response
    yield* Scope.close(hop, Exit.void)
    const { status } = response
    const from = UrlParams.makeUrl(request.url, request.urlParams, request.hash)
    const to = Either.flatMap(from, (url) => Either.try(() => new URL(location, url)))
    if (left === 0 || Either.isLeft(from) || Either.isLeft(to)) {
      const detail = left === 0 ? "too many redirects" : `a redirect to an invalid URL: ${location}`
      return yield* new EventSourceError({ reason: "Redirect", detail, status })
    }
    return yield* follow(client, redirect(request, status, from.right, to.right), scope, left - 1)
  })

const redirect = (
  request: HttpClientRequest.HttpClientRequest,
  status: number,
  from: URL,
  to: URL
): HttpClientRequest.HttpClientRequest => {
  const becomesGet = (status === 303 && request.method !== "HEAD") || (status < 303 && request.method === "POST")
  const dropped = [
    ...(becomesGet ? ["content-type", "content-length", "content-encoding"] : []),
    ...(from.origin === to.origin ? [] : ["authorization", "cookie", "proxy-authorization", "host"])
  ]
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !dropped.includes(name)))
  return becomesGet
    ? HttpClientRequest.get(to, { headers })
    : HttpClientRequest.make(request.method as "POST")(to, { headers, body: request.body as never })
}

const maxErrorBodyBytes = 4096

/** §9.2.3: 200, and the content type of event streams. */
const check = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<void, EventSourceError> => {
  const { headers, status } = response
  const type = (headers["content-type"] ?? "").split(";")[0]!.trim().toLowerCase()
  if (status === 200 && type === "text/event-stream") return Effect.void
  return Effect.flatMap(
    Effect.zip(startOf(response), Clock.currentTimeMillis),
    ([body, now]) =>
      new EventSourceError(
        status === 200
          ? {
              reason: "ContentType",
              detail: `the content type is "${type}" instead of "text/event-stream"`,
              status,
              body
            }
          : {
              reason: "Status",
              detail: `the status is ${status}`,
              status,
              body,
              retryAfter: retryAfter(headers["retry-after"], now)
            }
      )
  )
}

/** The start of a body that is no event stream, for whoever reads the error. */
const startOf = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<string> => {
  const decoder = new TextDecoder()
  let left = maxErrorBodyBytes
  return response.stream.pipe(
    Stream.takeUntil((bytes) => (left -= bytes.length) <= 0),
    Stream.runFold("", (text, bytes) => text + decoder.decode(bytes, { stream: true })),
    Effect.map((text) => text.slice(0, maxErrorBodyBytes)),
    Effect.timeout("2 seconds"),
    Effect.orElseSucceed(() => "")
  )
}

/** RFC 9110 §10.2.3: seconds, or a date. In milliseconds. */
const retryAfter = (value: string | undefined, now: number): number | undefined => {
  if (value === undefined) return undefined
  if (/^[0-9]+$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
