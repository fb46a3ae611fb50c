/**
 * WebSockets on any `http.Server` by its `'upgrade'` event, and on sockets that somebody else has upgraded: without the HTTP router, its
 * middleware and their cost per connection. For servers whose other requests belong to another framework.
 *
 * @since 0.1.0
 */
import { randomBytes } from "node:crypto"
import type * as Http from "node:http"
import type { Duplex } from "node:stream"
import { Connection, type Message, Upgrade } from "@effect-ws/core"
import { Extension, Handshake, ServerHandshake } from "@effect-ws/core/engine"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { guard, refuse, unguard } from "./internal/guard.js"
import { slab } from "./internal/natives.js"
import { ReadAhead } from "./internal/readAhead.js"
import { scheduler } from "./internal/scheduler.js"
import { isSecure } from "./internal/secure.js"
import * as NodeTransport from "./NodeTransport.js"

// ---- attach ------------------------------------------------------------------------------------------------------------

/**
 * Options of {@link attach}.
 *
 * @since 0.1.0
 * @category models
 */
export interface AttachOptions extends Connection.MakeOptions {
  /** Bytes that were read from the stream already, after the end of the opening handshake. */
  readonly head?: Uint8Array | undefined
}

/**
 * The connection over a stream whose opening handshake somebody else has done, in either role. The stream belongs to it from now on, and
 * closes with the Scope as `Connection.make` says.
 *
 * A closing handshake and a lost stream are told apart: `closed` gives the peer's code and `clean: true`, or 1006.
 *
 * @example
 * import { NodeUpgrade } from "@effect-ws/node"
 * import { Effect } from "effect"
 * import { request } from "node:http"
 *
 * const get = request({ host: "localhost", port: 8080, headers: {
 *   connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": NodeUpgrade.makeKey()
 * } })
 * get.on("upgrade", (response, stream, head) => {
 *   Effect.gen(function*() {
 *     const socket = yield* NodeUpgrade.attach(stream, { role: "client", head })
 *     yield* socket.send("hello")
 *   }).pipe(Effect.scoped, Effect.runFork)
 * }).end()
 *
 * @since 0.1.0
 * @category constructors
 */
export const attach = (
  stream: Duplex,
  options: AttachOptions
): Effect.Effect<Connection.Connection, never, Scope.Scope> =>
  Effect.suspend(() =>
    Connection.fromSettings(
      NodeTransport.fromDuplex(stream, options.head),
      Connection.settings(options, { role: options.role, slab }),
      options.subprotocol,
      options.extensions,
      { version: options.version ?? "13" }
    )
  )

/**
 * A new `Sec-WebSocket-Key`: 16 random bytes in base64 (RFC 6455 §4.1 item 7).
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeKey = (): string => randomBytes(16).toString("base64")

// ---- detach ------------------------------------------------------------------------------------------------------------

/**
 * Options of {@link detach}.
 *
 * @since 0.1.0
 * @category models
 */
export interface DetachOptions {
  /** Default: none. */
  readonly subprotocols?: SubprotocolChoice | undefined
  /** Which pages may connect; others get 403. Default `"same"`. */
  readonly origins?: Handshake.OriginPolicy | undefined
  /** `["8"]` accepts version 8 too, whose frames are the same. Default: none. */
  readonly drafts?: ReadonlyArray<"8"> | undefined
  /** More headers of the 101; the handshake's own are a defect. */
  readonly responseHeaders?: Readonly<Record<string, string>> | undefined
}

/**
 * Supported subprotocols, best first, or what chooses among those that the client offers.
 *
 * @since 0.1.0
 * @category models
 */
export type SubprotocolChoice =
  | ReadonlyArray<string>
  | ((offered: ReadonlyArray<string>, request: Http.IncomingMessage) => string | undefined)

/**
 * What is left of a request after the 101.
 *
 * @since 0.1.0
 * @category models
 */
export interface Detached {
  /** Unread bytes included. */
  readonly stream: Duplex
  readonly subprotocol: string | undefined
  readonly version: "13" | "8"
}

/**
 * Answers an upgrade request with the 101 and gives the stream back, whose first bytes are the client's first frame: `head` is put
 * back into it. From then on it is the caller's alone; nothing listens to it, not even to its errors.
 *
 * Fails with {@link Refusal} after it has answered a request that can't be accepted.
 *
 * @since 0.1.0
 * @category constructors
 */
