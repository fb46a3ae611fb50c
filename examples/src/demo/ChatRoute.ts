/**
 * The chat: one WebSocket route, `/chat/:room?name=...`.
 */

import { HttpServerResponse } from "@effect/platform"
import { type Message, WebSocketRoute } from "@effect-ws/core"
import { Effect, Layer, Schema } from "effect"
import * as Protocol from "./protocol.js"
import { Rooms } from "./Rooms.js"
import * as Settings from "./Settings.js"

export const ChatRoute = Layer.unwrapEffect(
  Effect.gen(function* () {
    const rooms = yield* Rooms
    const { maxMessageBytes } = yield* Settings.chat

    // #region route
    return WebSocketRoute.layer(
      "/chat/:room",
      {
        path: Schema.Struct({ room: Protocol.RoomName }),
        urlParams: Schema.Struct({ name: Protocol.MemberName }),
        maxMessageBytes,
        // Before the 101: the request's Scope holds the room as long as the connection lives.
        accept: ({ path }) =>
          Effect.catchTag(rooms.open(path.room), "ExceededCapacityException", () =>
            HttpServerResponse.text("There are too many rooms; try one that exists.\n", { status: 503 })
          )
      },
      (socket, { accepted: room, urlParams }) =>
        Effect.gen(function* () {
          const self = yield* room.enter(socket, urlParams.name)
          yield* socket.runForEach((message) =>
            decode(message).pipe(
              Effect.flatMap((said) => (said._tag === "drop" ? socket.abort : room.say(self, said.text))),
              Effect.catchTag("Refused", ({ reason }) =>
                socket.send(Protocol.encodeServerMessage({ _tag: "refused", reason }))
              )
            )
          )
        }).pipe(Effect.scoped)
    )
    // #endregion
  })
)

class Refused extends Schema.TaggedError<Refused>()("Refused", { reason: Schema.String }) {}

const decode = (message: Message.Message): Effect.Effect<Protocol.ClientMessage, Refused> =>
  typeof message === "string"
    ? Effect.mapError(
        Protocol.decodeClientMessage(message),
        (error) => new Refused({ reason: Protocol.explain(error) })
      )
    : Effect.fail(new Refused({ reason: "only text messages are understood here" }))
