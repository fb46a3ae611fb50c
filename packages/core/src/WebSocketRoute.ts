/**
 * WebSocket routes: declared as Layers next to ordinary HTTP routes, in one router, behind the same middleware.
 *
 * A route is an ordinary GET route. Until the 101 it is an HTTP request: whoever rejects it returns a response or fails as HTTP
 * handlers do. The 101 itself is a response too, so CORS, cookies and middleware that changes responses reach it. After the
 * 101 the request is over (access log, HTTP span) and a fiber of its own runs the handler; the request's Scope stays open as long
 * as the connection does.
 *
 * The server must be able to upgrade: `NodeWebSocketServer.layer` of `@effect-ws/node`, or another platform that uses
 * {@link Upgrade}.
 *
 * @since 0.1.0
 */
import * as Cookies from "@effect/platform/Cookies"
import * as Headers from "@effect/platform/Headers"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as Layer from "effect/Layer"
import type * as ParseResult from "effect/ParseResult"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Connection from "./Connection.js"
import * as Extension from "./engine/Extension.js"
import * as Handshake from "./engine/Handshake.js"
import { formatExtensions } from "./engine/headerGrammar.js"
import * as ServerHandshake from "./engine/ServerHandshake.js"
import { ConnectionSet, type Place } from "./internal/ConnectionSet.js"
import { closeScope } from "./internal/compat.js"
import { type CloseFrame, Handled } from "./internal/handled.js"
import { RequestSpan } from "./internal/RequestSpan.js"
import * as TakeOver from "./internal/takeOver.js"
import type { Message } from "./Message.js"
import type { Resume } from "./Resume.js"
import type { Transport } from "./Transport.js"
import * as Upgrade from "./Upgrade.js"
import * as WebSocketContract from "./WebSocketContract.js"
import type { MessageError } from "./WebSocketError.js"

/**
 * The names after `:` in a path, as strings; `"*"` for a wildcard.
 *
 * @since 0.1.0
 * @category models
 */
export type PathParams<Path extends string> = string extends Path
  ? Readonly<Record<string, string | undefined>>
  : {
      readonly [K in ParamKeys<Path> as K extends `${infer Name}?` ? Name : K]: K extends `${string}?`
        ? string | undefined
        : string
    }

type ParamKeys<Path extends string> = Path extends `${infer Segment}/${infer Rest}`
  ? ParamKeys<Segment> | ParamKeys<Rest>
  : Path extends `${string}:${infer Name}`
    ? Name
    : Path extends `${string}*`
      ? "*"
      : never

/**
 * Query parameters without a schema: a string each, an array when repeated.
 *
 * @since 0.1.0
 * @category models
 */
export type UrlParams = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/**
 * The request that is being accepted or was accepted: path parameters, query and headers, decoded where the route has a
 * schema.
 *
 * @since 0.1.0
 * @category models
 */
export interface RouteRequest<P, U, H> {
  readonly request: HttpServerRequest.HttpServerRequest
  readonly path: P
  readonly urlParams: U
  readonly headers: H
  /** What the client offers, in its order. */
  readonly offeredSubprotocols: ReadonlyArray<string>
}

/**
 * What a handler gets besides the connection: the request, what was agreed, and what `accept` gave.
 *
 * @since 0.1.0
 * @category models
 */
export interface Accepted<P, U, H, A> extends RouteRequest<P, U, H> {
  readonly accepted: A
  readonly subprotocol: string | undefined
}

/**
 * What `accept` may give instead of a plain value: the value for the handler, with headers and cookies of the 101, or the
 * subprotocol. Made by {@link accept}.
 *
 * @since 0.1.0
 * @category models
 */
export class Accept<A> extends Data.TaggedClass("effect-ws/Accept")<{
  readonly value: A
  readonly headers?: Headers.Input | undefined
  readonly cookies?: Cookies.Cookies | undefined
  /** Must be one that the client offers, else the connection has none. Default: the route's choice. */
  readonly subprotocol?: string | undefined
}> {}

/**
 * Accepts a request with extras.
 *
 * @since 0.1.0
 * @category constructors
 */
export const accept = <A>(value: A, extras: Omit<Accept<A>, "value" | "_tag"> = {}): Accept<A> =>
  new Accept({ value, ...extras })

/**
 * The value that a handler gets as `accepted` when `accept` gives `T`.
 *
 * @since 0.1.0
 * @category models
 */
export type AcceptedValue<T> = T extends HttpServerResponse.HttpServerResponse
  ? never
  : T extends Accept<infer A>
    ? A
    : T

/**
 * Which pages may connect: `"same"` (the page's host is the request's), `"any"`, a list of origins or hosts, or a predicate of the
 * `Origin` header. Requests without one come from programs that are no browser, and are fine.
 *
 * @since 0.1.0
 * @category models
 */
export type OriginPolicy = Handshake.OriginPolicy

