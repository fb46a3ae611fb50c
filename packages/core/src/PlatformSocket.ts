/**
 * Connections as `Socket.Socket` of `@effect/platform`, and the other way round, for what is written against it: RPC, event logs,
 * `Socket.toChannel`, applications that use `request.upgrade`.
 *
 * A Socket knows messages and close codes; the rest of a connection (pings, fragments, the closing handshake's result) it hides.
 * In the other direction a Socket is taken for a stream of bytes, a {@link toTransport}: one that carries WebSocket messages
 * speaks the protocol already, and there is nothing to add to it.
 *
 * @since 0.1.0
 */
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Socket from "@effect/platform/Socket"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Connection from "./Connection.js"
import * as Extension from "./engine/Extension.js"
import { unsendable } from "./internal/BaseConnection.js"
import { politeEntry } from "./internal/ConnectionSet.js"
import * as TakeOver from "./internal/takeOver.js"
import type { Message } from "./Message.js"
import * as Transport from "./Transport.js"
import * as Upgrade from "./Upgrade.js"
import { HandshakeError } from "./WebSocketError.js"
import type { OriginPolicy, SubprotocolChoice } from "./WebSocketRoute.js"

/**
 * Options of {@link make}.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Close codes with which `run` fails (with `SocketCloseError`) instead of ending. Default: all that are no clean end of the
   * connection (its `cleanCloseCodes`), so that a lost connection, 1006, is a failure.
   */
  readonly closeCodeIsError?: ((code: number) => boolean) | undefined
  /** Effects of the handler that run at a time before no more messages are read. Default 256. */
  readonly maxHandlers?: number | undefined
  /** How long effects of the handler may go on after a clean end of the connection. Default 10 seconds. */
  readonly handlerTimeout?: Duration.DurationInput | undefined
}

/**
 * A Socket that opens a connection each time it is run, as `Socket.makeWebSocket` does; the connection closes when `run` ends.
 *
 * - `run` fails with `SocketGenericError` when there is no connection (`OpenTimeout` for a timeout, else `Open`), and with
 *   `SocketCloseError` as `closeCodeIsError` says. When the peer broke a rule the code is the one that we sent.
 * - Messages are handed over in order. What the handler returns runs in a fiber of its own, as Sockets do it, so that one may wait for
 *   another; the first that fails ends the run. After a clean end those that run are let finish, for `handlerTimeout`.
 * - The writer waits while no connection is open, and for room. A `CloseEvent` begins the closing handshake; of a reason that is too
 *   long the beginning is sent, a code that may not be sent is a `SocketGenericError` (`Write`).
 *
 * @example
 * import { Socket } from "@effect/platform"
 * import { PlatformSocket, WebSocketClient } from "@effect-ws/core"
 * import { Layer } from "effect"
 *
 * // What RpcClient.layerProtocolSocket and others run on, with headers
 * const Feed = Layer.effect(
 *   Socket.Socket,
 *   PlatformSocket.make(WebSocketClient.connect("wss://example.com/rpc", { headers: { authorization: "Bearer ..." } }))
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <E, R>(
  open: Effect.Effect<Connection.Connection, E, R>,
  options: Options = {}
): Effect.Effect<Socket.Socket, never, Exclude<R, Scope.Scope>> =>
  Effect.map(Effect.context<Exclude<R, Scope.Scope>>(), (context) => socket(open, context, options, "reopens"))

/**
 * A Socket over a connection that is open. It can be run once; then it closes the connection, and its writer fails.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromConnection = (connection: Connection.Connection, options: Options = {}): Socket.Socket =>
  socket(Effect.acquireRelease(Effect.succeed(connection), Connection.leave), Context.empty(), options, "once")

const defaultMaxHandlers = 256

const socket = <R>(
  open: Effect.Effect<Connection.Connection, unknown, R>,
  acquireContext: Context.Context<Exclude<R, Scope.Scope>>,
  { closeCodeIsError, handlerTimeout = "10 seconds", maxHandlers = defaultMaxHandlers }: Options,
  life: "once" | "reopens"
): Socket.Socket => {
  let current: Connection.Connection | undefined
  let opened = false
  const latch = Effect.unsafeMakeLatch(false)

  const runRaw: Socket.Socket["runRaw"] = <_, E, R2>(
    handler: (message: Message) => Effect.Effect<_, E, R2> | void,
    options?: { readonly onOpen?: Effect.Effect<void> | undefined }
  ) =>
    Effect.scopedWith((scope) =>
      Effect.gen(function* () {
        if (life === "once" && opened) return yield* openError(new Error("this Socket was run already"))
        opened = true
        const connection = yield* Effect.catchAll(Scope.extend(open, scope), openError)
        const fibers = yield* Scope.extend(FiberSet.make<unknown, E>(), scope)
        const run = yield* FiberSet.runtime(fibers)<R2>()
        current = connection
        yield* latch.open
        if (options?.onOpen !== undefined) yield* options.onOpen
        const permits = Effect.unsafeMakeSemaphore(maxHandlers)
        const read = connection.runForEach((message) => {
          const effect = handler(message)
          if (!Effect.isEffect(effect)) return
          return Effect.map(permits.take(1), () => run(Effect.ensuring(effect, permits.release(1))))
        })
        // Who writes from now on waits for the next connection.
        const ended = Effect.sync(() => {
          if (life === "reopens") latch.unsafeClose()
        })
        const messages = Effect.tap(Effect.option(Effect.flip(read)), (failure) => {
          const finish = Effect.timeoutOption(permits.take(maxHandlers), handlerTimeout)
          return Effect.zipRight(ended, failure._tag === "None" ? finish : Effect.void)
        })
        const failure = yield* Effect.raceFirst(messages, FiberSet.join(fibers))
        const { code, reason } = yield* connection.closed
        if (closeCodeIsError === undefined ? failure?._tag === "Some" : closeCodeIsError(code)) {
          yield* new Socket.SocketCloseError({ reason: "Close", code, closeReason: reason === "" ? undefined : reason })
        }
      })
    ).pipe(
      Effect.mapInputContext((input: Context.Context<R2>) => Context.merge(acquireContext, input)),
      Effect.ensuring(
        Effect.sync(() => {
          if (life === "once") return
          latch.unsafeClose()
          current = undefined
        })
      ),
      Effect.interruptible
    )

  const write = (chunk: Message | Socket.CloseEvent): Effect.Effect<void, Socket.SocketError> =>
    latch.whenOpen(
      Effect.suspend(() => {
        const connection = current!
        return Socket.isCloseEvent(chunk)
          ? beginClose(connection, chunk)
          : Effect.mapError(connection.send(chunk), writeError)
      })
    )

  return Socket.Socket.of({
    [Socket.TypeId]: Socket.TypeId,
    run: (handler, options) =>
      runRaw((message) => handler(typeof message === "string" ? encoder.encode(message) : message), options),
    runRaw,
    writer: Effect.succeed(write)
  })
}

const encoder = new TextEncoder()

const openError = (cause: unknown): Effect.Effect<never, Socket.SocketError> => {
  const reason = cause instanceof HandshakeError && cause.reason === "Timeout" ? "OpenTimeout" : "Open"
  return Effect.fail(new Socket.SocketGenericError({ reason, cause }))
}

const writeError = (cause: unknown): Socket.SocketError => new Socket.SocketGenericError({ reason: "Write", cause })

/** Nobody waits for the end: `run` sees it. */
const beginClose = (
  connection: Connection.Connection,
  { code, reason = "" }: Socket.CloseEvent
): Effect.Effect<void, Socket.SocketError> => {
  // What a cut character becomes takes three bytes at most.
  const bytes = encoder.encode(reason)
  const short = bytes.length <= 123 ? reason : new TextDecoder().decode(bytes.subarray(0, 120))
  const problem = unsendable(code, short)
  return problem === undefined
    ? Effect.sync(() => {
        Effect.runFork(connection.close(code, short), { immediate: true })
      })
    : Effect.fail(writeError(new Error(problem)))
}

