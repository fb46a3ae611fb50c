/** The conformance suite on the bare engine: both roles, every case cut in several ways. */
import { assert, describe, it } from "@effect/vitest"
import { makeSlab } from "../../src/engine/byteWriter.js"
import { portable } from "../../src/engine/Natives.js"
import { type Action, Protocol } from "../../src/engine/Protocol.js"
import { everything, lendScannable, scanning } from "../engine/support.js"
import { type Case, cases, type Role } from "./cases.js"
import { type Cutting, type RawPeer, runCase } from "./runner.js"

/** An echo application on the engine, without any I/O between it and the raw peer. */
class EnginePeer implements RawPeer {
  private readonly protocol: Protocol
  private readonly output: Array<Uint8Array> = []
  private ended = false

  /** `scans`: what comes goes through the memory of a scanner. */
  constructor(
    role: Role,
    maxMessageBytes: number | undefined,
    private readonly scans: boolean
  ) {
    let key = 0x12345678
    this.protocol = new Protocol({
      role,
      deferEnd: true,
      slab: makeSlab(scans ? scanning : portable),
      randomKey: () => (key = Math.imul(key, 0x19660d) + 0x3c6ef35f),
      ...(maxMessageBytes === undefined ? {} : { limits: { maxMessageBytes } })
    })
  }

  send(bytes: Uint8Array): Promise<void> {
    if (this.scans) {
      lendScannable(bytes, 0, (lent) => this.perform(this.protocol.receive(lent, everything, everything, true)))
    } else this.perform(this.protocol.receive(bytes))
    return Promise.resolve()
  }

  next(): Promise<Uint8Array | undefined> {
    const bytes = this.output.shift()
    if (bytes !== undefined || this.ended) return Promise.resolve(bytes)
    // Nothing is under way in a sans-I/O engine: what has not come will never come.
    return Promise.reject(new Error(`nothing comes (state ${this.protocol.state._tag})`))
  }

  end(): void {
    this.perform(this.protocol.transportEnded())
  }

  private perform(actions: ReadonlyArray<Action>): void {
    for (const action of actions) {
      if (action._tag === "Deliver") for (const message of action.messages) this.protocol.send(message)
      else if (action._tag === "EndPending") this.perform(this.protocol.proceed())
      else if (action._tag === "EndTransport") this.ended = true
    }
    this.output.push(...this.protocol.output.take().map((piece) => piece.slice()))
    this.protocol.output.release()
    this.protocol.drained()
  }
}

const run = (testCase: Case, role: Role, cutting: Cutting, scans = false) =>
  runCase(testCase, role, new EnginePeer(role, testCase.maxMessageBytes, scans), cutting)

/** The number of a case without its last part, where a family has parts. */
const family = ({ id }: Case): string => {
  const parts = id.split(".")
  return parts.length === 3 && parts[0] !== "10" ? `${parts[0]}.${parts[1]}` : parts[0]!
}

describe("conformance of the engine", () => {
  for (const role of ["server", "client"] as const) {
    describe(role, () => {
      for (const testCase of cases) {
        if (!testCase.roles.includes(role)) continue
        it(`${testCase.id} ${testCase.title} (${testCase.section})`, async () => {
          await run(testCase, role, "as written")
          if (testCase.bytes <= 1_000_000) await run(testCase, role, "joined")
          if (testCase.bytes <= 2048) await run(testCase, role, "every byte")
          await run(testCase, role, "as written", true)
          if (testCase.bytes <= 1_000_000) await run(testCase, role, "joined", true)
        })
      }
    })
  }
})

describe("the suite itself", () => {
  it("has every case once, for both roles", () => {
    assert.strictEqual(new Set(cases.map(({ id }) => id)).size, cases.length)
    assert.isTrue(cases.every(({ roles }) => roles.length === 2))
  })

  it("has so many cases in each family", () => {
    const counts: Record<string, number> = {}
    for (const testCase of cases) counts[family(testCase)] = (counts[family(testCase)] ?? 0) + 1
    assert.deepStrictEqual(counts, {
      "1.1": 8,
      "1.2": 8,
      "1.3": 5,
      "1.4": 7,
      "2": 11,
      "3": 7,
      "4.1": 5,
      "4.2": 5,
      "5": 20,
      "6.1": 3,
      "6.2": 4,
      "6.3": 2,
      "6.4": 4,
      "6.5": 5,
      "6.6": 11,
      "6.7": 4,
      "6.8": 2,
      "6.9": 4,
      "6.10": 3,
      "6.11": 5,
      "6.12": 8,
      "6.13": 5,
      "6.14": 10,
      "6.15": 1,
      "6.16": 3,
      "6.17": 5,
      "6.18": 5,
      "6.19": 5,
      "6.20": 7,
      "6.21": 8,
      "6.22": 34,
      "6.23": 7,
      "7.1": 6,
      "7.3": 6,
      "7.5": 1,
      "7.7": 16,
      "7.9": 10,
      "7.13": 2,
      "9.1": 6,
      "9.2": 6,
      "9.3": 9,
      "9.4": 9,
      "9.5": 6,
      "9.6": 6,
      "9.7": 6,
      "9.8": 6,
      "9.9": 5,
      "10": 3
    })
    assert.strictEqual(cases.length, 324)
  })

  it("builds nothing before it runs", () => {
    for (const { script } of cases) assert.notStrictEqual(Symbol.iterator in script, true)
  })
})
