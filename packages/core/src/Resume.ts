/**
 * Sessions that outlive connections: both ends of a contract continue where they were after a drop, or are told of a gap.
 *
 *     Feed.toLayer(handler, { resume: Resume.memory() })                           the server
 *     WebSocketClient.reconnecting(Feed, { baseUrl, resume: Resume.memory() })     the client
 *
 * Both ends must have it. Messages are numbered, kept until the other end's program has taken them (acknowledgements are batched),
 * and sent again over the next connection. The server's handler sees one connection, which is kept for `ttl` without a client;
 * messages of either direction are delivered once, in order. What can't be continued ends as `ConnectionClosed` (1006) with a
 * `ResumeGap` as its cause, at both ends.
 *
 * The wire format is in docs/resume.md. Its header counts for `maxMessageBytes`: at most 34 bytes of each message.
 *
 * @since 0.1.0
 */
import * as KeyValueStore from "@effect/platform/KeyValueStore"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Connection from "./Connection.js"
import { ResumedConnection, type ResumeSettings } from "./internal/ResumedConnection.js"
import * as ResumeClient from "./internal/resumeClient.js"
import { Journals } from "./internal/resumeJournal.js"
import * as ResumeServer from "./internal/resumeServer.js"

/**
 * How a session is kept. Both ends have options of their own.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Messages that are kept until the other end acknowledged them. Default 1024. */
  readonly maxMessages?: number | undefined
  /**
   * Bytes of messages that are kept, a text counted as two bytes for a UTF-16 code unit; the message that reaches it is still taken.
   * Default 256 KiB.
   */
  readonly maxBytes?: number | undefined
  /**
   * What happens when more is to be kept: `"suspend"` lets senders wait, `"gap"` gives up the oldest message that was put out (any, without a
   * connection); if the other end has not got it, that is a gap. Default `"suspend"`.
   */
  readonly overflow?: "suspend" | "gap" | undefined
  /** How long a server keeps a session that has no connection. Default 2 minutes. */
  readonly ttl?: Duration.DurationInput | undefined
  /** How many sessions without a connection a server keeps; one more ends the oldest. Default 1000. */
  readonly maxDetached?: number | undefined
  /** How long an acknowledgement may wait for others or for a message to go along with. Default 500 milliseconds. */
  readonly ackInterval?: Duration.DurationInput | undefined
  /** How long either end waits for the other's first message. Default 10 seconds. */
  readonly helloTimeout?: Duration.DurationInput | undefined
}

/**
 * Options of {@link keyValueStore}.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoreOptions extends Options {
  /** What keys begin with. One process, and one route or client, may use it at a time. Default `"resume/"`. */
  readonly prefix?: string | undefined
}

/**
 * That, and how, sessions are resumable: the option `resume` of both ends. `R` is what its store needs.
 *
 * @since 0.1.0
 * @category models
 */
export interface Resume<out R = never> {
  /** @internal */
  readonly server: (options: Connection.Options) => Effect.Effect<ResumeServer.Sessions, never, R | Scope.Scope>
  /** @internal */
  readonly client: (options: Connection.Options) => Effect.Effect<ResumeClient.ResumeClient, never, R>
}

/**
 * Sessions in memory. They end with the process: whoever comes back to a server that restarted is told of a gap.
 *
 * @example
 * import { Resume, WebSocketClient, WebSocketContract, WebSocketRoute } from "@effect-ws/core"
 * import { Console, Schema, Stream, Effect } from "effect"
 *
 * const Ticks = WebSocketContract.make("/ticks", { outgoing: Schema.Number })
 *
 * const server = WebSocketRoute.implement(Ticks).toLayer(
 *   (socket) => Stream.run(Stream.range(1, 1_000_000), socket.sink),
 *   { resume: Resume.memory({ ttl: "5 minutes" }) }
 * )
 *
 * const client = Effect.gen(function*() {
 *   const ticks = yield* WebSocketClient.reconnecting(Ticks, { baseUrl: "ws://localhost:8080", resume: Resume.memory() })
 *   yield* Stream.runForEach(ticks.messages, Console.log) // each number once, in order, over any number of connections
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category constructors
 */
export const memory = (options: Options = {}): Resume => make(options, Effect.succeed(undefined))

