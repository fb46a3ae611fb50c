/**
 * The protocol alone over a message port, as over a WebRTC data channel: both ends know each other, so there is no HTTP, only frames.
 */
import { once } from "node:events"
import { MessageChannel, type MessagePort } from "node:worker_threads"
import { Protocol } from "@effect-ws/core/engine"

// #region drive
/** Chunks of bytes travel as messages of the port, an empty one says that no more will come. */
const drive = (port: MessagePort, protocol: Protocol.Protocol, tell: (action: Protocol.Action) => void) => {
  let closeTimer: NodeJS.Timeout | undefined
  const ended = { local: false, remote: false }
  const flush = () => {
    for (const bytes of protocol.output.take()) {
      // A copy of its own: these bytes lie in memory that all connections share, and the port would copy all of that
      const copy = bytes.slice()
      port.postMessage(copy, [copy.buffer])
    }
    protocol.output.release()
  }
  const end = (side: "local" | "remote") => {
    if (ended[side]) return
    ended[side] = true
    if (side === "local") port.postMessage(new Uint8Array(0))
    if (ended.local && ended.remote) port.close()
  }
  const perform = (actions: ReadonlyArray<Protocol.Action>) => {
    for (const action of actions) {
      if (action._tag === "StartCloseTimer") {
        clearTimeout(closeTimer)
        closeTimer = setTimeout(() => perform(protocol.closeTimerFired()), 10_000)
      } else if (action._tag === "AbortTransport") port.close()
      else if (action._tag === "EndTransport") {
        flush()
        end("local")
      } else tell(action)
    }
    flush()
  }
  port.on("message", (chunk: Uint8Array) => {
    if (chunk.length > 0) return perform(protocol.receive(chunk))
    perform(protocol.transportEnded())
    end("remote")
  })
  port.on("close", () => {
    clearTimeout(closeTimer)
    perform(protocol.transportClosed())
  })
  return perform
}
// #endregion

const { port1, port2 } = new MessageChannel()

// #region ends
const answering = new Protocol.Protocol({ role: "server" })
drive(port1, answering, (action) => {
  if (action._tag === "Deliver") for (const message of action.messages) answering.send(`${message}!`)
})

const asking = new Protocol.Protocol({
  role: "client",
  randomKey: () => crypto.getRandomValues(new Uint32Array(1))[0]!
})
const perform = drive(port2, asking, (action) => {
  if (action._tag === "Deliver") {
    for (const message of action.messages) console.log(message)
    perform(asking.close(1000, "enough"))
  } else if (action._tag === "Closed") console.log(`closed with ${action.info.code}: ${action.info.reason}`)
})

asking.send("hello")
perform([])
// #endregion
await once(port2, "close")
