/**
 * The contract of a benchmark server with the runner. A server is a process which
 *
 * - listens on 127.0.0.1, port 0, and then calls {@link ready};
 * - echoes each message on `/echo` with its kind; sends each message received on `/broadcast` to every client there;
 * - if rows name it (`servers` in `rows.ts`): does the same on `/echo-deflate` and `/broadcast-deflate` with permessage-deflate, on
 *   `/echo-deflate-small` and `-full` with these presets, on `/echo-heartbeat` with a heartbeat of 20 s;
 * - exits on SIGTERM, and when its standard input ends (the runner is gone);
 * - answers the lines `cpu` and `mem` on its standard input with one line of JSON. `mem` needs `--expose-gc`.
 */
import type { AddressInfo, Server } from "node:net"
import { createInterface } from "node:readline"
import type { CpuAnswer, MemoryAnswer } from "../messages.js"

/** Prints `READY` with the ports and starts to answer the runner. */
export const ready = (...ports: ReadonlyArray<number>): void => {
  process.on("SIGTERM", () => process.exit(0))
  const lines = createInterface({ input: process.stdin })
  lines.on("close", () => process.exit(0))
  lines.on("line", (line) => {
    if (line === "cpu") answer(cpu())
    if (line === "mem") memory().then(answer)
  })
  console.log(`READY ${ports.join(" ")}`)
}

/** Listens on 127.0.0.1 and a free port, then {@link ready}. */
export const listen = (server: Server): void => {
  // The default backlog of 511 would drop connections of the rows that open a thousand.
  server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => ready((server.address() as AddressInfo).port))
}

const answer = (value: CpuAnswer | MemoryAnswer): void => console.log(JSON.stringify(value))

const cpu = (): CpuAnswer => {
  const { system, user } = process.cpuUsage()
  return { cpuSeconds: (user + system) / 1e6, atSeconds: performance.now() / 1e3 }
}

/** Three collections with time between: what the finalizers of one release goes with the next. */
const memory = async (): Promise<MemoryAnswer> => {
  for (let pass = 0; pass < 3; pass++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const { arrayBuffers, external, heapUsed, rss } = process.memoryUsage()
  return { ...cpu(), rss, heapUsed, external, arrayBuffers }
}
