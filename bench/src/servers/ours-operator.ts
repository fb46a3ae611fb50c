/**
 * This library with Streams and an operator: `Stream.run(Stream.map(socket.messages, f), socket.sink)`. Without one, messages run into a sink as
 * one loop; this is what any other stream of them costs.
 */
import { WebSocketRoute } from "@effect-ws/core"
import { Stream } from "effect"
import { serve } from "./ours.js"

serve((path, options) =>
  WebSocketRoute.layer(path, options, (socket) =>
    Stream.run(
      Stream.map(socket.messages, (message) => message),
      socket.sink
    )
  )
)
