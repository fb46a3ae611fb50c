/** The client of `ws` as its documentation shows it. */
import { WebSocket } from "ws"
import { fail, run, url } from "./harness.js"

run((talk) => {
  const socket = new WebSocket(url)
  socket.on("error", fail)
  socket.on("close", () => fail("a connection ended"))
  socket.on("open", () => {
    for (const message of talk.first) socket.send(message)
  })
  socket.on("message", (data: Buffer) => socket.send(talk.next(data)))
  return undefined
})
