/**
 * The chat: one WebSocket route, `/chat/:room?name=...`.
 */

import { HttpServerResponse } from "@effect/platform"
import { Resume, WebSocketRoute } from "@effect-ws/core"
import { Effect, Layer } from "effect"
import { Chat } from "./protocol.js"
import { Rooms } from "./Rooms.js"
import * as Settings from "./Settings.js"

export const ChatRoute = Layer.unwrapEffect(
  Effect.gen(function* () {
    const rooms = yield* Rooms
    const { maxMessageBytes, resumeTtl } = yield* Settings.chat

    // #region route
    return WebSocketRoute.implement(Chat, {
      maxMessageBytes,
      // Before the 101: the request's Scope holds the room as long as the connection lives.
      accept: ({ path }) =>
        Effect.catchTag(rooms.open(path.room), "ExceededCapacityException", () =>
          HttpServerResponse.text("There are too many rooms; try one that exists.\n", { status: 503 })
        ),
      // The reason in one line for a person, and the connection goes on.
      onInvalid: ({ detail, field }, socket) =>
        socket.send({ _tag: "refused", reason: field === "" ? detail : `${field}: ${detail}` })
    }).toLayer(
      (socket, { accepted: room, urlParams }) =>
        Effect.gen(function* () {
          const self = yield* room.enter(socket.raw, urlParams.name)
          yield* socket.runForEach((message) =>
            message._tag === "drop" ? Resume.cut(socket) : room.say(self, message.text)
          )
        }).pipe(Effect.scoped),
      // Over connections that drop, and over restarts of the server if the store is a folder
      { resume: Resume.keyValueStore({ prefix: "chat/", ttl: resumeTtl }) }
    )
    // #endregion
  })
)
