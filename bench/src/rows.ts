/**
 * The workloads of the benchmark, as data: the rows of its table.
 *
 * Sizes are payload bytes. A workload keeps a fixed number of messages in flight and so measures what the server can do,
 * not what was sent to it.
 */

/**
 * Compression with permessage-deflate, by what the server's compressor does with its context between messages: `"kept"` must be agreed
 * on, `"forgotten"` is asked for, `"by choice"` leaves it to the server. Requests are compressed without context.
 */
export type Deflate = "kept" | "forgotten" | "by choice"

/** Where and how a row's connections are opened, if not at the path of its kind and without extensions. */
export interface Route {
  readonly path?: string
  readonly deflate?: Deflate
  /** The servers that have the route, by their names; all of them by default. */
  readonly servers?: ReadonlyArray<string>
}

/** Messages that come back on the connection they were sent on, to `/echo`. */
export interface EchoRow extends Route {
  readonly kind: "echo"
  readonly name: string
  readonly about: string
  readonly connections: number
  /** Messages in flight per connection. */
  readonly inFlight: number
  readonly payloadBytes: number
  readonly binary: boolean
}

/** Messages that come back on every connection to `/broadcast`; one of these connections publishes. */
export interface FanoutRow extends Route {
  readonly kind: "fanout"
  readonly name: string
  readonly about: string
  readonly connections: number
  /** Publications that not every subscriber has yet. */
  readonly inFlight: number
  readonly payloadBytes: number
}

/** Connect, opening handshake, closing handshake, end of the TCP connection, over and over. */
export interface HandshakesRow {
  readonly kind: "handshakes"
  readonly name: string
  readonly about: string
  readonly concurrency: number
  /** The least warm-up: a request runs through much more code than a message, all of which is to be compiled first. */
  readonly warmupSeconds: number
}

/** What one idle connection that has echoed messages costs the server. */
export interface MemoryRow extends Route {
  readonly kind: "memory"
  readonly name: string
  readonly about: string
  readonly connections: number
  /** Messages that each connection has echoed. */
  readonly messages: number
  readonly payloadBytes: number
}

/** Processor time of a server with many connections that rarely send: milliseconds per second. */
export interface IdleRow extends Route {
  readonly kind: "idle"
  readonly name: string
  readonly about: string
  readonly path: string
  readonly connections: number
  readonly payloadBytes: number
  /** The least warm-up: every connection has sent a message, and the garbage of opening them is collected. */
  readonly warmupSeconds: number
  /** Between two messages of a connection. */
  readonly intervalSeconds: number
  /** The least length of the window, so that it has as many heartbeats of each connection whenever it begins. */
  readonly windowSeconds: number
}

/** The clients are measured: they send to a server that answers as an echo does, and send again for what comes back. */
export interface ClientRow {
  readonly kind: "client"
  readonly name: string
  readonly about: string
  readonly connections: number
  readonly inFlight: number
  readonly payloadBytes: number
  readonly binary: boolean
}

/** Events to every reader of `/events`, published over the server's control connection. */
export interface EventFanoutRow {
  readonly kind: "sse-fanout"
  readonly name: string
  readonly about: string
  readonly connections: number
  /** Events that not every subscriber has yet. */
  readonly inFlight: number
}

/** One reader of `/firehose`, which takes what it gets. */
export interface FirehoseRow {
  readonly kind: "sse-firehose"
  readonly name: string
  readonly about: string
  /** Bytes of data of each event. */
  readonly dataBytes: number
}

/** What one idle subscriber of `/events` that has got an event costs the server. */
export interface EventMemoryRow {
  readonly kind: "sse-memory"
  readonly name: string
  readonly about: string
  readonly connections: number
}

export type WebSocketRow = EchoRow | FanoutRow | HandshakesRow | MemoryRow | IdleRow | ClientRow
export type EventRow = EventFanoutRow | FirehoseRow | EventMemoryRow
export type Row = WebSocketRow | EventRow

export const isEventRow = (row: Row): row is EventRow => row.kind.startsWith("sse-")

/** Whether a row gives bytes per connection instead of operations per second. */
export const isMemoryRow = (row: Row): row is MemoryRow | EventMemoryRow =>
  row.kind === "memory" || row.kind === "sse-memory"

const KiB = 1024

/** The servers with permessage-deflate. */
const deflating = ["ws", "websocket-driver", "ours-stream", "ours-fused"]