export const detach = (
  request: Http.IncomingMessage,
  stream: Duplex,
  head: Uint8Array,
  options: DetachOptions = {}
): Effect.Effect<Detached, Refusal> =>
  Effect.suspend(() => {
    const checked = check(request, stream, { ...options, extensions: [] })
    if (checked instanceof Refusal) {
      guard(stream)
      answer(stream, checked)
      return Effect.fail(checked)
    }
    if (stream.destroyed || !stream.writable) return Effect.fail(gone)
    stream.write(checked.head, "latin1")
    if (head.length > 0) stream.unshift(head)
    const { opened, subprotocol } = checked
    return Effect.succeed({ stream, subprotocol, version: opened.version as "13" | "8" })
  })

// ---- servers -----------------------------------------------------------------------------------------------------------

/**
 * The answer to a request that is not accepted.
 *
 * @since 0.1.0
 * @category errors
 */
export class Refusal extends Data.TaggedError("Refusal")<{
  /** 400 to 599. */
  readonly status: number
  /** Plain text. Default: none. */
  readonly body?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}> {}

/**
 * Options of {@link serve} and {@link each}; the limits, heartbeat and deadlines of connections included.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<A = void, R = never> extends Connection.Options, Omit<DetachOptions, "drafts"> {
  /** Versions of the protocol besides 13, chosen by the request's headers: `"8"`, `"hixie-76"`, `"hixie-75"`. Default: none. */
  readonly drafts?: ReadonlyArray<Connection.Draft> | undefined
  /** Extensions to agree to, as those of `WebSocketRoute`. Default: none. */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /**
   * The path without the query, or a predicate of it; several on one server are asked in the order in which they came. A defect of it
   * is logged and answered with 500. Default: all.
   */
  readonly path?: string | ((path: string) => boolean) | undefined
  /** Runs before the 101: gives what the handler gets as `accepted`, or fails with the answer. A defect is logged and answered with 500. */
  readonly accept?: ((request: Http.IncomingMessage) => Effect.Effect<A, Refusal, R>) | undefined
  /** How long connections may take to close when the Scope closes (they get 1001 at once); then they are cut. Default 5 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /** How long the handler may go on after the connection is gone and its messages are taken. Default 10 seconds. */
  readonly handlerTimeout?: Duration.DurationInput | undefined
}

/**
 * What a handler gets besides the connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Accepted<A> {
  readonly request: Http.IncomingMessage
  readonly accepted: A
  readonly subprotocol: string | undefined
}

/**
 * Accepts WebSockets on `server` until the Scope closes: then the connections get 1001. Other requests stay the server's, and so does
 * listening and closing; upgrade requests for no known path are answered with 404, unless somebody else listens to `'upgrade'` too (a server with
 * `WebSocketRoute`s answers all of them itself).
 *
 * The handler runs in a Scope of its own; when it ends, the connection closes as that of a `WebSocketRoute` does.
 *
 * @example
 * import { createServer } from "node:http"
 * import { NodeUpgrade } from "@effect-ws/node"
 * import { Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const server = createServer((_, response) => response.end("ok"))
 *   yield* NodeUpgrade.serve(server, { path: "/echo" }, (socket) => Stream.run(socket.messages, socket.sink))
 *   yield* NodeUpgrade.each(server, { path: "/upper" }, (message, socket) => socket.send(String(message).toUpperCase()))
 *   server.listen(8080)
 *   yield* Effect.never
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category constructors
 */
export const serve = <E, R, A = void, RA = never>(
  server: Http.Server,
  options: Options<A, RA>,
  handler: (socket: Connection.Connection, request: Accepted<A>) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, never, Scope.Scope | RA | Exclude<R, Scope.Scope>> =>
  listen(server, options, { run: (socket, accepted) => Effect.scoped(handler(socket, accepted)) })

/**
 * {@link serve} for handlers that look at one message after the other: without a fiber as long as they give nothing or a `send` for which there is
 * room (as `WebSocketRoute.each`), without a Scope, and nothing of the request is kept, which is the least that a connection can cost.
 *
 * @since 0.1.0
 * @category constructors
 */
export const each = <E = never, R = never, A = void, RA = never>(
  server: Http.Server,
  options: Options<A, RA>,
  handler: (message: Message.Message, socket: Connection.Connection) => Effect.Effect<unknown, E, R> | void
): Effect.Effect<void, never, Scope.Scope | RA | R> => listen(server, options, { each: handler })

type AnyOptions = Options<any, any>
/** The handler of {@link serve}, or that of {@link each}, which has no use for the request. */
type Handler =
  | { readonly run: (socket: Connection.Connection, request: Accepted<any>) => Effect.Effect<unknown, unknown, any> }
  | {
      readonly each: (
        message: Message.Message,
        socket: Connection.Connection
      ) => Effect.Effect<unknown, any, any> | void
    }

const listen = (server: Http.Server, options: AnyOptions, handler: Handler): Effect.Effect<void, never, any> =>
  // A runtime keeps the region where it was taken; handlers are interruptible wherever the server is begun.
  Effect.flatMap(Effect.interruptible(Effect.runtime<any>()), (runtime) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const endpoint = new Endpoint(options, handler, runtime)
        dispatcherOf(server).add(endpoint)
        return endpoint
      }),
      (endpoint) =>
        Effect.zipRight(
          endpoint.shutdown,
          Effect.sync(() => dispatcherOf(server).delete(endpoint))
        )
    )
  )

