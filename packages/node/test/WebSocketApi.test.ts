/** Contracts as endpoints of HttpApi, over sockets: security before the 101, one decoding, the document and its page. */
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiScalar,
  HttpApiSchema,
  HttpApiSecurity,
  HttpApiSwagger,
  HttpLayerRouter,
  HttpServer
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { WebSocketApi, WebSocketClient, WebSocketContract, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Context, Data, Effect, Layer, Redacted, Schema } from "effect"
import { connect, handshake, type Routes, sampleAccept, serve } from "./support.js"

class CurrentUser extends Context.Tag("CurrentUser")<CurrentUser, { readonly name: string }>() {}
class Visits extends Context.Tag("Visits")<Visits, { decoded: number }>() {}
class Tired extends Data.TaggedError("Tired") {}
class Full extends Schema.TaggedError<Full>()(
  "Full",
  { room: Schema.Number },
  HttpApiSchema.annotations({ status: 409 })
) {}

class Login extends HttpApiMiddleware.Tag<Login>()("Login", {
  failure: HttpApiError.Unauthorized,
  provides: CurrentUser,
  security: { bearer: HttpApiSecurity.bearer }
}) {}

/** A number, and how often it was decoded. */
const Counted = Schema.transformOrFail(Schema.NumberFromString, Schema.Number, {
  strict: true,
  decode: (room) =>
    Effect.map(Visits, (visits) => {
      visits.decoded++
      return room
    }),
  encode: (room) => Effect.succeed(room)
})

const Chat = WebSocketRoute.make("/chat/:room", {
  path: Schema.Struct({ room: Counted }),
  urlParams: Schema.Struct({ loud: Schema.optional(Schema.BooleanFromString) }),
  incoming: Schema.Struct({ say: Schema.NonEmptyString }),
  outgoing: Schema.Struct({ said: Schema.String, at: Schema.Date }),
  subprotocols: ["chat.v1"],
  maxMessageBytes: 100,
  accept: ({ path }) =>
    path.room > 9
      ? Effect.fail(new Full({ room: path.room }))
      : Effect.map(CurrentUser, ({ name }) =>
          WebSocketRoute.accept({ name }, { headers: { "x-room": `${path.room}` } })
        )
})

// Made without its server, without schemas
const Plain = WebSocketContract.make("/plain/:name")
const PlainRoute = WebSocketRoute.implement(Plain)

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("live")
    .add(HttpApiEndpoint.get("version", "/version").addSuccess(Schema.String))
    .add(WebSocketApi.endpoint("chat", Chat).addError(Full).middleware(Login))
    .add(WebSocketApi.endpoint("plain", Plain))
    .prefix("/v1")
)

const at = new Date(0)

const Live = HttpApiBuilder.group(Api, "live", (handlers) =>
  handlers
    .handle("version", () => Effect.succeed("1.0"))
    .handleRaw(
      "chat",
      Chat.toHandler(
        (socket, { accepted, path, urlParams }) =>
          Effect.flatMap(CurrentUser, ({ name }) =>
            socket.runForEach(({ say }) =>
              Effect.gen(function* () {
                if (say === "tired") return yield* new Tired()
                const said = `${name}=${accepted.name} in ${path.room}: ${say}`
                yield* socket.send({ said: urlParams.loud === true ? said.toUpperCase() : said, at })
              })
            )
          ),
        { onError: (error) => ({ code: 4000, reason: error._tag }) }
      )
    )
    .handleRaw(
      "plain",
      PlainRoute.toHandler((socket, { headers, path, urlParams }) =>
        socket.send(JSON.stringify({ path, urlParams, host: typeof headers.host }))
      )
    )
)

const LoginLive = Layer.succeed(Login, {
  bearer: (token) =>
    Redacted.value(token) === "ada's" ? Effect.succeed({ name: "ada" }) : Effect.fail(new HttpApiError.Unauthorized())
})

const Handlers = Live.pipe(Layer.provide(LoginLive))
const authorization = "Bearer ada's"

/** By HttpApiBuilder.serve, with both pages of the document; gives the port. */
const served = (visits: { decoded: number }) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      HttpApiBuilder.serve().pipe(
        Layer.provide(HttpApiSwagger.layer({ path: "/swagger" })),
        Layer.provide(HttpApiScalar.layer({ path: "/scalar" })),
        Layer.provide(HttpApiBuilder.middlewareOpenApi({ path: "/openapi.json" })),
        Layer.provide(HttpApiBuilder.api(Api)),
        Layer.provide(Handlers),
        Layer.provide(Layer.succeed(Visits, visits)),
        Layer.provideMerge(NodeWebSocketServer.layerTest)
      )
    )
    const { address } = Context.get(context, HttpServer.HttpServer)
    return address._tag === "TcpAddress" ? address.port : 0
  })

const get = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url)
    return { status: response.status, body: await response.text() }
  })

