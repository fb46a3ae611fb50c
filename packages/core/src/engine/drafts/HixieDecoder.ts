/**
 * Decodes the frames of hixie-75 and hixie-76 (draft-hixie-thewebsocketprotocol-76 §5.3), wherever the transport cut the bytes:
 *
 *     00, UTF-8, FF      a text message
 *     01 to 7F, ..., FF  of no known type: skipped
 *     80 to FF, length   that many bytes: skipped; the length in 7 bits a byte, the high bit on all but the last
 *     FF 00              hixie-76: the closing handshake
 *
 * The drafts replace bytes that are no UTF-8; we fail the connection, as RFC 6455 §8.1 has it.
 */
import type { Limits } from "../Limits.js"
import { MessageAssembler } from "../MessageAssembler.js"
import type { Natives } from "../Natives.js"
import * as Opcode from "../Opcode.js"
import { type Rule, type Violation, violation } from "../Rule.js"

/** The peer's closing frame. */
export interface Closing {
  readonly _tag: "Closing"
}

/** What comes out. A violation or the closing frame is the last item ever. */
export type Item = string | Closing | Violation

const empty = new Uint8Array(0)
const closing: Closing = { _tag: "Closing" }

/** Where the decoder is: between frames, in a text, skipping up to FF, in a length, skipping so many bytes. */
type Place = "type" | "text" | "unknown" | "length" | "skipped"

/** Fed with `feed`, asked with `decode`, as `FrameDecoder` is. */
export class HixieDecoder {
  /** Whether the last `decode` stopped at its budget with input left. */
  paused = false
  private chunk: Uint8Array = empty
  private position = 0
  private failed = false
  private place: Place = "type"
  private type = 0
  private length = 0
  private readonly assembler: MessageAssembler

  constructor(
    private readonly hasClosingFrame: boolean,
    private readonly limits: Limits,
    private readonly natives: Natives
  ) {
    this.assembler = new MessageAssembler(natives)
  }

  /** Whether a frame is under way. */
  get inFrame(): boolean {
    return this.place !== "type"
  }

  /** The next chunk; only when the last one was decoded to its end (`paused` is false). */
  feed(chunk: Uint8Array): void {
    if (this.failed) return
    this.chunk = chunk
    this.position = 0
  }

  /** Appends to `out` what is now complete, until the input ends or the messages reach `maxMessages` or `maxBytes`. */
  decode(out: Array<Item>, maxMessages: number, maxBytes: number): void {
    const { chunk } = this
    let messages = 0
    let bytes = 0
    while (this.position < chunk.length && !this.failed) {
      if (messages >= maxMessages || bytes >= maxBytes) {
        this.paused = true
        return
      }
      switch (this.place) {
        case "type":
          this.begin(chunk[this.position++]!)
          break
        case "text": {
          const size = this.readText(out)
          if (size >= 0) {
            messages++
            bytes += size
          }
          break
        }
        case "unknown": {
          const end = chunk.indexOf(0xff, this.position)
          if (end >= 0) this.place = "type"
          this.position = end < 0 ? chunk.length : end + 1
          break
        }
        case "length":
          this.readLength(out, chunk[this.position++]!)
          break
        case "skipped": {
          const size = Math.min(this.length, chunk.length - this.position)
          this.position += size
          this.length -= size
          if (this.length === 0) this.place = "type"
          break
        }
      }
    }
    this.paused = false
    this.chunk = empty
    this.position = 0
  }

  /** Nothing more is decoded; memory is given back. */
  stop(): void {
    this.failed = true
    this.paused = false
    this.chunk = empty
    this.position = 0
    this.assembler.reset()
  }

  private begin(type: number): void {
    this.type = type
    if (type >= 0x80) {
      this.place = "length"
      this.length = 0
    } else if (type === 0) {
      this.place = "text"
      this.assembler.begin(Opcode.text, 0)
    } else this.place = "unknown"
  }

  /** Takes what the chunk holds of a text; the size of the message if that completes it, else -1. */
  private readText(out: Array<Item>): number {
    const { assembler, chunk, position } = this
    const mark = chunk.indexOf(0xff, position)
    const end = mark < 0 ? chunk.length : mark
    const size = assembler.length + end - position
    const excess = size - this.limits.maxMessageBytes
    if (excess > 0) {
      // Nothing announces the size, so what comes before the limit is judged first, as it is when it comes alone.
      const valid = assembler.append(chunk, position, end - excess, 0, true)
      return this.fail(out, valid ? "MessageTooBig" : "InvalidText")
    }
    this.position = mark < 0 ? end : mark + 1
    if (mark >= 0 && assembler.length === 0) {
      const text = this.natives.decodeText(chunk, position, end)
      if (text === undefined) return this.fail(out, "InvalidText")
      out.push(text)
      assembler.reset()
    } else {
      if (!assembler.append(chunk, position, end, 0, true)) return this.fail(out, "InvalidText")
      if (mark < 0) return -1
      if (!assembler.atBoundary) return this.fail(out, "InvalidText")
      out.push(assembler.takeText())
    }
    this.place = "type"
    return size
  }

  private readLength(out: Array<Item>, byte: number): void {
    this.length = this.length * 0x80 + (byte & 0x7f)
    if (this.length > this.limits.maxMessageBytes) this.fail(out, "MessageTooBig")
    else if (byte < 0x80) {
      this.place = this.length === 0 ? "type" : "skipped"
      if (this.length === 0 && this.type === 0xff && this.hasClosingFrame) {
        out.push(closing)
        this.stop()
      }
    }
  }

  // How much is seen of a message when it breaks a rule depends on how the bytes are cut, so the detail does not tell.
  private fail(out: Array<Item>, rule: Rule): -1 {
    out.push(violation(rule, rule === "MessageTooBig" ? `limit ${this.limits.maxMessageBytes}` : ""))
    this.stop()
    return -1
  }
}
