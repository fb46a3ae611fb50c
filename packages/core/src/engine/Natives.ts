/**
 * What a platform may do faster than JavaScript: UTF-8, copying, allocating. The engine runs on {@link portable}
 * everywhere; Node's adapter supplies `Buffer`'s native methods under the same contract.
 */
import type { FrameScanner } from "./FrameScanner.js"
import * as Utf8 from "./utf8.js"

/** Functions on byte ranges; offsets are bytes, `end` is exclusive. None keeps a reference to its arguments. @since 0.1.0 */
export interface Natives {
  /** New memory of `size` bytes, its contents undefined. */
  readonly allocate: (size: number) => Uint8Array<ArrayBuffer>
  /** The text in `bytes[start, end)`, or `undefined` when it is not UTF-8. A byte order mark is kept. */
  readonly decodeText: (bytes: Uint8Array, start: number, end: number) => string | undefined
  /** A text of as many UTF-16 code units as there are bytes in `[start, end)`; ASCII is what it is, other bytes are whatever is fast. */
  readonly decodeAscii: (bytes: Uint8Array, start: number, end: number) => string
  /** Whether `bytes[start, end)` is UTF-8 as a whole. */
  readonly isText: (bytes: Uint8Array, start: number, end: number) => boolean
  /** Writes `text` as UTF-8 (lone surrogates as U+FFFD) at `offset`; `target` has room. Gives the number of bytes. */
  readonly writeText: (text: string, target: Uint8Array, offset: number) => number
  /** The number of bytes that {@link Natives.writeText} would write. */
  readonly textByteLength: (text: string) => number
  /** Copies `source[start, end)` to `target` at `offset`. */
  readonly copy: (source: Uint8Array, start: number, end: number, target: Uint8Array, offset: number) => void
  /** What finds and unmasks frames faster than JavaScript. */
  readonly scanner?: FrameScanner | undefined
}

const replacing = new TextDecoder("utf-8", { ignoreBOM: true })
/** One code unit per byte. */
const singleBytes = new TextDecoder("windows-1252")
const encoder = new TextEncoder()

/** Plain JavaScript and the Encoding standard. @since 0.1.0 */
export const portable: Natives = {
  allocate: (size) => new Uint8Array(size),
  decodeText: (bytes, start, end) => {
    const text = replacing.decode(view(bytes, start, end))
    // Every malformed sequence becomes U+FFFD, so a text without one needs no second look.
    return text.includes("\ufffd") && !Utf8.isValid(bytes, start, end) ? undefined : text
  },
  decodeAscii: (bytes, start, end) => singleBytes.decode(view(bytes, start, end)),
  isText: Utf8.isValid,
  writeText: (text, target, offset) => {
    const length = text.length
    let i = 0
    if (length <= 64) {
      for (; i < length; i++) {
        const unit = text.charCodeAt(i)
        if (unit >= 0x80) break
        target[offset + i] = unit
      }
      if (i === length) return length
    }
    return i + encoder.encodeInto(i === 0 ? text : text.slice(i), target.subarray(offset + i)).written
  },
  textByteLength: (text) => {
    let bytes = text.length
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit < 0x80) continue
      if (unit < 0x800) bytes += 1
      else {
        bytes += 2
        // A surrogate pair is two code units and four bytes; a lone surrogate becomes U+FFFD, three bytes.
        if (unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) i++
      }
    }
    return bytes
  },
  copy: (source, start, end, target, offset) => target.set(view(source, start, end), offset)
}

/** A copy of `bytes` in memory of its own; `bytes.slice()` is none for a Buffer, whose own `slice` is a view. @since 0.1.0 */
export const copyOf = (natives: Natives, bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const copy = natives.allocate(bytes.length)
  natives.copy(bytes, 0, bytes.length, copy, 0)
  return copy
}

/** `text` as UTF-8 (lone surrogates as U+FFFD) in memory of its own. @since 0.1.0 */
export const encodeText = (natives: Natives, text: string): Uint8Array<ArrayBuffer> => {
  const bytes = natives.allocate(natives.textByteLength(text))
  natives.writeText(text, bytes, 0)
  return bytes
}

/** `bytes.subarray` for any subclass, as a plain `Uint8Array` (Buffer's own subarray is several times slower). @since 0.1.0 */
export const view = (bytes: Uint8Array, start: number, end: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset + start, end - start)