// ---- request.upgrade ---------------------------------------------------------------------------------------------------

/**
 * Options of {@link layerUpgrade}.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpgradeOptions extends Connection.Options, Options {
  /** Default: none is agreed. */
  readonly subprotocols?: SubprotocolChoice | undefined
  /** Extensions to agree to, as those of `WebSocketRoute`. Default: none. */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /** Which pages may connect; others get 403. Default `"same"`. */
  readonly origins?: OriginPolicy | undefined
  /**
   * Versions of the protocol besides 13; with hixie-76 and hixie-75 the application must write text only. Default: none, whatever the server
   * speaks.
   */
  readonly drafts?: ReadonlyArray<Connection.Draft> | undefined
  /** More headers of the 101. */
  readonly responseHeaders?: Readonly<Record<string, string>> | undefined
}

/**
 * Puts this library under `request.upgrade` of all routes, so that applications written for `Socket` (RPC's WebSocket protocol, event
 * logs, `HttpServerRequest.upgradeChannel`) get its limits, heartbeat and backpressure unchanged. The server must be able to upgrade, as
 * routes of `WebSocketRoute` need it.
 *
 * The 101 is sent when the Socket is run, for the first and only time. A request that can't be accepted is answered then: the
 * response (400, 403, 426, 503) is a defect of `run`, which the server sends.
 *
 * @example
 * import { HttpLayerRouter } from "@effect/platform"
 * import { PlatformSocket } from "@effect-ws/core"
 * import { Layer } from "effect"
 *
 * declare const ExistingRoutes: Layer.Layer<never, never, HttpLayerRouter.HttpRouter>
 *
 * const Routes = Layer.provideMerge(ExistingRoutes, PlatformSocket.layerUpgrade({ maxMessageBytes: 64 * 1024 }))
 *
 * @since 0.1.0
 * @category layers
 */
export const layerUpgrade = (options: UpgradeOptions = {}): Layer.Layer<never, never, HttpLayerRouter.HttpRouter> =>
  HttpLayerRouter.middleware(upgradeMiddleware(options), { global: true })

