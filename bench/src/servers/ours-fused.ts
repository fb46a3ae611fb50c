/** This library with one loop in one fiber: `WebSocketRoute.each`. */
import { WebSocketRoute } from "@effect-ws/core"
import { maxMessageBytes, serve } from "./ours.js"

serve(WebSocketRoute.each("/echo", { maxMessageBytes }, (message, socket) => socket.send(message)))
