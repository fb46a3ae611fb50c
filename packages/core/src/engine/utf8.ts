/**
 * UTF-8 as RFC 3629 defines it (no surrogates, no overlong forms, at most U+10FFFF), checked as the bytes arrive, so
 * that a bad byte fails the connection at once (RFC 6455 §8.1) and a code point may be cut anywhere.
 */

/**
 * What is still owed to the code point at the end of the bytes seen so far, in one number: 0 between code points, else
 * `continuations | low << 8 | high << 16`, the count of bytes still to come and the range of the next one.
 *
 * @since 0.1.0
 */
export type Utf8State = number

/** Between code points: what a text may begin with and must end with. @since 0.1.0 */
export const boundary: Utf8State = 0

/** No continuation makes these bytes UTF-8. @since 0.1.0 */
export const invalid: Utf8State = -1

const anyContinuation = (0x80 << 8) | (0xbf << 16)

/** The state after `bytes[start, end)`, or {@link invalid}, which stays so. @since 0.1.0 */
export const advance = (state: Utf8State, bytes: Uint8Array, start: number, end: number): Utf8State => {
  if (state === invalid) return invalid
  let i = start
  while (i < end) {
    if (state === 0) {
      while (i < end && bytes[i]! < 0x80) i++
      if (i === end) return 0
      state = leading(bytes[i++]!)
    } else {
      const byte = bytes[i++]!
      if (byte < ((state >>> 8) & 0xff) || byte > state >>> 16) return invalid
      const remaining = (state & 0xff) - 1
      state = remaining === 0 ? 0 : remaining | anyContinuation
    }
    if (state === invalid) return invalid
  }
  return state
}

/** RFC 3629 §4: what may follow each leading byte. */
const leading = (byte: number): Utf8State => {
  if (byte < 0xc2) return invalid
  if (byte < 0xe0) return 1 | anyContinuation
  if (byte === 0xe0) return 2 | (0xa0 << 8) | (0xbf << 16)
  if (byte === 0xed) return 2 | (0x80 << 8) | (0x9f << 16)
  if (byte < 0xf0) return 2 | anyContinuation
  if (byte === 0xf0) return 3 | (0x90 << 8) | (0xbf << 16)
  if (byte < 0xf4) return 3 | anyContinuation
  if (byte === 0xf4) return 3 | (0x80 << 8) | (0x8f << 16)
  return invalid
}

/** Whether `bytes[start, end)` is UTF-8 from first to last byte. @since 0.1.0 */
export const isValid = (bytes: Uint8Array, start = 0, end = bytes.length): boolean =>
  advance(boundary, bytes, start, end) === boundary

/**
 * The largest index in `[start, end]` before which no code point that begins in the range is cut: `bytes[start, cut)` can be
 * checked by a whole-buffer function, at most three bytes are left.
 *
 * @since 0.1.0
 */
export const lastBoundary = (bytes: Uint8Array, start: number, end: number): number => {
  const lowest = Math.max(start, end - 3)
  for (let i = end - 1; i >= lowest; i--) {
    const byte = bytes[i]!
    if (byte < 0x80) return end
    if (byte >= 0xc0) {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
      return end - i >= length ? end : i
    }
  }
  return end
}
