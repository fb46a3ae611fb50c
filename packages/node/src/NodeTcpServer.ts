/**
 * WebSocket servers without `node:http`: on a `net.Server`, a `tls.Server`, or any Duplex of bytes.
 *
 * One request per connection: its head is read by the engine's own parser (limited in bytes, in headers and in time, strict where
 * leniency would let two parsers disagree), then a handler sees it, with the bytes that came behind it, and accepts it as a
 * WebSocket or responds to it. Everything about a connection ends with the handler's Scope.
 *
 * Routing, keep-alive, request bodies that are to be read on and the like are left to HTTP servers: see `NodeWebSocketServer`.
 *
 * @since 0.1.0
 */
import type * as Net from "node:net"
import type { Duplex } from "node:stream"
import * as Tls from "node:tls"
import { ServeError } from "@effect/platform/HttpServerError"
import { Connection, WebSocketError, type WebSocketRoute } from "@effect-ws/core"
import { Extension, Handshake, HttpHead, HttpResponse, ServerHandshake } from "@effect-ws/core/engine"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type { LazyArg } from "effect/Function"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { slab } from "./internal/natives.js"
import { ReadAhead } from "./internal/readAhead.js"
import { isSecure } from "./internal/secure.js"
import * as NodeTransport from "./NodeTransport.js"

/**
 * Options of a server; the limits, heartbeat and deadlines of `Connection.Options` included. Sizes are bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Connection.Options {
  /** Supported subprotocols, best first; the first that the client offers too is agreed. Default none. */
  readonly subprotocols?: ReadonlyArray<string> | undefined
  /**
   * Extensions that are agreed to when a client offers them; see `Engine.Extension`, and `PermessageDeflate`. Default none. RFC 6455
   * §9.
   */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /** Which pages may connect; others get 403. Default `"same"`. RFC 6455 §10.2. */
  readonly origins?: WebSocketRoute.OriginPolicy | undefined
  /** Versions of the protocol besides 13: `"8"`, `"hixie-76"`, `"hixie-75"`. Default none. */
  readonly drafts?: ReadonlyArray<Connection.Draft> | undefined
  /** Largest head of a request; a larger one is answered with 431, or 414. Default 16384. */
  readonly maxHeaderBytes?: number | undefined
  /** Most header lines; more are answered with 431. Default 100. */
  readonly maxHeaderCount?: number | undefined
  /** How long the head may take to come, or it is answered with 408. Default 10 seconds. */
  readonly headTimeout?: Duration.DurationInput | undefined
  /** Connections whose head is not complete; one more is answered with 503. Default 1000. */
  readonly maxPendingHeads?: number | undefined
  /** How long the handler may go on after its connection is gone and the messages are taken. Default 10 seconds. */
  readonly handlerTimeout?: Duration.DurationInput | undefined
  /** How long connections may take to close at the end (they get 1001 at once); then they are cut. Default 5 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
}

/**
 * A request that waits for its answer, exactly one: `accept` or `respond`; a second is a defect. The handler is interrupted when the
 * client leaves, or ends its side, before there is one. A handler that ends without one has
 * answered 404, or what is wrong with the handshake; 500 when it failed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  readonly method: string
  /** As sent: path and query, seldom an absolute URL. */
  readonly target: string
  /** By lower-case name; see `HttpHead.Fields`. */
  readonly headers: Handshake.Headers
  readonly rawHeaders: ReadonlyArray<readonly [name: string, value: string]>
  readonly httpVersion: "1.0" | "1.1"
  /** The bytes that came with the head, behind it; a copy. `accept` loses none of them. */
  readonly body: Uint8Array
  /** What the request came over, for its addresses and certificates. Whoever reads from it or writes to it breaks the answer. */
  readonly duplex: Duplex
  /** Whether it is a WebSocket's opening handshake, and in which version; or what is wrong with it. */
  readonly handshake: ServerHandshake.AcceptedRequest | Handshake.RejectedRequest
  /** Subprotocols that the client offers, in its order; none if it is no handshake. */
  readonly offeredSubprotocols: ReadonlyArray<string>
  /**
   * Answers with 101. The connection closes with the Scope: 1000, after interruption 1001, after a failure 1011.
   *
   * What is no handshake, or comes from a foreign page, is answered as it has to be (400, 403, 405, 426), and `accept` fails with
   * {@link RequestRejected}. Headers that can't be sent are a defect.
   */
  readonly accept: (options?: AcceptOptions) => Effect.Effect<Connection.Connection, RequestRejected, Scope.Scope>
  /** Answers with an ordinary response, after which the connection ends. Headers that can't be sent are a defect. */
  readonly respond: (response: Response) => Effect.Effect<void>
}