/** Who takes which upgrade requests of one server. */
class Dispatcher {
  private readonly endpoints = new Set<Endpoint>()

  constructor(private readonly server: Http.Server) {}

  add(endpoint: Endpoint): void {
    if (this.endpoints.size === 0) this.server.on("upgrade", this.onUpgrade)
    this.endpoints.add(endpoint)
  }

  delete(endpoint: Endpoint): void {
    this.endpoints.delete(endpoint)
    if (this.endpoints.size === 0) this.server.off("upgrade", this.onUpgrade)
  }

  private readonly onUpgrade = (request: Http.IncomingMessage, stream: Duplex, head: Buffer): void => {
    const target = request.url!
    const query = target.indexOf("?")
    const path = query < 0 ? target : target.slice(0, query)
    for (const endpoint of this.endpoints) {
      try {
        if (!endpoint.takes(path)) continue
      } catch (defect) {
        guard(stream)
        return endpoint.fail(stream, Cause.die(defect))
      }
      return endpoint.upgrade(request, stream, head)
    }
    if (this.server.listenerCount("upgrade") > 1) return
    answer(guard(stream), new Refusal({ status: 404, body: "No WebSocket is served here." }))
  }
}

const dispatchers = new WeakMap<Http.Server, Dispatcher>()

const dispatcherOf = (server: Http.Server): Dispatcher => {
  let dispatcher = dispatchers.get(server)
  if (dispatcher === undefined) dispatchers.set(server, (dispatcher = new Dispatcher(server)))
  return dispatcher
}

class Endpoint {
  private readonly upgrades: Upgrade.UpgradeServer
  private readonly deciding = new Set<Fiber.RuntimeFiber<unknown, unknown>>()
  private readonly settings: Connection.Settings
  private readonly handlerTimeoutMillis: number

  constructor(
    private readonly options: AnyOptions,
    private readonly handler: Handler,
    private readonly runtime: Runtime.Runtime<any>
  ) {
    const misuse = Extension.misuse(options.extensions ?? [])
    if (misuse !== undefined) throw new TypeError(`a server can't have these extensions: ${misuse}`)
    const platform = { role: "server", slab } as const
    this.settings = Connection.settings(options, platform)
    this.handlerTimeoutMillis = Duration.toMillis(options.handlerTimeout ?? "10 seconds")
    const drainTimeoutMillis = Duration.toMillis(options.drainTimeout ?? "5 seconds")
    this.upgrades = Upgrade.makeServer({ platform, scheduler, drainTimeoutMillis })
  }

  /** Who is not accepted yet gets 503. */
  readonly shutdown = Effect.suspend(() =>
    Effect.zipRight(
      Effect.fork(Fiber.interruptAll(this.deciding)),
      Effect.suspend(() => this.upgrades.shutdown)
    )
  )

  takes(path: string): boolean {
    const own = this.options.path
    return own === undefined || (typeof own === "string" ? own === path : own(path))
  }

