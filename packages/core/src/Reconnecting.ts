/**
 * A client that stays connected: `messages` and `send` span connections, which come and go below them.
 *
 *     dial -> onOpen -> outbox goes out -> open -> it ends -> wait (schedule, Retry-After) -> dial ...
 *
 * Use it as `WebSocketClient.reconnecting`.
 *
 * What is kept: a message that was received is delivered once, in order, also when its connection has ended meanwhile. A message
 * that was given to `send` is put out on one connection, once: what no connection had taken waits for the next. What can be
 * lost: what a connection had taken and the network then did not carry, and what the server sent meanwhile.
 *
 * Times are Durations, driven by Effect's Clock.
 *
 * @since 0.1.0
 */
import type * as Headers from "@effect/platform/Headers"
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import type * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { Connection } from "./Connection.js"
import { WebSocketClient } from "./internal/clientService.js"
import * as Reconnector from "./internal/Reconnector.js"
import * as Retry from "./internal/retry.js"
import type { Message } from "./Message.js"
import type { Resume } from "./Resume.js"
import type { ConnectOptions } from "./WebSocketClient.js"
import type { OnInvalid, TypedConnection, WebSocketContract } from "./WebSocketContract.js"
import type { ConnectionError, HandshakeError, MessageError, ResumeGap } from "./WebSocketError.js"

/**
 * What {@link reconnecting} gives. `E` is why it may stop.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reconnecting<In, Out, E> {
  /**
   * The messages of all connections, in order; what one had received comes before what the next one does. One consumer at a
   * time, a second one is a defect; when it stops, the next one goes on. Ends after {@link Reconnecting.close}, when the Scope closes,
   * and when the server closed with a clean code that is final (1000); fails with why no further attempt is made.
   *
   * While nobody pulls, reading pauses as on any connection; and no further connection is opened while two that ended have messages
   * that nobody took. A consumer that stops inside a chunk (`Stream.take`) drops the rest of that chunk: use
   * {@link Reconnecting.take} for single messages.
   */
  readonly messages: Stream.Stream<In, E>

  /** The next message. Interruption loses none. Fails with {@link Stopped} where `messages` ends. */
  readonly take: Effect.Effect<In, E | Stopped>

  /**
   * Sends a message, or keeps it for the next connection. Completes when a connection or the outbox took it; while connected it
   * waits for room as `Connection.send` does. Interruption sends it whole or not at all. Fails with {@link Stopped} once no
   * further connection will come, and with {@link OutboxFull} by the policy `"fail"`.
   */
  readonly send: (message: Out) => Effect.Effect<void, Stopped | OutboxFull>

  /** Sends several messages in order; when it fails, those before the failure were taken. */
  readonly sendAll: (messages: Iterable<Out>) => Effect.Effect<void, Stopped | OutboxFull>

  /** {@link Reconnecting.sendAll} as a Sink. */
  readonly sink: Sink.Sink<void, Out, never, Stopped | OutboxFull>

  /** Where it stands; its changes as a Stream are `status.changes`. Only to be read. */
  readonly status: SubscriptionRef.SubscriptionRef<Status<E>>

  /** Messages that wait for a connection. */
  readonly pending: Effect.Effect<number>

  /** Ends a wait between two attempts at once: for an event that says the network is back. */
  readonly retryNow: Effect.Effect<void>

  /** Stops: closes the open connection (default 1000) and opens no other. What waits in the outbox is dropped. */
  readonly close: (code?: number, reason?: string) => Effect.Effect<void>
}

/**
 * Where a reconnecting client stands. `attempt` counts from 1 and begins again after a connection that lived.
 *
 * @since 0.1.0
 * @category models
 */
export type Status<E> = Data.TaggedEnum<{
  /** Dialing, or running `onOpen`. */
  Connecting: { readonly attempt: number }
  /** Messages flow. `connections` counts all connections that opened. */
  Open: { readonly attempt: number; readonly connections: number; readonly subprotocol: string | undefined }
  /** The attempt failed or the connection ended; the next one comes after `delay`. */
  Waiting: { readonly attempt: number; readonly delay: Duration.Duration; readonly cause: E }
  /** No further attempt. */
  Closed: { readonly reason: StopReason; readonly cause: Cause.Cause<E> | undefined }
}>

/**
 * Why it stopped: `Final` by an end that is not retried, `Exhausted` by the schedule, `Closed` by `close`, `Scope` by its Scope,
 * `Defect` by a defect of `url`, `headers`, `onOpen` and the like.
 *
 * @since 0.1.0
 * @category models
 */
export type StopReason = "Final" | "Exhausted" | "Closed" | "Scope" | "Defect"

/**
 * No connection will come any more; `cause` is the error that was final, if one was.
 *
 * @since 0.1.0
 * @category errors
 */
