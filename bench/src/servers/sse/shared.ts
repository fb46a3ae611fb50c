/** What both of this library's servers share: all but how `/events` is made of the broadcast. */
import { EventBroadcast, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { Chunk, Effect, Layer, Stream } from "effect"
import { serve } from "../effect.js"
import { firehoseData, readyEvents } from "./harness.js"

const Firehose = EventStreamRoute.layer("/firehose", {}, ({ url }) => {
  const event = ServerSentEvent.make({ data: firehoseData(url) })
  return Stream.forever(Stream.fromChunk(Chunk.makeBy(16, () => event)))
})

type Events = ReturnType<EventBroadcast.EventBroadcast["subscribe"]>

/** Serves `/events` as `change` makes it. */
export const serveOurs = (change: (events: Events) => Events): void => {
  const broadcast = Effect.runSync(EventBroadcast.make())
  const Events = EventStreamRoute.layer("/events", { maxBufferedBytes: 2 ** 30 }, () => change(broadcast.subscribe()))
  serve(Layer.mergeAll(Events, Firehose), (port) =>
    readyEvents(port, (event) => Effect.runSync(broadcast.publish(ServerSentEvent.make(event))))
  )
}
