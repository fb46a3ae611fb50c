/** Both ends of a contract, by type: what one sends the other receives, and each asks for exactly its services. */
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  type Message,
  MessagePack,
  type Reconnecting,
  WebSocketClient,
  WebSocketContract,
  type WebSocketError,
  WebSocketRoute
} from "@effect-ws/core"
import {
  Context,
  Data,
  Effect,
  Layer,
  type ParseResult,
  Schedule,
  Schema,
  type Scope,
  type Sink,
  type Stream
} from "effect"

class Database extends Context.Tag("Database")<Database, { readonly user: string }>() {}
class Sessions extends Context.Tag("Sessions")<Sessions, { readonly count: number }>() {}
class Codec extends Context.Tag("Codec")<Codec, { readonly codec: true }>() {}
class Denied extends Data.TaggedError("Denied") {}
class NoToken extends Data.TaggedError("NoToken") {}
class NoAuth extends Data.TaggedError("NoAuth") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if both types are the same. */
const same = <A, B>(equal: Equals<A, B>): void => assert.isTrue(equal)

type Requires<R> = HttpLayerRouter.Request<"Requires", R>
type Fails<E> = HttpLayerRouter.Request<"Error", E>
type Always = HttpLayerRouter.HttpRouter | Fails<ParseResult.ParseError>

type ClientMessage = { readonly say: string }
type ServerMessage = { readonly n: number }

const Chat = WebSocketRoute.make("/chat/:room", {
  path: Schema.Struct({ room: Schema.NumberFromString }),
  urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
  incoming: Schema.Struct({ say: Schema.String }),
  outgoing: Schema.Struct({ n: Schema.Number }),
  subprotocols: ["v1"],
  accept: ({ path }) =>
    path.room === 0
      ? Effect.fail(new Denied())
      : Effect.map(Sessions, ({ count }) => WebSocketRoute.accept({ user: "ada", count }))
})

const Plain = WebSocketRoute.make("/plain/:a/:b")

describe("the server's end", () => {
  it("a handler's services are required per request, and its messages have types", () => {
    const route = Chat.toLayer((socket, { accepted, path, urlParams }) => {
      same<typeof socket, WebSocketContract.TypedConnection<ClientMessage, ServerMessage>>(true)
      same<typeof accepted, { user: string; count: number }>(true)
      same<typeof path, { readonly room: number }>(true)
      same<typeof urlParams, { readonly since?: number | undefined }>(true)
      return Effect.flatMap(Database, () => socket.send({ n: path.room }))
    })
    same<typeof route, Layer.Layer<never, never, Always | Requires<Database> | Requires<Sessions> | Fails<Denied>>>(
      true
    )
  })

  it("an Effect's services are the Layer's", () => {
    const route = Chat.toLayer(
      Effect.gen(function* () {
        const { user } = yield* Database
        if (user === "") return yield* new NoToken()
        return Chat.of((socket) => Effect.zipRight(Codec, socket.send({ n: user.length })))
      })
    )
    same<
      typeof route,
      Layer.Layer<never, NoToken, Always | Database | Requires<Sessions> | Requires<Codec> | Fails<Denied>>
    >(true)
  })

  it("served, what requests need is needed", () => {
    const app = HttpLayerRouter.serve(
      Layer.merge(
        Chat.toLayer((socket) => Effect.zipRight(Database, socket.closed)),
        HttpLayerRouter.add("GET", "/", HttpServerResponse.text("ok"))
      )
    )
    same<Extract<Layer.Layer.Context<typeof app>, Database | Sessions>, Database | Sessions>(true)
    same<Layer.Layer.Error<typeof app>, never>(true)
  })

  it("without schemas: messages as they are, strings of the path", () => {
    const route = Plain.toLayer((socket, { path }) => {
      same<typeof socket, WebSocketContract.TypedConnection<Message.Message, Message.Message>>(true)
      same<typeof path, { readonly a: string; readonly b: string }>(true)
      return socket.closed
    })
    same<typeof route, Layer.Layer<never, never, Always>>(true)
  })

  it("onError knows the handler's failures", () => {
    Chat.toLayer(() => Effect.fail(new NoAuth()), {
      onError: (error) => {
        same<typeof error, NoAuth>(true)
        return { code: 4001 }
      }
    })
    // @ts-expect-error a message of the other direction
    Chat.toLayer((socket) => socket.send({ say: "x" }))
    // @ts-expect-error the accepted value has no such field
    Chat.toLayer((socket, { accepted }) => socket.send({ n: accepted.age }))
  })

  it("a contract made apart is implemented with the same types", () => {
    const Shared = WebSocketContract.make("/shared", { incoming: Schema.Number })
    const route = WebSocketRoute.implement(Shared, { accept: () => Effect.succeed("value") })
    const layer = route.toLayer((socket, { accepted }) => {
      same<typeof socket, WebSocketContract.TypedConnection<number, Message.Message>>(true)
      same<typeof accepted, string>(true)
      return socket.closed
    })
    same<typeof layer, Layer.Layer<never, never, Always>>(true)
  })

  it("a codec takes what schemas encode to", () => {
    WebSocketRoute.make("/a", { incoming: Schema.NumberFromString, codec: WebSocketContract.raw })
    WebSocketRoute.make("/a", { incoming: Schema.Number, codec: MessagePack.codec })
    // @ts-expect-error a number is no message
    WebSocketRoute.make("/a", { incoming: Schema.Number, codec: WebSocketContract.raw })
    // @ts-expect-error path parameters are strings
    WebSocketRoute.make("/a/:n", { path: Schema.Struct({ n: Schema.Number }) })
  })
})