export class Stopped extends Data.TaggedError("Stopped")<{
  readonly reason: StopReason
  readonly cause?: unknown
}> {
  /** @since 0.1.0 */
  override get message(): string {
    const cause = this.cause instanceof Error ? `: ${this.cause.message}` : ""
    return `the client has stopped (${this.reason})${cause}`
  }
}

/**
 * Not connected, and the outbox holds all that it may.
 *
 * @since 0.1.0
 * @category errors
 */
export class OutboxFull extends Data.TaggedError("OutboxFull")<{
  readonly maxMessages: number
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return `not connected, and the outbox is full (${this.maxMessages} messages)`
  }
}

/**
 * A value, or an Effect that is run for every attempt. Its failure is a failed attempt; what its Scope holds is released when the
 * connection has ended.
 *
 * @since 0.1.0
 * @category models
 */
export type Evaluated<A, E, R> = A | Effect.Effect<A, E, R>

/**
 * What is sent while no connection is open.
 *
 * @since 0.1.0
 * @category models
 */
export interface OutboxOptions {
  /** How many messages it holds. Default 256; with 0 senders wait for the connection itself, or fail, or their message is dropped. */
  readonly maxMessages?: number | undefined
  /**
   * What happens to one more: `"suspend"` lets the sender wait, `"dropOldest"` and `"dropNewest"` drop a message and succeed, `"fail"`
   * fails with {@link OutboxFull}. Default `"suspend"`.
   */
  readonly overflow?: "suspend" | "dropOldest" | "dropNewest" | "fail" | undefined
}

/**
 * Options by which it reconnects. `E` is how an attempt or a connection can end.
 *
 * @since 0.1.0
 * @category models
 */
export interface Policy<E, R> extends Omit<ConnectOptions, "headers" | "subprotocols"> {
  /**
   * The delays between attempts; when it is done, so is the client. Its input is the error. Default {@link defaultSchedule}: 200
   * milliseconds, doubled up to 30 seconds, of each a random 50 to 100 %.
   */
  readonly schedule?: Schedule.Schedule<unknown, NoInfer<E>, R> | undefined
  /** A connection that was open for as long starts the schedule anew. Default 5 seconds. */
  readonly resetAfter?: Duration.DurationInput | undefined
  /** Whether another attempt follows. Default {@link isRetryable}. */
  readonly retryable?: ((error: E) => boolean) | undefined
  /** The most that a `Retry-After` header may ask for; more is cut to it. Default 1 hour. */
  readonly maxRetryAfter?: Duration.DurationInput | undefined
  /** How long `onOpen` may take; then the attempt failed (`HandshakeError`, `Timeout`). Default 10 seconds. */
  readonly onOpenTimeout?: Duration.DurationInput | undefined
  readonly outbox?: OutboxOptions | undefined
}

/**
 * Options of {@link reconnecting} by URL.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<E, R, EH, RH, ES, RS, EO, RO> extends Policy<E, R> {
  /** As for `WebSocketClient.connect`. */
  readonly headers?: Evaluated<Headers.Input, EH, RH> | undefined
  readonly subprotocols?: Evaluated<ReadonlyArray<string>, ES, RS> | undefined
  /**
   * Runs on every new connection before it counts as open: authenticate, subscribe again. Messages that it takes are its own, and
   * what waits in the outbox goes out after it. Its failure ends the connection and is a failed attempt.
   */
  readonly onOpen?: ((socket: Connection) => Effect.Effect<unknown, EO, RO>) | undefined
}

/**
 * Options of {@link reconnecting} by contract: `url`, or `baseUrl` with the parameters, as for `WebSocketClient.connect`.
 *
 * @since 0.1.0
 * @category models
 */
export type ContractOptions<P, U, H, In, Out, E, R, EU, RU, EQ, RQ, EH, RH, ES, RS, EO, RO, RR = never> = Policy<E, R> &
  ContractWhere<P, U, EU, RU, EQ, RQ> &
  ContractHeaders<H, EH, RH> & {
    /** Default: those of the contract. */
    readonly subprotocols?: Evaluated<ReadonlyArray<string>, ES, RS> | undefined
    /** As {@link Options}'s, with the types of the contract. */
    readonly onOpen?: ((socket: TypedConnection<Out, In>) => Effect.Effect<unknown, EO, RO>) | undefined
    /** What happens when a message of the server does not fit. Default `"close"`, which is final. */
    readonly onInvalid?: OnInvalid<Out, In> | undefined
    /**
     * Lets both ends continue after a drop; the server must have it too. `onOpen` then runs once for a session, not again when that
     * goes on over another connection.
     */
    readonly resume?: Resume<RR> | undefined
    /**
     * What happens when a session could not be continued: runs before `onOpen` of the new one, within `onOpenTimeout`. Messages that
     * came before may still wait for the consumer. Default: the client stops, `messages` fails with `ConnectionClosed` whose cause is the
     * `ResumeGap`.
     */
    readonly onGap?: ((gap: ResumeGap) => Effect.Effect<unknown, EO, RO>) | undefined
  }

