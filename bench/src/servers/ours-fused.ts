/** This library with one loop in one fiber: `WebSocketRoute.each`. */
import { WebSocketRoute } from "@effect-ws/core"
import { serve } from "./ours.js"

serve((path, options) => WebSocketRoute.each(path, options, (message, socket) => socket.send(message)))
