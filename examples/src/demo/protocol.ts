/**
 * What the page and the chat say to each other: JSON in text messages, checked by Schema in both directions.
 */
import { ParseResult, Schema } from "effect"

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

/** From the page. `drop` asks the server to cut the connection, so that one sees the page reconnect. */
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

export const decodeClientMessage = Schema.decodeUnknown(Schema.parseJson(ClientMessage))
export const encodeServerMessage = Schema.encodeSync(Schema.parseJson(ServerMessage))
export const encodeTick = Schema.encodeSync(Schema.parseJson(Tick))

/** Why a message was refused, in one line for a person. */
export const explain = (error: ParseResult.ParseError): string => {
  const issue = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
  if (issue === undefined) return "the message is not understood"
  const message = issue.message.split("\n")[0]!
  return issue.path.length === 0 ? message : `${issue.path.join(".")}: ${message}`
}