/**
 * Where the other end of a contract is.
 *
 * @since 0.1.0
 * @category models
 */
export type ContractWhere<P, U, EU, RU, EQ, RQ> =
  | {
      readonly url: Evaluated<string | URL, EU, RU>
      readonly baseUrl?: undefined
      readonly path?: undefined
      readonly urlParams?: undefined
    }
  | ({ readonly baseUrl: Evaluated<string | URL, EU, RU>; readonly url?: undefined } & (Record<never, never> extends P
      ? { readonly path?: P | undefined }
      : { readonly path: P }) &
      (Record<never, never> extends U
        ? { readonly urlParams?: Evaluated<U, EQ, RQ> | undefined }
        : { readonly urlParams: Evaluated<U, EQ, RQ> }))

/**
 * The headers of a contract's request.
 *
 * @since 0.1.0
 * @category models
 */
export type ContractHeaders<H, EH, RH> = [H] extends [Headers.Headers]
  ? { readonly headers?: Evaluated<Headers.Input, EH, RH> | undefined; readonly moreHeaders?: undefined }
  : (Record<never, never> extends H
      ? { readonly headers?: Evaluated<H, EH, RH> | undefined }
      : { readonly headers: Evaluated<H, EH, RH> }) & { readonly moreHeaders?: Headers.Input | undefined }

/**
 * The default policy: 200 milliseconds, doubled up to 30 seconds, of each a random 50 to 100 %, without end.
 *
 * @since 0.1.0
 * @category policies
 */
export const defaultSchedule: Schedule.Schedule<unknown> = Schedule.exponential("200 millis").pipe(
  Schedule.union(Schedule.spaced("30 seconds")),
  Schedule.jitteredWith({ min: 0.5, max: 1 })
)

/**
 * Whether another attempt makes sense, by default:
 *
 * - `HandshakeError`: timeouts and failures of the network yes; options that can't be sent and broken handshakes no; of the refusals 408,
 *   425, 429 and 5xx but for 501 and 505, no other (400, 401, 403, 404 are final);
 * - `ConnectionClosed`: yes, but for 1000 (all is said), 1002, 1003, 1007, 1008, 1009, 1010 (it would happen again), and the registered
 *   3000 (unauthorized) and 3003 (forbidden); so yes for 1001, 1005 (no code), 1006, 1011 to 1014 and 4000 to 4999;
 * - `HeartbeatTimeout` yes; `ProtocolError` and `MessageError` no;
 * - errors of your own Effects (`url`, `headers`, `onOpen`, ...) yes.
 *
 * @since 0.1.0
 * @category policies
 */
export const isRetryable: (error: unknown) => boolean = Retry.isRetryable

/**
 * A client that connects again whenever its connection ended, until its Scope closes, `close` is called, an error is final
 * or the schedule is done. It begins at once and does not wait for the first connection.
 *
 * When the Scope closes, attempts and waits end at once, and an open connection is closed as when leaving its Scope.
 *
 * @example
 * import { WebSocketClient } from "@effect-ws/core"
 * import { Console, Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const quotes = yield* WebSocketClient.reconnecting("wss://example.com/quotes", {
 *     onOpen: (socket) => socket.send("subscribe EURUSD")
 *   })
 *   yield* Stream.runForEach(quotes.messages, Console.log)
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category constructors
 */
