/** `ws` as its documentation shows it: several WebSocket servers behind one HTTP server, no compression. */
import { createServer } from "node:http"
import { WebSocket, WebSocketServer } from "ws"
import { listen } from "./harness.js"

const echo = new WebSocketServer({ noServer: true })
echo.on("connection", (socket) => {
  socket.on("error", () => {})
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
})

const broadcast = new WebSocketServer({ noServer: true })
broadcast.on("connection", (socket) => {
  socket.on("error", () => {})
  socket.on("message", (data, isBinary) => {
    for (const client of broadcast.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(data, { binary: isBinary })
    }
  })
})

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  const target = request.url === "/echo" ? echo : request.url === "/broadcast" ? broadcast : undefined
  if (target === undefined) socket.destroy()
  else target.handleUpgrade(request, socket, head, (accepted) => target.emit("connection", accepted, request))
})
listen(server)
