/**
 * The body of an HTTP/1.1 response that refuses (RFC 9112 §6), up to a limit: enough to show a person why. What follows the
 * limit is not looked at, and a body that breaks the rules of its length ends where it does.
 *
 * Sizes are bytes.
 */
import type { ResponseHead } from "./HttpHead.js"
import { equalsIgnoreCase, trimSpace } from "./headerGrammar.js"

/**
 * A reader of one body.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpBody {
  /** Takes the next bytes, of which it keeps copies; `true` when nothing more is wanted. */
  readonly push: (chunk: Uint8Array) => boolean
  /** What was read so far, as UTF-8 with U+FFFD for what is malformed. */
  readonly text: () => string
}

/**
 * A reader for the body that follows `head`, at most `maxBytes` of it.
 *
 * Without `Content-Length` and `Transfer-Encoding` the body goes on until the transport ends (RFC 9112 §6.3 item 8).
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (head: ResponseHead, maxBytes: number): HttpBody => {
  const { headers, status } = head
  // RFC 9112 §6.3 item 1
  if (status < 200 || status === 204 || status === 304) return new Body(0, false)
  const encoding = headers["transfer-encoding"]
  if (encoding !== undefined) {
    const last = trimSpace(encoding.slice(encoding.lastIndexOf(",") + 1))
    return new Body(maxBytes, equalsIgnoreCase(last, "chunked"))
  }
  const length = headers["content-length"]
  return new Body(length === undefined ? maxBytes : Math.min(Number(length), maxBytes), false)
}

/** Hexadecimal digits of a chunk size that are taken, and bytes of the rest of its line. */
const maxSizeDigits = 8
const maxLineBytes = 1024

class Body implements HttpBody {
  private readonly pieces: Array<Uint8Array> = []
  /** Bytes of the chunk that is under way; without chunks, of the body. */
  private left: number
  private state: "data" | "size" | "extension" | "dataEnd" | "done"
  private digits = ""
  private lineBytes = 0

  constructor(
    private wanted: number,
    chunked: boolean
  ) {
    this.left = chunked ? 0 : wanted
    this.state = wanted === 0 ? "done" : chunked ? "size" : "data"
  }

  push(chunk: Uint8Array): boolean {
    for (let at = 0; at < chunk.length && this.state !== "done"; ) {
      at += this.state === "data" ? this.data(chunk, at) : this.line(chunk[at]!)
    }
    return this.state === "done"
  }

  private data(chunk: Uint8Array, at: number): number {
    const size = Math.min(this.left, this.wanted, chunk.length - at)
    this.pieces.push(chunk.slice(at, at + size))
    this.left -= size
    this.wanted -= size
    if (this.wanted === 0) this.state = "done"
    else if (this.left === 0) this.state = "dataEnd"
    return size
  }

  /** RFC 9112 §7.1: `chunk-size [ chunk-ext ] CRLF`; trailers are not wanted. */
  private line(byte: number): 1 {
    if (++this.lineBytes > maxLineBytes) this.state = "done"
    else if (this.state === "size" && isHexDigit(byte)) {
      this.digits += String.fromCharCode(byte)
      if (this.digits.length > maxSizeDigits) this.state = "done"
    } else if (byte !== 0x0a) {
      if (this.state === "size") this.state = this.digits === "" ? "done" : "extension"
    } else if (this.state === "dataEnd") {
      this.state = "size"
      this.digits = ""
      this.lineBytes = 0
    } else {
      this.left = Number.parseInt(this.digits, 16)
      this.lineBytes = 0
      // NaN where there was no size
      this.state = this.left > 0 ? "data" : "done"
    }
    return 1
  }

  text(): string {
    const decoder = new TextDecoder()
    let text = ""
    for (const piece of this.pieces) text += decoder.decode(piece, { stream: true })
    return text + decoder.decode()
  }
}

const isHexDigit = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66)
