/** `faye-websocket` as its documentation shows it. */
import { createServer } from "node:http"
import FayeWebSocket from "faye-websocket"
import { listen } from "./harness.js"

const members = new Set<FayeWebSocket>()

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  if (!FayeWebSocket.isWebSocket(request)) return void socket.destroy()
  const connection = new FayeWebSocket(request, socket, head)
  if (request.url === "/broadcast") {
    members.add(connection)
    connection.on("close", () => members.delete(connection))
    connection.on("message", (event) => {
      for (const member of members) member.send(event.data)
    })
  } else {
    connection.on("message", (event) => connection.send(event.data))
  }
})
listen(server)