/**
 * Supported subprotocols, best first, or what chooses among those that the client offers (in its order; not called when it offers
 * none). What the client did not offer is not agreed (RFC 6455 §4.2.2 item 5).
 *
 * @since 0.1.0
 * @category models
 */
export type SubprotocolChoice = TakeOver.SubprotocolChoice

/**
 * What of a handler's failures `onError` is asked about: all but the end of the connection and messages that do not fit a contract,
 * which have close frames already.
 *
 * @since 0.1.0
 * @category models
 */
export type HandlerError<E> = Exclude<E, Connection.Failure | MessageError>

/**
 * Options of a route; the limits, heartbeat and deadlines of {@link Connection.Options} included.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<P, U, H, AE, E, RS> extends Connection.Options {
  /** Decodes the path parameters; a mismatch is answered with 400. Default: strings, typed by the path's literal. */
  readonly path?: Schema.Schema<P, any, RS> | undefined
  /** Decodes the query; a mismatch is answered with 400. Default: strings and arrays of strings. */
  readonly urlParams?: Schema.Schema<U, any, RS> | undefined
  /** Decodes the headers (lower-case names); a mismatch is answered with 400. Default: all headers. */
  readonly headers?: Schema.Schema<H, any, RS> | undefined
  /**
   * Supported subprotocols, best first; the first that the client offers too is agreed. Or a function that chooses one of those offered.
   * Default: none.
   */
  readonly subprotocols?: SubprotocolChoice | undefined
  /**
   * Extensions that the route agrees to when a client offers them, in the order in which they transform what is sent; see
   * `Engine.Extension`, and `PermessageDeflate` of `@effect-ws/node`. Default: none. RFC 6455 §9.
   */
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  /** Which pages may connect; others get 403. Default `"same"`. RFC 6455 §10.2. */
  readonly origins?: OriginPolicy | undefined
  /**
   * Versions of the protocol besides 13 that are spoken here, chosen by the request's headers: `"8"`, `"hixie-76"`, `"hixie-75"`.
   * Default: those of the server, which are none unless it says so.
   */
  readonly drafts?: ReadonlyArray<Connection.Draft> | undefined
  /** Headers that every 101 of this route carries; see {@link accept} for such of one request. */
  readonly responseHeaders?: Headers.Input | undefined
  /**
   * Runs before the 101: gives what the handler gets as `accepted` (or an {@link Accept}), fails as any HTTP handler does, or
   * gives an ordinary response, which is sent instead of the 101. `AE` is the Effect that it returns, or a union of such.
   */
  readonly accept?: ((request: RouteRequest<P, U, H>) => AE) | undefined
  /**
   * The close frame for a failure of the handler that is not the connection's own. Default: 1011 without a reason; the failure is
   * logged, never sent. TypeScript infers a handler with parameters after the options: then `error` needs its type.
   */
  readonly onError?:
    | ((error: HandlerError<E>) => { readonly code: number; readonly reason?: string } | undefined)
    | undefined
  /**
   * How long the handler may go on after the connection is gone and its messages are taken; then it is interrupted. Default
   * 10 seconds.
   */
  readonly handlerTimeout?: Duration.DurationInput | undefined
}

/**
 * A WebSocket route as a Layer for `HttpLayerRouter`.
 *
 * The handler runs once per connection with its services (`R` becomes a request-level requirement, as with
 * `HttpLayerRouter.add`); when it ends, the connection closes: 1000 after success, 1001 after interruption (shutdown), 1011 after a
 * failure or defect. When the Layer is released, all its connections are closed with 1001.
 *
 * @example
 * import { WebSocketRoute } from "@effect-ws/core"
 * import { Stream } from "effect"
 *
 * const Echo = WebSocketRoute.layer("/echo", {}, (socket) => Stream.run(socket.messages, socket.sink))
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <
  const Path extends HttpLayerRouter.PathInput,
  E,
  R,
  P = PathParams<Path>,
  U = UrlParams,
  H = Headers.Headers,
  AE extends AnyEffect = Effect.Effect<void>,
  RS = never
>(
  path: Path,
  options: Options<P, U, H, AE, E, RS>,
  handler: (
    socket: Connection.Connection,
    request: Accepted<P, U, H, AcceptedValue<Effect.Effect.Success<AE>>>
  ) => Effect.Effect<unknown, E, R>
): Layer.Layer<
  never,
  never,
  | HttpLayerRouter.HttpRouter
  | HttpLayerRouter.Request.From<"Requires", Exclude<R | Effect.Effect.Context<AE> | RS, HttpLayerRouter.Provided>>
  | HttpLayerRouter.Request.From<"Error", Effect.Effect.Error<AE> | ParseResult.ParseError>
> => serve(path, () => new Route(options, { run: handler }))

const serve = (path: HttpLayerRouter.PathInput, makeRoute: () => Route): Layer.Layer<never, never, any> =>
  HttpLayerRouter.use((router) => {
    const route = makeRoute()
    return Effect.zipRight(
      Effect.addFinalizer(() => route.shutdown),
      router.add("GET", path, route.respond)
    )
  }) as Layer.Layer<never, never, any>

/**
 * {@link layer} for handlers that look at one message after the other, without a Stream's cost per wake-up and with the least memory per
 * connection: there is no fiber as long as `handler` gives nothing, for what it did at once, or a `send` for which there is room. The first other
 * Effect starts one, in which it and all messages behind it run, one after the other. What `handler` throws is a defect, as anywhere.
 *
 * @since 0.1.0
 * @category layers
 */
