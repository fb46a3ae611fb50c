/**
 * Text as bytes, ready to be written: encoded once, for any number of connections.
 */

/** The same bytes as they are, and as one chunk of a chunked body (RFC 9112 §7.1). They are shared: nobody changes them. */
export interface Wire {
  readonly plain: Uint8Array
  readonly chunk: Uint8Array
}

const encoder = new TextEncoder()
const digits = encoder.encode("0123456789abcdef")

/** The largest head of a chunk: eight digits, CR, LF. */
const headBytes = 10

export const wire = (text: string): Wire => {
  // Most text is ASCII. Where it is not, what did not fit is encoded into a second, longer slab.
  let slab = new Uint8Array(headBytes + text.length + 2)
  let { read, written } = encoder.encodeInto(text, slab.subarray(headBytes, headBytes + text.length))
  if (read < text.length) {
    const first = slab.subarray(headBytes, headBytes + written)
    const rest = encoder.encode(text.slice(read))
    slab = new Uint8Array(headBytes + written + rest.length + 2)
    slab.set(first, headBytes)
    slab.set(rest, headBytes + written)
    written += rest.length
  }
  const end = headBytes + written
  slab[end] = 0x0d
  slab[end + 1] = 0x0a
  let start = headBytes
  slab[--start] = 0x0a
  slab[--start] = 0x0d
  let size = written
  do {
    slab[--start] = digits[size & 15]!
    size >>>= 4
  } while (size > 0)
  return { plain: slab.subarray(headBytes, end), chunk: slab.subarray(start, end + 2) }
}