/**
 * Sessions that are also written to a `KeyValueStore`, so that they outlive the process. A message goes out after it was written.
 *
 * On a server that restarted the handler runs anew for a session that its client continues: it sees what the client sent and the
 * handler before it had not taken, and what that one had sent is sent again. See docs/resume.md for what exactly survives. A client that is
 * interrupted leaves its session to the next client with the same `prefix`.
 *
 * A store that fails ends the session (`ResumeGap`, `Store`).
 *
 * @since 0.1.0
 * @category constructors
 */
export const keyValueStore = (options: StoreOptions = {}): Resume<KeyValueStore.KeyValueStore> =>
  make(
    options,
    Effect.map(KeyValueStore.KeyValueStore, (store) => new Journals(store, options.prefix ?? "resume/"))
  )

const make = <R>(options: Options, journals: Effect.Effect<Journals | undefined, never, R>): Resume<R> => {
  const settings: ResumeSettings = {
    limits: {
      maxMessages: Math.max(1, options.maxMessages ?? 1024),
      maxBytes: Math.max(1, options.maxBytes ?? 256 * 1024),
      overflow: options.overflow ?? "suspend"
    },
    ackMillis: Duration.toMillis(options.ackInterval ?? "500 millis"),
    helloMillis: Duration.toMillis(options.helloTimeout ?? "10 seconds"),
    ttlMillis: Math.min(Duration.toMillis(options.ttl ?? "2 minutes"), 0x7fffffff),
    maxDetached: Math.max(0, options.maxDetached ?? 1000)
  }
  return {
    server: (connection) => Effect.flatMap(journals, (journals) => ResumeServer.make(settings, connection, journals)),
    client: (connection) => Effect.flatMap(journals, (journals) => ResumeClient.make(settings, connection, journals))
  }
}

/**
 * The sessions of a server: for connections that no route accepted ({@link sessions}).
 *
 * @since 0.1.0
 * @category models
 */
export interface Sessions {
  /**
   * Handles an open connection by the session that its client asks for. A new session runs `handler` with the connection that spans
   * those to come, and closes that when it ends. Else it waits until `connection` has ended, while an earlier `handler` goes on.
   *
   * A session is continued only with the same `binding`: the path and the user, say.
   */
  readonly serve: <E, R>(
    connection: Connection.Connection,
    binding: string,
    handler: (connection: Connection.Connection) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<unknown, E | Connection.Failure, R>
  /** How many sessions there are, and how many of them have no connection. */
  readonly counts: { readonly sessions: number; readonly detached: number }
}

/**
 * Sessions of a server, until the Scope closes: for servers of your own. Routes have the option `resume` instead.
 *
 * @since 0.1.0
 * @category constructors
 */
export const sessions = <R>(
  resume: Resume<R>,
  options: Connection.Options = {}
): Effect.Effect<Sessions, never, R | Scope.Scope> => resume.server(options)

/**
 * What is known of the session behind a connection; `undefined` if it is a plain one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Info {
  /** Whether an earlier process began it. */
  readonly restored: boolean
  /** Whether it has a connection now. */
  readonly attached: boolean
  /** Messages that were sent and not acknowledged. */
  readonly unacknowledged: number
}

/**
 * The session behind a handler's or client's connection, by which a handler sees whether it begins or continues after a restart.
 *
 * @since 0.1.0
 * @category combinators
 */
export const info = (socket: Connection.Connection | { readonly raw: Connection.Connection }): Info | undefined => {
  const connection = "raw" in socket ? socket.raw : socket
  return connection instanceof ResumedConnection
    ? {
        restored: connection.restored,
        attached: connection.isAttached,
        unacknowledged: connection.unacknowledged
      }
    : undefined
}

/**
 * Cuts the connection that a session has now, as a broken network does: what is on its way is lost, and the session goes on over the
 * next one. A connection without a session is aborted. For tests of what a program does then; `abort` ends the session too.
 *
 * @since 0.1.0
 * @category combinators
 */
export const cut = (socket: Connection.Connection | { readonly raw: Connection.Connection }): Effect.Effect<void> =>
  Effect.suspend(() => {
    const connection = "raw" in socket ? socket.raw : socket
    if (!(connection instanceof ResumedConnection)) return connection.abort
    connection.cutLine()
    return Effect.void
  })
