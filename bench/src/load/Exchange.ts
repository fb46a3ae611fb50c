/**
 * What a connection sends over and over, and the exact bytes that must come back.
 *
 * A few different messages are sent in rotation, so a lost, doubled or swapped message shows. All frames are made before
 * the measurement: sending is one write of a slice, checking is one comparison of memory per read, so every byte
 * of every message is checked and it still costs less than reading frame headers would.
 */
import { maskedFrame, unmaskedFrame } from "./wire.js"

export interface Exchange {
  /** Masked frames of all slots, twice in a row, so that any `slots` consecutive ones are one slice. */
  readonly requests: Buffer
  readonly requestBytes: number
  /** The unmasked frames of all slots. */
  readonly responses: Buffer
  readonly responseBytes: number
  readonly slots: number
}

export const make = (slots: number, payloadBytes: number, binary: boolean): Exchange => {
  const first = 0x80 | (binary ? 0x2 : 0x1)
  const payloads = payloadsOf(slots, payloadBytes, binary)
  const requests = payloads.map((payload) => maskedFrame(first, payload))
  const responses = payloads.map((payload) => unmaskedFrame(first, payload))
  return {
    requests: Buffer.concat([...requests, ...requests]),
    requestBytes: requests[0]!.length,
    responses: Buffer.concat(responses),
    responseBytes: responses[0]!.length,
    slots
  }
}

/** The payload of each slot. */
export const payloadsOf = (slots: number, payloadBytes: number, binary: boolean): ReadonlyArray<Buffer> =>
  Array.from({ length: slots }, (_, slot) => (binary ? bytes : text)(slot, payloadBytes))

/** The frames of `count` messages from `slot` on; `count` at most the number of slots. */
export const requestsFrom = (exchange: Exchange, slot: number, count: number): Buffer =>
  exchange.requests.subarray(slot * exchange.requestBytes, (slot + count) * exchange.requestBytes)

/** ASCII that looks like a small JSON object. */
const text = (slot: number, payloadBytes: number): Buffer => {
  const start = `{"slot":${String(slot).padStart(3, "0")},"text":"`
  return Buffer.from(
    `${start}${"The quick brown fox jumps. ".repeat(payloadBytes)}`.slice(0, payloadBytes - 2).concat('"}')
  )
}

const bytes = (slot: number, payloadBytes: number): Buffer => {
  const payload = Buffer.alloc(payloadBytes)
  for (let i = 0; i < payloadBytes; i++) payload[i] = (i * 31 + (i >> 8) * 7 + slot * 101) & 0xff
  return payload
}
