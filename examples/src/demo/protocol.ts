/**
 * What the page and the server say to each other: contracts, checked by Schema in both directions. The page is bundled with this
 * file.
 */
import { WebSocketContract } from "@effect-ws/core"
import { Schema } from "effect"

/** Letters, digits, `_` and `-`, as they stand in a path. */
export const RoomName = Schema.String.pipe(
  Schema.pattern(/^[\p{L}\p{N}_-]{1,32}$/u, { message: () => "a room's name is 1 to 32 letters, digits, _ or -" })
)

/** What others see beside a message. */
export const MemberName = Schema.Trim.pipe(
  Schema.filter((name) => (name.length > 0 && name.length <= 24) || "a name has 1 to 24 characters")
)

export const Member = Schema.Struct({ id: Schema.String, name: Schema.String })
export type Member = typeof Member.Type

/** A line of the conversation. `at` is milliseconds since 1970. */
export const Line = Schema.Struct({ id: Schema.String, from: Member, text: Schema.String, at: Schema.Number })
export type Line = typeof Line.Type

/** From the page. `drop` asks the server to cut the line, so that one sees the page reconnect. */
export const ClientMessage = Schema.Union(
  Schema.TaggedStruct("say", { text: Schema.Trim.pipe(Schema.minLength(1, { message: () => "the text is empty" })) }),
  Schema.TaggedStruct("drop", {})
)
export type ClientMessage = typeof ClientMessage.Type

/** To the page. A line may come twice, in `welcome` and by itself: its id tells. */
export const ServerMessage = Schema.Union(
  Schema.TaggedStruct("welcome", {
    room: Schema.String,
    you: Member,
    members: Schema.Array(Member),
    history: Schema.Array(Line)
  }),
  Schema.TaggedStruct("joined", { member: Member }),
  Schema.TaggedStruct("left", { member: Member }),
  Schema.TaggedStruct("said", { line: Line }),
  Schema.TaggedStruct("refused", { reason: Schema.String })
)
export type ServerMessage = typeof ServerMessage.Type

/** What the server tells about itself, once per interval. `n` counts on from the start of the server. */
export const Tick = Schema.TaggedStruct("tick", {
  n: Schema.Number,
  at: Schema.Number,
  people: Schema.Number,
  rooms: Schema.Number,
  lines: Schema.Number,
  heapMiB: Schema.Number
})
export type Tick = typeof Tick.Type

/** A line or a tick that many get is encoded once. */
export const encodeServerMessage = Schema.encodeSync(Schema.parseJson(ServerMessage))

// #region contract
export const Chat = WebSocketContract.make("/chat/:room", {
  path: Schema.Struct({ room: RoomName }),
  urlParams: Schema.Struct({ name: MemberName }),
  incoming: ClientMessage,
  outgoing: ServerMessage
})
// #endregion

/** The ticks. The page says nothing. */
export const Ticks = WebSocketContract.make("/feed", { incoming: Schema.Never, outgoing: Tick })
