/**
 * The load generator: a process of its own, which runs one workload against one server and reports to the runner.
 *
 * Started with a {@link LoadTask} as JSON and an IPC channel. It must never be the bottleneck: frames are made
 * beforehand, replies are compared and not decoded, and it reports how busy it was.
 */
import { setTimeout as delay } from "node:timers/promises"
import * as Client from "./load/Client.js"
import * as Deflated from "./load/Deflated.js"
import * as Exchange from "./load/Exchange.js"
import * as EventWorkloads from "./load/eventWorkloads.js"
import * as Receiver from "./load/Receiver.js"
import * as Window from "./load/window.js"
import { makeOpening } from "./load/wire.js"
import type { LoadCommand, LoadReport, LoadTask } from "./messages.js"
import {
  type Deflate,
  type EchoRow,
  type FanoutRow,
  type HandshakesRow,
  type IdleRow,
  isMemoryRow,
  type MemoryRow
} from "./rows.js"

const task = JSON.parse(process.argv[2]!) as LoadTask

const report = Window.send

const fail = (message: string): void => {
  // The first failure is the one to show; what follows from it is noise.
  if (failed) return
  failed = true
  report({ type: "error", message }).then(() => process.exit(1))
}
let failed = false

/** Operations so far: what the window counts, and what the watchdog wants to see grow. */
let operations = 0

/** Connections opened so far, which are progress as well. */
let opened = 0

// ---- windows ----------------------------------------------------------------------------------------------------

const measure = (): Promise<LoadReport> => Window.measure(task, () => operations)

/** Seconds without a single operation after which a run is given up. */
const stallSeconds = 10

const watch = (): void => {
  let last = -1
  let stalledFor = 0
  setInterval(() => {
    const progress = operations + opened
    stalledFor = progress === last ? stalledFor + 1 : 0
    last = progress
    if (stalledFor >= stallSeconds) fail(`nothing came back for ${stallSeconds} s`)
  }, 1000).unref()
}

/** Runs `check` until it holds, as long as there are operations; the answers to what is in flight must all come. */
const until = async (what: string, check: () => boolean): Promise<void> => {
  let deadline = performance.now() + stallSeconds * 1000
  let last = operations
  while (!check()) {
    if (operations !== last) deadline = performance.now() + stallSeconds * 1000
    last = operations
    if (performance.now() > deadline) throw new Error(`${what} did not come within ${stallSeconds} s`)
    await delay(5)
  }
}

// ---- connections ------------------------------------------------------------------------------------------------

const allowedConnections = (wanted: number): number => {
  // Sockets share the process's file descriptors with a few of Node's own.
  const limits = (process.report.getReport() as { userLimits?: { open_files?: { soft?: number | string } } }).userLimits
  const soft = Number(limits?.open_files?.soft)
  const allowed = Number.isFinite(soft) ? Math.min(wanted, soft - 64) : wanted
  if (allowed < wanted) void report({ type: "note", message: `only ${allowed} of ${wanted} connections: ulimit -n` })
  return allowed
}

let closing = false

/** RFC 7692 §7.1: what a row's connections offer. */
const offers = {
  kept: "permessage-deflate; client_max_window_bits",
  "by choice": "permessage-deflate; client_max_window_bits",
  forgotten: "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
}

const keepsContext = (client: Client.Client): boolean => !client.extensions!.includes("server_no_context_takeover")

/** Opens `count` connections to `path`, 64 at a time, with the agreement that `deflate` asks for. */
const connectAll = async (count: number, path: string, deflate?: Deflate): Promise<Array<Client.Client>> => {
  const clients: Array<Client.Client> = []
  const connectOne = (): Promise<void> =>
    new Promise((resolve) => {
      const offer = deflate === undefined ? undefined : offers[deflate]
      const client = Client.connect(task.port, makeOpening(path, task.port, offer), () => {
        if (deflate !== undefined && client.extensions === undefined) throw new Error("compression was not accepted")
        if (deflate === "kept" && !keepsContext(client)) throw new Error("the server does not keep its context")
        if (deflate === "forgotten" && keepsContext(client)) throw new Error("the server keeps its context")
        opened++
        resolve()
      })
      client.onEnd = (cause) => {
        if (!closing) fail(`connection lost: ${cause?.message ?? "ended by the server"}`)
      }
      clients.push(client)
    })
  while (clients.length < count) {
    await Promise.all(Array.from({ length: Math.min(64, count - clients.length) }, connectOne))
  }
  return clients
}

/** Closes all, and waits until the server has let go of them too. */
const closeAll = async (clients: ReadonlyArray<Client.Client>): Promise<void> => {
  closing = true
  let open = clients.length
  for (const client of clients) {
    client.onBytes = () => {}
    client.onEnd = () => open--
    client.socket.write(Client.closeFrame)
  }
  const deadline = performance.now() + 2000 + clients.length / 2
  while (open > 0 && performance.now() < deadline) await delay(5)
  if (open > 0) void report({ type: "note", message: `${open} connections were not closed by the server in time` })
  for (const client of clients) client.socket.destroy()
}

