/** The workloads of event streams: fan-out, firehose, memory. */
import { connect as connectTcp, type Socket } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import type { LoadReport } from "../messages.js"
import type { EventFanoutRow, EventMemoryRow, FirehoseRow } from "../rows.js"
import { events, slots, textOf } from "../servers/sse/harness.js"
import * as EventReader from "./EventReader.js"

/** What the load generator does for all workloads. */
export interface Run {
  readonly port: number
  readonly controlPort: number
  /** Counts operations, which the window and the watchdog look at. */
  readonly count: (operations: number) => void
  readonly measure: () => Promise<LoadReport>
  readonly until: (what: string, check: () => boolean) => Promise<void>
  readonly allowedConnections: (wanted: number) => number
  /** Tells the runner to look at the server's memory, and waits until it has. */
  readonly idle: (connections: number) => Promise<void>
  readonly fail: (message: string) => void
}

class Readers {
  readonly all: Array<EventReader.EventReader> = []

  constructor(private readonly run: Run) {}

  /** Opens `count` more readers, 64 at a time. */
  async open(path: string, count: number): Promise<void> {
    const openOne = (): Promise<void> =>
      new Promise((resolve) => {
        const reader = EventReader.connect(this.run.port, path, () => resolve())
        reader.onEnd = (cause) => this.run.fail(`connection lost: ${cause?.message ?? "ended by the server"}`)
        this.all.push(reader)
      })
    for (let left = count; left > 0; left -= 64) await Promise.all(Array.from({ length: Math.min(64, left) }, openOne))
    // A server may send more with the head, and subscribes a reader a moment after it.
    await delay(300)
  }

  close(): void {
    for (const reader of this.all) {
      reader.onEnd = () => {}
      reader.socket.destroy()
    }
  }
}

const openControl = (run: Run): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connectTcp({ port: run.controlPort, host: "127.0.0.1", noDelay: true }, () => resolve(socket))
    socket.once("error", reject)
  })

/** Publishes each event once, one after the other, and takes the bytes that stand for it if they decode to it. */
const learn = async (run: Run, reader: EventReader.EventReader, control: Socket): Promise<ReadonlyArray<Buffer>> => {
  const blocks: Array<Buffer> = []
  for (const event of events) {
    let text = ""
    reader.onBody = (buffer, from, to) => {
      text += buffer.toString("latin1", from, to)
    }
    control.write(Buffer.alloc(1))
    await run.until("an event", () => EventReader.blockEnd(text) === text.length)
    const decoded = EventReader.decode(text)
    if (JSON.stringify(decoded) !== JSON.stringify([{ data: event.data, event: event.event, id: event.id }])) {
      throw new Error(`not the event that was published: ${JSON.stringify(text)}`)
    }
    blocks.push(Buffer.from(text, "latin1"))
  }
  return blocks
}

export const fanout = async (run: Run, row: EventFanoutRow): Promise<LoadReport> => {
  const readers = new Readers(run)
  const control = await openControl(run)
  await readers.open("/events", 1)
  const blocks = await learn(run, readers.all[0]!, control)
  await readers.open("/events", run.allowedConnections(row.connections) - 1)
  let published = 0
  let completed = 0
  let stopping = false
  const publish = (count: number): void => {
    published += count
    control.write(Buffer.alloc(count))
  }
  /** For the events in flight, by number modulo its length: how many subscribers have it. */
  const arrivals = new Int32Array(slots)
  const rotation = EventReader.rotationOf(blocks)
  for (const reader of readers.all) {
    const checker = new EventReader.EventChecker(rotation)
    let received = 0
    reader.onBody = (buffer, from, to) => {
      const count = checker.receive(buffer, from, to)
      run.count(count)
      const completedBefore = completed
      for (const end = received + count; received < end; received++) {
        const slot = received % slots
        if (++arrivals[slot]! < readers.all.length) continue
        arrivals[slot] = 0
        completed++
      }
      if (received > published) throw new Error("an event that was never published")
      if (completed > completedBefore && !stopping) publish(completed - completedBefore)
    }
  }
  publish(row.inFlight)
  const result = await run.measure()
  stopping = true
  await run.until("every event to every subscriber", () => completed === published)
  readers.close()
  control.destroy()
  return result
}

export const firehose = async (run: Run, row: FirehoseRow): Promise<LoadReport> => {
  const readers = new Readers(run)
  const data = textOf(row.dataBytes, 0)
  let text = ""
  let checker: EventReader.EventChecker | undefined
  const learnOrCheck: EventReader.EventReader["onBody"] = (buffer, from, to) => {
    if (checker !== undefined) return run.count(checker.receive(buffer, from, to))
    text += buffer.toString("latin1", from, to)
    for (let end = EventReader.blockEnd(text); end !== undefined; end = EventReader.blockEnd(text)) {
      const block = text.slice(0, end)
      text = text.slice(end)
      if (EventReader.decode(block)[0]?.data !== data) continue
      checker = new EventReader.EventChecker(EventReader.rotationOf([Buffer.from(block, "latin1")]))
      checker.receive(Buffer.from(text, "latin1"), 0, text.length)
      return
    }
  }
  const opening = readers.open(`/firehose?bytes=${row.dataBytes}`, 1)
  readers.all[0]!.onBody = learnOrCheck
  await opening
  const result = await run.measure()
  readers.close()
  return result
}

export const memory = async (run: Run, row: EventMemoryRow): Promise<LoadReport> => {
  const startedAt = performance.now()
  const control = await openControl(run)
  const wanted = run.allowedConnections(row.connections)
  let missing = 0
  const openAndPublish = async (readers: Readers, count: number): Promise<void> => {
    await readers.open("/events", count)
    missing = readers.all.length
    for (const reader of readers.all) {
      reader.onBody = () => {
        reader.onBody = () => {}
        run.count(1)
        missing--
      }
    }
    control.write(Buffer.alloc(1))
    await run.until("an event to each subscriber", () => missing <= 0)
  }
  // Compiled code, and the young generation at its full size, are not the cost of a subscriber.
  const warm = new Readers(run)
  await openAndPublish(warm, Math.min(500, wanted))
  warm.close()
  await delay(300)
  const readers = new Readers(run)
  const first = Math.ceil(wanted / 5)
  await openAndPublish(readers, first)
  await run.idle(first)
  await openAndPublish(readers, wanted - first)
  await run.idle(wanted)
  readers.close()
  control.destroy()
  const { system, user } = process.cpuUsage()
  const seconds = (performance.now() - startedAt) / 1e3
  return { type: "done", operations: 2 * wanted, seconds, cpuShare: (user + system) / 1e6 / seconds }
}