/**
 * What the 101 says besides.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptOptions {
  /** Must be one that the client offers, else there is none. Default: by the server's option. */
  readonly subprotocol?: string | undefined
  readonly headers?: Handshake.Headers | ReadonlyArray<Handshake.HeaderEntry> | undefined
}

/**
 * An ordinary response: see `HttpResponse` of the engine.
 *
 * @since 0.1.0
 * @category models
 */
export type Response = HttpResponse.HttpResponse

/**
 * The request could not be accepted; it has been answered with `status`.
 *
 * @since 0.1.0
 * @category errors
 */
export class RequestRejected extends Data.TaggedError("RequestRejected")<{
  readonly status: number
  /** The broken rule of the handshake. */
  readonly rule: Handshake.RequestRule
  readonly detail: string
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return `the request was answered with ${this.status}: ${this.detail}`
  }
}

/**
 * What handles a request: runs in a fiber and a Scope of its own.
 *
 * @since 0.1.0
 * @category models
 */
export type Handler<E, R> = (request: Request) => Effect.Effect<unknown, E, R>

/**
 * Listens, and runs the handler for each connection, until the Scope closes: then no connection comes in, all handlers are
 * interrupted (their connections close with 1001), and what is left after `drainTimeout` is cut. Gives the listening server, whose
 * `address()` tells the port.
 *
 * @example
 * import { createServer } from "node:net"
 * import { NodeTcpServer } from "@effect-ws/node"
 * import { Effect, Stream } from "effect"
 *
 * const program = NodeTcpServer.listen(createServer, { port: 8080 }, (request) =>
 *   request.target === "/echo"
 *     ? Effect.flatMap(request.accept(), (socket) => Stream.run(socket.messages, socket.sink))
 *     : request.respond({ status: 404, body: "not here" })
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const listen = <E, R>(
  evaluate: LazyArg<Net.Server>,
  options: Net.ListenOptions & Options,
  handler: Handler<E, R>
): Effect.Effect<Net.Server, ServeError, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.gen(function* () {
    const server = evaluate()
    yield* Effect.acquireRelease(start(server, options, handler), (stop) =>
      Effect.zipRight(
        Effect.sync(() => server.close()),
        stop
      )
    )
    yield* Effect.async<void, ServeError>((resume) => {
      const failed = (cause: unknown) => resume(Effect.fail(new ServeError({ cause })))
      server.once("error", failed)
      server.listen(options, () => {
        server.off("error", failed)
        // Errors of accepting (too many open files) end one connection, not the process.
        server.on("error", ignore)
        resume(Effect.void)
      })
    })
    return server
  })

/**
 * Runs the handler for each connection of a server which somebody else made, listens with and closes, until the Scope closes, as
 * {@link listen} does.
 *
 * @since 0.1.0
 * @category constructors
 */
export const serve = <E, R>(
  server: Net.Server,
  options: Options,
  handler: Handler<E, R>
): Effect.Effect<void, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(start(server, options, handler), (stop) => stop))

/**
 * Runs the handler for the request that comes over a Duplex, which belongs to it from now on. Ends when nothing is left of it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const handle = <E, R>(
  duplex: Duplex,
  options: Options,
  handler: Handler<E, R>
): Effect.Effect<void, never, Exclude<R, Scope.Scope>> =>
  Effect.suspend(() => converse(new Shared(options), duplex, handler))

// ---- servers -------------------------------------------------------------------------------------------------------------

/** What the connections of a server share. */
class Shared {
  readonly settings: Connection.Settings
  readonly headTimeout: Duration.Duration
  readonly handlerTimeout: Duration.Duration
  readonly maxPendingHeads: number
  pendingHeads = 0

  constructor(readonly options: Options) {
    const misuse = Extension.misuse(options.extensions ?? [])
    if (misuse !== undefined) throw new TypeError(misuse)
    this.settings = Connection.settings(options, { role: "server", slab })
    this.headTimeout = Duration.decode(options.headTimeout ?? "10 seconds")
    this.handlerTimeout = Duration.decode(options.handlerTimeout ?? "10 seconds")
    this.maxPendingHeads = options.maxPendingHeads ?? 1000
  }
}