// ---- workloads --------------------------------------------------------------------------------------------------

/** What connections send in rotation, and the check of what each gets. */
interface Conversation {
  readonly slots: number
  readonly requestsFrom: (slot: number, count: number) => Buffer
  readonly receive: (client: Client.Client) => Receiver.Receiver["receive"]
}

const conversation = (
  slots: number,
  payloadBytes: number,
  { binary = false, deflate }: { readonly binary?: boolean; readonly deflate?: Deflate | undefined }
): Conversation => {
  const writeTo = (client: Client.Client) => (bytes: Buffer) => void client.socket.write(bytes)
  if (deflate === undefined) {
    const exchange = Exchange.make(slots, payloadBytes, binary)
    return {
      slots,
      requestsFrom: (slot, count) => Exchange.requestsFrom(exchange, slot, count),
      receive: (client) => Receiver.make(exchange, writeTo(client)).receive
    }
  }
  const deflated = Deflated.make(payloadBytes)
  return { ...deflated, receive: (client) => deflated.receiver(keepsContext(client), writeTo(client)).receive }
}

const runEcho = async (row: EchoRow): Promise<LoadReport> => {
  // At least two different messages, so that a stale reply shows even with one in flight.
  const exchange = conversation(Math.max(2, row.inFlight), row.payloadBytes, row)
  const clients = await connectAll(allowedConnections(row.connections), row.path ?? "/echo", row.deflate)
  let inFlight = 0
  let stopping = false
  for (const client of clients) {
    const write = (bytes: Buffer): void => void client.socket.write(bytes)
    const receive = exchange.receive(client)
    let slot = 0
    const send = (count: number): void => {
      write(exchange.requestsFrom(slot, count))
      slot = (slot + count) % exchange.slots
    }
    client.onBytes = (chunk, count) => {
      const messages = receive(chunk, count)
      if (messages === 0) return
      operations += messages
      if (stopping) inFlight -= messages
      else send(messages)
    }
    inFlight += row.inFlight
    send(row.inFlight)
  }
  const result = await measure()
  stopping = true
  await until("the echo of every message in flight", () => inFlight === 0)
  await closeAll(clients)
  return result
}

/**
 * The first publications which each subscriber answers with a pong. The kernel acknowledges every segment at once to a
 * peer that never sends, and lets acknowledgements wait when the two talk. Without this the load generator spends most of
 * its time on them: 98 % busy against 81 % for ws with 8 in flight, and it limited plain `net`.
 */
const conversationMessages = 16

const runFanout = async (row: FanoutRow): Promise<LoadReport> => {
  const exchange = conversation(8, row.payloadBytes, row)
  const clients = await connectAll(allowedConnections(row.connections), row.path ?? "/broadcast", row.deflate)
  // A server may join a connection to the broadcast a moment after it accepted the opening handshake.
  await delay(300)
  let published = 0
  let completed = 0
  let stopping = false
  /** For the publications in flight, by number modulo its length: how many subscribers have it. */
  const arrivals = new Int32Array(exchange.slots)
  const publisher = clients[0]!
  const publish = (count: number): void => {
    publisher.socket.write(exchange.requestsFrom(published % exchange.slots, count))
    published += count
  }
  for (const client of clients) {
    const receive = exchange.receive(client)
    let received = 0
    client.onBytes = (chunk, count) => {
      const messages = receive(chunk, count)
      operations += messages
      if (received < conversationMessages) client.socket.write(Client.pongFrame)
      const completedBefore = completed
      for (const end = received + messages; received < end; received++) {
        const number = received % exchange.slots
        if (++arrivals[number]! < clients.length) continue
        arrivals[number] = 0
        completed++
      }
      if (received > published) throw new Error("a delivery that was never published")
      if (completed > completedBefore && !stopping) publish(completed - completedBefore)
    }
  }
  publish(row.inFlight)
  const result = await measure()
  stopping = true
  await until("every publication to every subscriber", () => completed === published)
  await closeAll(clients)
  return result
}

