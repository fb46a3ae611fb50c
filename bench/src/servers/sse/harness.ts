/**
 * The contract of a server of event streams with the runner, besides that of `../harness.ts`: it
 *
 * - serves on `/events` every event that is published from then on, after something that shows that it is open;
 * - serves on `/firehose?bytes=N`, as fast as the reader takes it, one event over and over, with N bytes of data and no type;
 * - calls `publish` for each byte that comes over a control connection, all of one read in one turn. That costs every
 *   server the same, where a route for it would measure routes.
 */
import { type AddressInfo, createServer, type Server } from "node:net"
import { ready } from "../harness.js"

/** An event to publish. A few different ones take turns, so that a lost, doubled or swapped one shows. */
export interface BenchEvent {
  readonly event: string
  readonly id: string
  readonly data: string
}

export const slots = 8

export const textOf = (bytes: number, slot: number): string =>
  `{"slot":${slot},"text":"${"The quick brown fox jumps. ".repeat(bytes)}`.slice(0, bytes - 2).concat('"}')

export const events: ReadonlyArray<BenchEvent> = Array.from({ length: slots }, (_, slot) => ({
  event: "tick",
  id: String(slot),
  data: textOf(128, slot)
}))

/** The data of the event that `/firehose?bytes=N` repeats. */
export const firehoseData = (url: string | undefined): string =>
  textOf(Number(new URL(url ?? "", "http://localhost").searchParams.get("bytes")), 0)

/** Opens the control port and prints `READY <port> <control port>`. */
export const readyEvents = (port: number, publish: (event: BenchEvent) => void): void => {
  let next = 0
  const control = createServer((socket) => {
    socket.on("error", () => socket.destroy())
    socket.on("data", (chunk) => {
      for (let count = chunk.length; count > 0; count--) publish(events[next++ % slots]!)
    })
  })
  control.listen(0, "127.0.0.1", () => ready(port, (control.address() as AddressInfo).port))
}

/** Listens on 127.0.0.1 and a free port, then {@link readyEvents}. */
export const listenEvents = (server: Server, publish: (event: BenchEvent) => void): void => {
  server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
    readyEvents((server.address() as AddressInfo).port, publish)
  )
}
