/** `websocket-driver` as its documentation shows it: the driver's two streams between the socket and the program. */
import { createServer } from "node:http"
import driver, { type Driver } from "websocket-driver"
import { listen } from "./harness.js"

const members = new Set<Driver>()

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  if (!driver.isWebSocket(request)) return void socket.destroy()
  const connection = driver.http(request)
  connection.io.write(head)
  socket.on("error", () => socket.destroy())
  socket.pipe(connection.io).pipe(socket)
  if (request.url === "/broadcast") {
    members.add(connection)
    connection.on("close", () => members.delete(connection))
    socket.on("close", () => members.delete(connection))
    connection.messages.on("data", (message: string | Buffer) => {
      for (const member of members) member.messages.write(message)
    })
  } else {
    connection.messages.on("data", (message: string | Buffer) => connection.messages.write(message))
  }
  connection.on("close", () => socket.end())
  connection.start()
})
listen(server)
