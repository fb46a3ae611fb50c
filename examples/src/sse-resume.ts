/**
 * Resume after a restart: the log of what was sent outlives the server, and a client that comes back misses nothing.
 */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer, KeyValueStore } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { EventBroadcast, EventLog, EventSource, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Console, Context, Effect, Exit, Layer, Queue, Scope, Stream } from "effect"

// #region news
class News extends Context.Tag("News")<News, EventBroadcast.EventBroadcast>() {
  // On any KeyValueStore: KeyValueStore.layerFileSystem("news") keeps it in a folder
  static readonly layer = Layer.effect(
    News,
    Effect.flatMap(EventLog.keyValueStore({ maxEvents: 1000 }), (log) => EventBroadcast.make({ log }))
  )
}

// The rest of what a client has missed, or a "gap" event where the log does not know; then what is published
const Subscribe = EventStreamRoute.layerEffect(
  "/news",
  {},
  Effect.map(
    News,
    (news) =>
      ({ lastEventId }: EventStreamRoute.Request) =>
        news.subscribe(lastEventId)
  )
)
// #endregion

const server = (port: number) =>
  HttpLayerRouter.serve(Subscribe, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(News.layer),
    Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port, host: "127.0.0.1" }))
  )

const publish = (data: string) => Effect.flatMap(News, (news) => news.publish(ServerSentEvent.make({ data })))

Effect.gen(function* () {
  const life = yield* Scope.make()
  const first = yield* Layer.buildWithScope(server(0), life)
  const { address } = Context.get(first, HttpServer.HttpServer)
  const port = address._tag === "TcpAddress" ? address.port : 0

  // #region client
  const received = yield* Queue.unbounded<string>()
  const news = yield* EventSource.make(`http://127.0.0.1:${port}/news`, { reconnectionTime: "20 millis" })
  yield* Effect.forkScoped(Stream.runForEach(news.events, (event) => Queue.offer(received, event.data)))
  yield* Stream.runHead(Stream.filter(news.status.changes, (status) => status._tag === "Open"))
  // #endregion

  yield* Effect.provide(publish("one"), first)
  yield* Console.log(yield* Queue.take(received))
  yield* Scope.close(life, Exit.void)

  yield* Console.log("the server starts again")
  const second = yield* Layer.build(server(port))
  yield* Effect.provide(Effect.zipRight(publish("two"), publish("three")), second)
  yield* Console.log(yield* Queue.take(received))
  yield* Console.log(yield* Queue.take(received))
}).pipe(Effect.scoped, Effect.provide([KeyValueStore.layerMemory, NodeHttpClient.layer]), NodeRuntime.runMain)
