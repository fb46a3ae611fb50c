/** The live feed, over a WebSocket or as Server-Sent Events: the same ticks, the same status, one reader. */
import type { HttpClient } from "@effect/platform"
import { WebSocketClient } from "@effect-ws/core"
import { EventSchema, EventSource } from "@effect-ws/eventsource"
import { Effect, type Scope, Stream } from "effect"
import { Tick, Ticks } from "../protocol.js"
import { byId, clockTime } from "./dom.js"
import { retrying, type Status, showStatus } from "./status.js"

export type Via = "websocket" | "events"

interface Source {
  readonly ticks: Stream.Stream<Tick, unknown, HttpClient.HttpClient>
  readonly status: Stream.Stream<Status>
}

/** Shows ticks until it is interrupted. */
export const feed = (via: Via) =>
  Effect.gen(function* () {
    const { status, ticks } = yield* sources[via]
    const show = makeView()
    yield* Effect.forkScoped(Stream.runForEach(status, (status) => Effect.sync(() => showFeedStatus(status))))
    yield* Stream.runForEach(ticks, (tick) => Effect.sync(() => show(tick)))
  }).pipe(Effect.scoped, Effect.ignoreLogged)

// #region sources
const sources: Readonly<Record<Via, Effect.Effect<Source, never, WebSocketClient.WebSocketClient | Scope.Scope>>> = {
  websocket: Effect.map(
    WebSocketClient.reconnecting(Ticks, { baseUrl: "", schedule: retrying }),
    ({ messages, status }) => ({ ticks: messages, status: status.changes })
  ),
  // The last event ID of one connection goes into the next.
  events: Effect.map(
    EventSource.make("/events", {
      schema: EventSchema.json(Tick),
      schedule: retrying,
      // A server that shuts down answers 503.
      retryable: (error) => EventSource.isRetryable(error) || error.status === 503
    }),
    ({ events, status }) => ({ ticks: events, status: status.changes })
  )
}
// #endregion

const showFeedStatus = (status: Status): void => showStatus(byId("feed-state"), status)

const shownTicks = 60

/** The figures, and the line of the last ticks, which begins anew. */
const makeView = () => {
  const heap: Array<number> = []
  return (tick: Tick): void => {
    for (const name of ["n", "people", "rooms", "lines"] as const) {
      byId(`figure-${name}`).textContent = `${tick[name]}`
    }
    byId("figure-heapMiB").textContent = tick.heapMiB.toFixed(1)
    byId("figure-at").textContent = clockTime(tick.at)
    heap.push(tick.heapMiB)
    if (heap.length > shownTicks) heap.shift()
    const low = Math.min(...heap)
    const span = Math.max(1, Math.max(...heap) - low)
    const points = heap.map((value, at) => `${(at * 240) / (shownTicks - 1)},${44 - ((value - low) / span) * 40}`)
    document.getElementById("spark")?.setAttribute("points", points.join(" "))
  }
}
