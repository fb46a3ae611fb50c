/**
 * Contracts: what both ends of a WebSocket agree on, its server in both forms, its client, and messages that do not fit.
 */
import { HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketContract, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { withServer } from "./local.js"

class Say extends Schema.TaggedClass<Say>("Say")("Say", { text: Schema.NonEmptyString }) {}
class Said extends Schema.TaggedClass<Said>("Said")("Said", { by: Schema.String, text: Schema.String }) {}
class Refused extends Schema.TaggedClass<Refused>("Refused")("Refused", { field: Schema.String }) {}
const ClientMessage = Say
const ServerMessage = Schema.Union(Said, Refused)

// #region contract
const Chat = WebSocketRoute.make("/chat/:room", {
  path: Schema.Struct({ room: Schema.NonEmptyString }),
  urlParams: Schema.Struct({ name: Schema.NonEmptyString }),
  incoming: ClientMessage, // client to server
  outgoing: ServerMessage, // server to client
  subprotocols: ["chat.v2", "chat.v1"],
  accept: ({ urlParams }) =>
    urlParams.name === "eve" ? HttpServerResponse.text("not you", { status: 403 }) : Effect.succeed(urlParams.name),
  // #region invalid
  onInvalid: (error, socket) => socket.send(new Refused({ field: error.field }))
  // #endregion
})
// #endregion

class Rooms extends Effect.Service<Rooms>()("Rooms", {
  sync: () => ({ stamp: (room: string, message: Say) => Effect.succeed(`${message.text} (in ${room})`) })
}) {}

// #region server
// The services of a handler are required per request
const PerRequest = Chat.toLayer((socket, { accepted, path }) =>
  socket.runForEach((message) =>
    Effect.flatMap(Rooms, (rooms) =>
      Effect.flatMap(rooms.stamp(path.room, message), (text) => socket.send(new Said({ by: accepted, text })))
    )
  )
)

// An Effect runs once, when the Layer is built; its services are the Layer's
const Once = Chat.toLayer(
  Effect.gen(function* () {
    const rooms = yield* Rooms
    return Chat.of((socket, { accepted, path }) =>
      socket.messages.pipe(
        Stream.mapEffect((message) => rooms.stamp(path.room, message)),
        Stream.map((text) => new Said({ by: accepted, text })),
        Stream.run(socket.sink)
      )
    )
  })
)
// #endregion

// #region shared
// What a page shares
export const Clock = WebSocketContract.make("/clock", { outgoing: Schema.Struct({ tick: Schema.Number }) })
// Where the server is
const ClockLive = WebSocketRoute.implement(Clock, { origins: "any" }).toLayer((socket) => socket.send({ tick: 1 }))
// #endregion

const client = (baseUrl: string) =>
  Effect.gen(function* () {
    // #region client
    const socket = yield* WebSocketClient.connect(Chat, {
      baseUrl,
      path: { room: "lobby" },
      urlParams: { name: "Ada" }
    })
    yield* socket.send(new Say({ text: "hello" })) // a ClientMessage
    const message = yield* socket.take // a ServerMessage
    // #endregion
    yield* Console.log(message._tag === "Said" ? `${message.by}: ${message.text}` : `refused: ${message.field}`)
    // What a program without the contract might send
    yield* socket.raw.send('{"_tag":"Say","text":""}')
    const answer = yield* socket.take
    yield* Console.log(answer._tag === "Refused" ? `refused: ${answer.field}` : `accepted: ${answer.text}`)
    const eve = WebSocketClient.connect(Chat, { baseUrl, path: { room: "lobby" }, urlParams: { name: "eve" } })
    const { body, status } = yield* Effect.flip(eve)
    yield* Console.log(`${status}: ${body}`)
  }).pipe(Effect.scoped)

const clock = (baseUrl: string) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(Clock, { baseUrl })
    yield* Stream.runForEach(socket.messages, ({ tick }) => Console.log(`tick ${tick}`))
  }).pipe(Effect.scoped)

withServer(Layer.merge(PerRequest, ClockLive), (address) => Effect.zipRight(client(address), clock(address))).pipe(
  Effect.zipRight(withServer(Once, client)),
  Effect.provide([Rooms.Default, NodeWebSocketClient.layer]),
  NodeRuntime.runMain
)
