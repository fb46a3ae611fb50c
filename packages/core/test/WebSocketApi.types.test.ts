/** A contract's endpoint and its handler, by type: they fit each other, and nothing else fits. */
import {
  HttpApi,
  HttpApiBuilder,
  type HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  HttpServerResponse
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { WebSocketApi, type WebSocketContract, WebSocketRoute } from "@effect-ws/core"
import { Context, Data, Effect, type Layer, Schema } from "effect"

class Database extends Context.Tag("Database")<Database, { readonly name: string }>() {}
class Sessions extends Context.Tag("Sessions")<Sessions, { readonly count: number }>() {}
class Codec extends Context.Tag("Codec")<Codec, { readonly codec: true }>() {}
class CurrentUser extends Context.Tag("CurrentUser")<CurrentUser, { readonly name: string }>() {}
class Broken extends Data.TaggedError("Broken")<{ readonly code: number }> {}
class Full extends Schema.TaggedError<Full>()("Full", { room: Schema.Number }) {}

class Login extends HttpApiMiddleware.Tag<Login>()("Login", {
  failure: HttpApiError.Unauthorized,
  provides: CurrentUser,
  security: { token: HttpApiSecurity.bearer }
}) {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if both types are the same. */
const same = <A, B>(equal: Equals<A, B>): void => assert.isTrue(equal)

const needsCodec: Schema.Schema<number, string, Codec> = Schema.transformOrFail(Schema.String, Schema.Number, {
  strict: true,
  decode: (text) => Effect.map(Codec, () => Number(text)),
  encode: (number) => Effect.map(Codec, () => String(number))
})

const Chat = WebSocketRoute.make("/chat/:room", {
  path: Schema.Struct({ room: Schema.NumberFromString }),
  urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
  incoming: Schema.Struct({ say: Schema.String }),
  outgoing: needsCodec,
  accept: ({ path }) =>
    path.room > 9 ? Effect.fail(new Full({ room: path.room })) : Effect.map(Sessions, ({ count }) => ({ count }))
})
const Plain = WebSocketRoute.make("/plain/:name")

const endpoint = WebSocketApi.endpoint("chat", Chat)
const api = HttpApi.make("api").add(
  HttpApiGroup.make("live").add(endpoint.addError(Full).middleware(Login)).add(WebSocketApi.endpoint("plain", Plain))
)

describe("the endpoint", () => {
  it("has the contract's parameters, and the services of its schemas", () => {
    type Endpoint = typeof endpoint
    same<HttpApiEndpoint.HttpApiEndpoint.Name<Endpoint>, "chat">(true)
    same<HttpApiEndpoint.HttpApiEndpoint.PathParsed<Endpoint>, { readonly room: number }>(true)
    same<HttpApiEndpoint.HttpApiEndpoint.UrlParams<Endpoint>, { readonly since?: number | undefined }>(true)
    same<HttpApiEndpoint.HttpApiEndpoint.Context<Endpoint>, Codec>(true)
    same<HttpApiEndpoint.HttpApiEndpoint.Error<Endpoint>, never>(true)
  })

  it("without schemas: strings, named by the path", () => {
    const plain = WebSocketApi.endpoint("plain", Plain)
    same<HttpApiEndpoint.HttpApiEndpoint.PathParsed<typeof plain>, { readonly name: string }>(true)
    same<HttpApiEndpoint.HttpApiEndpoint.UrlParams<typeof plain>, WebSocketRoute.UrlParams>(true)
  })
})

describe("its handler", () => {
  it("has the contract's types, and requires what is not provided", () => {
    const live = HttpApiBuilder.group(api, "live", (handlers) =>
      handlers
        .handleRaw(
          "chat",
          Chat.toHandler((socket, { accepted, path, urlParams }) => {
            same<typeof socket, WebSocketContract.TypedConnection<{ readonly say: string }, number>>(true)
            same<typeof path, { readonly room: number }>(true)
            same<typeof urlParams, { readonly since?: number | undefined }>(true)
            same<typeof accepted, { count: number }>(true)
            return Effect.zipRight(Effect.zip(Database, CurrentUser), socket.send(path.room))
          })
        )
        .handleRaw(
          "plain",
          Plain.toHandler((_, { path }) => {
            same<typeof path, { readonly name: string }>(true)
            return Effect.void
          })
        )
    )
    same<Layer.Layer.Context<typeof live>, Database | Sessions | Codec | Login>(true)
    same<Layer.Layer.Error<typeof live>, never>(true)
  })

  it("onError knows its failures, but not the connection's own", () => {
    Chat.toHandler((socket) => Effect.zipRight(socket.take, Effect.fail(new Broken({ code: 4000 }))), {
      onError: (error) => {
        same<typeof error, Broken>(true)
        return { code: error.code }
      }
    })
    // @ts-expect-error a message of the other direction
    Chat.toHandler((socket) => socket.send({ say: "x" }))
  })

  it("fits its endpoint only", () => {
    const chat = Chat.toHandler(() => Effect.void)
    const undeclared = HttpApi.make("api").add(HttpApiGroup.make("live").add(endpoint))
    HttpApiBuilder.group(undeclared, "live", (handlers) =>
      // @ts-expect-error accept fails with an error that the endpoint does not declare
      handlers.handleRaw("chat", chat)
    )
    HttpApiBuilder.group(api, "live", (handlers) => {
      // @ts-expect-error the handler of another contract
      handlers.handleRaw("plain", chat)
      return handlers.handleRaw("chat", chat).handleRaw(
        "plain",
        Plain.toHandler(() => Effect.void)
      )
    })
    HttpApiBuilder.group(undeclared, "live", (handlers) => {
      // @ts-expect-error no value answers it, only a response
      handlers.handle("chat", () => Effect.void)
      return handlers.handle("chat", () => HttpServerResponse.text("closed today", { status: 503 }))
    })
  })
})