export const each = <
  const Path extends HttpLayerRouter.PathInput,
  E = never,
  R = never,
  P = PathParams<Path>,
  U = UrlParams,
  H = Headers.Headers,
  AE extends AnyEffect = Effect.Effect<void>,
  RS = never
>(
  path: Path,
  options: Options<P, U, H, AE, E, RS>,
  handler: (
    message: Message,
    socket: Connection.Connection,
    request: Accepted<P, U, H, AcceptedValue<Effect.Effect.Success<AE>>>
  ) => Effect.Effect<unknown, E, R> | void
): Layer.Layer<never, never, RouteRequirements<R | Effect.Effect.Context<AE> | RS, Effect.Effect.Error<AE>>> =>
  serve(path, () => new Route(options, { each: handler as EachHandler }))

/**
 * The handler of a WebSocket route, for whatever takes an HTTP handler: `HttpRouter.get`, an endpoint of `HttpApi`
 * (`handleRaw`), a route of `HttpLayerRouter`. Make it once, not per request.
 *
 * Its connections end when the server shuts down, not with a Layer; path parameters without a schema are strings.
 *
 * @since 0.1.0
 * @category constructors
 */
export const upgrade = <
  E,
  R,
  P = Readonly<Record<string, string | undefined>>,
  U = UrlParams,
  H = Headers.Headers,
  AE extends AnyEffect = Effect.Effect<void>,
  RS = never
>(
  options: Options<P, U, H, AE, E, RS>,
  handler: (
    socket: Connection.Connection,
    request: Accepted<P, U, H, AcceptedValue<Effect.Effect.Success<AE>>>
  ) => Effect.Effect<unknown, E, R>
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Effect.Effect.Error<AE> | ParseResult.ParseError,
  R | Effect.Effect.Context<AE> | RS | HttpServerRequest.HttpServerRequest | Scope.Scope
> => new Route(options, { run: handler }).respond as Effect.Effect<HttpServerResponse.HttpServerResponse, any, any>

// ---- without a connection ----------------------------------------------------------------------------------------------

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
  readonly origins?: OriginPolicy | undefined
  /** `["8"]` accepts version 8 too, whose frames are the same. Default: none. */
  readonly drafts?: ReadonlyArray<"8"> | undefined
  /** More headers of the 101; the handshake's own are a defect. */
  readonly responseHeaders?: Readonly<Record<string, string>> | undefined
}

/**
 * What is left of a request after the 101: the bytes both ways.
 *
 * @since 0.1.0
 * @category models
 */
export interface Detached {
  /** Unread bytes included. It is cut when the Scope closes. */
  readonly transport: Transport
  readonly subprotocol: string | undefined
  readonly version: "13" | "8"
}

/**
 * Accepts the opening handshake of the current request and gives the bytes away: frames are the caller's to read and write, or
 * to pass on as they are (`Transport.join`). The 101 is sent at once, so middleware that changes responses does not reach it, and
 * what the handler responds afterwards is ignored.
 *
 * Fails with the response for a request that can't be accepted, which the router sends. No extension is agreed.
 *
 * @example
 * import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
 * import { Connection, WebSocketRoute } from "@effect-ws/core"
 * import { Effect } from "effect"
 *
 * const Raw = HttpLayerRouter.add("GET", "/raw", Effect.gen(function*() {
 *   const { transport } = yield* WebSocketRoute.detach()
 *   const socket = yield* Connection.make(transport, { role: "server" })
 *   yield* socket.runForEach(socket.send)
 *   return HttpServerResponse.empty()
 * }))
 *
 * @since 0.1.0
 * @category constructors
 */
export const detach = (
  options: DetachOptions = {}
): Effect.Effect<Detached, HttpServerResponse.HttpServerResponse, HttpServerRequest.HttpServerRequest | Scope.Scope> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    Effect.map(
      Effect.acquireRelease(TakeOver.takeOver(request, request, { ...options, extensions: [] }), ({ transport }) =>
        Effect.sync(() => transport.abort())
      ),
      ({ opened, subprotocol, transport }) => ({ transport, subprotocol, version: opened.version as "13" | "8" })
    )
  )

// ---- contracts ---------------------------------------------------------------------------------------------------------