  upgrade(request: Http.IncomingMessage, stream: Duplex, head: Buffer): void {
    if (this.upgrades.isDraining()) return refuse(guard(stream))
    let checked: Checked | Refusal
    try {
      checked = check(request, stream, this.options)
    } catch (defect) {
      return this.fail(guard(stream), Cause.die(defect))
    }
    if (checked instanceof Refusal) return answer(guard(stream), checked)
    const { accept } = this.options
    // Whoever takes the stream over in this turn need not guard it.
    if (accept === undefined) return this.begin(request, stream, head, checked, undefined)
    guard(stream)
    const agreed = checked
    const ahead = new ReadAhead(stream)
    const fiber = Runtime.runFork(this.runtime)(Effect.exit(Effect.suspend(() => accept(request))))
    const abandoned = () => fiber.unsafeInterruptAsFork(fiber.id())
    stream.once("close", abandoned)
    this.deciding.add(fiber)
    fiber.addObserver((decided) => {
      const exit = Exit.flatten(decided)
      this.deciding.delete(fiber)
      stream.off("close", abandoned)
      if (this.upgrades.isDraining()) refuse(stream)
      else if (Exit.isSuccess(exit)) {
        unguard(stream)
        this.begin(request, stream, ahead.stop(head), agreed, exit.value)
      } else this.fail(stream, exit.cause)
    })
  }

  fail(stream: Duplex, cause: Cause.Cause<Refusal>): void {
    const failure = Cause.failureOrCause(cause)
    if (failure._tag === "Left") return answer(stream, failure.left)
    answer(stream, new Refusal({ status: 500 }))
    if (Cause.isInterruptedOnly(cause)) return
    Runtime.runFork(this.runtime)(Effect.logError("an upgrade request could not be answered", cause))
  }

  private begin(
    request: Http.IncomingMessage,
    stream: Duplex,
    head: Uint8Array,
    checked: Checked,
    accepted: unknown
  ): void {
    if (stream.destroyed || !stream.writable) return void guard(stream)
    const { extensions, opened, subprotocol } = checked
    const transport = NodeTransport.fromDuplex(stream, head)
    transport.write([Buffer.from(checked.head, "latin1")])
    const { handler, handlerTimeoutMillis, runtime, settings } = this
    Upgrade.start(this.upgrades, {
      transport,
      settings,
      subprotocol,
      extensions,
      opened,
      runtime,
      handlerTimeoutMillis,
      handler: "each" in handler ? handler : withRequest(handler.run, { request, accepted, subprotocol })
    })
  }
}

// Apart from `begin`, where a closure would keep the request for `each` too.
const withRequest = <A, B, C>(run: (socket: A, request: B) => C, request: B): { readonly run: (socket: A) => C } => ({
  run: (socket) => run(socket, request)
})

// ---- answers -----------------------------------------------------------------------------------------------------------

interface Checked {
  /** The whole 101. */
  readonly head: string
  readonly opened: ServerHandshake.AcceptedRequest
  readonly subprotocol: string | undefined
  readonly extensions: ReadonlyArray<Extension.Agreed>
}

/** Throws what is the application's fault. */
const check = (request: Http.IncomingMessage, stream: Duplex, options: AnyOptions): Checked | Refusal => {
  const { drafts, origins, responseHeaders, subprotocols = [] } = options
  // Of Node's headers only Set-Cookie is an array, which no request has.
  const headers = request.headers as Handshake.Headers
  const { httpVersion, method = "", url: target = "" } = request
  const opened = ServerHandshake.checkRequest({ method, httpVersion, headers, drafts })
  if (opened._tag === "Rejected") return new Refusal(opened)
  const foreign = ServerHandshake.checkOrigin(opened, headers.host, origins)
  if (foreign !== undefined) return new Refusal(foreign)
  const subprotocol = Handshake.selectSubprotocol(
    opened.subprotocols,
    typeof subprotocols === "function" ? (offered) => subprotocols(offered, request) : subprotocols
  )
  const extensions = Extension.negotiate(options.extensions ?? [], opened.extensions)
  const agreement = { subprotocol, extensions, target, secure: isSecure(stream, headers) }
  const head = ServerHandshake.formatAccept(opened, agreement, responseHeaders)
  if (typeof head !== "string") throw new TypeError(`the 101 can't be sent: ${head.field}: ${head.message}`)
  return { head, opened, subprotocol, extensions }
}

const gone = new Refusal({ status: 499, body: "the client is gone" })

/** Writes the answer and lets the client read it. */
const answer = (stream: Duplex, { body = "", headers = {}, status }: Refusal): void => {
  const text = body === "" ? "" : `${body}\n`
  const { connection, ...rest } = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])
  )
  const head = Handshake.formatResponse(status, "", [
    ["Connection", connection === undefined ? "close" : `${connection}, close`],
    ...Object.entries(rest),
    ["Content-Type", "text/plain; charset=utf-8"],
    ["Content-Length", String(Buffer.byteLength(text))]
  ])
  stream.end(typeof head === "string" ? Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(text)]) : failed)
}

const failed = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
