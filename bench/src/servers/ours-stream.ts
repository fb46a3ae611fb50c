/** This library with Streams: `Stream.run(socket.messages, socket.sink)`. */
import { WebSocketRoute } from "@effect-ws/core"
import { Stream } from "effect"
import { serve } from "./ours.js"

serve((path, options) => WebSocketRoute.layer(path, options, (socket) => Stream.run(socket.messages, socket.sink)))