/** Gives what ends it. */
const start = <E, R>(server: Net.Server, options: Options, handler: Handler<E, R>) =>
  // A runtime keeps the region where it was taken; handlers are interruptible wherever the server is begun.
  Effect.map(Effect.interruptible(Effect.runtime<Exclude<R, Scope.Scope>>()), (runtime) => {
    const shared = new Shared(options)
    const run = Runtime.runFork(runtime)
    const fibers = new Set<Fiber.RuntimeFiber<void>>()
    // Of a TLS server also those whose TLS handshake is not over.
    const sockets = new Set<Net.Socket>()
    let whenEmpty: (() => void) | undefined
    const opened = (socket: Net.Socket) => {
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
    }
    const accept = (socket: Net.Socket) => {
      const fiber = run(converse(shared, socket, handler), { immediate: true })
      fibers.add(fiber)
      fiber.addObserver(() => {
        fibers.delete(fiber)
        if (fibers.size === 0) whenEmpty?.()
      })
    }
    const event = server instanceof Tls.Server ? "secureConnection" : "connection"
    server.on("connection", opened)
    server.on(event, accept)
    const empty = Effect.async<void>((resume) => {
      if (fibers.size === 0) return resume(Effect.void)
      whenEmpty = () => resume(Effect.void)
    })
    return Effect.suspend(() => {
      server.off("connection", opened)
      server.off(event, accept)
      for (const fiber of fibers) fiber.unsafeInterruptAsFork(FiberId.none)
      // Interruptible inside of the timeout only: whoever closes the Scope may have been interrupted already.
      return Effect.timeoutOption(Effect.interruptible(empty), options.drainTimeout ?? "5 seconds")
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
        })
      ),
      Effect.asVoid
    )
  })

// ---- one connection --------------------------------------------------------------------------------------------------------

const ignore = () => {}

/** From the first byte until nothing is left. */
const converse = <E, R>(
  shared: Shared,
  duplex: Duplex,
  handler: Handler<E, R>
): Effect.Effect<void, never, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) => {
    duplex.on("error", ignore)
    // Our close frame, or the response, may go out after the client has ended its side.
    duplex.allowHalfOpen = true
    const dispose = Effect.sync(() => {
      duplex.destroy()
    })
    const refuse = (status: number, detail: string) =>
      Effect.zipRight(
        Effect.sync(() => writeResponse(duplex, plain(status, detail), "GET")),
        restore(linger(duplex))
      )
    if (shared.pendingHeads >= shared.maxPendingHeads) {
      return Effect.ensuring(refuse(503, "The server is busy."), dispose)
    }
    shared.pendingHeads++
    const head = Effect.ensuring(
      restore(readHead(shared, duplex)),
      Effect.sync(() => {
        shared.pendingHeads--
      })
    )
    return Effect.flatMap(Effect.exit(head), (exit) => {
      if (exit._tag === "Failure") return refuse(503, shuttingDown)
      const result = exit.value
      if (result._tag === "Gone") return Effect.void
      if (result._tag === "Timeout") return refuse(408, "The request took too long to come.")
      if (result._tag === "Failed") return refuse(result.status, `${result.message}.`)
      const request = new TcpRequest(shared, duplex, result.head, result.rest)
      const running = request.watched(Effect.suspend(() => handler(request)))
      // Leaving the Scope closes the connection, with the code that the handler's exit stands for.
      const handled = Effect.scoped(Effect.onExit(running, explain))
      return Effect.flatMap(Effect.exit(restore(handled)), (exit) =>
        Effect.suspend(() => (request.conclude(exit) ? Effect.void : restore(linger(duplex))))
      )
    }).pipe(Effect.ensuring(dispose))
  })

type Head =
  | HttpHead.Head<HttpHead.RequestHead>
  | HttpHead.Failed
  | { readonly _tag: "Gone" }
  | { readonly _tag: "Timeout" }

