/**
 * An echo server on every path: every message goes back with its kind.
 *
 *     PORT=9001 MAX_MESSAGE_BYTES=1048576 DEFLATE=1 npm run -s example:echo
 *
 * `DRAFTS=1` switches on the versions of the protocol before RFC 6455.
 */
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { type Connection, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketServer, PermessageDeflate } from "@effect-ws/node"
import { Config, Console, Effect, Layer, Stream } from "effect"

const Echo = Layer.unwrapEffect(
  Effect.gen(function* () {
    const maxMessageBytes = yield* Config.integer("MAX_MESSAGE_BYTES").pipe(Config.withDefault(0x100000))
    const deflate = yield* Config.boolean("DEFLATE").pipe(Config.withDefault(false))
    const extensions = deflate ? [PermessageDeflate.make({ threshold: 0 })] : []
    // #region echo
    return WebSocketRoute.layer("/*", { maxMessageBytes, extensions, origins: "any" }, (socket) =>
      Stream.run(socket.messages, socket.sink)
    )
    // #endregion
  })
)

const Ready = Layer.effectDiscard(
  HttpServer.addressWith((address) =>
    Console.log(`READY ws://127.0.0.1:${address._tag === "TcpAddress" ? address.port : address.path}/`)
  )
)

const Server = NodeWebSocketServer.layerConfig(createServer, {
  port: Config.integer("PORT").pipe(Config.withDefault(9001)),
  host: Config.succeed("127.0.0.1"),
  drafts: Config.boolean("DRAFTS").pipe(
    Config.withDefault(false),
    Config.map((all): ReadonlyArray<Connection.Draft> => (all ? ["8", "hixie-76", "hixie-75"] : []))
  )
})

HttpLayerRouter.serve(Echo, { disableLogger: true, disableListenLog: true }).pipe(
  (served) => Layer.provide(Ready, served),
  Layer.provide(Server),
  Layer.launch,
  NodeRuntime.runMain
)