/**
 * What a server adds to a contract.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerOptions<P, U, H, In, Out, AE>
  extends Omit<Options<P, U, H, AE, never, never>, "path" | "urlParams" | "headers" | "subprotocols" | "onError"> {
  /** What happens when a message of the client does not fit. Default: the connection closes. */
  readonly onInvalid?: WebSocketContract.OnInvalid<In, Out> | undefined
}

/**
 * What handles a connection of a contract's route.
 *
 * @since 0.1.0
 * @category models
 */
export type Handler<P, U, H, In, Out, A, E, R> = (
  socket: WebSocketContract.TypedConnection<In, Out>,
  request: Accepted<P, U, H, A>
) => Effect.Effect<unknown, E, R>

/**
 * A contract with what its server needs: `toLayer` serves it, clients connect by it.
 *
 * @since 0.1.0
 * @category models
 */
export interface WebSocketRoute<P, U, H, In, Out, R, A, EA, RA>
  extends WebSocketContract.WebSocketContract<P, U, H, In, Out, R> {
  /** A handler as it is, with its types: for the Effect that `toLayer` takes. */
  readonly of: <E, RX>(handler: Handler<P, U, H, In, Out, A, E, RX>) => Handler<P, U, H, In, Out, A, E, RX>
  /**
   * The route as a Layer, like {@link layer}. The services of a handler are required per request; an Effect that gives the
   * handler runs once, when the Layer is built, and its services are the Layer's.
   */
  readonly toLayer: <E, RX, EX = never, RB = never, RR = never>(
    handler: Handler<P, U, H, In, Out, A, E, RX> | Effect.Effect<Handler<P, U, H, In, Out, A, E, RX>, EX, RB>,
    options?: LayerOptions<P, U, H, A, E, RR>
  ) => Layer.Layer<never, EX, Exclude<RB, Scope.Scope> | RR | RouteRequirements<RX | RA | R, EA>>
  /**
   * The route for `handleRaw` of an `HttpApi` endpoint that `WebSocketApi.endpoint` made of this contract. The endpoint has decoded the
   * request; what `accept` fails with must be among the endpoint's errors. Make it once, not per request.
   *
   * Its connections end when the server shuts down.
   */
  readonly toHandler: <E, RX>(
    handler: Handler<P, U, H, In, Out, A, E, RX>,
    options?: HandlerOptions<E>
  ) => (
    request: DecodedRequest<P, U, H>
  ) => Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    EA,
    RX | RA | R | HttpServerRequest.HttpServerRequest | Scope.Scope
  >
}

/**
 * The options that depend on a handler's failures.
 *
 * @since 0.1.0
 * @category models
 */
export interface HandlerOptions<E> extends Pick<Options<never, never, never, never, E, never>, "onError"> {}

/**
 * Options of a contract's Layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions<P, U, H, A, E, RR> extends HandlerOptions<E> {
  /**
   * Lets connections continue after a drop: the handler sees one, over as many as its client makes. The client must have it too; others
   * are closed with 1002, or with 1008 if they say nothing. The request that a handler gets, and its Scope, are those of the
   * first connection.
   */
  readonly resume?: Resume<RR> | undefined
  /**
   * Whose session it is: another owner's is not continued. `accept` is asked for each connection, but a session goes on with
   * what it gave for the first, so say here who the user is. A session belongs to its path anyway.
   */
  readonly sessionOwner?: ((request: Accepted<P, U, H, A>) => string) | undefined
}

/**
 * What an endpoint of `HttpApi` has decoded.
 *
 * @since 0.1.0
 * @category models
 */
export interface DecodedRequest<P, U, H> {
  readonly path: P
  readonly urlParams: U
  readonly headers: H
}

/**
 * What a route's Layer requires: a router, and per request what its handler, `accept` and schemas do.
 *
 * @since 0.1.0
 * @category models
 */
export type RouteRequirements<R, EA> =
  | HttpLayerRouter.HttpRouter
  | HttpLayerRouter.Request.From<"Requires", Exclude<R, HttpLayerRouter.Provided>>
  | HttpLayerRouter.Request.From<"Error", EA | ParseResult.ParseError>

/**
 * A route with a contract: what both ends agree on ({@link WebSocketContract.Options}) and what only the server needs
 * ({@link ServerOptions}). A page that imports the value bundles the server's part too; for pages make the contract with
 * `WebSocketContract.make` and serve it with {@link implement}.
 *
 * @example
 * import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
 * import { Effect, Schema } from "effect"
 *
 * const Greeter = WebSocketRoute.make("/greet/:language", {
 *   path: Schema.Struct({ language: Schema.Literal("en", "de") }),
 *   incoming: Schema.Struct({ name: Schema.NonEmptyString }),
 *   outgoing: Schema.Struct({ greeting: Schema.String })
 * })
 *
 * const server = Greeter.toLayer((socket, { path }) =>
 *   socket.runForEach(({ name }) => socket.send({ greeting: `${path.language === "de" ? "Hallo" : "Hello"} ${name}` }))
 * )
 *
 * const client = Effect.gen(function*() {
 *   const socket = yield* WebSocketClient.connect(Greeter, { baseUrl: "ws://localhost:8080", path: { language: "de" } })
 *   yield* socket.send({ name: "Ada" })
 *   return yield* socket.take
 * }).pipe(Effect.scoped)
 *
 * @since 0.1.0
 * @category contracts
 */
