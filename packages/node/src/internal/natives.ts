/** What Node does faster than JavaScript, for the engine. */
import { isUtf8 } from "node:buffer"
import { makeFrameScanner, makeSlab, Natives } from "@effect-ws/core/engine"

// Native methods that TypeScript does not declare; they read and write ranges without a view being made.
type Native = Buffer & {
  latin1Slice(start: number, end: number): string
  utf8Slice(start: number, end: number): string
  utf8Write(text: string, offset: number): number
}
const native = Buffer.prototype as Native
const { latin1Slice, utf8Slice, utf8Write, copy } = native

/** Strings up to this length are written byte by byte; the call into native code costs more (measured on Node 20). */
const shortText = 24

/** `Buffer`'s native methods behind the engine's interface. */
export const natives: Natives.Natives = {
  // From the pool for small sizes; a slab or a large message has memory of its own.
  allocate: (size) => Buffer.allocUnsafeSlow(size) as Uint8Array<ArrayBuffer>,
  decodeText: (bytes, start, end) => {
    const text = utf8Slice.call(bytes as Native, start, end)
    // What is malformed becomes U+FFFD; a text without one needs no second look. (The search costs nothing in Latin-1
    // strings, whose representation can't hold it.)
    return text.includes("\ufffd") && !isUtf8(Natives.view(bytes, start, end)) ? undefined : text
  },
  // 65 ns for 128 bytes, where the way of all texts takes 86.
  decodeAscii: (bytes, start, end) => latin1Slice.call(bytes as Native, start, end),
  isText: (bytes, start, end) => isUtf8(Natives.view(bytes, start, end)),
  writeText: (text, target, offset) => {
    const { length } = text
    if (length <= shortText) {
      let i = 0
      for (; i < length; i++) {
        const unit = text.charCodeAt(i)
        if (unit >= 0x80) break
        target[offset + i] = unit
      }
      if (i === length) return length
    }
    return utf8Write.call(target as Native, text, offset)
  },
  textByteLength: (text) => Buffer.byteLength(text),
  copy: (source, start, end, target, offset) => {
    copy.call(source as Native, target, offset, start, end)
  },
  scanner: makeFrameScanner()
}

/** Where all connections of this thread write their frames. */
export const slab = makeSlab(natives)
