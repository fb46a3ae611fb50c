/** `ws` as its documentation shows it: several WebSocket servers behind one HTTP server, compression only where its path says so. */
import { createServer } from "node:http"
import { type ServerOptions, WebSocket, WebSocketServer } from "ws"
import { listen } from "./harness.js"

const echo = (options: ServerOptions = {}): WebSocketServer => {
  const server = new WebSocketServer({ noServer: true, ...options })
  server.on("connection", (socket) => {
    socket.on("error", () => {})
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  return server
}

const broadcast = (options: ServerOptions = {}): WebSocketServer => {
  const server = new WebSocketServer({ noServer: true, ...options })
  server.on("connection", (socket) => {
    socket.on("error", () => {})
    socket.on("message", (data, isBinary) => {
      for (const client of server.clients) {
        if (client.readyState === WebSocket.OPEN) client.send(data, { binary: isBinary })
      }
    })
  })
  return server
}

/** Its documentation's way to detect broken connections. */
const withHeartbeat = (server: WebSocketServer): WebSocketServer => {
  server.on("connection", (socket: WebSocket & { isAlive?: boolean }) => {
    socket.isAlive = true
    socket.on("pong", () => {
      socket.isAlive = true
    })
  })
  setInterval(() => {
    for (const socket of server.clients as Set<WebSocket & { isAlive?: boolean }>) {
      if (socket.isAlive === false) {
        socket.terminate()
        continue
      }
      socket.isAlive = false
      socket.ping()
    }
  }, 20_000)
  return server
}

// Level and memory level are those of zlib, 6 and 8. With its default threshold messages of 1 KiB are compressed too.
const deflate: ServerOptions = { perMessageDeflate: { threshold: 0 } }
const echoDeflate = echo(deflate)

const targets = new Map([
  ["/echo", echo()],
  ["/echo-deflate", echoDeflate],
  ["/echo-deflate-small", echoDeflate],
  ["/echo-deflate-full", echoDeflate],
  ["/echo-heartbeat", withHeartbeat(echo())],
  ["/broadcast", broadcast()],
  ["/broadcast-deflate", broadcast(deflate)]
])

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  const target = targets.get(request.url!)
  if (target === undefined) socket.destroy()
  else target.handleUpgrade(request, socket, head, (accepted) => target.emit("connection", accepted, request))
})
listen(server)
