/**
 * Server-Sent Events: a counter that resumes, a topic to publish to, and a stream as fast as its reader.
 *
 *     PORT=9002 SIZE=128 npm run -s example:sse
 */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { EventBroadcast, EventLog, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Chunk, Config, Console, Context, Effect, Layer, Schedule, Stream } from "effect"

// #region routes
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
// #endregion

// #region firehose
// As fast as the reader takes them; chunks of a stream leave as one write
const Firehose = EventStreamRoute.layerEffect(
  "/firehose",
  {},
  Effect.map(Config.withDefault(Config.integer("SIZE"), 128), (size) => {
    const events = Chunk.makeBy(16, () => ServerSentEvent.make({ data: "x".repeat(size) }))
    return () => Stream.forever(Stream.fromChunk(events))
  })
)
// #endregion

const Ready = Layer.effectDiscard(
  HttpServer.addressWith((address) =>
    Console.log(`READY http://127.0.0.1:${address._tag === "TcpAddress" ? address.port : address.path}/`)
  )
)

// #region serve
const Routes = Layer.mergeAll(Events, Subscribe, Publish, Firehose).pipe(Layer.provide(News.layer))

const Server = NodeWebSocketServer.layerConfig(createServer, {
  port: Config.integer("PORT").pipe(Config.withDefault(9002)),
  host: Config.succeed("127.0.0.1")
})

HttpLayerRouter.serve(Routes, { disableListenLog: true, disableLogger: true }).pipe(
  (served) => Layer.provide(Ready, served),
  Layer.provide(Server),
  Layer.launch,
  NodeRuntime.runMain
)
// #endregion