export const reconnecting: {
  <
    P,
    U,
    H,
    In,
    Out,
    RC,
    R = never,
    EU = never,
    RU = never,
    EQ = never,
    RQ = never,
    EH = never,
    RH = never,
    ES = never,
    RS = never,
    EO = never,
    RO = never,
    RR = never
  >(
    contract: WebSocketContract<P, U, H, In, Out, RC>,
    options: ContractOptions<
      P,
      U,
      H,
      In,
      Out,
      HandshakeError | ConnectionError | MessageError | EU | EQ | EH | ES | EO,
      R,
      EU,
      RU,
      EQ,
      RQ,
      EH,
      RH,
      ES,
      RS,
      EO,
      RO,
      RR
    >
  ): Effect.Effect<
    Reconnecting<Out, In, HandshakeError | ConnectionError | MessageError | EU | EQ | EH | ES | EO>,
    never,
    WebSocketClient | Scope.Scope | RC | R | RU | RQ | RH | RS | RO | RR
  >
  <R = never, EU = never, RU = never, EH = never, RH = never, ES = never, RS = never, EO = never, RO = never>(
    url: Evaluated<string | URL, EU, RU>,
    options?: Options<HandshakeError | ConnectionError | EU | EH | ES | EO, R, EH, RH, ES, RS, EO, RO>
  ): Effect.Effect<
    Reconnecting<Message, Message, HandshakeError | ConnectionError | EU | EH | ES | EO>,
    never,
    WebSocketClient | Scope.Scope | R | RU | RH | RS | RO
  >
} = (target: Evaluated<string | URL, any, any> | AnyContract, options: AnyOptions | AnyContractOptions = {}) =>
  Effect.flatMap(WebSocketClient, (client): Effect.Effect<Reconnecting<any, any, any>, never, any> => {
    const byUrl = typeof target === "string" || target instanceof URL || Effect.isEffect(target)
    const attempt = byUrl
      ? urlAttempt(target, options as AnyOptions)
      : contractAttempt(target, options as AnyContractOptions)
    const { onGap, resume } = options as AnyContractOptions
    const { maxRetryAfter, onOpen, onOpenTimeout, outbox, resetAfter, retryable, schedule } = options as AnyOptions
    return Reconnector.start({
      client,
      ...attempt,
      connectOptions: connectOptions(options),
      onOpen: onOpen as ((socket: unknown) => Effect.Effect<unknown, unknown, any>) | undefined,
      onOpenMillis: Duration.toMillis(onOpenTimeout ?? "10 seconds"),
      resume: resume?.client(connectOptions(options)),
      onGap,
      schedule: schedule ?? defaultSchedule,
      resetAfterMillis: Duration.toMillis(resetAfter ?? "5 seconds"),
      maxRetryAfterMillis: Math.min(Duration.toMillis(maxRetryAfter ?? "1 hour"), longestSleepMillis),
      retryable: retryable ?? isRetryable,
      maxMessages: outbox?.maxMessages ?? 256,
      overflow: outbox?.overflow ?? "suspend",
      stopped: (reason, cause) => new Stopped({ reason, cause }),
      full: (maxMessages) => new OutboxFull({ maxMessages })
    })
  })

type AnyContract = WebSocketContract<any, any, any, any, any, any>
type AnyOptions = Options<any, any, any, any, any, any, any, any>
type AnyContractOptions = Policy<any, any> & {
  readonly url?: Evaluated<string | URL, any, any> | undefined
  readonly baseUrl?: Evaluated<string | URL, any, any> | undefined
  readonly path?: unknown
  readonly urlParams?: unknown
  readonly headers?: unknown
  readonly moreHeaders?: Headers.Input | undefined
  readonly subprotocols?: Evaluated<ReadonlyArray<string>, any, any> | undefined
  readonly onInvalid?: OnInvalid<any, any> | undefined
  readonly resume?: Resume<any> | undefined
  readonly onGap?: ((gap: ResumeGap) => Effect.Effect<unknown, any, any>) | undefined
}

/** What timers can wait (2^31 - 1 milliseconds). */
const longestSleepMillis = 0x7fffffff

const urlAttempt = (url: Evaluated<string | URL, any, any>, options: AnyOptions) => ({
  request: Effect.all({
    url: evaluate(url),
    headers: evaluate(options.headers),
    subprotocols: evaluate(options.subprotocols)
  }),
  typed: Effect.succeed,
  // Not a `Half`, which would bring ParseResult into every bundle
  sends: { encodeAll: Effect.succeed<Array<Message>> }
})

const contractAttempt = (contract: AnyContract, options: AnyContractOptions) => ({
  request: Effect.all({
    url: evaluate(options.url),
    baseUrl: evaluate(options.baseUrl),
    urlParams: evaluate(options.urlParams),
    headers: evaluate(options.headers),
    subprotocols: evaluate(options.subprotocols ?? contract.subprotocols)
  }).pipe(
    Effect.flatMap(({ subprotocols, ...evaluated }) =>
      Effect.map(
        contract.request({ ...evaluated, path: options.path, moreHeaders: options.moreHeaders } as never),
        (request) => ({ ...request, subprotocols })
      )
    )
  ),
  typed: (connection: Connection) => contract.client(connection, options.onInvalid),
  sends: contract.incoming
})

const evaluate = <A>(value: Evaluated<A, any, any>): Effect.Effect<A, any, any> =>
  Effect.isEffect(value) ? (value as Effect.Effect<A, any, any>) : Effect.succeed(value)

/** What `connect` is to see of the options. */
const connectOptions = (options: AnyOptions | AnyContractOptions): ConnectOptions => {
  const {
    baseUrl,
    headers,
    maxRetryAfter,
    moreHeaders,
    onGap,
    onInvalid,
    onOpen,
    onOpenTimeout,
    outbox,
    path,
    resetAfter,
    resume,
    retryable,
    schedule,
    subprotocols,
    url,
    urlParams,
    ...rest
  } = options as AnyOptions & AnyContractOptions
  return rest
}
