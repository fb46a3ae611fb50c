/**
 * Counts and checks the messages of one connection against its {@link Exchange}.
 *
 * Only what a server may add between messages is read as frames: a ping is answered, a pong skipped. Everything else
 * that is not byte for byte the expected message throws: a figure from a server that answers wrongly is none.
 */
import type { Exchange } from "./Exchange.js"
import { maskedFrame } from "./wire.js"

export interface Receiver {
  /** Takes the first `count` bytes of `chunk`, which may be written over afterwards. Returns how many messages ended in it. */
  readonly receive: (chunk: Buffer, count: number) => number
}

export const make = (exchange: Exchange, write: (bytes: Buffer) => void): Receiver => {
  const { responseBytes, responses } = exchange
  /** Where in `responses` the next byte is expected. */
  let expectedAt = 0
  /** Bytes of the current message that came. */
  let partial = 0
  /** A control frame of which only these bytes came. */
  let control: Buffer | undefined

  const advance = (count: number): number => {
    expectedAt += count
    if (expectedAt === responses.length) expectedAt = 0
    partial += count
    const whole = Math.floor(partial / responseBytes)
    partial -= whole * responseBytes
    return whole
  }

  const matches = (chunk: Buffer, at: number, count: number): boolean =>
    responses.compare(chunk, at, at + count, expectedAt, expectedAt + count) === 0

  const receive = (chunk: Buffer, count: number): number => {
    let messages = 0
    let at = 0
    while (at < count) {
      const run = Math.min(count - at, responses.length - expectedAt)
      if (control === undefined && matches(chunk, at, run)) {
        messages += advance(run)
        at += run
        continue
      }
      // One message at a time, to find the control frame between two of them, or the wrong byte.
      if (control !== undefined || (partial === 0 && (chunk[at]! & 0x8) !== 0)) {
        at = receiveControl(chunk, at, count)
        continue
      }
      const piece = Math.min(count - at, responseBytes - partial)
      if (!matches(chunk, at, piece)) throw new Error(describe(chunk, at, piece))
      messages += advance(piece)
      at += piece
    }
    return messages
  }

  const receiveControl = (chunk: Buffer, at: number, count: number): number => {
    const before = control?.length ?? 0
    const seen = Buffer.concat([control ?? Buffer.alloc(0), chunk.subarray(at, Math.min(count, at + 127))])
    const total = seen.length < 2 ? 2 : 2 + (seen[1]! & 0x7f)
    if (seen.length < 2 || seen.length < total) {
      control = seen
      return at + seen.length - before
    }
    control = undefined
    const frame = seen.subarray(0, total)
    if (frame[0] === 0x88) throw new Error(`closed by the server: ${total >= 4 ? frame.readUInt16BE(2) : "no code"}`)
    if (frame[0] === 0x89) write(maskedFrame(0x8a, frame.subarray(2)))
    else if (frame[0] !== 0x8a) throw new Error(`unexpected frame: first byte 0x${frame[0]!.toString(16)}`)
    return at + total - before
  }

  const describe = (chunk: Buffer, at: number, piece: number): string => {
    const wrong = chunk.subarray(at, at + piece).findIndex((byte, i) => byte !== responses[expectedAt + i])
    const hex = (bytes: Buffer): string => bytes.toString("hex")
    return (
      `wrong byte ${partial + wrong} of a message frame of ${responseBytes}: ` +
      `got ${hex(chunk.subarray(at + wrong, Math.min(at + wrong + 16, at + piece)))}, ` +
      `expected ${hex(responses.subarray(expectedAt + wrong, expectedAt + wrong + 16))}`
    )
  }

  return { receive }
}
