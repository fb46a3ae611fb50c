/** What a route asks of its Layer, by type: exactly the services of the handler, of `accept` and of the schemas, per request. */

import {
  type Headers,
  HttpLayerRouter,
  type HttpServer,
  type HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, type Message, WebSocketRoute } from "@effect-ws/core"
import { Context, Data, Effect, Layer, type ParseResult, Schema, type Scope, Stream } from "effect"

class Database extends Context.Tag("Database")<Database, { readonly user: string }>() {}
class Sessions extends Context.Tag("Sessions")<Sessions, { readonly count: number }>() {}
class Codec extends Context.Tag("Codec")<Codec, { readonly codec: true }>() {}
class Denied extends Data.TaggedError("Denied") {}
class TooMany extends Data.TaggedError("TooMany")<{ readonly count: number }> {}

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

  it("what accept gives in any of its branches: values, errors and responses side by side", () => {
    const route = WebSocketRoute.layer(
      "/a/:id",
      {
        accept: ({ path }) => {
          if (path.id === "") return HttpServerResponse.text("no", { status: 401 })
          if (path.id === "0") return new Denied()
          if (path.id === "1") return Effect.fail(new TooMany({ count: 1 }))
          if (path.id === "2") return Effect.map(Database, ({ user }) => WebSocketRoute.accept({ user }))
          return Effect.map(Sessions, ({ count }) => count)
        }
      },
      (_, { accepted }) => {
        same<typeof accepted, { user: string } | number>(true)
        return Effect.void
      }
    )
    same<
      Layer.Layer.Context<typeof route>,
      Always | Requires<Database> | Requires<Sessions> | Fails<Denied> | Fails<TooMany>
    >(true)
    const handler = WebSocketRoute.upgrade(
      { accept: ({ request }) => (request.url === "/" ? Effect.succeed(1) : HttpServerResponse.text("no")) },
      (_, { accepted }) => {
        same<typeof accepted, number>(true)
        return Effect.void
      }
    )
    same<Effect.Effect.Error<typeof handler>, ParseResult.ParseError>(true)
    const made = WebSocketRoute.make("/a", {
      accept: () => (Math.random() > 2 ? Effect.fail(new TooMany({ count: 1 })) : Effect.succeed("x" as const))
    })
    same<
      typeof made,
      WebSocketRoute.WebSocketRoute<
        WebSocketRoute.PathParams<"/a">,
        WebSocketRoute.UrlParams,
        Headers.Headers,
        Message.Message,
        Message.Message,
        never,
        "x",
        TooMany,
        never
      >
    >(true)
  })

  it("the handler's error in onError", () => {
    WebSocketRoute.layer("/a", { onError: (error) => (error._tag === "Denied" ? { code: 4403 } : undefined) }, () =>
      Effect.fail(new Denied())
    )
    // A handler with parameters is inferred after the options
    WebSocketRoute.layer(
      "/a",
      {
        onError: (error) => {
          same<typeof error, unknown>(true)
          return undefined
        }
      },
      (socket) => Effect.zipRight(socket.take, new TooMany({ count: 1 }))
    )
    // so it names its own failures; the connection's do not come here
    const named = { onError: (error: TooMany) => ({ code: 4000 + error.count }) }
    WebSocketRoute.layer("/a", named, (socket) => Effect.zipRight(socket.take, new TooMany({ count: 1 })))
    WebSocketRoute.each("/a", named, (message) => (message === "" ? undefined : new TooMany({ count: 1 })))
    WebSocketRoute.upgrade(named, (socket) => Effect.zipRight(socket.take, new TooMany({ count: 1 })))
    // @ts-expect-error and must name all of them
    WebSocketRoute.layer("/a", named, (socket) => Effect.zipRight(socket.take, new Denied()))
    // After the handler nothing needs to be named
    WebSocketRoute.make("/a").toLayer((socket) => Effect.zipRight(socket.take, new TooMany({ count: 1 })), {
      onError: (error) => {
        same<typeof error, TooMany>(true)
        return { code: 4000 + error.count }
      }
    })
  })
})
