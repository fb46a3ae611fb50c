/**
 * A contract as an endpoint of an HttpApi: behind its security, and in its OpenAPI document.
 */
import { createServer } from "node:http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  HttpApiSwagger,
  HttpServer,
  OpenApi
} from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketApi, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Console, Context, Effect, Layer, Redacted, Schema } from "effect"

// #region api
class Order extends Schema.TaggedClass<Order>("Order")("Order", { item: Schema.NonEmptyString }) {}
class Confirmed extends Schema.TaggedClass<Confirmed>("Confirmed")("Confirmed", { text: Schema.String }) {}

const Orders = WebSocketRoute.make("/orders/:shop", { incoming: Order, outgoing: Confirmed })

class CurrentUser extends Context.Tag("CurrentUser")<CurrentUser, { readonly name: string }>() {}

class Login extends HttpApiMiddleware.Tag<Login>()("Login", {
  failure: HttpApiError.Unauthorized,
  provides: CurrentUser,
  security: { bearer: HttpApiSecurity.bearer }
}) {}

const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("live").add(WebSocketApi.endpoint("orders", Orders).middleware(Login))
)

const Live = HttpApiBuilder.group(Api, "live", (handlers) =>
  handlers.handleRaw(
    "orders",
    Orders.toHandler((socket, { path }) =>
      Effect.flatMap(CurrentUser, ({ name }) =>
        socket.runForEach(({ item }) => socket.send(new Confirmed({ text: `${item} for ${name}, from ${path.shop}` })))
      )
    )
  )
)
// #endregion

const LoginLive = Layer.succeed(Login, {
  bearer: (token) =>
    Redacted.value(token) === "ada's" ? Effect.succeed({ name: "Ada" }) : Effect.fail(new HttpApiError.Unauthorized())
})

const Server = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiSwagger.layer({ path: "/docs" })),
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide(Live),
  Layer.provide(LoginLive),
  Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

HttpServer.addressFormattedWith((address) =>
  Effect.gen(function* () {
    const where = { baseUrl: address, path: { shop: "tea" } }
    const { status } = yield* Effect.flip(WebSocketClient.connect(Orders, where))
    yield* Console.log(`without a token: ${status}`)
    const socket = yield* WebSocketClient.connect(Orders, { ...where, headers: { authorization: "Bearer ada's" } })
    yield* socket.send(new Order({ item: "a pot" }))
    yield* Console.log((yield* socket.take).text)
    const operation = OpenApi.fromApi(Api).paths["/orders/{shop}"]?.get
    yield* Console.log(`documented: ${Object.keys(operation?.responses ?? {}).join(" ")}`)
    yield* Console.log(operation?.description)
  }).pipe(Effect.scoped)
).pipe(Effect.provide([Server, NodeWebSocketClient.layer]), NodeRuntime.runMain)
