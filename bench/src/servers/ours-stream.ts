/** This library with Streams: `Stream.run(socket.messages, socket.sink)`. */
import { WebSocketRoute } from "@effect-ws/core"
import { Stream } from "effect"
import { maxMessageBytes, serve } from "./ours.js"

serve(WebSocketRoute.layer("/echo", { maxMessageBytes }, (socket) => Stream.run(socket.messages, socket.sink)))
