/** What `@effect/platform` itself has: `HttpServerResponse.stream`, of a PubSub for many. */
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { Effect, Layer, PubSub, Stream } from "effect"
import { serve } from "../effect.js"
import { type BenchEvent, firehoseData, readyEvents } from "./harness.js"

const hub = Effect.runSync(PubSub.unbounded<BenchEvent>())
const encoder = new TextEncoder()
const open = Stream.make(encoder.encode(":\n\n"))

const respond = (stream: Stream.Stream<Uint8Array>) =>
  HttpServerResponse.stream(Stream.concat(open, stream), {
    contentType: "text/event-stream",
    headers: { "cache-control": "no-cache" }
  })

const Events = HttpLayerRouter.add(
  "GET",
  "/events",
  respond(
    Stream.map(Stream.fromPubSub(hub), ({ data, event, id }) =>
      encoder.encode(`event: ${event}\nid: ${id}\ndata: ${data}\n\n`)
    )
  )
)

const Firehose = HttpLayerRouter.add(
  "GET",
  "/firehose",
  Effect.map(HttpServerRequest.HttpServerRequest, (request) =>
    respond(Stream.forever(Stream.make(encoder.encode(`data: ${firehoseData(request.url)}\n\n`))))
  )
)

serve(Layer.mergeAll(Events, Firehose), (port) =>
  readyEvents(port, (event) => Effect.runSync(PubSub.publish(hub, event)))
)
