/** `websocket-driver` as its documentation shows it: the driver's two streams between the socket and the program; its extension with default options. */
import { createServer } from "node:http"
import deflate from "permessage-deflate"
import driver, { type Driver } from "websocket-driver"
import { listen } from "./harness.js"

const members = { "/broadcast": new Set<Driver>(), "/broadcast-deflate": new Set<Driver>() }

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  if (!driver.isWebSocket(request)) return void socket.destroy()
  const connection = driver.http(request)
  if (request.url?.includes("-deflate")) connection.addExtension(deflate)
  connection.io.write(head)
  socket.on("error", () => socket.destroy())
  socket.pipe(connection.io).pipe(socket)
  if (request.url === "/broadcast" || request.url === "/broadcast-deflate") {
    const room = members[request.url]
    room.add(connection)
    connection.on("close", () => room.delete(connection))
    socket.on("close", () => room.delete(connection))
    connection.messages.on("data", (message: string | Buffer) => {
      for (const member of room) member.messages.write(message)
    })
  } else {
    connection.messages.on("data", (message: string | Buffer) => connection.messages.write(message))
  }
  connection.on("close", () => socket.end())
  connection.start()
})
listen(server)
