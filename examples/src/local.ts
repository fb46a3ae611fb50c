/**
 * What the examples with a network share: their routes on a free port of this machine.
 */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Effect, Layer } from "effect"

/** Runs a program against a server with these routes; it gets the server's URL without a trailing slash. */
export const withServer = <E, R, E2, R2>(
  routes: Layer.Layer<never, E, R>,
  program: (address: string) => Effect.Effect<void, E2, R2>
) =>
  HttpServer.addressFormattedWith(program).pipe(
    Effect.provide(
      HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
        Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
      )
    )
  )
