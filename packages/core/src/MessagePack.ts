/**
 * MessagePack for contracts, by `@effect/platform/MsgPack`. A module of its own, so that whoever does not use it does not
 * bundle it.
 *
 * @since 0.1.0
 */
import * as MsgPack from "@effect/platform/MsgPack"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { type MessageCodec, Undecodable } from "./WebSocketContract.js"

const schema = MsgPack.schema(Schema.Unknown)
const unpack = ParseResult.decodeUnknownEither(schema)
const pack = ParseResult.encodeUnknownSync(schema)

/**
 * Binary messages that hold one MessagePack value each. Dates, Maps and Sets survive; `undefined` does too.
 *
 * @example
 * import { MessagePack, WebSocketRoute } from "@effect-ws/core"
 * import { Schema } from "effect"
 *
 * const Points = WebSocketRoute.make("/points", {
 *   incoming: Schema.Struct({ x: Schema.Number, y: Schema.Number }),
 *   codec: MessagePack.codec
 * })
 *
 * @since 0.1.0
 * @category codecs
 */
export const codec: MessageCodec = {
  name: "MessagePack",
  decode: (message) => {
    if (typeof message === "string") return new Undecodable("Kind", "only binary messages are understood")
    const value = unpack(message)
    return value._tag === "Right" ? value.right : new Undecodable("Undecodable", "not MessagePack")
  },
  encode: (value) => pack(value)
}