export const rows: ReadonlyArray<Row> = [
  {
    kind: "echo",
    name: "pingpong",
    about: "64 connections, 1 in flight, 128 B text: messages/s",
    connections: 64,
    inFlight: 1,
    payloadBytes: 128,
    binary: false
  },
  {
    kind: "echo",
    name: "single",
    about: "1 connection, 1 in flight, 32 B text: messages/s",
    connections: 1,
    inFlight: 1,
    payloadBytes: 32,
    binary: false
  },
  {
    kind: "echo",
    name: "pipelined-text",
    about: "64 connections, 64 in flight, 128 B text: messages/s",
    connections: 64,
    inFlight: 64,
    payloadBytes: 128,
    binary: false
  },
  {
    kind: "echo",
    name: "pipelined-binary",
    about: "64 connections, 64 in flight, 128 B binary: messages/s",
    connections: 64,
    inFlight: 64,
    payloadBytes: 128,
    binary: true
  },
  {
    kind: "echo",
    name: "echo16k",
    about: "16 connections, 4 in flight, 16 KiB binary: messages/s",
    connections: 16,
    inFlight: 4,
    payloadBytes: 16 * KiB,
    binary: true
  },
  {
    kind: "echo",
    name: "echo1m",
    about: "4 connections, 2 in flight, 1 MiB binary: messages/s",
    connections: 4,
    inFlight: 2,
    payloadBytes: 1024 * KiB,
    binary: true
  },
  {
    kind: "fanout",
    name: "fanout1",
    about: "1000 subscribers, 1 publication in flight, 128 B text: deliveries/s",
    connections: 1000,
    inFlight: 1,
    payloadBytes: 128
  },
  {
    kind: "fanout",
    name: "fanout8",
    about: "1000 subscribers, 8 publications in flight, 128 B text: deliveries/s",
    connections: 1000,
    inFlight: 8,
    payloadBytes: 128
  },
  {
    kind: "handshakes",
    name: "handshakes",
    about: "connect, upgrade, close; 32 at a time, after at least 5 s of it: opening handshakes/s",
    concurrency: 32,
    warmupSeconds: 5
  },
  {
    kind: "memory",
    name: "memory",
    about: "bytes per idle connection that has echoed one message, of 10,000",
    connections: 10_000,
    messages: 1,
    payloadBytes: 128
  },
  {
    kind: "echo",
    name: "deflate-echo",
    about: "32 connections, 8 in flight, 1 KiB JSON, compressed with context takeover on both sides: messages/s",
    path: "/echo-deflate",
    deflate: "kept",
    servers: deflating,
    connections: 32,
    inFlight: 8,
    payloadBytes: KiB,
    binary: false
  },
  {
    kind: "echo",
    name: "deflate-echo-none",
    about: "32 connections, 8 in flight, 1 KiB JSON, compressed without context takeover: messages/s",
    path: "/echo-deflate",
    deflate: "forgotten",
    servers: deflating,
    connections: 32,
    inFlight: 8,
    payloadBytes: KiB,
    binary: false
  },
  ...[1, 8].flatMap((inFlight): ReadonlyArray<FanoutRow> => {
    const row = {
      kind: "fanout",
      path: "/broadcast-deflate",
      // Not websocket-driver, which makes a compressor per message and member: no message of eight ends within a second.
      servers: ["ws", "ours-stream", "ours-fused"],
      connections: 1000,
      inFlight,
      payloadBytes: KiB
    } as const
    const about = `1000 subscribers, ${inFlight} in flight, 1 KiB JSON, compressed`
    return [
      {
        ...row,
        name: `deflate-fanout${inFlight}`,
        about: `${about}, context takeover offered: deliveries/s`,
        deflate: "by choice"
      },
      {
        ...row,
        name: `deflate-fanout${inFlight}-none`,
        about: `${about} without context takeover: deliveries/s`,
        deflate: "forgotten"
      }
    ]
  }),
  {
    kind: "memory",
    name: "memory-deflate",
    about: "bytes per connection that has echoed three compressed messages, of 1000; ours with the preset small",
    path: "/echo-deflate-small",
    deflate: "kept",
    servers: deflating,
    connections: 1000,
    messages: 3,
    payloadBytes: KiB
  },
  {
    kind: "memory",
    name: "memory-deflate-full",
    about: "bytes per connection that has echoed three compressed messages, of 1000; ours with the preset full",
    path: "/echo-deflate-full",
    deflate: "kept",
    servers: deflating,
    connections: 1000,
    messages: 3,
    payloadBytes: KiB
  },
  {
    kind: "idle",
    name: "idle10k",
    about:
      "10,000 connections with a heartbeat of 20 s, each echoes 128 B every 10 s: server's ms of processor time per s",
    path: "/echo-heartbeat",
    servers: ["ws", "ours-stream", "ours-fused", "ours-attached"],
    connections: 10_000,
    payloadBytes: 128,
    warmupSeconds: 10,
    intervalSeconds: 10,
    windowSeconds: 20
  },
  {
    kind: "client",
    name: "client-pipelined",
    about: "clients: 64 connections, 64 in flight, 128 B text: messages/s",
    connections: 64,
    inFlight: 64,
    payloadBytes: 128,
    binary: false
  },
  {
    kind: "client",
    name: "client-16k",
    about: "clients: 16 connections, 4 in flight, 16 KiB binary: messages/s",
    connections: 16,
    inFlight: 4,
    payloadBytes: 16 * KiB,
    binary: true
  },
  {
    kind: "sse-fanout",
    name: "sse-fanout1",
    about: "1000 subscribers of an event stream, 1 event of 128 B in flight: deliveries/s",
    connections: 1000,
    inFlight: 1
  },
  {
    kind: "sse-fanout",
    name: "sse-fanout8",
    about: "1000 subscribers of an event stream, 8 events of 128 B in flight: deliveries/s",
    connections: 1000,
    inFlight: 8
  },
  {
    kind: "sse-firehose",
    name: "sse-firehose",
    about: "1 reader of endless events of 128 B: events/s",
    dataBytes: 128
  },
  {
    kind: "sse-firehose",
    name: "sse-firehose16k",
    about: "1 reader of endless events of 16 KiB: events/s",
    dataBytes: 16 * KiB
  },
  {
    kind: "sse-memory",
    name: "sse-memory",
    about: "bytes per idle subscriber that has got an event, of 5000",
    connections: 5000
  }
]
