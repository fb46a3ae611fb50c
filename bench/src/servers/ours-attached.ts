/** This library on a plain HTTP server, without router and fibers: opening handshake, transport and connection by callbacks. */
import { createServer } from "node:http"
import { Connection } from "@effect-ws/core"
import { Handshake } from "@effect-ws/core/engine"
import { NodeTransport } from "@effect-ws/node"
import { Clock } from "effect"
import { listen } from "./harness.js"
import { maxMessageBytes } from "./ours.js"

const settings = Connection.settings({ maxMessageBytes }, { role: "server" })
const clock = Clock.make()
const members = new Set<Connection.Connection>()

const server = createServer()
server.on("upgrade", (request, socket, head) => {
  const check = Handshake.checkRequest({
    method: request.method!,
    httpVersion: request.httpVersion,
    headers: request.headers as Handshake.Headers
  })
  const answer = check._tag === "Rejected" ? Handshake.formatReject(check) : Handshake.formatAccept(check)
  if (check._tag === "Rejected" || typeof answer !== "string") {
    socket.destroy()
    return
  }
  const transport = NodeTransport.fromDuplex(socket, head)
  socket.write(answer, "latin1")
  const connection = Connection.unsafeStart(transport, settings, undefined, clock)
  if (request.url?.startsWith("/echo")) {
    Connection.unsafeForEach(
      connection,
      (message) => void connection.unsafeTrySend(message),
      () => {}
    )
  } else {
    members.add(connection)
    Connection.unsafeForEach(
      connection,
      (message) => {
        for (const member of members) member.unsafeTrySend(message)
      },
      () => members.delete(connection)
    )
  }
})
listen(server)