export const make = <
  const Path extends `/${string}`,
  P = PathParams<Path>,
  PI extends WebSocketContract.EncodedPath = WebSocketContract.EncodedPath,
  RP = never,
  U = UrlParams,
  UI extends WebSocketContract.EncodedUrlParams = WebSocketContract.EncodedUrlParams,
  RU = never,
  H = Headers.Headers,
  HI extends WebSocketContract.EncodedHeaders = WebSocketContract.EncodedHeaders,
  RH = never,
  In = Message,
  InI = never,
  RIn = never,
  Out = Message,
  OutI = never,
  ROut = never,
  AE extends AnyEffect = Effect.Effect<void>
>(
  path: Path,
  options: WebSocketContract.Options<P, PI, RP, U, UI, RU, H, HI, RH, In, InI, RIn, Out, OutI, ROut> &
    ServerOptions<P, U, H, In, Out, AE> = {}
): Implemented<P, U, H, In, Out, RP | RU | RH | RIn | ROut, AE> =>
  implement(
    WebSocketContract.make<Path, P, PI, RP, U, UI, RU, H, HI, RH, In, InI, RIn, Out, OutI, ROut>(path, options),
    options
  )

/**
 * The server's part of a contract that was made without one.
 *
 * @since 0.1.0
 * @category contracts
 */
