/**
 * The engine driven by hand, without Effect: both roles from the first byte of the handshake, each over a Node Duplex.
 */
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"
import type { Duplex } from "node:stream"
import { Endpoint, Handshake } from "@effect-ws/core/engine"

// #region drive
/** Moves bytes between an endpoint and a Duplex, does what it asks for, and tells the rest. Call `perform` with what its methods give. */
const drive = (duplex: Duplex, endpoint: Endpoint.Endpoint, tell: (event: Endpoint.Event) => void) => {
  let closeTimer: NodeJS.Timeout | undefined
  const flush = () => {
    for (const bytes of endpoint.take()) duplex.write(bytes)
    // What a peer sends that does not read waits with it, so nothing piles up here
    if (!duplex.writableNeedDrain || duplex.isPaused()) return
    endpoint.blocked()
    duplex.pause().once("drain", () => {
      endpoint.drained()
      duplex.resume()
    })
  }
  const perform = (events: ReadonlyArray<Endpoint.Event>) => {
    for (const event of events) {
      if (event._tag === "StartCloseTimer") {
        clearTimeout(closeTimer)
        closeTimer = setTimeout(() => perform(endpoint.closeTimerFired()), 10_000)
      } else if (event._tag === "AbortTransport") duplex.destroy()
      else if (event._tag === "EndTransport") {
        flush()
        duplex.end()
      } else tell(event)
    }
    if (duplex.writable) flush()
  }
  duplex.on("data", (chunk: Uint8Array) => perform(endpoint.receive(chunk)))
  duplex.on("end", () => perform(endpoint.transportEnded()))
  duplex.on("error", (error) => console.error(error.message))
  duplex.on("close", () => {
    clearTimeout(closeTimer)
    perform(endpoint.transportClosed())
  })
  flush()
  return perform
}
// #endregion

// #region server
const server = createServer({ allowHalfOpen: true }, (socket) => {
  const endpoint = Endpoint.server()
  const perform = drive(socket, endpoint, (event) => {
    if (event._tag === "Request") {
      console.log(`server: ${event.head.method} ${event.head.target}`)
      perform(event.handshake._tag === "Accepted" ? endpoint.accept() : endpoint.refuse())
    } else if (event._tag === "Deliver") for (const message of event.messages) endpoint.send(message)
  })
})
// #endregion
await once(server.listen(0, "127.0.0.1"), "listening")
const { port } = server.address() as AddressInfo

// #region client
const endpoint = Endpoint.client({
  request: {
    path: "/echo",
    host: `127.0.0.1:${port}`,
    key: Handshake.makeKey(crypto.getRandomValues(new Uint8Array(16))),
    subprotocols: [],
    headers: {}
  },
  randomKey: () => crypto.getRandomValues(new Uint32Array(1))[0]!
})

// Sent when the handshake is done, in this order
for (const message of ["one", "two", "three"]) endpoint.send(message)

const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true })
const perform = drive(socket, endpoint, (event) => {
  if (event._tag === "Open") console.log(`client: open, version ${event.version}`)
  else if (event._tag === "Closed") console.log(`client: closed with ${event.info.code}, clean: ${event.info.clean}`)
  else if (event._tag === "Deliver") {
    for (const message of event.messages) console.log(`client: ${message}`)
    if (event.messages.includes("three")) perform(endpoint.close(1000))
  }
})
// #endregion
await once(socket, "close")
server.close()
