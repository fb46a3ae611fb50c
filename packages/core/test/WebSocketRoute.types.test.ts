/** What a route asks of its Layer, by type: exactly the services of the handler, of `accept` and of the schemas, per request. */

import { HttpLayerRouter, type HttpServer, type HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, type Message, WebSocketRoute } from "@effect-ws/core"
import { Context, Data, Effect, Layer, type ParseResult, Schema, type Scope, Stream } from "effect"

class Database extends Context.Tag("Database")<Database, { readonly user: string }>() {}
class Sessions extends Context.Tag("Sessions")<Sessions, { readonly count: number }>() {}
class Codec extends Context.Tag("Codec")<Codec, { readonly codec: true }>() {}
class Denied extends Data.TaggedError("Denied") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if both types are the same. */
const same = <A, B>(equal: Equals<A, B>): void => assert.isTrue(equal)

type Requires<R> = HttpLayerRouter.Request<"Requires", R>
type Fails<E> = HttpLayerRouter.Request<"Error", E>
/** What every route has: it lives in a router, and its schemas may fail. */
type Always = HttpLayerRouter.HttpRouter | Fails<ParseResult.ParseError>

const needsCodec: Schema.Schema<{ readonly room: string }, { readonly room: string }, Codec> = Schema.Struct({
  room: Schema.transformOrFail(Schema.String, Schema.String, {
    decode: (room) => Effect.map(Codec, () => room),
    encode: (room) => Effect.map(Codec, () => room)
  })
})

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)

describe("what a route's Layer requires", () => {
  it("nothing but a router", () => {
    const route = WebSocketRoute.layer("/echo", {}, echo)
    same<typeof route, Layer.Layer<never, never, Always>>(true)
  })

  it("the services of the handler, one marker each", () => {
    const route = WebSocketRoute.layer("/echo", {}, () => Effect.zip(Database, Sessions))
    same<Layer.Layer.Context<typeof route>, Always | Requires<Database> | Requires<Sessions>>(true)
  })

  it("not what every request has", () => {
    const route = WebSocketRoute.layer("/echo", {}, (_, { request }) =>
      Effect.zipRight(
        Effect.addFinalizer(() => Effect.void),
        Effect.all([HttpLayerRouter.params, Effect.succeed(request)])
      )
    )
    same<Layer.Layer.Context<typeof route>, Always>(true)
  })

  it("not the error of the handler, which is no HTTP answer any more", () => {
    const route = WebSocketRoute.layer("/echo", { onError: (_: Denied) => undefined }, () => Effect.fail(new Denied()))
    same<Layer.Layer.Context<typeof route>, Always>(true)
  })

  it("services and errors of accept", () => {
    const route = WebSocketRoute.layer(
      "/echo",
      { accept: () => Effect.flatMap(Sessions, ({ count }) => (count > 3 ? Effect.fail(new Denied()) : Database)) },
      (socket, { accepted }) => socket.send(accepted.user)
    )
    same<Layer.Layer.Context<typeof route>, Always | Requires<Database> | Requires<Sessions> | Fails<Denied>>(true)
  })

  it("services of the schemas", () => {
    const route = WebSocketRoute.layer("/chat/:room", { path: needsCodec }, () => Database)
    same<Layer.Layer.Context<typeof route>, Always | Requires<Database> | Requires<Codec>>(true)
  })

  it("each: those of the handler, but not that the connection may fail", () => {
    const route = WebSocketRoute.each("/each", {}, (message, socket) =>
      Effect.zipRight(
        Database,
        Effect.suspend(() => socket.send(message))
      )
    )
    same<Layer.Layer.Context<typeof route>, Always | Requires<Database>>(true)
    const plain = WebSocketRoute.each(
      "/each",
      {},
      (message: Message.Message, socket) => void socket.unsafeTrySend(message)
    )
    same<Layer.Layer.Context<typeof plain>, Always>(true)
  })

  it("a plain service, once it is served", () => {
    const route = WebSocketRoute.layer("/echo", {}, () => Effect.zip(Database, Sessions))
    const served = HttpLayerRouter.serve(route)
    same<Layer.Layer.Context<typeof served>, HttpServer.HttpServer | Database | Sessions>(true)
  })

  it("what a middleware does not provide", () => {
    const auth = HttpLayerRouter.middleware<{ provides: Database }>()((effect) =>
      Effect.provideService(effect, Database, { user: "alice" })
    ).layer
    const route = WebSocketRoute.layer("/echo", {}, () => Effect.zip(Database, Sessions)).pipe(Layer.provide(auth))
    same<Layer.Layer.Context<typeof route>, Always | Requires<Sessions>>(true)
  })

  it("upgrade: plain requirements and errors, as HTTP handlers have them", () => {
    const handler = WebSocketRoute.upgrade(
      { path: needsCodec, accept: () => Effect.flatMap(Sessions, () => new Denied()) },
      () => Database
    )
    same<
      typeof handler,
      Effect.Effect<
        HttpServerResponse.HttpServerResponse,
        Denied | ParseResult.ParseError,
        Database | Sessions | Codec | HttpServerRequest.HttpServerRequest | Scope.Scope
      >
    >(true)
  })
})

describe("what a handler gets, by type", () => {
  it("path parameters of the literal", () => {
    // biome-ignore lint/complexity/noBannedTypes: it is the type that is meant, an object without properties
    same<WebSocketRoute.PathParams<"/">, {}>(true)
    same<WebSocketRoute.PathParams<"/a/:b/c/:d">, { readonly b: string; readonly d: string }>(true)
    same<WebSocketRoute.PathParams<"/a/:b?">, { readonly b: string | undefined }>(true)
    same<WebSocketRoute.PathParams<"/files/*">, { readonly "*": string }>(true)
    same<WebSocketRoute.PathParams<string>, Readonly<Record<string, string | undefined>>>(true)
    WebSocketRoute.layer("/chat/:room/:user", {}, (_, { path }) => {
      same<typeof path, { readonly room: string; readonly user: string }>(true)
      return Effect.void
    })
  })

  it("what the schemas decode", () => {
    WebSocketRoute.layer(
      "/chat/:room",
      {
        path: Schema.Struct({ room: Schema.NumberFromString }),
        urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
        headers: Schema.Struct({ "x-user": Schema.String })
      },
      (_, { headers, path, urlParams }) => {
        same<typeof path, { readonly room: number }>(true)
        same<typeof urlParams, { readonly since?: number | undefined }>(true)
        same<typeof headers, { readonly "x-user": string }>(true)
        return Effect.void
      }
    )
  })

  it("what accept gives: plain, in Accept, never a response", () => {
    WebSocketRoute.layer("/a", { accept: () => Effect.succeed(42) }, (_, { accepted }) => {
      same<typeof accepted, number>(true)
      return Effect.void
    })
    WebSocketRoute.layer(
      "/b",
      {
        accept: () =>
          Effect.if(true, {
            onTrue: () => Effect.succeed(WebSocketRoute.accept({ user: "alice" }, { headers: { "x-a": "b" } })),
            onFalse: () => HttpServerResponse.text("no", { status: 401 })
          })
      },
      (_, { accepted }) => {
        same<typeof accepted, { user: string }>(true)
        return Effect.void
      }
    )
    WebSocketRoute.layer("/c", {}, (_, { accepted }) => {
      same<typeof accepted, void>(true)
      return Effect.void
    })
  })

  it("the handler's error in onError", () => {
    WebSocketRoute.layer("/a", { onError: (error) => (error._tag === "Denied" ? { code: 4403 } : undefined) }, () =>
      Effect.fail(new Denied())
    )
  })
})
