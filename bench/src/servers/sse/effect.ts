/** What the servers on `@effect/platform` share: all but their routes. */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { type BenchEvent, readyEvents } from "./harness.js"

export const serve = <E>(
  routes: Layer.Layer<never, E, HttpLayerRouter.HttpRouter>,
  publish: (event: BenchEvent) => void
): void =>
  HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.merge(
      Layer.effectDiscard(
        HttpServer.addressWith((address) =>
          Effect.sync(() => {
            if (address._tag === "TcpAddress") readyEvents(address.port, publish)
          })
        )
      )
    ),
    Layer.provide(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1", backlog: 4096 })),
    Layer.launch,
    NodeRuntime.runMain
  )
