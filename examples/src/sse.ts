/**
 * Server-Sent Events: a counter that resumes, a topic to publish to, and a stream as fast as its reader.
 *
 *     PORT=9002 SIZE=128 npm run -s example:sse
 */

import { createServer } from "node:http"
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { EventBroadcast, EventLog, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Chunk, Console, Context, Effect, Layer, Schedule, Stream } from "effect"

class News extends Context.Tag("News")<News, EventBroadcast.EventBroadcast>() {
  static readonly layer = Layer.effect(
    News,
    Effect.flatMap(EventLog.memory(), (log) => EventBroadcast.make({ log }))
  )
}

// A counter that goes on where its reader stopped
const Events = EventStreamRoute.layer("/events", {}, ({ lastEventId }) =>
  Stream.iterate((Number(lastEventId) || 0) + 1, (n) => n + 1).pipe(
    Stream.schedule(Schedule.spaced("100 millis")),
    Stream.map((n) => ServerSentEvent.make({ event: "tick", id: String(n), data: JSON.stringify({ n }) }))
  )
)

// Every subscriber gets what is published, and what it missed when it comes back
const Subscribe = EventStreamRoute.layerEffect(
  "/sse",
  { slowReader: "cut", maxBufferedBytes: 1024 * 1024 },
  Effect.map(
    News,
    (news) =>
      ({ lastEventId }: EventStreamRoute.Request) =>
        news.subscribe(lastEventId)
  )
)

const Publish = HttpLayerRouter.addAll(
  Effect.map(News, (news) => [
    HttpLayerRouter.route(
      "POST",
      "/publish",
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        yield* news.publish(ServerSentEvent.make({ data: yield* request.text }))
        return HttpServerResponse.empty()
      })
    )
  ])
)

// As fast as the reader takes them; chunks of a stream leave as one write
const event = ServerSentEvent.make({ data: "x".repeat(Number(process.env.SIZE ?? 128)) })
const Firehose = EventStreamRoute.layer("/firehose", {}, () =>
  Stream.forever(Stream.fromChunk(Chunk.makeBy(16, () => event)))
)

const port = Number(process.env.PORT ?? 9002)
const Routes = Layer.mergeAll(Events, Subscribe, Publish, Firehose).pipe(Layer.provide(News.layer))

HttpLayerRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
  Layer.tap(() => Console.log(`READY http://127.0.0.1:${port}/`)),
  Layer.provide(NodeWebSocketServer.layer(createServer, { port, host: "127.0.0.1" })),
  Layer.launch,
  NodeRuntime.runMain
)