describe("a contract in an HttpApi", () => {
  it.scopedLive("is open to who is allowed, by its types", () =>
    Effect.gen(function* () {
      const visits = { decoded: 0 }
      const port = yield* served(visits)
      const socket = yield* WebSocketClient.connect(Chat, {
        baseUrl: `ws://127.0.0.1:${port}/v1`,
        path: { room: 5 },
        urlParams: { loud: true },
        headers: { authorization }
      })
      assert.strictEqual(socket.subprotocol, "chat.v1")
      yield* socket.send({ say: "hello" })
      assert.deepStrictEqual(yield* socket.take, { said: "ADA=ADA IN 5: HELLO", at })
      assert.strictEqual(visits.decoded, 1, "by the endpoint, and not by the route again")
      yield* socket.send({ say: "tired" })
      assert.deepInclude(yield* socket.closed, { code: 4000, reason: "Tired" })
    }).pipe(Effect.provide([NodeWebSocketClient.layer, Layer.succeed(Visits, { decoded: 0 })]))
  )

  it.scopedLive("without schemas", () =>
    Effect.gen(function* () {
      const port = yield* served({ decoded: 0 })
      const socket = yield* WebSocketClient.connect(Plain, {
        baseUrl: `ws://127.0.0.1:${port}/v1`,
        path: { name: "x y" },
        urlParams: { one: "1", two: ["1", "2"] }
      })
      assert.deepStrictEqual(JSON.parse(String(yield* socket.take)), {
        path: { name: "x y" },
        urlParams: { one: "1", two: ["1", "2"] },
        host: "string"
      })
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  const refusals: ReadonlyArray<
    readonly [what: string, path: string, headers: Record<string, string | undefined>, status: number, body: RegExp]
  > = [
    ["no token: before the 101", "/v1/chat/5", {}, 401, /^$/],
    ["another token", "/v1/chat/5", { Authorization: "Bearer eve's" }, 401, /^$/],
    ["no token, and no handshake either", "/v1/chat/5", { Upgrade: undefined, Connection: undefined }, 401, /^$/],
    ["a path that does not fit", "/v1/chat/five", { Authorization: authorization }, 400, /HttpApiDecodeError/],
    ["a query that does not fit", "/v1/chat/5?loud=maybe", { Authorization: authorization }, 400, /HttpApiDecodeError/],
    ["a declared error of accept", "/v1/chat/10", { Authorization: authorization }, 409, /"room":10/],
    ["a foreign page", "/v1/chat/5", { Authorization: authorization, Origin: "https://a.b" }, 403, /^Pages of/],
    ["version 8", "/v1/plain/x", { "Sec-WebSocket-Version": "8" }, 426, /version 13/],
    ["no key", "/v1/plain/x", { "Sec-WebSocket-Key": undefined }, 400, /Sec-WebSocket-Key/],
    ["an ordinary request", "/v1/plain/x", { Upgrade: undefined, Connection: undefined }, 426, /WebSocket endpoint/]
  ]
  for (const [what, path, headers, status, body] of refusals) {
    it.scopedLive(`${status}: ${what}`, () =>
      Effect.gen(function* () {
        const client = yield* connect(yield* served({ decoded: 0 }))
        yield* client.write(handshake(path, headers))
        const answer = yield* client.answer
        assert.strictEqual(answer.status, status)
        assert.match(answer.body, body)
      })
    )
  }

  it.scopedLive("accept adds headers to the 101, and the contract's limits hold", () =>
    Effect.gen(function* () {
      const client = yield* connect(yield* served({ decoded: 0 }))
      const answer = yield* client.upgrade("/v1/chat/5", { Authorization: authorization })
      assert.strictEqual(answer.status, 101)
      assert.deepInclude(answer.headers, { "x-room": "5", "sec-websocket-accept": sampleAccept })
      yield* client.sendText(`{"say":"${"x".repeat(100)}"}`)
      assert.strictEqual((yield* client.closeFrame).code, 1009)
    })
  )

  it.scopedLive("stands in the document, whose pages are served beside it", () =>
    Effect.gen(function* () {
      const url = `http://127.0.0.1:${yield* served({ decoded: 0 })}`
      const { body, status } = yield* get(`${url}/openapi.json`)
      assert.strictEqual(status, 200)
      const operation = JSON.parse(body).paths["/v1/chat/{room}"].get
      assert.hasAllKeys(operation.responses, ["101", "400", "401", "403", "409", "426"])
      assert.deepStrictEqual(operation.security, [{ bearer: [] }])
      assert.strictEqual(
        operation["x-websocket"].incoming.schema.properties.say.$ref,
        "#/components/schemas/NonEmptyString"
      )
      for (const page of ["/swagger", "/scalar"]) {
        const { body, status } = yield* get(`${url}${page}`)
        assert.strictEqual(status, 200)
        assert.include(body, "x-websocket")
      }
      assert.deepStrictEqual(yield* get(`${url}/v1/version`), { status: 200, body: '"1.0"' })
    })
  )

  it.scopedLive("in an HttpLayerRouter", () =>
    Effect.gen(function* () {
      const routes = HttpLayerRouter.addHttpApi(Api).pipe(
        Layer.provide([Handlers, Layer.succeed(Visits, { decoded: 0 })]),
        Layer.provide(HttpServer.layerContext)
      )
      const { port } = yield* serve(routes as Layer.Layer<never, never, any> as Routes)
      const refused = yield* connect(port)
      assert.strictEqual((yield* refused.upgrade("/v1/chat/5")).status, 401)
      const client = yield* connect(port)
      assert.strictEqual((yield* client.upgrade("/v1/chat/5", { Authorization: authorization })).status, 101)
      yield* client.sendText('{"say":"hi"}')
      assert.strictEqual(yield* client.text, '{"said":"ada=ada in 5: hi","at":"1970-01-01T00:00:00.000Z"}')
      assert.strictEqual((yield* client.close()).code, 1000)
    })
  )
})
