/**
 * Puts together what does not arrive as one whole frame: fragments of a message (RFC 6455 §5.4) and frames cut by the
 * transport. All bytes go into one growing buffer, so what is retained follows the bytes received and not the number
 * of fragments, nor the length that was announced.
 */
import { type Natives, view } from "./Natives.js"
import * as Utf8 from "./utf8.js"

/** Bytes: below this, growing in small steps costs more than the memory. */
const initialBytes = 1024

/** The message under way; one per decoder, idle between messages (`opcode` 0). */
export class MessageAssembler {
  /** Opcode of the message under way (text or binary), 0 when there is none. */
  opcode = 0
  /** Reserved bits of its first frame. */
  reserved = 0
  /** Its bytes so far. */
  length = 0
  private buffer: Uint8Array<ArrayBuffer> | undefined
  private utf8: Utf8.Utf8State = Utf8.boundary

  constructor(private readonly natives: Natives) {}

  /** A message begins. */
  begin(opcode: number, reserved: number): void {
    this.opcode = opcode
    this.reserved = reserved
    this.length = 0
    this.utf8 = Utf8.boundary
  }

  /**
   * Appends a copy of `bytes[start, end)`. `expected` is what the frame still holds from here if no frame follows it, else 0;
   * it lets the buffer grow to the final size directly. `false` when the text can't be UTF-8 any more (§8.1), which shows
   * at the first bad byte.
   */
  append(bytes: Uint8Array, start: number, end: number, expected: number, isText: boolean): boolean {
    if (start === end) return true
    if (isText && !this.advanceText(bytes, start, end)) return false
    const needed = this.length + end - start
    if (this.buffer === undefined || needed > this.buffer.length) this.grow(needed, this.length + expected)
    this.natives.copy(bytes, start, end, this.buffer!, this.length)
    this.length = needed
    return true
  }

  /** Whether a text may end here: not inside a code point. */
  get atBoundary(): boolean {
    return this.utf8 === Utf8.boundary
  }

  /** The text that was appended and checked. */
  takeText(): string {
    const text = this.length === 0 ? "" : this.natives.decodeText(this.buffer!, 0, this.length)!
    this.reset()
    return text
  }

  /** The bytes that were appended; the receiver's from now on. */
  takeBytes(): Uint8Array<ArrayBuffer> {
    const { buffer, length } = this
    let bytes: Uint8Array<ArrayBuffer>
    if (buffer === undefined) bytes = new Uint8Array(0)
    else if (buffer.length - length > length >>> 2) {
      // More than a quarter of slack is not worth keeping alive.
      bytes = this.natives.allocate(length)
      this.natives.copy(buffer, 0, length, bytes, 0)
      bytes = view(bytes, 0, length)
    } else bytes = view(buffer, 0, length)
    this.reset()
    return bytes
  }

  /** Forgets the message and its memory. */
  reset(): void {
    this.opcode = 0
    this.reserved = 0
    this.length = 0
    this.buffer = undefined
  }

  private advanceText(bytes: Uint8Array, start: number, end: number): boolean {
    let from = start
    if (this.utf8 !== Utf8.boundary) {
      // At most three bytes finish a code point; then the whole-buffer check, which is native on Node, takes over.
      from = Math.min(end, start + 3)
      this.utf8 = Utf8.advance(this.utf8, bytes, start, from)
      if (this.utf8 === Utf8.invalid) return false
      while (this.utf8 !== Utf8.boundary && from < end) {
        this.utf8 = Utf8.advance(this.utf8, bytes, from, ++from)
        if (this.utf8 === Utf8.invalid) return false
      }
    }
    const cut = Utf8.lastBoundary(bytes, from, end)
    if (cut > from && !this.natives.isText(bytes, from, cut)) return false
    this.utf8 = Utf8.advance(this.utf8, bytes, cut, end)
    return this.utf8 !== Utf8.invalid
  }

  private grow(needed: number, expected: number): void {
    const old = this.buffer
    // In proportion to what was received: an announced length alone takes no memory. (Where it is known how much comes, what is allocated ahead
    // is not written to and so not resident; by 4 instead of 16 an echo of 1 MiB takes 1.25 times as long, of 4 MiB 1.6 to 2.9 times.)
    const generous = Math.max(initialBytes, needed * (expected > needed ? 16 : 2))
    const size = expected >= needed ? Math.min(expected, generous) : generous
    const buffer = this.natives.allocate(size)
    if (old !== undefined) this.natives.copy(old, 0, this.length, buffer, 0)
    this.buffer = buffer
  }
}
