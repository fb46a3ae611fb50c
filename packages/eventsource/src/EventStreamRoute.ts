/**
 * Routes that answer with event streams, as Layers beside the other routes of an `HttpLayerRouter`.
 *
 * @since 0.1.0
 */
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as EventStream from "./EventStream.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * What a handler is given.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  /** The last event ID of a client that comes back; `""` on its first connection. */
  readonly lastEventId: string
  /** Path and query. */
  readonly url: string
  /** The parameters of the path. */
  readonly params: Readonly<Record<string, string | undefined>>
  readonly request: HttpServerRequest.HttpServerRequest
}

/**
 * Answers a request with a stream.
 *
 * @since 0.1.0
 * @category models
 */
export type Handler<A, E, R> = (request: Request) => Stream.Stream<A, E, R>

/**
 * Options of a route, besides those of its responses.
 *
 * @since 0.1.0
 * @category models
 */
export interface Accept<EX = never, RX = never> {
  /**
   * Runs before the stream begins. It may fail, as any route, or answer an ordinary response: 401 for instance, or 204,
   * which tells an `EventSource` to stay away.
   */
  readonly accept?:
    | ((request: Request) => Effect.Effect<HttpServerResponse.HttpServerResponse | void, EX, RX>)
    | undefined
}

type RouteLayer<EX, R> = Layer.Layer<
  never,
  never,
  | HttpLayerRouter.HttpRouter
  | HttpLayerRouter.Request.From<"Requires", Exclude<R, HttpLayerRouter.Provided>>
  | HttpLayerRouter.Request.From<"Error", EX>
>

/**
 * Adds a GET route whose responses are event streams.
 *
 * The stream's services are those of the request. Its failure breaks the connection, so `E` is not an error of the route.
 * When the layer is released the streams are ended, so that the server need not wait for their clients; what arrives after
 * is answered with 503. See `EventStream.response` for the rest.
 *
 * @example
 * import { EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
 * import { Schedule, Stream } from "effect"
 *
 * const Ticks = EventStreamRoute.layer("/ticks", { retry: "2 seconds" }, ({ lastEventId }) =>
 *   Stream.iterate(Number(lastEventId) + 1, (n) => n + 1).pipe(
 *     Stream.schedule(Schedule.spaced("1 second")),
 *     Stream.map((n) => ServerSentEvent.make({ event: "tick", id: String(n), data: JSON.stringify({ n }) }))
 *   )
 * )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: {
  <A, E, R, RS, EX = never, RX = never>(
    path: HttpLayerRouter.PathInput,
    options: EventStream.TypedOptions<A, RS> & Accept<EX, RX>,
    handler: Handler<A, E, R>
  ): RouteLayer<EX, R | RS | RX>
  <E, R, EX = never, RX = never>(
    path: HttpLayerRouter.PathInput,
    options: EventStream.Options & Accept<EX, RX>,
    handler: Handler<ServerSentEvent.Outgoing, E, R>
  ): RouteLayer<EX, R | RX>
} = <E, R, EX, RX>(
  path: HttpLayerRouter.PathInput,
  options: EventStream.Options & Accept<EX, RX>,
  handler: Handler<ServerSentEvent.Outgoing, E, R>
): RouteLayer<EX, R | RX> => Layer.scopedDiscard(add(path, options, handler))

/**
 * The same with a handler that is made once, when the layer is built: its services are requirements of the layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEffect: {
  <A, E, R, RS, EX = never, RX = never, EB = never, RB = never>(
    path: HttpLayerRouter.PathInput,
    options: EventStream.TypedOptions<A, RS> & Accept<EX, RX>,
    handler: Effect.Effect<Handler<A, E, R>, EB, RB>
  ): Layer.Layer<never, EB, Layer.Layer.Context<RouteLayer<EX, R | RS | RX>> | Exclude<RB, Scope.Scope>>
  <E, R, EX = never, RX = never, EB = never, RB = never>(
    path: HttpLayerRouter.PathInput,
    options: EventStream.Options & Accept<EX, RX>,
    handler: Effect.Effect<Handler<ServerSentEvent.Outgoing, E, R>, EB, RB>
  ): Layer.Layer<never, EB, Layer.Layer.Context<RouteLayer<EX, R | RX>> | Exclude<RB, Scope.Scope>>
} = <E, R, EX, RX, EB, RB>(
  path: HttpLayerRouter.PathInput,
  options: EventStream.Options & Accept<EX, RX>,
  handler: Effect.Effect<Handler<ServerSentEvent.Outgoing, E, R>, EB, RB>
): Layer.Layer<never, EB, Layer.Layer.Context<RouteLayer<EX, R | RX>> | Exclude<RB, Scope.Scope>> =>
  Layer.scopedDiscard(Effect.flatMap(handler, (handler) => add(path, options, handler)))

const add = <E, R, EX, RX>(
  path: HttpLayerRouter.PathInput,
  options: EventStream.Options & Accept<EX, RX>,
  handler: Handler<ServerSentEvent.Outgoing, E, R>
) =>
  Effect.gen(function* () {
    const router = yield* HttpLayerRouter.HttpRouter
    const openStreams = yield* EventStream.makeOpenStreams
    const prepared = EventStream.prepare<ServerSentEvent.Outgoing, never>(options)
    yield* router.add(
      "GET",
      path,
      Effect.contextWithEffect(
        (context: Context.Context<HttpServerRequest.HttpServerRequest | HttpLayerRouter.RouteContext | R>) => {
          const request = Context.get(context, HttpServerRequest.HttpServerRequest)
          const given: Request = {
            lastEventId: EventStream.lastEventId(request),
            url: request.url,
            params: Context.get(context, HttpLayerRouter.RouteContext).params,
            request
          }
          const respond = () => EventStream.respond(handler(given), prepared, context, openStreams)
          return options.accept === undefined
            ? respond()
            : Effect.flatMap(options.accept(given), (answer) => (answer ? Effect.succeed(answer) : respond()))
        }
      )
    )
  })
