/** What the servers on the router of `@effect/platform` share: all but their routes. */
import { createServer, type Server } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"

type Routes<E> = Layer.Layer<never, E, HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Error", unknown>>

/** Serves `routes` on 127.0.0.1 and a free port, then calls `ready` with it; `make` is the layer of the server. */
export const serve = <E>(
  routes: Routes<E>,
  ready: (port: number) => void,
  make: (
    evaluate: () => Server,
    options: { readonly port: number; readonly host: string; readonly backlog: number }
  ) => ReturnType<typeof NodeHttpServer.layer> = NodeHttpServer.layer
): void =>
  HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.merge(
      Layer.effectDiscard(
        HttpServer.addressWith((address) =>
          Effect.sync(() => {
            if (address._tag === "TcpAddress") ready(address.port)
          })
        )
      )
    ),
    Layer.provide(make(() => createServer(), { port: 0, host: "127.0.0.1", backlog: 4096 })),
    Layer.launch,
    NodeRuntime.runMain
  )
