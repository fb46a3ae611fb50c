/** This library with a function for each message: `WebSocketRoute.each`. */
import { WebSocketRoute } from "@effect-ws/core"
import { serve } from "./ours.js"

serve((path, options) => WebSocketRoute.each(path, options, (message, socket) => socket.send(message)))
