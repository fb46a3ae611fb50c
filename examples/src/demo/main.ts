/**
 * The demo: a chat with rooms and a live feed beside ordinary HTTP routes, and a page to see them with.
 *
 *     PORT=8080 npm start
 *
 * What else can be set stands in Settings.ts.
 */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Config, Console, Effect, Layer } from "effect"
import { ChatRoute } from "./ChatRoute.js"
import { Feed, FeedRoutes } from "./Feed.js"
import { HttpRoutes } from "./HttpRoutes.js"
import { Rooms } from "./Rooms.js"
import * as Settings from "./Settings.js"

const Announce = Layer.effectDiscard(
  HttpServer.addressWith((address) =>
    address._tag === "TcpAddress"
      ? Console.log(`effect-ws demo: open http://${printable(address.hostname)}:${address.port}/ (Ctrl+C stops it)`)
      : Console.log(`effect-ws demo: listening on ${address.path}`)
  )
)

const printable = (host: string): string =>
  host === "0.0.0.0" || host === "::" ? "localhost" : host.includes(":") ? `[${host}]` : host

const Server = NodeWebSocketServer.layerConfig(createServer, Settings.listen)

const Demo = HttpLayerRouter.serve(Layer.mergeAll(ChatRoute, FeedRoutes, HttpRoutes), {
  disableLogger: true,
  disableListenLog: true
}).pipe(
  (served) => Layer.provide(Announce, served),
  Layer.provide(Feed.Default),
  Layer.provide(Rooms.Default),
  Layer.provide(Settings.StoreLive),
  Layer.provide(Server)
)

Layer.launch(Demo).pipe(
  Effect.catchTag("ServeError", ({ cause }) =>
    Effect.flatMap(Config.unwrap(Settings.listen), ({ host, port }) =>
      Effect.fail(`can't listen on ${host}:${port}: ${cause instanceof Error ? cause.message : String(cause)}`)
    )
  ),
  NodeRuntime.runMain
)
