/**
 * An exchange of compressed messages (RFC 7692): what is sent, and the check of what comes back.
 *
 * All requests are compressed beforehand and without history, which is legal under context takeover too. Messages are sent
 * in rotation, so the history before each response is known, and whether a frame is right depends on nothing but its
 * bytes, its slot and that history: the first such frame is inflated and compared to the message, every later one
 * is compared to the frames that were right. A rotation is longer than the window of 32 KiB: no message is a copy of
 * what the compressor remembers.
 */
import { constants, deflateRawSync, inflateRawSync } from "node:zlib"
import type { Receiver } from "./Receiver.js"
import { maskedFrame } from "./wire.js"

export interface Deflated {
  readonly slots: number
  /** The masked frames of `count` messages from `slot` on; `count` at most the number of slots. */
  readonly requestsFrom: (slot: number, count: number) => Buffer
  /** Checks one connection. `takeover`: whether the server's compressor keeps its context. */
  readonly receiver: (takeover: boolean, write: (bytes: Buffer) => void) => Receiver
}

const windowBytes = 0x8000

/** RFC 7692 §7.2.2: what the sender of a message leaves out. */
const tail = Buffer.from([0x00, 0x00, 0xff, 0xff])

/** Right frames remembered per slot. Window slides and hash tables make a few different ones; more only cost inflating. */
const maxKnown = 64

export const make = (payloadBytes: number): Deflated => {
  const history = Math.ceil(windowBytes / payloadBytes)
  const slots = 2 * history
  const payloads = Array.from({ length: slots }, (_, slot) => json(slot, payloadBytes))
  const requests = payloads.map((payload) => {
    const deflated = deflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH })
    return maskedFrame(0xc1, deflated.subarray(0, -tail.length))
  })
  const twice = Buffer.concat([...requests, ...requests])
  const offsets = [0]
  for (const request of [...requests, ...requests]) offsets.push(offsets.at(-1)! + request.length)

  /** What came before message `number`, as far back as the window reaches. */
  const historyOf = (number: number): Buffer =>
    Buffer.concat(
      Array.from({ length: Math.min(number, history) }, (_, i) => payloads[(number - 1 - i) % slots]!).reverse()
    ).subarray(-windowBytes)

  const checkerOf = (takeover: boolean) => {
    /** By what precedes a message: its number while the window fills, its slot afterwards. */
    const known: Array<Array<Buffer>> = Array.from({ length: history + slots }, () => [])
    return (number: number, bytes: Buffer, from: number, to: number): void => {
      const slot = number % slots
      const frames = known[!takeover ? slot : number < history ? number : history + slot]!
      for (let i = 0; i < frames.length; i++) if (frames[i]!.compare(bytes, from, to) === 0) return
      const payload = inflateRawSync(Buffer.concat([bytes.subarray(from, to), tail]), {
        finishFlush: constants.Z_SYNC_FLUSH,
        ...(takeover && number > 0 ? { dictionary: historyOf(number) } : {})
      })
      if (!payload.equals(payloads[slot]!)) throw new Error(`message ${number} is not what was sent`)
      if (frames.length < maxKnown) frames.push(Buffer.from(bytes.subarray(from, to)))
    }
  }
  const checkers = { kept: checkerOf(true), forgotten: checkerOf(false) }

  return {
    slots,
    requestsFrom: (slot, count) => twice.subarray(offsets[slot], offsets[slot + count]),
    receiver: (takeover, write) => makeReceiver(takeover ? checkers.kept : checkers.forgotten, write)
  }
}

type Check = (number: number, bytes: Buffer, from: number, to: number) => void

const makeReceiver = (check: Check, write: (bytes: Buffer) => void): Receiver => {
  let number = 0
  /** The beginning of a frame whose end did not come yet. */
  let rest: Buffer | undefined
  return {
    receive: (chunk, count) => {
      const before = number
      const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk.subarray(0, count)])
      const end = rest === undefined ? count : bytes.length
      let at = 0
      while (end - at >= 2) {
        const short = bytes[at + 1]!
        const payloadAt = at + (short < 126 ? 2 : 4)
        if (payloadAt > end) break
        if (short > 126) throw new Error(`a frame that is masked or too long: second byte 0x${short.toString(16)}`)
        const payloadEnd = payloadAt + (short < 126 ? short : bytes.readUInt16BE(at + 2))
        if (payloadEnd > end) break
        // FIN, RSV1, text
        if (bytes[at] === 0xc1) check(number++, bytes, payloadAt, payloadEnd)
        else if (bytes[at] === 0x89) write(maskedFrame(0x8a, bytes.subarray(payloadAt, payloadEnd)))
        else if (bytes[at] !== 0x8a)
          throw new Error(`not a compressed message: first byte 0x${bytes[at]!.toString(16)}`)
        at = payloadEnd
      }
      rest = at < end ? Buffer.from(bytes.subarray(at, end)) : undefined
      return number - before
    }
  }
}

const names = [
  "amber",
  "birch",
  "cedar",
  "dahlia",
  "elm",
  "fern",
  "ginkgo",
  "hazel",
  "iris",
  "juniper",
  "kelp",
  "lotus"
]
const words = "the order was sent and will arrive late today since every truck on that road must wait for snow".split(
  " "
)

/** ASCII JSON of a kind that servers send: the same keys in each record, values that differ. */
const json = (slot: number, payloadBytes: number): Buffer => {
  // A linear congruential generator: the same messages in every run.
  let state = (slot + 1) * 2_654_435_761
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
  const one = (list: ReadonlyArray<string>): string => list[random(list.length)]!
  const record = () => ({
    id: random(1_000_000),
    name: one(names),
    price: random(100_000) / 100,
    open: random(2) === 0,
    at: `2025-0${1 + random(9)}-${10 + random(18)}T${10 + random(14)}:${10 + random(50)}:00Z`,
    note: Array.from({ length: 6 }, () => one(words)).join(" ")
  })
  const items = [record()]
  const format = (end: string): string => JSON.stringify({ slot, items, end })
  while (format("").length <= payloadBytes) items.push(record())
  items.pop()
  const filler = Array.from({ length: payloadBytes }, () => one(words)).join(" ")
  return Buffer.from(format(filler.slice(0, payloadBytes - format("").length)))
}
