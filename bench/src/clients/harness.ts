/**
 * The contract of a benchmark client with the runner. A client is a process which gets a task with a row of kind `client` as JSON in its
 * only argument, and an IPC channel. It calls {@link run}, opens each connection to {@link url}, sends the first messages at
 * once, and answers each message with what {@link Talk.next} gives for it. All else is here, and the same for all clients.
 */
import { payloadsOf } from "../load/Exchange.js"
import * as Window from "../load/window.js"
import type { LoadTask } from "../messages.js"
import type { ClientRow } from "../rows.js"

export const task = JSON.parse(process.argv[2]!) as LoadTask

export const row = task.row as ClientRow

export const url = `ws://127.0.0.1:${task.port}/echo`

/** One connection's messages. */
export interface Talk {
  readonly first: ReadonlyArray<string | Buffer>
  /** Checks and counts a message, in the form in which the client gives it; returns the message to send for it. */
  readonly next: (received: string | Uint8Array) => string | Buffer
}

/** Ends the process with an error, the figure being none. */
export const fail = (cause: unknown): void => {
  const message = cause instanceof Error ? cause.message : String(cause)
  void Window.send({ type: "error", message }).then(() => process.exit(1))
}

export const slots = Math.max(2, row.inFlight)

let operations = 0

export const count = (messages: number): void => {
  operations += messages
}

/** Opens the row's connections and measures once each has got a message. A promise of `open` is settled when its connection ended. */
export const run = (open: (talk: Talk) => Promise<unknown> | undefined): void => {
  process.on("disconnect", () => process.exit(1))
  const payloads = payloadsOf(slots, row.payloadBytes, row.binary)
  const messages = payloads.map((payload) => (row.binary ? payload : payload.toString("latin1")))
  const connections = Array.from({ length: row.connections }, () => {
    let received = 0
    const talk: Talk = {
      first: messages.slice(0, row.inFlight),
      next: (message) => {
        const slot = received++ % slots
        const right = typeof message === "string" ? message === messages[slot] : payloads[slot]!.compare(message) === 0
        if (!right) fail("a wrong message came back")
        operations++
        return messages[(slot + row.inFlight) % slots]!
      }
    }
    open(talk)?.then(() => fail("a connection ended"), fail)
    return () => received > 0
  })
  measureOnce(() => connections.every((isOpen) => isOpen()))
}

/** Measures as soon as `isReady`, reports and ends the process. */
export const measureOnce = (isReady: () => boolean): void => {
  const timer = setInterval(() => {
    if (!isReady()) return
    clearInterval(timer)
    Window.measure(task, () => operations).then((done) => Window.send(done).then(() => process.exit(0)), fail)
  }, 5)
}
