/**
 * A second, plain reading of RFC 6455 §5.2 for tests: builds any frame, also broken ones, and reads what comes back. It shares
 * nothing with the engine, so that a mistake there can't hide itself.
 */

/** One frame to build; what is not said is legal. */
export interface FrameFields {
  readonly opcode: number
  readonly payload?: Uint8Array
  /** Default true. */
  readonly fin?: boolean
  /** RSV1 is 4, RSV2 is 2, RSV3 is 1; default 0. */
  readonly rsv?: number
  /** In how many bits the length is written; default the fewest. */
  readonly lengthBits?: 7 | 16 | 64
  /** The length that the header tells; default that of the payload. */
  readonly announced?: bigint
}

/** One frame that was read; the payload is unmasked. */
export interface RawFrame {
  readonly fin: boolean
  readonly rsv: number
  readonly opcode: number
  readonly masked: boolean
  readonly lengthBits: 7 | 16 | 64
  readonly payload: Uint8Array
}

const noBytes = new Uint8Array(0)

/** The bytes of a frame; masked with the four bytes of `key`, if given. */
export const encodeFrame = (fields: FrameFields, key?: Uint8Array): Uint8Array => {
  const payload = fields.payload ?? noBytes
  const length = fields.announced ?? BigInt(payload.length)
  const bits = fields.lengthBits ?? (length < 126n ? 7 : length < 65536n ? 16 : 64)
  const lengthBytes = bits === 7 ? 0 : bits / 8
  const bytes = new Uint8Array(2 + lengthBytes + (key === undefined ? 0 : 4) + payload.length)
  const header = new DataView(bytes.buffer)
  bytes[0] = ((fields.fin ?? true) ? 128 : 0) + (fields.rsv ?? 0) * 16 + fields.opcode
  bytes[1] = (key === undefined ? 0 : 128) + (bits === 7 ? Number(length) : bits === 16 ? 126 : 127)
  if (bits === 16) header.setUint16(2, Number(length))
  if (bits === 64) header.setBigUint64(2, length)
  let at = 2 + lengthBytes
  if (key !== undefined) {
    bytes.set(key, at)
    at += 4
  }
  bytes.set(payload, at)
  if (key !== undefined) xor(bytes, at, key)
  return bytes
}

const xor = (bytes: Uint8Array, from: number, key: Uint8Array): void => {
  for (let i = from; i < bytes.length; i++) bytes[i] = bytes[i]! ^ key[(i - from) % 4]!
}

/** Reads frames from bytes that come in any pieces. */
export class FrameReader {
  private buffer = new Uint8Array(4096)
  private start = 0
  private end = 0

  push(bytes: Uint8Array): void {
    if (this.end + bytes.length > this.buffer.length) {
      const held = this.buffer.subarray(this.start, this.end)
      const size = held.length + bytes.length
      const room = size > this.buffer.length / 2 ? new Uint8Array(size * 2) : this.buffer
      room.set(held)
      this.buffer = room
      this.start = 0
      this.end = held.length
    }
    this.buffer.set(bytes, this.end)
    this.end += bytes.length
  }

  /** Bytes that are not yet part of a whole frame. */
  get pending(): number {
    return this.end - this.start
  }

  /** The next whole frame, if it is there. */
  next(): RawFrame | undefined {
    const available = this.end - this.start
    if (available < 2) return undefined
    const header = new DataView(this.buffer.buffer, this.start, available)
    const first = header.getUint8(0)
    const second = header.getUint8(1)
    const short = second % 128
    const lengthBits = short === 127 ? 64 : short === 126 ? 16 : 7
    const masked = second >= 128
    const headerBytes = 2 + (lengthBits === 7 ? 0 : lengthBits / 8) + (masked ? 4 : 0)
    if (available < headerBytes) return undefined
    const length = lengthBits === 7 ? short : lengthBits === 16 ? header.getUint16(2) : Number(header.getBigUint64(2))
    if (available < headerBytes + length) return undefined
    const at = this.start + headerBytes
    const payload = this.buffer.slice(at, at + length)
    if (masked) xor(payload, 0, this.buffer.slice(at - 4, at))
    this.start = at + length
    return { fin: first >= 128, rsv: (first % 128) >> 4, opcode: first % 16, masked, lengthBits, payload }
  }
}

/** All frames in `bytes`, which must be whole. */
export const readFrames = (bytes: Uint8Array): Array<RawFrame> => {
  const reader = new FrameReader()
  reader.push(bytes)
  const frames: Array<RawFrame> = []
  for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame)
  if (reader.pending > 0) throw new Error(`${reader.pending} bytes are no whole frame`)
  return frames
}

/** The payload of a close frame. */
export const closePayload = (code: number, reason: string | Uint8Array = ""): Uint8Array => {
  const text = typeof reason === "string" ? utf8(reason) : reason
  const bytes = new Uint8Array(2 + text.length)
  new DataView(bytes.buffer).setUint16(0, code)
  bytes.set(text, 2)
  return bytes
}

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Bytes from hexadecimal digits; blanks don't count. */
export const hex = (digits: string): Uint8Array =>
  Uint8Array.from(digits.replaceAll(" ", "").match(/../g) ?? [], (byte) => Number.parseInt(byte, 16))

export const concat = (pieces: Iterable<Uint8Array>): Uint8Array => {
  const list = Array.from(pieces)
  const bytes = new Uint8Array(list.reduce((size, piece) => size + piece.length, 0))
  let at = 0
  for (const piece of list) {
    bytes.set(piece, at)
    at += piece.length
  }
  return bytes
}

/** `bytes` in pieces of `size` bytes, the last one shorter. */
export function* chop(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, Math.min(at + size, bytes.length))
}
