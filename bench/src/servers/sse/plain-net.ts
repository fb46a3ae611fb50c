/** The least that Node needs to do: `node:net`, a head that is not parsed, no chunks. An upper bound, not a server. */
import { createServer, type Socket } from "node:net"
import { firehoseData, listenEvents } from "./harness.js"

const subscribers = new Set<Socket>()

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n:\n\n"

const server = createServer({ noDelay: true }, (socket) => {
  socket.on("error", () => socket.destroy())
  socket.on("close", () => subscribers.delete(socket))
  // A request of the load generator is one read.
  socket.once("data", (request) => {
    socket.write(head)
    const url = request.toString("latin1").split(" ")[1]
    if (url === "/events") {
      subscribers.add(socket)
      return
    }
    const text = Buffer.from(`data: ${firehoseData(url)}\n\n`)
    const run = (): void => {
      while (socket.write(text));
    }
    socket.on("drain", run)
    run()
  })
})

listenEvents(server, ({ data, event, id }) => {
  const bytes = Buffer.from(`event: ${event}\nid: ${id}\ndata: ${data}\n\n`)
  for (const socket of subscribers) socket.write(bytes)
})
