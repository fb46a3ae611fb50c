/**
 * The workloads of the benchmark, as data: the rows of its table.
 *
 * Sizes are payload bytes. A workload keeps a fixed number of messages in flight and so measures what the server can do,
 * not what was sent to it.
 */

/** Messages that come back on the connection they were sent on, to `/echo`. */
export interface EchoRow {
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
export interface FanoutRow {
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

/** What one idle connection that has echoed a message costs the server. */
export interface MemoryRow {
  readonly kind: "memory"
  readonly name: string
  readonly about: string
  readonly connections: number
  readonly payloadBytes: number
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

export type WebSocketRow = EchoRow | FanoutRow | HandshakesRow | MemoryRow
export type EventRow = EventFanoutRow | FirehoseRow | EventMemoryRow
export type Row = WebSocketRow | EventRow

export const isEventRow = (row: Row): row is EventRow => row.kind.startsWith("sse-")

/** Whether a row gives bytes per connection instead of operations per second. */
export const isMemoryRow = (row: Row): row is MemoryRow | EventMemoryRow =>
  row.kind === "memory" || row.kind === "sse-memory"

const KiB = 1024

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
    payloadBytes: 128
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
