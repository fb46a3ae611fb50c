/** The least that Node needs to do: frames made beforehand, reads compared as bytes. An upper bound, not a client. */
import * as Client from "../load/Client.js"
import * as Exchange from "../load/Exchange.js"
import * as Receiver from "../load/Receiver.js"
import { makeOpening } from "../load/wire.js"
import { count, fail, measureOnce, row, slots, task } from "./harness.js"

const exchange = Exchange.make(slots, row.payloadBytes, row.binary)
let open = 0
for (let i = 0; i < row.connections; i++) {
  const client = Client.connect(task.port, makeOpening("/echo", task.port), () => {
    open++
    const write = (bytes: Buffer): void => void client.socket.write(bytes)
    const { receive } = Receiver.make(exchange, write)
    let slot = 0
    const send = (messages: number): void => {
      write(Exchange.requestsFrom(exchange, slot, messages))
      slot = (slot + messages) % exchange.slots
    }
    client.onBytes = (chunk, bytes) => {
      const messages = receive(chunk, bytes)
      count(messages)
      if (messages > 0) send(messages)
    }
    send(row.inFlight)
  })
  client.onEnd = (cause) => fail(cause?.message ?? "ended by the server")
}
measureOnce(() => open === row.connections)
