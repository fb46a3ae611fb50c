/**
 * A client that sends every message back with its kind until the server closes.
 *
 *     DEFLATE=1 npm run -s example:echo-client -- ws://127.0.0.1:9001/path
 *
 * Exit code 0 when the server closed by the closing handshake, with whatever close code; 1 when no connection came about, the
 * line was cut, or the server broke a rule of the protocol. Anything but a normal end is explained on stderr.
 */

import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, type WebSocketError } from "@effect-ws/core"
import { NodeWebSocketClient, PermessageDeflate } from "@effect-ws/node"
import { Config, Console, Effect, Stream } from "effect"

/** RFC 6455 §7.1.5: the transport was lost before the closing handshake completed. */
const abnormal = 1006

const echo = (url: string) =>
  Effect.gen(function* () {
    const maxMessageBytes = yield* Config.integer("MAX_MESSAGE_BYTES").pipe(Config.withDefault(0x100000))
    const deflate = yield* Config.boolean("DEFLATE").pipe(Config.withDefault(false))
    const extensions = deflate ? [PermessageDeflate.make({ threshold: 0 })] : []
    const socket = yield* WebSocketClient.connect(url, { maxMessageBytes, extensions })
    yield* Stream.run(socket.messages, socket.sink)
  }).pipe(
    Effect.scoped,
    Effect.catchIf(
      (error): error is WebSocketError.ConnectionClosed => error._tag === "ConnectionClosed" && error.code !== abnormal,
      (closed) => Console.error(closed.message)
    )
  )

const url = process.argv[2]

const program =
  url === undefined
    ? Effect.fail({ message: "usage: npm run -s example:echo-client -- ws://HOST:PORT/path" })
    : echo(url)

program.pipe(
  Effect.provide(NodeWebSocketClient.layer),
  Effect.tapError((error) => Console.error(error.message)),
  NodeRuntime.runMain({ disableErrorReporting: true })
)
