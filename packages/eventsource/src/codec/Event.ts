/**
 * The values that stand for the parts of an event stream (WHATWG HTML §9.2), and the rules that can be broken.
 *
 * Plain data: nothing here knows of streams, sockets or time. Durations are milliseconds.
 */

/** An event: one block of the stream that has data. @since 0.1.0 */
export interface Event {
  readonly _tag: "Event"
  /** The event type; `"message"` where the block names none. */
  readonly event: string
  /** The data lines, joined by line feeds. */
  readonly data: string
  /** The `id` field of this very block; undefined where it has none, empty where it resets the last event ID. */
  readonly id: string | undefined
}

/** An event as it was received. @since 0.1.0 */
export interface ReceivedEvent extends Event {
  /** The last event ID when this event was dispatched: it stays until another block sets it. */
  readonly lastEventId: string
}

/** A comment: a line that starts with a colon. Never dispatched; servers use it to show that they are alive. @since 0.1.0 */
export interface Comment {
  readonly _tag: "Comment"
  readonly text: string
}

/** The server's wish for the time before a reconnection. @since 0.1.0 */
export interface Retry {
  readonly _tag: "Retry"
  readonly milliseconds: number
}

/** What may be sent. @since 0.1.0 */
export type Outgoing = Event | Comment | Retry

/** A limit was passed while decoding; the last item ever. @since 0.1.0 */
export interface LimitExceeded {
  readonly _tag: "LimitExceeded"
  readonly limit: "maxLineBytes" | "maxEventBytes"
  /** The value of the limit, in bytes. */
  readonly bytes: number
}

/** What comes out of a decoder. @since 0.1.0 */
export type Item = ReceivedEvent | Comment | Retry | LimitExceeded

/** Why a value cannot be written: the stream has no way to carry it. @since 0.1.0 */
export interface Unrepresentable {
  readonly _tag: "Unrepresentable"
  readonly field: "event" | "id" | "retry"
  readonly rule: "line break" | "NUL" | "not a whole number"
  readonly value: string
}