describe("the client's end", () => {
  it("has the types swapped", () => {
    const connected = WebSocketClient.connect(Chat, { baseUrl: "ws://host", path: { room: 1 } })
    same<
      typeof connected,
      Effect.Effect<
        WebSocketContract.TypedConnection<ServerMessage, ClientMessage>,
        WebSocketError.HandshakeError,
        WebSocketClient.WebSocketClient | Scope.Scope
      >
    >(true)
    type Client = Effect.Effect.Success<typeof connected>
    same<Client["sink"], Sink.Sink<void, ClientMessage, never, WebSocketError.ConnectionClosed>>(true)
    same<
      Client["messages"],
      Stream.Stream<ServerMessage, WebSocketError.ConnectionError | WebSocketError.MessageError>
    >(true)
  })

  it("must give the parameters that the contract requires", () => {
    WebSocketClient.connect(Chat, { url: "ws://host/chat/1" })
    WebSocketClient.connect(Chat, { baseUrl: "ws://host", path: { room: 1 }, urlParams: { since: 2 } })
    WebSocketClient.connect(Plain, { baseUrl: "ws://host", path: { a: "1", b: "2" } })
    // @ts-expect-error no path
    WebSocketClient.connect(Chat, { baseUrl: "ws://host" })
    // @ts-expect-error the room is a number
    WebSocketClient.connect(Chat, { baseUrl: "ws://host", path: { room: "1" } })
    // @ts-expect-error b is missing
    WebSocketClient.connect(Plain, { baseUrl: "ws://host", path: { a: "1" } })
    // @ts-expect-error no such parameter
    WebSocketClient.connect(Chat, { baseUrl: "ws://host", path: { room: 1 }, urlParams: { before: 2 } })
    const WithHeaders = WebSocketContract.make("/a", { headers: Schema.Struct({ "x-user": Schema.String }) })
    WebSocketClient.connect(WithHeaders, { url: "ws://host", headers: { "x-user": "ada" } })
    // @ts-expect-error the header is missing
    WebSocketClient.connect(WithHeaders, { url: "ws://host" })
  })

  it("needs what the schemas need", () => {
    const needsCodec: Schema.Schema<string, string, Codec> = Schema.transformOrFail(Schema.String, Schema.String, {
      strict: true,
      decode: (text) => Effect.map(Codec, () => text),
      encode: (text) => Effect.map(Codec, () => text)
    })
    const contract = WebSocketContract.make("/a", { outgoing: needsCodec, incoming: Schema.Number })
    const connected = WebSocketClient.connect(contract, { url: "ws://host" })
    same<Effect.Effect.Context<typeof connected>, WebSocketClient.WebSocketClient | Scope.Scope | Codec>(true)
  })
})

describe("reconnecting", () => {
  const token = Effect.flatMap(Sessions, ({ count }) =>
    count > 0 ? Effect.succeed("ws://host") : Effect.fail(new NoToken())
  )

  it("by URL: errors and services of all Effects", () => {
    const headers = Effect.flatMap(Database, ({ user }) =>
      user === "" ? Effect.fail(new Denied()) : Effect.succeed({ user })
    )
    const client = WebSocketClient.reconnecting(token, {
      headers,
      onOpen: (socket) =>
        Effect.zipRight(
          socket.send("hi"),
          Effect.flatMap(Codec, () => new NoAuth())
        ),
      retryable: (error) => error._tag !== "NoAuth"
    })
    same<
      typeof client,
      Effect.Effect<
        Reconnecting.Reconnecting<
          Message.Message,
          Message.Message,
          WebSocketError.HandshakeError | WebSocketError.ConnectionError | NoToken | Denied | NoAuth
        >,
        never,
        WebSocketClient.WebSocketClient | Scope.Scope | Sessions | Database | Codec
      >
    >(true)
  })

  it("by contract: its types, swapped", () => {
    const client = WebSocketClient.reconnecting(Chat, {
      url: token,
      onOpen: (socket) => socket.send({ say: "hi" }),
      // Takes any input, which says nothing about the errors
      schedule: Schedule.spaced("1 second")
    })
    same<
      typeof client,
      Effect.Effect<
        Reconnecting.Reconnecting<
          ServerMessage,
          ClientMessage,
          WebSocketError.HandshakeError | WebSocketError.ConnectionError | WebSocketError.MessageError | NoToken
        >,
        never,
        WebSocketClient.WebSocketClient | Scope.Scope | Sessions
      >
    >(true)
    // @ts-expect-error a message of the other direction
    WebSocketClient.reconnecting(Chat, { url: "ws://host", onOpen: (socket) => socket.send({ n: 1 }) })
    // @ts-expect-error no place
    WebSocketClient.reconnecting(Chat, {})
    // @ts-expect-error no path
    WebSocketClient.reconnecting(Chat, { baseUrl: "ws://host" })
  })
})