export const implement = <P, U, H, In, Out, R, AE extends AnyEffect = Effect.Effect<void>>(
  contract: WebSocketContract.WebSocketContract<P, U, H, In, Out, R>,
  options: ServerOptions<P, U, H, In, Out, AE> = {}
): Implemented<P, U, H, In, Out, R, AE> => {
  type A = AcceptedValue<Effect.Effect.Success<AE>>
  type AnyTyped = Handler<P, U, H, In, Out, A, any, any>
  const { accept, onInvalid } = options
  type Extra = LayerOptions<P, U, H, A, any, any>
  type PlainHandler = (socket: Connection.Connection, request: Accepted<P, U, H, A>) => Effect.Effect<unknown, any, any>
  const plain = (handler: PlainHandler, extra?: Extra) =>
    layer(
      contract.path,
      {
        ...options,
        path: contract.pathSchema,
        urlParams: contract.urlParamsSchema,
        headers: contract.headersSchema,
        subprotocols: contract.subprotocols,
        onError: extra?.onError
      },
      handler
    )
  const serve = (handler: AnyTyped, extra?: Extra): Layer.Layer<never, any, any> => {
    const typed: PlainHandler = (socket, request) =>
      Effect.flatMap(contract.server(socket, onInvalid), (typed) => handler(typed, request))
    if (extra?.resume === undefined) return plain(typed, extra)
    const { resume, sessionOwner } = extra
    return Layer.unwrapScoped(
      Effect.map(resume.server(options), (sessions) =>
        plain((socket, request) => {
          const place = request.request.originalUrl.replace(/[?#].*$/s, "")
          const binding = JSON.stringify([contract.path, place, sessionOwner?.(request) ?? ""])
          return sessions.serve(socket, binding, (connection) => typed(connection, request))
        }, extra)
      )
    )
  }
  const toHandler = (handler: AnyTyped, extra?: HandlerOptions<any>) => {
    const all: AnyOptions = {
      ...options,
      // Decoded by the endpoint; `make` passes the contract's own options too
      path: undefined,
      urlParams: undefined,
      headers: undefined,
      subprotocols: contract.subprotocols,
      onError: extra?.onError,
      accept: accept && ((subject) => Effect.flatMap(Decoded, (decoded) => accept({ ...subject, ...decoded })))
    }
    const respond = upgrade(all, (socket, request: Accepted<any, any, any, A>) =>
      Effect.flatMap(Decoded, (decoded) =>
        Effect.flatMap(contract.server(socket, onInvalid), (typed) => handler(typed, { ...request, ...decoded }))
      )
    )
    return ({ headers, path, urlParams }: DecodedRequest<P, U, H>) =>
      Effect.provideService(respond, Decoded, { path, urlParams, headers })
  }
  return {
    ...contract,
    of: (handler) => handler,
    toLayer: (
      handler: AnyTyped | Effect.Effect<AnyTyped, any, any>,
      extra?: HandlerOptions<any>
    ): Layer.Layer<never, any, any> =>
      Effect.isEffect(handler)
        ? Layer.unwrapScoped(Effect.map(handler, (handler) => serve(handler, extra)))
        : serve(handler, extra),
    toHandler: toHandler as Implemented<P, U, H, In, Out, R, AE>["toHandler"]
  }
}

type AnyEffect = Effect.Effect<any, any, any>

type Implemented<P, U, H, In, Out, R, AE extends AnyEffect> = WebSocketRoute<
  P,
  U,
  H,
  In,
  Out,
  R,
  AcceptedValue<Effect.Effect.Success<AE>>,
  Effect.Effect.Error<AE>,
  Effect.Effect.Context<AE>
>

/** What the endpoint has decoded, for the one Effect that answers all its requests. */
const Decoded = Context.GenericTag<DecodedRequest<any, any, any>>("@effect-ws/core/WebSocketRoute/Decoded")

// ---------------------------------------------------------------------------------------------------------------------------

type AnyOptions = Options<any, any, any, any, any, any>
type AnyHandler = (
  socket: Connection.Connection,
  request: Accepted<any, any, any, any>
) => Effect.Effect<unknown, any, any>
type EachHandler = (
  message: Message,
  socket: Connection.Connection,
  request: Accepted<any, any, any, any>
) => Effect.Effect<unknown, any, any> | void
type Responding = Effect.Effect<HttpServerResponse.HttpServerResponse, any, any>

const switching = { upgrade: "websocket", connection: "Upgrade" }

/** Everything about a route that its requests share. */
class Route {
  readonly connections = new ConnectionSet()
  readonly handlerTimeoutMillis: number
  readonly each: EachHandler | undefined
  private readonly plain: boolean
  /**
   * The 101 as middleware and spans see it, when a request adds nothing. One for all, since what the handshake says is written anew in the end:
   * a response per request, accept key included, costs 5 % of an opening handshake.
   */
  private readonly plainResponse: HttpServerResponse.HttpServerResponse
  private readonly extensions: ReadonlyArray<Extension.Extension>
  private settings: Connection.Settings | undefined
  private settingsFor: Connection.PlatformOptions | undefined
  private drainTimeoutMillis = 0

  constructor(
    private readonly options: AnyOptions,
    private readonly handler: { readonly run: AnyHandler } | { readonly each: EachHandler }
  ) {
    this.each = "each" in handler ? handler.each : undefined
    this.handlerTimeoutMillis = Duration.toMillis(options.handlerTimeout ?? "10 seconds")
    this.plainResponse = HttpServerResponse.empty({
      status: 101,
      headers: { ...Headers.fromInput(options.responseHeaders), ...switching }
    })
    this.extensions = options.extensions ?? []
    const misuse = Extension.misuse(this.extensions)
    if (misuse !== undefined) throw new TypeError(`a WebSocket route can't have these extensions: ${misuse}`)
    const { accept, headers, path, urlParams } = options
    this.plain = accept === undefined && headers === undefined && path === undefined && urlParams === undefined
  }

  get onError(): AnyOptions["onError"] {
    return this.options.onError
  }

  readonly shutdown = Effect.suspend(() => this.connections.shutdown(this.drainTimeoutMillis))

  /** Answers a request: an error, what `accept` says, or the 101 that becomes a connection when it is sent. */
  readonly respond: Responding = Effect.withFiberRuntime((fiber) => {
    const context = fiber.currentContext
    const request = Context.unsafeGet(context, HttpServerRequest.HttpServerRequest)
    const upgrade = Upgrade.find(request)
    const check = ServerHandshake.checkRequest({
      method: request.method,
      httpVersion: (request.source as { readonly httpVersion?: string }).httpVersion,
      headers: request.headers,
      drafts: this.options.drafts ?? upgrade?.server.drafts
    })
    if (check._tag === "Rejected") return reject(check.status, check.body, check.headers)
    if (upgrade === undefined) return cannotUpgrade
    if (upgrade.server.connections.draining || this.connections.draining) {
      return reject(503, "The server is shutting down.", { "retry-after": "1" })
    }
    const foreign = ServerHandshake.checkOrigin(check, request.headers.host, this.options.origins)
    if (foreign !== undefined) return reject(foreign.status, foreign.body)
    if (!this.plain) return Effect.interruptible(this.decide(request, context, check, upgrade))
    return this.agree(fiber, check, upgrade, {
      request,
      path: routeParams(context),
      urlParams: searchParams(context, request),
      headers: request.headers,
      offeredSubprotocols: check.subprotocols
    })
  })

  /** Decodes, and asks `accept`. */
  private decide(
    request: HttpServerRequest.HttpServerRequest,
    context: Context.Context<never>,
    check: ServerHandshake.AcceptedRequest,
    upgrade: Upgrade.UpgradeRequest
  ): Responding {
    const { options } = this
    upgrade.deciding?.()
    const decoded = Effect.all([
      decode(options.path, routeParams(context)),
      decode(options.urlParams, searchParams(context, request)),
      decode(options.headers, request.headers)
    ])
    return Effect.flatMap(decoded, ([path, urlParams, headers]) => {
      const subject = { request, path, urlParams, headers, offeredSubprotocols: check.subprotocols }
      if (options.accept === undefined) {
        return Effect.withFiberRuntime((fiber) => this.agree(fiber, check, upgrade, subject))
      }
      return Effect.flatMap(options.accept(subject), (answer) =>
        HttpServerResponse.isServerResponse(answer)
          ? Effect.succeed(answer)
          : Effect.withFiberRuntime((fiber) => this.agree(fiber, check, upgrade, subject, answer))
      )
    })
  }

  /** The 101 of a request that adds something. */
  private responseWith(
    extras: Accept<unknown> | undefined,
    subprotocol: string | undefined,
    extensions: ReadonlyArray<Extension.Agreed>
  ): HttpServerResponse.HttpServerResponse {
    const headers = {
      ...this.plainResponse.headers,
      ...Headers.fromInput(extras?.headers),
      ...switching,
      "sec-websocket-protocol": subprotocol,
      "sec-websocket-extensions": extensions.length === 0 ? undefined : formatExtensions(extensions)
    }
    return HttpServerResponse.empty({ status: 101, headers, cookies: extras?.cookies })
  }

  /** The 101, and what happens when it is sent. */
  private agree(
    fiber: Fiber.RuntimeFiber<any, any>,
    check: ServerHandshake.AcceptedRequest,
    upgrade: Upgrade.UpgradeRequest,
    subject: RouteRequest<any, any, any>,
    answer?: unknown
  ): Responding {
    const extras = answer instanceof Accept ? (answer as Accept<unknown>) : undefined
    const chosen = extras?.subprotocol
    const subprotocol =
      chosen === undefined
        ? TakeOver.chooseSubprotocol(check.subprotocols, this.options.subprotocols, subject.request)
        : check.subprotocols.includes(chosen)
          ? chosen
          : undefined
    const extensions = Extension.negotiate(this.extensions, check.extensions)
    const response =
      extras === undefined && subprotocol === undefined && extensions.length === 0
        ? this.plainResponse
        : this.responseWith(extras, subprotocol, extensions)
    const accepted: Accepted<any, any, any, any> = {
      ...subject,
      accepted: extras === undefined ? answer : extras.value,
      subprotocol
    }
    const context = fiber.currentContext
    const refs = fiber.getFiberRefs()
    return Effect.as(
      HttpApp.appendPreResponseHandler((outer, final) =>
        // A middleware may have replaced the 101 by an ordinary response.
        final.status === 101
          ? this.begin(upgrade, outer, final, check, accepted, extensions, context, refs)
          : Effect.succeed(final)
      ),
      response
    )
  }

  private begin(
    upgrade: Upgrade.UpgradeRequest,
    request: HttpServerRequest.HttpServerRequest,
    response: HttpServerResponse.HttpServerResponse,
    check: ServerHandshake.AcceptedRequest,
    accepted: Accepted<any, any, any, any>,
    extensions: ReadonlyArray<Extension.Agreed>,
    context: Context.Context<never>,
    refs: FiberRefs.FiberRefs
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, HttpServerError.ResponseError> {
    return Effect.clockWith((clock) => {
      const { request: inner, subprotocol } = accepted
      const agreement = { subprotocol, extensions, target: inner.originalUrl, secure: upgrade.secure }
      const head = ServerHandshake.formatAccept(check, agreement, responseEntries(response))
      if (typeof head !== "string") {
        return Effect.fail(
          new HttpServerError.ResponseError({
            request,
            response,
            reason: "Decode",
            description: `a header of the 101 response can't be sent: ${head.field}: ${head.message}`
          })
        )
      }
      const transport = upgrade.take(request, inner, head)
      if (transport === undefined) return Effect.succeed(response)
      const { server } = upgrade
      this.drainTimeoutMillis = server.drainTimeoutMillis
      const scope = Context.unsafeGet(context as Context.Context<any>, Scope.Scope) as Scope.CloseableScope
      HttpApp.ejectDefaultScopeClose(scope)
      const runtime = Runtime.make({
        context: withoutSpanAttributes(context),
        fiberRefs: ownRefs(refs),
        runtimeFlags: Runtime.defaultRuntimeFlags
      })
      const connection = Connection.unsafeStart(
        transport,
        this.settingsOf(server.platform),
        subprotocol,
        clock,
        extensions,
        check
      )
      const handling = new Handling(connection, runtime, clock, server, accepted, scope, this)
      const { handler } = this
      if ("run" in handler) handling.start(() => handler.run(connection, accepted))
      else handling.startEach()
      return Effect.succeed(response)
    })
  }

  private settingsOf(platform: Connection.PlatformOptions): Connection.Settings {
    if (this.settings === undefined || this.settingsFor !== platform) {
      this.settings = Connection.settings(this.options, platform)
      this.settingsFor = platform
    }
    return this.settings
  }
}

/** One accepted connection of a route. */
class Handling extends Handled {
  private routePlace: Place | undefined

  constructor(
    connection: Connection.Connection,
    runtime: Runtime.Runtime<never>,
    clock: Clock.Clock,
    server: Upgrade.UpgradeServer,
    private readonly accepted: Accepted<any, any, any, any>,
    private readonly scope: Scope.CloseableScope,
    private readonly route: Route
  ) {
    super(connection, runtime, clock, server)
  }

  protected get handlerTimeoutMillis(): number {
    return this.route.handlerTimeoutMillis
  }

  protected get subject(): string {
    return "a WebSocket route"
  }

  onMessage(message: Message): Effect.Effect<unknown, any, any> | void {
    return this.route.each!(message, this.connection, this.accepted)
  }

  protected override enterSets(): void {
    this.routePlace = this.route.connections.add(this)
    super.enterSets()
  }

  protected override leaveSets(): void {
    this.route.connections.delete(this.routePlace!)
    super.leaveSets()
  }

  /** The request's Scope, the last that is left. */
  protected override closeLast(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    return closeScope(this.scope, exit)
  }

  protected override closeFrame(error: unknown): CloseFrame | undefined {
    return this.route.onError?.(error)
  }
}

const reject = (status: number, body: string, headers: Readonly<Record<string, string>> = {}): Responding =>
  Effect.zipRight(
    Effect.logDebug(`WebSocket request rejected with ${status}: ${body}`),
    HttpServerResponse.text(`${body}\n`, { status, headers: { ...headers, "cache-control": "no-store" } })
  )

const cannotUpgrade: Responding = Effect.zipRight(
  Effect.logError(
    "a WebSocket route was reached, but its server can't upgrade: use NodeWebSocketServer.layer of @effect-ws/node instead of " +
      "NodeHttpServer.layer (or wrap createServer with NodeWebSocketServer.attach)"
  ),
  HttpServerResponse.text("This server is not set up for WebSockets.\n", { status: 500 })
)

const routeParams = (context: Context.Context<never>): Readonly<Record<string, string | undefined>> =>
  (context.unsafeMap.get(HttpRouter.RouteContext.key) as HttpRouter.RouteContext | undefined)?.params ?? {}

const searchParams = (context: Context.Context<never>, request: HttpServerRequest.HttpServerRequest): UrlParams =>
  (context.unsafeMap.get(HttpServerRequest.ParsedSearchParams.key) as UrlParams | undefined) ??
  HttpServerRequest.searchParamsFromURL(new URL(request.originalUrl, "ws://localhost"))

const decode = (schema: Schema.Schema<any, any, any> | undefined, value: unknown): Effect.Effect<any, any, any> =>
  schema === undefined ? Effect.succeed(value) : Schema.decodeUnknown(schema)(value)

const responseEntries = (response: HttpServerResponse.HttpServerResponse): ReadonlyArray<Handshake.HeaderEntry> => {
  const entries: Array<Handshake.HeaderEntry> = []
  for (const name in response.headers) {
    const value = response.headers[name]
    // A 101 has no body (RFC 9110 §8.6), and the handshake's own headers are not for others to set.
    if (value !== undefined && name !== "content-type" && !Handshake.isReserved(name)) entries.push([name, value])
  }
  if (!Cookies.isEmpty(response.cookies)) {
    for (const cookie of Cookies.toSetCookieHeaders(response.cookies)) entries.push(["set-cookie", cookie])
  }
  return entries
}

/** The request's span has ended; what the connection keeps of it is its identity, not its attributes. */
const withoutSpanAttributes = (context: Context.Context<never>): Context.Context<never> => {
  const span = context.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined
  // A span that makes them when it is asked for keeps none, and has no need of a copy of the context.
  return span?._tag === "Span" && !(span instanceof RequestSpan)
    ? Context.add(
        context,
        Tracer.ParentSpan,
        Tracer.externalSpan({ traceId: span.traceId, spanId: span.spanId, sampled: span.sampled })
      )
    : context
}

/**
 * What the handler's fiber starts with: what middleware has set, without the history that only fibers need which join, and
 * without what belongs to the response. (The request's own collection would keep 4 KB alive per connection.)
 */
const ownRefs = (refs: FiberRefs.FiberRefs): FiberRefs.FiberRefs => {
  const own: Parameters<typeof FiberRefs.unsafeMake>[0] = new Map()
  refs.locals.forEach((stack, ref) => {
    if (ref === FiberRef.currentContext || ref === FiberRef.interruptedCause || ref === preResponseHandlers) return
    if (stack[0][1] !== (ref as { readonly initial?: unknown }).initial)
      own.set(ref, stack.length === 1 ? stack : [stack[0]])
  })
  return FiberRefs.unsafeMake(own)
}

const preResponseHandlers: FiberRef.FiberRef<any> = HttpApp.currentPreResponseHandlers
