/**
 * Runs one conformance case against whatever echoes messages: the bare engine, a connection over an in-memory transport, a
 * server on loopback. All it needs is the raw end of a byte stream on which the opening handshake is over.
 */
import { type Case, makeRaw, type Role, type Step } from "./cases.js"
import { chop, concat, FrameReader, type RawFrame } from "./rawFrames.js"

/** The raw end of a byte stream, opposite to the implementation under test. */
export interface RawPeer {
  /**
   * Sends bytes, which the receiver may write over. Completes when more may be sent; also when the other end is gone, and without
   * waiting until the other end's output was taken by `next`.
   */
  readonly send: (bytes: Uint8Array) => Promise<void>
  /** The next bytes from the implementation, `undefined` once it ended its side. */
  readonly next: () => Promise<Uint8Array | undefined>
  /** Ends our side; reading goes on. */
  readonly end: () => void
}

/** How to cut what a case sends: as it says, all up to the next answer in one piece, or into single bytes. */
export type Cutting = "as written" | "joined" | "every byte"

/** Runs a case against an implementation with `role`; rejects with a sentence when something else comes back. */
export const runCase = async (
  testCase: Case,
  role: Role,
  peer: RawPeer,
  cutting: Cutting = "as written"
): Promise<void> => {
  const incoming = new Incoming(testCase, role, peer)
  for (const step of cutSends(testCase.script(makeRaw(role)), cutting)) {
    if (step._tag === "Send") await peer.send(step.bytes)
    else await incoming.expect(step)
  }
}

function* cutSends(steps: Iterable<Step>, cutting: Cutting): Generator<Step> {
  let joined: Array<Uint8Array> = []
  for (const step of steps) {
    if (step._tag !== "Send" || cutting === "as written") {
      if (joined.length > 0) yield { _tag: "Send", bytes: concat(joined) }
      joined = []
      yield step
    } else if (cutting === "joined") joined.push(step.bytes)
    else for (const bytes of chop(step.bytes, 1)) yield { _tag: "Send", bytes: bytes.slice() }
  }
  if (joined.length > 0) yield { _tag: "Send", bytes: concat(joined) }
}

/** What comes back, checked as strictly as the implementation checks its peer. */
class Incoming {
  private readonly reader = new FrameReader()
  private held: RawFrame | undefined

  constructor(
    private readonly testCase: Case,
    private readonly role: Role,
    private readonly peer: RawPeer
  ) {}

  async expect(step: Exclude<Step, { _tag: "Send" }>): Promise<void> {
    const frame = await this.frame()
    if (frame === undefined) return this.fail(`the transport ended instead of ${step._tag}`)
    switch (step._tag) {
      case "Pong":
        if (frame.opcode !== 10 || !same(frame.payload, step.payload)) this.fail(`${show(frame)} instead of a pong`)
        return
      case "Echo":
        if (step.optional && frame.opcode === 8) {
          this.held = frame
          return
        }
        return this.echo(step, frame)
      case "Close":
        return this.close(step, frame)
    }
  }

  private async echo(step: Extract<Step, { _tag: "Echo" }>, first: RawFrame): Promise<void> {
    if (first.opcode !== (step.kind === "text" ? 1 : 2)) this.fail(`${show(first)} instead of the echo`)
    const fragments = [first]
    while (!fragments[fragments.length - 1]!.fin) {
      const frame = await this.frame()
      if (frame === undefined || frame.opcode !== 0) return this.fail(`${show(frame)} instead of a continuation`)
      fragments.push(frame)
    }
    const payload = fragments.length === 1 ? first.payload : concat(fragments.map((frame) => frame.payload))
    if (!same(payload, step.payload)) this.fail(`another message came back (${payload.length} bytes)`)
  }

  private async close(step: Extract<Step, { _tag: "Close" }>, frame: RawFrame): Promise<void> {
    if (frame.opcode !== 8) this.fail(`${show(frame)} instead of a close frame`)
    const { payload } = frame
    const code = payload.length === 0 ? undefined : payload[0]! * 256 + payload[1]!
    if (payload.length === 1) this.fail("a close frame with one byte")
    if (payload.length > 2) new TextDecoder("utf-8", { fatal: true }).decode(payload.subarray(2))
    if (code !== step.code) this.fail(`close code ${code} instead of ${step.code}`)
    // §7.1.1: the server ends the TCP connection first; the peer of a client has to do it.
    if (this.role === "client") this.peer.end()
    const extra = await this.frame()
    if (extra !== undefined) this.fail(`${show(extra)} after the close frame`)
    if (this.role === "server") this.peer.end()
  }

  private async frame(): Promise<RawFrame | undefined> {
    const { held } = this
    this.held = undefined
    if (held !== undefined) return held
    for (;;) {
      const frame = this.reader.next()
      if (frame !== undefined) return this.check(frame)
      const bytes = await this.peer.next()
      if (bytes === undefined) {
        if (this.reader.pending > 0) this.fail("the transport ended inside a frame")
        return undefined
      }
      this.reader.push(bytes)
    }
  }

  private check(frame: RawFrame): RawFrame {
    const { length } = frame.payload
    if (frame.masked !== (this.role === "client")) this.fail("the mask is the wrong way round")
    if (frame.rsv !== 0) this.fail("a reserved bit came back")
    if (frame.opcode >= 8 && (!frame.fin || length > 125)) this.fail("a broken control frame came back")
    if (frame.lengthBits !== (length < 126 ? 7 : length < 65536 ? 16 : 64)) this.fail("a length is not minimal")
    return frame
  }

  private fail(detail: string): never {
    throw new Error(`case ${this.testCase.id} (${this.role}), ${this.testCase.title}: ${detail}`)
  }
}

const same = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

const show = (frame: RawFrame | undefined): string =>
  frame === undefined ? "the end" : `opcode ${frame.opcode} with ${frame.payload.length} bytes (fin ${frame.fin})`
