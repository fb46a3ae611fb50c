/**
 * Events, comments and reconnection times: what an event stream carries (WHATWG HTML §9.2).
 *
 * The values are plain data of the codec. Durations are milliseconds inside them.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Codec from "./codec/index.js"

/**
 * An event: a type, data, and the ID to resume after.
 *
 * @since 0.1.0
 * @category models
 */
export type ServerSentEvent = Codec.Event

/**
 * An event as a client received it, with the last event ID at that moment.
 *
 * @since 0.1.0
 * @category models
 */
export type Received = Codec.ReceivedEvent

/**
 * A comment: clients ignore it.
 *
 * @since 0.1.0
 * @category models
 */
export type Comment = Codec.Comment

/**
 * The time that clients shall wait before they reconnect.
 *
 * @since 0.1.0
 * @category models
 */
export type Retry = Codec.Retry

/**
 * All that a server may send.
 *
 * @since 0.1.0
 * @category models
 */
export type Outgoing = Codec.Outgoing

/**
 * A value that the format cannot carry: a line break in `event` or `id` (which would inject fields), a NUL in `id` (with
 * which clients ignore it), a reconnection time that is not a whole number.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidEvent extends Data.TaggedError("InvalidEvent")<{
  readonly field: "event" | "id" | "retry"
  readonly rule: "line break" | "NUL" | "not a whole number"
  readonly value: string
}> {
  override get message(): string {
    return `The ${this.field} of an event has a ${this.rule === "not a whole number" ? `value that is ${this.rule}` : this.rule}: ${JSON.stringify(this.value)}`
  }
}

/**
 * An event.
 *
 * `data` may hold any line breaks: CR and CRLF arrive as LF. `event` defaults to `"message"`. `id` becomes the client's
 * last event ID, `""` resets it, and without one it stays as it is. Checked when it is sent: see {@link InvalidEvent}.
 *
 * @example
 * import { ServerSentEvent } from "@effect-ws/eventsource"
 *
 * const tick = ServerSentEvent.make({ event: "tick", id: "7", data: JSON.stringify({ n: 7 }) })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (fields: {
  readonly data: string
  readonly event?: string | undefined
  readonly id?: string | undefined
}): ServerSentEvent => ({ _tag: "Event", event: fields.event || "message", data: fields.data, id: fields.id })

/**
 * A comment; each line of the text becomes a line of it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const comment = (text = ""): Comment => ({ _tag: "Comment", text })

/**
 * A reconnection time, rounded to milliseconds.
 *
 * Some parsers, those of Effect among them, take a `retry` for an error or for a pause: send it only to clients that you know.
 *
 * @since 0.1.0
 * @category constructors
 */
export const retry = (time: Duration.DurationInput): Retry => ({
  _tag: "Retry",
  milliseconds: Math.round(Duration.toMillis(time))
})

/**
 * The text of a value: a block of lines, ended by a blank one.
 *
 * @since 0.1.0
 * @category combinators
 */
export const encode = (value: Outgoing): Either.Either<string, InvalidEvent> => {
  const text = Codec.encode(value)
  return typeof text === "string" ? Either.right(text) : Either.left(new InvalidEvent(text))
}