/**
 * {@link layerUpgrade} for one HTTP application: `HttpServer.serve(upgradeMiddleware())`, or around one handler.
 *
 * @since 0.1.0
 * @category combinators
 */
export const upgradeMiddleware = (options: UpgradeOptions = {}) => {
  const misuse = Extension.misuse(options.extensions ?? [])
  if (misuse !== undefined) throw new TypeError(`a server can't have these extensions: ${misuse}`)
  const settingsFor = new WeakMap<Upgrade.UpgradeServer, Connection.Settings>()
  const settingsOf = (server: Upgrade.UpgradeServer): Connection.Settings => {
    let settings = settingsFor.get(server)
    if (settings === undefined) settingsFor.set(server, (settings = Connection.settings(options, server.platform)))
    return settings
  }
  return <A, E, R>(app: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | HttpServerRequest.HttpServerRequest> =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      const found = Upgrade.find(request)
      if (found === undefined) return app
      found.deciding?.()
      const upgraded = withUpgrade(request, (inner) =>
        Effect.sync(() => socket(accepted(request, inner, options, settingsOf), Context.empty(), options, "once"))
      )
      return Effect.provideService(app, HttpServerRequest.HttpServerRequest, upgraded)
    })
}

/** Also the changed copies that prefixed routes make. */
const withUpgrade = (
  request: HttpServerRequest.HttpServerRequest,
  upgrade: (inner: HttpServerRequest.HttpServerRequest) => HttpServerRequest.HttpServerRequest["upgrade"]
): HttpServerRequest.HttpServerRequest =>
  Object.create(request, {
    upgrade: { get: () => upgrade(request) },
    modify: {
      value: (options: Parameters<typeof request.modify>[0]) => withUpgrade(request.modify(options), upgrade)
    }
  })

const accepted = (
  outer: HttpServerRequest.HttpServerRequest,
  request: HttpServerRequest.HttpServerRequest,
  options: UpgradeOptions,
  settingsOf: (server: Upgrade.UpgradeServer) => Connection.Settings
): Effect.Effect<Connection.Connection, never, Scope.Scope> => {
  const start = Effect.zipWith(
    Effect.clock,
    Effect.catchAll(TakeOver.takeOver(outer, request, options), Effect.die),
    (clock, { extensions, opened, server, subprotocol, transport }) => {
      const settings = settingsOf(server)
      const connection = Connection.unsafeStart(transport, settings, subprotocol, clock, extensions, opened)
      return { connection, place: server.connections.add(politeEntry(connection)), server }
    }
  )
  return Effect.map(
    Effect.acquireRelease(start, ({ connection, place, server }, exit) =>
      Effect.zipRight(
        Connection.leave(connection, exit),
        Effect.sync(() => server.connections.delete(place))
      )
    ),
    ({ connection }) => connection
  )
}

// ---- a Socket of bytes ---------------------------------------------------------------------------------------------------

/**
 * The transport over a Socket that carries bytes: TCP (`NodeSocket.makeNet`), a pair of streams (`Socket.fromTransformStream`). The
 * Socket is run until the Scope closes.
 *
 * A Socket can't be paused. What comes while nobody reads is kept up to `maxHeldBytes` (default 4 MiB); more cuts the connection with a
 * `TransportError` (`Read`).
 *
 * @since 0.1.0
 * @category constructors
 */
export const toTransport = (
  socket: Socket.Socket,
  options: { readonly maxHeldBytes?: number | undefined } = {}
): Effect.Effect<Transport.Transport, never, Scope.Scope> =>
  Effect.gen(function* () {
    const maxHeldBytes = options.maxHeldBytes ?? 0x400000
    const received = yield* Mailbox.make<Uint8Array, unknown>()
    let heldBytes = 0
    const writeScope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    const write = yield* Scope.extend(socket.writer, writeScope)
    const reading = yield* socket
      .run((chunk) => {
        heldBytes += chunk.length
        if (heldBytes > maxHeldBytes) return Effect.fail(new Error(`more than ${maxHeldBytes} bytes wait to be read`))
        received.unsafeOffer(chunk)
        return undefined
      })
      .pipe(
        Effect.catchIf(Socket.SocketCloseError.isClean(isNormal), () => Effect.void),
        Mailbox.into(received),
        Effect.forkScoped
      )
    // The writer of a Socket that is not open (any more) waits for ever.
    const whileOpen = <E>(effect: Effect.Effect<void, E>): Effect.Effect<void, unknown> =>
      Effect.raceFirst(effect, Effect.zipRight(Fiber.await(reading), Effect.fail(new Error("the Socket has ended"))))
    return yield* Transport.fromEffect({
      incoming: Stream.mapChunks(Mailbox.toStream(received), (chunks) => {
        for (const chunk of chunks) heldBytes -= chunk.length
        return chunks
      }),
      write: (chunks) => whileOpen(Effect.forEach(chunks, write, { discard: true })),
      // Sockets end their direction when the writer is released.
      end: Scope.close(writeScope, Exit.void),
      abort: Fiber.interrupt(reading)
    })
  })

const isNormal = (code: number): boolean => code === 1000
