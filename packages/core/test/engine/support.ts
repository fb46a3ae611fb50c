/** What the engine's tests share. */
import * as FastCheck from "effect/FastCheck"
import { FrameDecoder, type Item } from "../../src/engine/FrameDecoder.js"
import { type FrameScanner, makeFrameScanner } from "../../src/engine/FrameScanner.js"
import * as Limits from "../../src/engine/Limits.js"
import { type Natives, portable } from "../../src/engine/Natives.js"
import type { Role } from "../../src/engine/Protocol.js"
import { encodeFrame, type FrameFields, utf8 } from "../conformance/rawFrames.js"

export const everything = Number.POSITIVE_INFINITY

/** Every Node that runs these tests has WebAssembly with SIMD. */
export const scanner: FrameScanner = makeFrameScanner()!

export const scanning: Natives = { ...portable, scanner }

export const makeDecoder = (
  role: Role,
  limits: Partial<Limits.Limits> = {},
  reservedBits = 0,
  natives: Natives = portable
): FrameDecoder =>
  new FrameDecoder({
    masked: role === "server",
    limits: { ...Limits.defaults, ...limits },
    natives,
    reservedBits
  })

/** All items of a byte stream that arrives in these pieces; the decoder gets copies, since it writes over its input. */
export const decodePieces = (decoder: FrameDecoder, pieces: Iterable<Uint8Array>): Array<Item> => {
  const items: Array<Item> = []
  for (const piece of pieces) {
    decoder.feed(piece.slice())
    decoder.decode(items, everything, everything)
  }
  return items
}

/** Lends `bytes` in the memory of the scanner, from `place` on, which is written over afterwards. */
export const lendScannable = (bytes: Uint8Array, place: number, receive: (lent: Uint8Array) => void): void => {
  const room = scanner.input.length - place
  for (let at = 0; at < bytes.length; at += room) {
    const part = bytes.subarray(at, at + room)
    scanner.input.set(part, place)
    receive(scanner.input.subarray(place, place + part.length))
    scanner.input.fill(0xee)
  }
}

/** As {@link decodePieces} through the memory of the scanner; at most so many messages at a time. */
export const scanPieces = (
  decoder: FrameDecoder,
  pieces: Iterable<Uint8Array>,
  maxMessages = everything,
  maxBytes = everything
): Array<Item> => {
  const items: Array<Item> = []
  let place = 0
  for (const piece of pieces) {
    place = (place + 7) % 64
    lendScannable(piece, place, (lent) => {
      decoder.feed(lent, true)
      do decoder.decode(items, maxMessages, maxBytes)
      while (decoder.paused)
    })
  }
  return items
}

/** Every byte array that an object refers to, through its own fields, as the memory it keeps alive. */
export const retainedBytes = (object: object): number => {
  const seen = new Set<object>()
  let total = 0
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null || seen.has(value)) return
    seen.add(value)
    if (ArrayBuffer.isView(value)) {
      if (!seen.has(value.buffer)) total += value.buffer.byteLength
      seen.add(value.buffer)
    } else for (const field of Object.values(value)) visit(field)
  }
  visit(object)
  return total
}

/** `bytes` cut at these places (any numbers; they are taken modulo the length). */
export const cutAt = (bytes: Uint8Array, places: ReadonlyArray<number>): Array<Uint8Array> => {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  const bounds = [0, ...sorted, bytes.length]
  return bounds.slice(1).map((end, i) => bytes.subarray(bounds[i]!, end))
}

/** A message with control frames and how it is fragmented. */
export interface Sent {
  readonly kind: "text" | "binary"
  readonly payload: Uint8Array
  readonly fragments: ReadonlyArray<number>
  readonly pings: ReadonlyArray<Uint8Array>
}

const size = FastCheck.oneof(
  { weight: 5, arbitrary: FastCheck.integer({ min: 0, max: 40 }) },
  { weight: 2, arbitrary: FastCheck.integer({ min: 60, max: 300 }) },
  { weight: 1, arbitrary: FastCheck.constantFrom(125, 126, 127, 2048, 2049, 8192, 8193, 65535, 65536, 70_000) }
)

export const anyBytes: FastCheck.Arbitrary<Uint8Array> = FastCheck.tuple(size, FastCheck.integer()).map(
  ([length, seed]) => {
    const bytes = new Uint8Array(length)
    for (let i = 0, state = seed; i < length; i++) bytes[i] = (state = Math.imul(state, 0x19660d) + 0x3c6ef35f) >>> 24
    return bytes
  }
)

export const anyText: FastCheck.Arbitrary<string> = FastCheck.oneof(
  FastCheck.string({ unit: "binary", maxLength: 60, size: "max" }),
  FastCheck.string({ unit: "grapheme", maxLength: 60, size: "max" }),
  FastCheck.tuple(FastCheck.constantFrom("a", "é", "語", "🎉"), size).map(([unit, count]) => unit.repeat(count))
)

export const anyKey: FastCheck.Arbitrary<number> = FastCheck.integer()

export const anySent: FastCheck.Arbitrary<Sent> = FastCheck.record({
  message: FastCheck.oneof(
    FastCheck.record({ kind: FastCheck.constant("text" as const), payload: anyText.map(utf8) }),
    FastCheck.record({ kind: FastCheck.constant("binary" as const), payload: anyBytes })
  ),
  fragments: FastCheck.array(FastCheck.nat(), { maxLength: 4 }),
  pings: FastCheck.array(FastCheck.uint8Array({ maxLength: 125, size: "max" }), { maxLength: 2 })
}).map(({ message, ...rest }) => ({ ...message, ...rest }))

/** The frames of a message: its fragments, with a ping behind each but the last as long as there are pings. */
export const framesOf = ({ fragments, kind, payload, pings }: Sent): Array<FrameFields> => {
  const pieces = cutAt(payload, fragments)
  return pieces.flatMap((piece, i) => {
    const data: FrameFields = {
      opcode: i > 0 ? 0 : kind === "text" ? 1 : 2,
      payload: piece,
      fin: i === pieces.length - 1
    }
    const ping = i < pieces.length - 1 ? pings[i] : undefined
    return ping === undefined ? [data] : [data, { opcode: 9, payload: ping }]
  })
}

/** The items that these frames are. */
export const itemsOf = (sent: Sent): Array<Item> => [
  ...framesOf(sent).flatMap(
    ({ opcode, payload }): Array<Item> => (opcode === 9 ? [{ _tag: "Control", opcode, payload: payload! }] : [])
  ),
  sent.kind === "text" ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(sent.payload) : sent.payload
]

/** A frame of the peer of `role`. */
export const peerFrame = (role: Role, fields: FrameFields): Uint8Array =>
  encodeFrame(fields, role === "server" ? Uint8Array.of(0x37, 0xfa, 0x21, 0x3d) : undefined)