const readHead = (shared: Shared, duplex: Duplex): Effect.Effect<Head> =>
  Effect.async<Head>((resume) => {
    const parser = HttpHead.make("request", shared.options)
    const stop = () => {
      duplex.off("data", onData).off("end", gone).off("close", gone)
      duplex.pause()
    }
    const settle = (head: Head) => {
      stop()
      resume(Effect.succeed(head))
    }
    const gone = () => settle({ _tag: "Gone" })
    const onData = (chunk: Uint8Array) => {
      const result = parser.push(chunk)
      if (result._tag !== "Incomplete") settle(result)
    }
    if (duplex.destroyed || duplex.readableEnded) return gone()
    duplex.on("data", onData).on("end", gone).on("close", gone)
    // A stream that was paused by whoever owned it before does not flow by itself.
    duplex.resume()
    return Effect.sync(stop)
  }).pipe(Effect.timeoutTo({ duration: shared.headTimeout, onSuccess: (head) => head, onTimeout: () => timeout }))

const timeout: Head = { _tag: "Timeout" }

/** How long a client may take to end its side after an answer that ends the connection. */
const lingerTime = Duration.seconds(2)

/** Drops what the client still sends, so that it sees the answer and not a reset, until it ends its side, for a while. */
const linger = (duplex: Duplex): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    if (duplex.destroyed) return resume(Effect.void)
    const closed = () => resume(Effect.void)
    duplex.once("close", closed)
    duplex.resume()
    return Effect.sync(() => duplex.off("close", closed))
  }).pipe(Effect.timeoutOption(lingerTime), Effect.asVoid)

const shuttingDown = "The server is shutting down."

/** A failure of the handler goes to the log, unless it is the end of its connection or was answered. */
const explain = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> => {
  if (exit._tag === "Success" || Cause.isInterruptedOnly(exit.cause)) return Effect.void
  const failure = Cause.failureOrCause(exit.cause)
  if (
    failure._tag === "Left" &&
    (Connection.isFailure(failure.left) ||
      failure.left instanceof WebSocketError.MessageError ||
      failure.left instanceof RequestRejected)
  ) {
    return Effect.logDebug("WebSocket connection ended", failure.left)
  }
  return Effect.logError("the handler of a WebSocket server failed", exit.cause)
}

class TcpRequest implements Request {
  readonly body: Uint8Array
  readonly handshake: Request["handshake"]
  private readonly ahead: ReadAhead
  private state: "waiting" | "responded" | "accepted" = "waiting"
  private fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined

  constructor(
    private readonly shared: Shared,
    readonly duplex: Duplex,
    private readonly head: HttpHead.RequestHead,
    private readonly rest: Uint8Array
  ) {
    // The engine unmasks what it receives in place.
    this.body = new Uint8Array(rest)
    this.ahead = new ReadAhead(duplex)
    this.handshake = ServerHandshake.checkRequest({ ...head, limits: noLimits, drafts: shared.options.drafts })
  }

  get method(): string {
    return this.head.method
  }
  get target(): string {
    return this.head.target
  }
  get headers(): Handshake.Headers {
    return this.head.headers
  }
  get rawHeaders(): Request["rawHeaders"] {
    return this.head.rawHeaders
  }
  get httpVersion(): "1.0" | "1.1" {
    return this.head.httpVersion
  }
  get offeredSubprotocols(): ReadonlyArray<string> {
    return this.handshake._tag === "Accepted" ? this.handshake.subprotocols : []
  }

