/** The WebSocket of `undici`, which is also that of Node 22 and later. */
import { WebSocket } from "undici"
import { fail, run, url } from "./harness.js"

run((talk) => {
  const socket = new WebSocket(url)
  socket.binaryType = "arraybuffer"
  socket.onerror = () => fail("a connection failed")
  socket.onclose = () => fail("a connection ended")
  socket.onopen = () => {
    for (const message of talk.first) socket.send(message)
  }
  socket.onmessage = ({ data }) => socket.send(talk.next(typeof data === "string" ? data : new Uint8Array(data)))
  return undefined
})
