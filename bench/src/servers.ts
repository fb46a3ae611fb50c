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

/** The server, or client, which the ratios of WebSocket rows are taken to. */
export const baseline = "ws"

/** The server which the ratios of the rows of event streams are taken to. */
export const eventBaseline = "sse-node-http"

export const servers: ReadonlyArray<ServerEntry> = [
  { name: baseline, file: "./servers/ws.js" },
  { name: "websocket-driver", file: "./servers/websocket-driver.js" },
  { name: "faye-websocket", file: "./servers/faye-websocket.js" },
  { name: "effect-platform", file: "./servers/effect-platform.js" },
  { name: "plain-net", file: "./servers/plain-net.js" },
  { name: "ours-stream", file: "./servers/ours-stream.js" },
  { name: "ours-operator", file: "./servers/ours-operator.js" },
  { name: "ours-fused", file: "./servers/ours-fused.js" },
  { name: "ours-attached", file: "./servers/ours-attached.js" }
]

/** Servers of event streams, which keep to the contract of `servers/sse/harness.ts`. */
export const eventServers: ReadonlyArray<ServerEntry> = [
  { name: eventBaseline, file: "./servers/sse/node-http.js" },
  { name: "sse-better-sse", file: "./servers/sse/better-sse.js" },
  { name: "sse-faye", file: "./servers/sse/faye-websocket.js" },
  { name: "sse-effect", file: "./servers/sse/effect-platform.js" },
  { name: "sse-plain-net", file: "./servers/sse/plain-net.js" },
  { name: "sse-ours", file: "./servers/sse/ours.js" },
  { name: "sse-ours-pulled", file: "./servers/sse/ours-pulled.js" }
]

/** The clients of the benchmark, which keep to the contract of `clients/harness.ts`. Names are those of the table. */
export const clients: ReadonlyArray<ServerEntry> = [
  { name: baseline, file: "./clients/ws.js" },
  { name: "undici", file: "./clients/undici.js" },
  { name: "effect-platform", file: "./clients/effect-platform.js" },
  { name: "plain-net", file: "./clients/plain-net.js" },
  { name: "ours-stream", file: "./clients/ours-stream.js" },
  { name: "ours-fused", file: "./clients/ours-fused.js" }
]

/** What answers the clients. */
export const answeringServer = "./servers/answering.js"