  /** Runs the handler; it is interrupted when the client leaves, or ends its side, before there is an answer. */
  watched<A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.withFiberRuntime<A, E, R>((fiber) => {
      this.fiber = fiber
      const gone = () => {
        if (this.state === "waiting") fiber.unsafeInterruptAsFork(FiberId.none)
      }
      this.duplex.on("close", gone).on("end", gone)
      if (this.isGone) gone()
      return Effect.ensuring(
        handler,
        Effect.sync(() => {
          this.fiber = undefined
          this.duplex.off("close", gone).off("end", gone)
        })
      )
    })
  }

  private get isGone(): boolean {
    return this.duplex.destroyed || this.duplex.readableEnded
  }

  /** The handler has ended: answers if it has not. Whether that was all, so that nobody waits for the client to read it. */
  conclude(exit: Exit.Exit<unknown, unknown>): boolean {
    if (this.state !== "waiting") return this.state === "accepted"
    this.state = "responded"
    if (this.isGone) return true
    const { handshake } = this
    if (exit._tag === "Failure") {
      this.write(Cause.isInterruptedOnly(exit.cause) ? plain(503, shuttingDown) : plain(500, "The server failed."))
    } else if (handshake._tag === "Rejected") this.writeRejection(handshake)
    else this.write(plain(404, "Nothing is here."))
    return false
  }

  readonly accept = (options: AcceptOptions = {}): Effect.Effect<Connection.Connection, RequestRejected, Scope.Scope> =>
    Effect.suspend(() => {
      const { handshake } = this
      this.answer()
      if (handshake._tag === "Rejected") return this.reject(handshake)
      const { origins, subprotocols = [] } = this.shared.options
      const foreign = ServerHandshake.checkOrigin(handshake, this.headers.host, origins)
      if (foreign !== undefined) return this.reject(foreign)
      const wish = options.subprotocol
      const subprotocol = Handshake.selectSubprotocol(
        handshake.subprotocols,
        wish === undefined ? subprotocols : [wish]
      )
      const extensions = Extension.negotiate(this.shared.options.extensions ?? [], handshake.extensions)
      const agreement = { subprotocol, extensions, target: this.target, secure: isSecure(this.duplex, this.headers) }
      const head = ServerHandshake.formatAccept(handshake, agreement, options.headers)
      if (typeof head !== "string") {
        this.write(plain(500, "The server failed."))
        return Effect.dieMessage(`a header of the 101 can't be sent: ${head.field}: ${head.message}`)
      }
      this.state = "accepted"
      return Effect.uninterruptible(
        Effect.suspend(() => {
          const transport = NodeTransport.fromDuplex(this.duplex, this.ahead.stop(this.rest))
          transport.write([Buffer.from(head, "latin1")])
          return Effect.tap(
            Connection.fromSettings(transport, this.shared.settings, subprotocol, extensions, handshake),
            (connection) => this.watch(connection)
          )
        })
      )
    })

  /** A handler that goes on without its connection does so for a while, then it is interrupted. */
  private watch(connection: Connection.Connection): Effect.Effect<void> {
    return Effect.map(Effect.runtime(), (runtime) => {
      const late: Effect.Effect<void> = Effect.flatMap(Effect.sleep(this.shared.handlerTimeout), () =>
        this.fiber !== undefined && Connection.hasMessages(connection)
          ? late
          : Effect.sync(() => this.fiber?.unsafeInterruptAsFork(FiberId.none))
      )
      Connection.setOwner(connection, {
        connectionGone: () => {
          const { fiber } = this
          if (fiber === undefined) return
          // The runtime is that of an uninterruptible region.
          const watchdog = Runtime.runFork(runtime)(Effect.interruptible(late))
          fiber.addObserver(() => watchdog.unsafeInterruptAsFork(FiberId.none))
        }
      })
    })
  }

  readonly respond = (response: Response): Effect.Effect<void> =>
    Effect.suspend(() => {
      this.answer()
      const problem = this.write(response)
      if (problem === undefined) return Effect.void
      this.write(plain(500, "The server failed."))
      return Effect.dieMessage(`the response can't be sent: ${problem.field}: ${problem.message}`)
    })

  private answer(): void {
    if (this.state !== "waiting") throw new Error("the request was answered already")
    this.state = "responded"
  }

  private write(response: Response): Handshake.FormatError | undefined {
    return writeResponse(this.duplex, response, this.method)
  }

  private reject(rejection: Handshake.RejectedRequest): Effect.Effect<never, RequestRejected> {
    this.writeRejection(rejection)
    const { body, rule, status } = rejection
    return Effect.fail(new RequestRejected({ status, rule, detail: body }))
  }

  private writeRejection(rejection: Handshake.RejectedRequest): void {
    if (this.duplex.writable) this.duplex.end(Handshake.formatReject(rejection), "latin1")
  }
}

/** The parser had its own. */
const noLimits: Handshake.RequestLimits = {
  maxHeaderBytes: Number.POSITIVE_INFINITY,
  maxHeaderCount: Number.POSITIVE_INFINITY
}

// ---- responses -------------------------------------------------------------------------------------------------------------

const plain = (status: number, detail: string): Response => ({
  status,
  headers: status === 503 ? [["Retry-After", "1"]] : undefined,
  body: `${detail}\n`
})

/** Writes a response, and ends our side. */
const writeResponse = (duplex: Duplex, response: Response, method: string): Handshake.FormatError | undefined => {
  const bytes = HttpResponse.encode(response, method)
  if (!(bytes instanceof Uint8Array)) return bytes
  if (duplex.writable) duplex.end(bytes)
  return undefined
}
