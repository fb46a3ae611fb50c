/**
 * A client of an event stream that outlives its connections.
 */
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { EventSource, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { Console, Effect, Schedule, Stream } from "effect"
import { withServer } from "./local.js"

// Ends after two events, wherever its client stopped
const Events = EventStreamRoute.layer("/events", { retry: "10 millis" }, ({ lastEventId }) =>
  Stream.range(Number(lastEventId) + 1, Number(lastEventId) + 2).pipe(
    Stream.map((n) => ServerSentEvent.make({ event: "tick", id: String(n), data: JSON.stringify({ n }) }))
  )
)

// #region listen
const ticks = (url: string) =>
  EventSource.stream(url, {
    schedule: Schedule.exponential("20 millis").pipe(Schedule.jittered, Schedule.union(Schedule.spaced("30 seconds"))),
    idleTimeout: "1 minute"
  }).pipe(
    Stream.take(5),
    Stream.runForEach((event) => Console.log(event.lastEventId, event.data)),
    Effect.provide(NodeHttpClient.layer)
  )
// #endregion

withServer(Events, (address) => ticks(`${address}/events`)).pipe(NodeRuntime.runMain)
