/**
 * UTF-8 for streams: text out of bytes that are cut anywhere, and the length of text in bytes.
 */

/**
 * Two decoders of the same kind, for their speed on Node 20: one that never streamed takes V8's path (64 KiB of ASCII in
 * 11 microseconds, of other text in 90 to 220), one that did takes ICU's (50, and 50 to 100). Neither is given cut characters.
 */
const narrow = new TextDecoder("utf-8", { ignoreBOM: true })
const wide = new TextDecoder("utf-8", { ignoreBOM: true })
wide.decode(new Uint8Array(0), { stream: true })

/** From this length on the second decoder pays. */
const wideBytes = 1024

/** How many bytes the sequence that begins with this byte should have; 0 for what begins none (Unicode table 3-7). */
const sequenceLength = (byte: number): number =>
  byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0

/** How many bytes at the end of `bytes` are the beginning of a character that is not complete. */
const heldBack = (bytes: Uint8Array): number => {
  const end = bytes.length
  for (let back = 1; back <= 3 && back <= end; back++) {
    const byte = bytes[end - back]!
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return sequenceLength(byte) > back ? back : 0
  }
  return 0
}

/**
 * Decodes chunks into text, invalid bytes replaced by U+FFFD (WHATWG Encoding, "UTF-8 decode"; the byte order mark is
 * left to the caller). Any cutting gives the same text: a decoder is in its ground state before every byte that begins a
 * character, so each chunk is cut there.
 *
 * @since 0.1.0
 */
export class Utf8Pieces {
  private readonly held = new Uint8Array(4)
  private heldLength = 0
  /** Whether the last `decodeRest` met ASCII only: one byte is one code unit. */
  ascii = true

  /** The text of a character that was cut, now complete, or `""`; the rest of the chunk is `decodeRest`'s. */
  decodeHeld(chunk: Uint8Array): { readonly text: string; readonly used: number } | undefined {
    if (this.heldLength === 0) return undefined
    const wanted = sequenceLength(this.held[0]!)
    let used = 0
    while (this.heldLength < wanted && used < chunk.length && (chunk[used]! & 0xc0) === 0x80) {
      this.held[this.heldLength++] = chunk[used++]!
    }
    if (this.heldLength < wanted && used === chunk.length) return { text: "", used }
    const text = narrow.decode(this.held.subarray(0, this.heldLength))
    this.heldLength = 0
    return { text, used }
  }

  /** The text of a chunk's complete characters; the bytes of a cut one are kept (at most three). */
  decodeRest(bytes: Uint8Array): string {
    const back = heldBack(bytes)
    if (back > 0) {
      const end = bytes.length - back
      this.held.set(bytes.subarray(end))
      this.heldLength = back
      bytes = bytes.subarray(0, end)
    }
    const decoder = this.ascii || bytes.length < wideBytes ? narrow : wide
    const text = decoder.decode(bytes)
    // An invalid byte becomes one code unit too, but is counted as the three bytes of U+FFFD, wherever the chunk was cut.
    this.ascii = text.length === bytes.length && !text.includes("\uFFFD")
    return text
  }
}

/** The length of text in UTF-8 bytes, from an index on; a lone surrogate counts two. @since 0.1.0 */
export const utf8Length = (text: string, start: number): number => {
  const end = text.length
  let length = end - start
  for (let index = start; index < end; index++) {
    const unit = text.charCodeAt(index)
    if (unit >= 0x80) length += unit < 0x800 || (unit & 0xf800) === 0xd800 ? 1 : 2
  }
  return length
}
