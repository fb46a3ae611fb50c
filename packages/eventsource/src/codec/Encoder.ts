/**
 * Encodes events, comments and reconnection times as text of an event stream (WHATWG HTML §9.2.5).
 *
 * Every value becomes a block of its own, ended by a blank line, so that blocks can be put in any order. Lines end with LF.
 */
import type { Comment, Event, Outgoing, Retry, Unrepresentable } from "./Event.js"

/** The comment that shows that the server is alive: the shortest block. @since 0.1.0 */
export const heartbeat = ":\n\n"

/** The text of a value, or why it has none: nothing is written that would read back as something else. @since 0.1.0 */
export const encode = (item: Outgoing): string | Unrepresentable => {
  switch (item._tag) {
    case "Event":
      return encodeEvent(item)
    case "Comment":
      return encodeComment(item)
    case "Retry":
      return encodeRetry(item)
  }
}

/**
 * `event` and `id` take no line break, which would inject fields, and `id` no NUL, with which it would be ignored. Data may
 * hold any line break: each becomes a data line of its own, and reads back as LF.
 */
const encodeEvent = (item: Event): string | Unrepresentable => {
  const { data, event, id } = item
  let head = ""
  if (event !== "" && event !== "message") {
    if (hasLineBreak(event)) return { _tag: "Unrepresentable", field: "event", rule: "line break", value: event }
    head = `event: ${event}\n`
  }
  if (id !== undefined) {
    if (hasLineBreak(id)) return { _tag: "Unrepresentable", field: "id", rule: "line break", value: id }
    if (id.includes("\0")) return { _tag: "Unrepresentable", field: "id", rule: "NUL", value: id }
    head += `id: ${id}\n`
  }
  return `${head}data: ${hasLineBreak(data) ? data.replace(lineBreaks, "\ndata: ") : data}\n\n`
}

/** One comment line for each line of its text. */
const encodeComment = ({ text }: Comment): string =>
  text === "" ? heartbeat : `: ${hasLineBreak(text) ? text.replace(lineBreaks, "\n: ") : text}\n\n`

const encodeRetry = ({ milliseconds }: Retry): string | Unrepresentable =>
  Number.isSafeInteger(milliseconds) && milliseconds >= 0
    ? `retry: ${milliseconds}\n\n`
    : { _tag: "Unrepresentable", field: "retry", rule: "not a whole number", value: String(milliseconds) }

const lineBreaks = /\r\n|\r|\n/g

const hasLineBreak = (text: string): boolean => text.includes("\n") || text.includes("\r")