const runHandshakes = async (row: HandshakesRow): Promise<LoadReport> => {
  const openings = Array.from({ length: 16 }, () => makeOpening("/echo", task.port))
  let next = 0
  let open = 0
  let stopping = false
  const start = (): void => {
    open++
    let accepted = false
    let closed = false
    const client = Client.connect(task.port, openings[next++ % openings.length]!, () => {
      accepted = true
      operations++
      client.socket.write(Client.closeFrame)
    })
    client.onBytes = (chunk) => {
      if (chunk[0] !== 0x88) throw new Error(`not a close frame: first byte 0x${chunk[0]!.toString(16)}`)
      closed = true
    }
    client.onEnd = (cause) => {
      open--
      if (!accepted || !closed) {
        const stage = accepted ? "closing handshake" : "opening handshake"
        fail(`${stage} not completed: ${cause?.message ?? "ended by the server"}`)
      } else if (!stopping) start()
    }
  }
  for (let i = 0; i < row.concurrency; i++) start()
  const result = await measure()
  stopping = true
  await until("the end of every connection", () => open === 0)
  return result
}

/** Tells the runner to look at the server's memory, and waits until it has. */
const idle = async (connections: number): Promise<void> => {
  await delay(300)
  const command = new Promise<void>((resolve) => process.once("message", (_: LoadCommand) => resolve()))
  void report({ type: "idle", connections })
  await command
}

/** Opens connections that each echo some messages; tells the runner when to look, first at a fifth and then at all of them. */
const runMemory = async (row: MemoryRow): Promise<LoadReport> => {
  const exchange = conversation(2, row.payloadBytes, row)
  const openAndEcho = async (count: number, messagesEach: number): Promise<Array<Client.Client>> => {
    const clients = await connectAll(count, row.path ?? "/echo", row.deflate)
    let missing = clients.length * messagesEach
    for (const client of clients) {
      const receive = exchange.receive(client)
      let sent = 0
      const send = (): void => {
        if (sent < messagesEach) client.socket.write(exchange.requestsFrom(sent++ % exchange.slots, 1))
      }
      client.onBytes = (chunk, bytes) => {
        const messages = receive(chunk, bytes)
        operations += messages
        missing -= messages
        if (messages > 0) send()
      }
      send()
    }
    await until("the echo of each connection", () => missing === 0)
    return clients
  }
  const startedAt = performance.now()
  const wanted = allowedConnections(row.connections)
  // Compiled code, the young generation at its full size and the litter of many opening handshakes are not the cost of a
  // connection: so some connections with much traffic come and go first, and the difference is taken from a fifth on.
  await closeAll(await openAndEcho(Math.min(64, wanted), 1000))
  closing = false
  const first = await openAndEcho(Math.ceil(wanted / 5), row.messages)
  await idle(first.length)
  const second = await openAndEcho(wanted - first.length, row.messages)
  await idle(first.length + second.length)
  await closeAll([...first, ...second])
  const seconds = (performance.now() - startedAt) / 1e3
  const { system, user } = process.cpuUsage()
  return { type: "done", operations, seconds, cpuShare: (user + system) / 1e6 / seconds }
}

/** Many connections that each send a message now and then: what costs is that they are there. */
const runIdle = async (row: IdleRow): Promise<LoadReport> => {
  const exchange = conversation(2, row.payloadBytes, {})
  const clients = await connectAll(allowedConnections(row.connections), row.path)
  let sent = 0
  for (const client of clients) {
    const receive = exchange.receive(client)
    client.onBytes = (chunk, count) => {
      operations += receive(chunk, count)
    }
  }
  // One after the other, evenly, so that each has its turn once in the interval.
  const startedAt = performance.now()
  const ticker = setInterval(() => {
    const due = ((performance.now() - startedAt) / 1000 / row.intervalSeconds) * clients.length
    for (; sent < due; sent++) {
      const turn = Math.floor(sent / clients.length)
      clients[sent % clients.length]!.socket.write(exchange.requestsFrom(turn % exchange.slots, 1))
    }
  }, 10)
  const result = await measure()
  clearInterval(ticker)
  await until("the echo of every message", () => operations === sent)
  await closeAll(clients)
  return result
}

const eventRun: EventWorkloads.Run = {
  port: task.port,
  controlPort: task.controlPort ?? 0,
  count: (count) => {
    operations += count
  },
  measure,
  until,
  allowedConnections,
  idle,
  fail
}

const run = (): Promise<LoadReport> => {
  switch (task.row.kind) {
    case "sse-fanout":
      return EventWorkloads.fanout(eventRun, task.row)
    case "sse-firehose":
      return EventWorkloads.firehose(eventRun, task.row)
    case "sse-memory":
      return EventWorkloads.memory(eventRun, task.row)
    case "echo":
      return runEcho(task.row)
    case "fanout":
      return runFanout(task.row)
    case "handshakes":
      return runHandshakes(task.row)
    case "memory":
      return runMemory(task.row)
    case "idle":
      return runIdle(task.row)
    case "client":
      throw new Error("a client makes its load itself")
  }
}

process.on("disconnect", () => process.exit(1))
if (!isMemoryRow(task.row)) watch()
run().then(
  (result) => {
    if (!failed) report(result).then(() => process.exit(0))
  },
  (error: unknown) => fail(error instanceof Error ? error.message : String(error))
)
