/** Where the connections stand, for the eyes and for screen readers, and how they are tried again. */
import { type Reconnecting, WebSocketError } from "@effect-ws/core"
import type { EventSource } from "@effect-ws/eventsource"
import { Duration, Effect, Schedule, type Scope } from "effect"
import { byId, clockTime, element, setText } from "./dom.js"

/** Half a second, doubled up to ten, of each a random half to all: a server that restarts is not asked by all at once. */
export const retrying = Schedule.exponential("500 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jitteredWith({ min: 0.5, max: 1 })
)

/** What the chat's client and both feeds tell. */
export type Status = Reconnecting.Status<unknown> | EventSource.Status

/** Shows a status as a pill. */
export const showStatus = (pill: HTMLElement, status: Status): void => {
  setText(pill, textOf(status))
  pill.dataset.state = status._tag.toLowerCase()
}

const textOf = (status: Status): string => {
  switch (status._tag) {
    case "Connecting":
      return status.attempt === 1 ? "connecting" : `connecting, attempt ${status.attempt}`
    case "Open":
      return "connected"
    case "Waiting":
      return "attempt" in status ? `lost, attempt ${status.attempt + 1} follows` : "lost, another attempt follows"
    case "Idle":
    case "Closed":
      return "not connected"
  }
}

/** Shows the time to the next attempt, beside the pill where screen readers do not follow, until it is interrupted. */
export const countdown = (delay: Duration.Duration): Effect.Effect<void, never, Scope.Scope> => {
  const node = byId("chat-countdown")
  const end = Date.now() + Duration.toMillis(delay)
  const show = Effect.sync(() => {
    node.textContent = `next attempt in ${(Math.max(0, end - Date.now()) / 1000).toFixed(1)} s`
  })
  return Effect.zipRight(
    Effect.addFinalizer(() =>
      Effect.sync(() => {
        node.textContent = ""
      })
    ),
    Effect.asVoid(Effect.repeat(show, Schedule.spaced("100 millis")))
  )
}

const maxEvents = 50

/** Enters what happened to the connection. */
export const logEvent = (text: string): void => {
  const events = byId("events")
  events.prepend(element("li", {}, [element("time", { text: clockTime(Date.now()) }), new Text(text)]))
  while (events.childElementCount > maxEvents) events.lastElementChild?.remove()
}

const meanings: Readonly<Record<number, string>> = {
  1000: "normal",
  1001: "the server is going away",
  1005: "without a code",
  1006: "the line was cut",
  1009: "a message was too big",
  1011: "the server failed",
  1013: "this page was too slow"
}

/** An end in words. */
export const explain = (error: unknown): string => {
  if (error instanceof WebSocketError.HandshakeError) return "no connection came about"
  if (error instanceof WebSocketError.ConnectionClosed) {
    const why = error.reason || meanings[error.code]
    return `closed: ${error.code}${why === undefined ? "" : `, ${why}`}`
  }
  return error instanceof Error ? error.message : String(error)
}
