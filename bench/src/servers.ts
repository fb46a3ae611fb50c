/**
 * The servers of the benchmark, as data. To add one: a file in `servers/` that keeps to the contract of
 * `servers/harness.ts`, and a line here.
 */

export interface ServerEntry {
  /** Name in the table and in `--servers`. */
  readonly name: string
  /** The compiled program, beside this module. */
  readonly file: string
}

/** The server which every ratio is taken to. */
export const baseline = "ws"

export const servers: ReadonlyArray<ServerEntry> = [
  { name: baseline, file: "./servers/ws.js" },
  { name: "websocket-driver", file: "./servers/websocket-driver.js" },
  { name: "faye-websocket", file: "./servers/faye-websocket.js" },
  { name: "effect-platform", file: "./servers/effect-platform.js" },
  { name: "plain-net", file: "./servers/plain-net.js" },
  { name: "ours-stream", file: "./servers/ours-stream.js" },
  { name: "ours-fused", file: "./servers/ours-fused.js" },
  { name: "ours-attached", file: "./servers/ours-attached.js" }
]
