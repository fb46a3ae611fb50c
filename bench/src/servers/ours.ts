/** What both of this library's servers share: all but the handler that echoes. */
import type { HttpLayerRouter } from "@effect/platform"
import { Broadcast, type Connection, WebSocketRoute } from "@effect-ws/core"
import type { Extension } from "@effect-ws/core/engine"
import { NodeWebSocketServer, PermessageDeflate } from "@effect-ws/node"
import { Effect, Layer } from "effect"
import { serve as serveRoutes } from "./effect.js"
import { ready } from "./harness.js"

export const maxMessageBytes = 100 * 1024 * 1024

interface RouteOptions extends Connection.Options {
  readonly extensions?: ReadonlyArray<Extension.Extension>
}

/** The level and memory level of zlib, which the peers use as well; like `websocket-driver`, every message is compressed. */
const deflate = { level: 6, memLevel: 8, threshold: 0 }

const room = (path: HttpLayerRouter.PathInput, options: RouteOptions) =>
  Layer.unwrapEffect(
    Effect.map(Broadcast.make(), (room) =>
      WebSocketRoute.layer(path, options, (socket) =>
        Effect.zipRight(
          room.join(socket),
          socket.runForEach((message) => room.publish(message))
        )
      )
    )
  )

const Rooms = Layer.mergeAll(
  room("/broadcast", { maxMessageBytes }),
  // Without context takeover by choice, so that a publication is compressed once for all.
  room("/broadcast-deflate", {
    maxMessageBytes,
    extensions: [PermessageDeflate.make({ ...deflate, serverNoContextTakeover: true })]
  })
)

type Echo = (
  path: HttpLayerRouter.PathInput,
  options: RouteOptions
) => Layer.Layer<never, never, HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Error", unknown>>

const echoes = (echo: Echo) =>
  Layer.mergeAll(
    echo("/echo", { maxMessageBytes }),
    echo("/echo-deflate", { maxMessageBytes, extensions: [PermessageDeflate.make(deflate)] }),
    echo("/echo-deflate-small", { maxMessageBytes, extensions: [PermessageDeflate.small] }),
    echo("/echo-deflate-full", { maxMessageBytes, extensions: [PermessageDeflate.full] }),
    echo("/echo-heartbeat", { maxMessageBytes, heartbeat: { interval: "20 seconds" } })
  )

/** Serves `echo` on its paths, and the fan-out. */
export const serve = (echo: Echo): void =>
  serveRoutes(Layer.mergeAll(echoes(echo), Rooms), ready, NodeWebSocketServer.layer)
