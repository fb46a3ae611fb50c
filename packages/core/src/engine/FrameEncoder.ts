/**
 * Writes frames (RFC 6455 §5.2) into a {@link ByteWriter}: header, mask and payload in one pass, text straight from the
 * string. Which frames may be sent when is the business of Protocol.
 */
import { type ByteWriter, maxReserveBytes } from "./byteWriter.js"
import { maskInto, writeKey } from "./mask.js"
import type { Natives } from "./Natives.js"
import { finBit, maskBit } from "./Opcode.js"

/** The largest header: two bytes, eight of length, four of mask. @since 0.1.0 */
export const maxHeaderBytes = 14

/** Payloads up to this size, if they are not masked, are copied behind their header; a larger one is a piece of its own. @since 0.1.0 */
export const inlineBytes = 8 * 1024

/** The number of bytes of the header of a frame with this payload. @since 0.1.0 */
export const headerBytes = (payloadBytes: number, masked: boolean): number =>
  (payloadBytes < 126 ? 2 : payloadBytes < 0x10000 ? 4 : 10) + (masked ? 4 : 0)

/**
 * Writes one frame with `firstByte` (FIN, RSV and opcode). `payload` strings are sent as UTF-8. `maskKey` is `undefined` for
 * servers; with a key, large payloads are copied, since the caller's bytes must not change.
 *
 * @since 0.1.0
 */
export const writeFrame = (
  out: ByteWriter,
  firstByte: number,
  payload: string | Uint8Array,
  maskKey: number | undefined
): void => {
  if (typeof payload === "string") writeTextFrame(out, firstByte, payload, maskKey)
  else writeBytesFrame(out, firstByte, payload, maskKey)
}

/** The bytes of one unmasked frame, for sending the same to many. @since 0.1.0 */
export const frame = (natives: Natives, opcode: number, payload: string | Uint8Array, rsv = 0): Uint8Array => {
  const length = typeof payload === "string" ? natives.textByteLength(payload) : payload.length
  const header = headerBytes(length, false)
  const bytes = natives.allocate(header + length)
  writeHeader(bytes, 0, finBit | rsv | opcode, length, undefined)
  if (typeof payload === "string") natives.writeText(payload, bytes, header)
  else natives.copy(payload, 0, length, bytes, header)
  return bytes
}

const writeTextFrame = (out: ByteWriter, firstByte: number, text: string, maskKey: number | undefined): void => {
  const natives = out.natives
  const units = text.length
  const masked = maskKey !== undefined
  if (units > inlineBytes / 3) {
    const length = natives.textByteLength(text)
    const header = headerBytes(length, masked)
    const bytes = natives.allocate(header + length)
    writeHeader(bytes, 0, firstByte, length, maskKey)
    natives.writeText(text, bytes, header)
    if (masked) maskInto(natives, bytes, header, header + length, bytes, header, maskKey)
    out.push(bytes)
    return
  }
  // Most text is ASCII: write behind a header of that size, and move the payload when it was not.
  const at = out.reserve(maxHeaderBytes + units * 3)
  const target = out.target
  const guess = headerBytes(units, masked)
  const length = natives.writeText(text, target, at + guess)
  const header = headerBytes(length, masked)
  if (header !== guess) target.copyWithin(at + header, at + guess, at + guess + length)
  writeHeader(target, at, firstByte, length, maskKey)
  if (masked) maskInto(natives, target, at + header, at + header + length, target, at + header, maskKey)
  out.advance(header + length)
}

const writeBytesFrame = (
  out: ByteWriter,
  firstByte: number,
  payload: Uint8Array,
  maskKey: number | undefined
): void => {
  const length = payload.length
  const masked = maskKey !== undefined
  const header = headerBytes(length, masked)
  // What is masked is copied anyway.
  if (masked ? header + length <= maxReserveBytes : length <= inlineBytes) {
    const at = out.reserve(header + length)
    const target = out.target
    writeHeader(target, at, firstByte, length, maskKey)
    if (masked) maskInto(out.natives, payload, 0, length, target, at + header, maskKey)
    else target.set(payload, at + header)
    out.advance(header + length)
  } else if (masked) {
    const bytes = out.natives.allocate(header + length)
    writeHeader(bytes, 0, firstByte, length, maskKey)
    maskInto(out.natives, payload, 0, length, bytes, header, maskKey)
    out.push(bytes)
  } else {
    const at = out.reserve(header)
    writeHeader(out.target, at, firstByte, length, undefined)
    out.advance(header)
    out.push(payload)
  }
}

const writeHeader = (
  target: Uint8Array,
  at: number,
  firstByte: number,
  length: number,
  maskKey: number | undefined
): void => {
  const mask = maskKey === undefined ? 0 : maskBit
  target[at++] = firstByte
  if (length < 126) {
    target[at++] = mask | length
  } else if (length < 0x10000) {
    target[at++] = mask | 126
    target[at++] = length >>> 8
    target[at++] = length
  } else {
    const high = Math.floor(length / 0x100000000)
    target[at++] = mask | 127
    target[at++] = high >>> 24
    target[at++] = high >>> 16
    target[at++] = high >>> 8
    target[at++] = high
    target[at++] = length >>> 24
    target[at++] = length >>> 16
    target[at++] = length >>> 8
    target[at++] = length
  }
  if (maskKey !== undefined) writeKey(target, at, maskKey)
}
