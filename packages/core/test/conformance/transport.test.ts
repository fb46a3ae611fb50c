/** The conformance suite over the in-memory transport: both roles, echoing by the public Stream API. */

import { describe, it } from "@effect/vitest"
import { Connection, TestTransport, type Transport } from "@effect-ws/core"
import { Effect, Fiber, Stream } from "effect"
import { lending } from "../recorder.js"
import { type Case, cases, type Role } from "./cases.js"
import { type Cutting, type RawPeer, runCase } from "./runner.js"

/** The raw end of a transport. */
class RawEnd implements RawPeer, Transport.Listener {
  private readonly received: Array<Uint8Array> = []
  private over = false
  private waiting: ((bytes: Uint8Array | undefined) => void) | undefined
  private drained: (() => void) | undefined

  constructor(private readonly transport: Transport.Transport) {
    transport.open(this)
  }

  send(bytes: Uint8Array): Promise<void> {
    this.transport.write([bytes])
    // The line holds any amount: one turn for each piece is backpressure enough.
    return this.over ? Promise.resolve() : new Promise((resume) => setImmediate(resume))
  }

  next(): Promise<Uint8Array | undefined> {
    const bytes = this.received.shift()
    if (bytes !== undefined || this.over) return Promise.resolve(bytes)
    return new Promise((resume) => {
      this.waiting = resume
    })
  }

  end(): void {
    this.transport.end()
  }

  onData(chunk: Uint8Array): void {
    const { waiting } = this
    this.waiting = undefined
    if (waiting === undefined) this.received.push(chunk)
    else waiting(chunk)
  }

  onDrain(): void {
    this.drained?.()
  }

  onEnd(): void {
    this.over = true
    const { waiting } = this
    this.waiting = undefined
    waiting?.(undefined)
  }

  onClose(): void {
    this.onEnd()
  }
}

const run = (
  testCase: Case,
  role: Role,
  cutting: Cutting,
  chunking: TestTransport.Chunking,
  lends: (transport: Transport.Transport) => Transport.Transport = (transport) => transport
) =>
  Effect.gen(function* () {
    const [near, far] = yield* TestTransport.pair({ chunking })
    const { maxMessageBytes } = testCase
    const socket = yield* Connection.make(lends(near), { role, maxMessageBytes, heartbeat: false })
    const echo = yield* Effect.fork(Effect.exit(Stream.run(socket.messages, socket.sink)))
    yield* Effect.promise(() => runCase(testCase, role, new RawEnd(far), cutting))
    yield* Fiber.join(echo)
  }).pipe(Effect.scoped)

/** Pieces of one to 4096 bytes, the same in every run. */
const ragged = (): TestTransport.Chunking => {
  let seed = 7
  return () => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
    return 1 + (seed % 4096)
  }
}

describe("conformance over the in-memory transport", () => {
  for (const role of ["server", "client"] as const) {
    describe(role, () => {
      for (const testCase of cases) {
        if (!testCase.roles.includes(role)) continue
        it.live(`${testCase.id} ${testCase.title} (${testCase.section})`, () =>
          Effect.gen(function* () {
            yield* run(testCase, role, "as written", "as written")
            if (testCase.bytes <= 300_000) yield* run(testCase, role, "joined", ragged(), lending)
            if (testCase.bytes <= 2048) yield* run(testCase, role, "joined", "every byte")
          })
        )
      }
    })
  }
})
