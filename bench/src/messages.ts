/** What the runner, the load generator and the servers say to each other. Times are in seconds, CPU shares 0 to 1. */
import type { Row } from "./rows.js"

/** The task of one load generator process: its only argument, as JSON. */
export interface LoadTask {
  readonly port: number
  /** Where to publish: only servers of event streams have it. */
  readonly controlPort: number | undefined
  readonly row: Row
  readonly seconds: number
  readonly warmupSeconds: number
}

/** Load generator to runner, over the IPC channel. */
export type LoadReport =
  | { readonly type: "windowStart" }
  | { readonly type: "windowEnd" }
  /** `memory` only: the given number of connections is open and idle; it waits for a {@link LoadCommand}. */
  | { readonly type: "idle"; readonly connections: number }
  | { readonly type: "done"; readonly operations: number; readonly seconds: number; readonly cpuShare: number }
  | { readonly type: "error"; readonly message: string }
  | { readonly type: "note"; readonly message: string }

/** Runner to load generator. */
export type LoadCommand = { readonly type: "next" }

/** A server's answer to the line `cpu` on its standard input. */
export interface CpuAnswer {
  /** User and system time of the process so far. */
  readonly cpuSeconds: number
  /** The server's monotonic clock when it answered. */
  readonly atSeconds: number
}

/** A server's answer to the line `mem`: bytes, after a full garbage collection. */
export interface MemoryAnswer extends CpuAnswer {
  readonly rss: number
  readonly heapUsed: number
  /** Includes `arrayBuffers`. */
  readonly external: number
  readonly arrayBuffers: number
}
