/**
 * Decodes frames (RFC 6455 §5.2) into messages and control frames, wherever the transport cut the bytes.
 *
 * A whole, unfragmented data frame inside the received chunk goes straight to its message: unmasked in place, no frame
 * object, no copy of large payloads. Where a {@link FrameScanner} can find and unmask these it does, and all other frames are left to what
 * is here. Everything else goes through {@link MessageAssembler}. The chunk belongs to the
 * decoder, which writes over it, for good or only until `decode` returns; messages belong to the receiver.
 */
import type { FrameScanner } from "./FrameScanner.js"
import type { Limits } from "./Limits.js"
import { MessageAssembler } from "./MessageAssembler.js"
import { maskInto, readKey, rotateKey, wantsWords, wordsOf } from "./mask.js"
import { copyOf, type Natives, view } from "./Natives.js"
import * as Opcode from "./Opcode.js"
import { type Rule, type Violation, violation } from "./Rule.js"

/** A ping, pong or close frame; the payload is the receiver's. @since 0.1.0 */
export interface ControlFrame {
  readonly _tag: "Control"
  readonly opcode: number
  readonly payload: Uint8Array
}

/** A message that extensions have to decode, `reserved` the reserved bits of its first frame; the payload is the receiver's. @since 0.1.0 */
export interface ExtendedMessage {
  readonly _tag: "Extended"
  readonly opcode: number
  readonly reserved: number
  readonly payload: Uint8Array
}

/** What comes out: text, binary, or something to be looked at. A violation or a close frame is the last item ever. @since 0.1.0 */
export type Item = string | Uint8Array | ControlFrame | ExtendedMessage | Violation

/** A binary message that is at least this share of the memory it lies in is not copied. */
const pinnedShare = 4

/** Binary messages up to this many bytes are copied into blocks. */
const maxBlockCopyBytes = 16 * 1024

/**
 * The blocks for messages of at most 2, 4, 8 and 16 KiB, which all decoders share. Each has room for four of the largest, so a message pins
 * at most 8 KiB or eight times its length. (With memory of their own, messages of 16 KiB took a client 1.3 to 1.9 times as long: the C library
 * gives so much back to the kernel, and gets it again page by page.)
 */
const copyBlocks = [2, 4, 8, 16].map((kib): Block => {
  const bytes = new Uint8Array(0)
  return { size: 4 * kib * 1024, bytes, memory: bytes.buffer, position: 0 }
})

interface Block {
  readonly size: number
  bytes: Uint8Array<ArrayBuffer>
  /** That of `bytes`, which is slow to ask for (60 nanoseconds). */
  memory: ArrayBuffer
  /** Bytes that are taken. */
  position: number
}

/**
 * Small messages that lie within so many bytes are copied together, and ASCII texts decoded together, of which each message is a part then
 * (128 B: 27 to 35 nanoseconds instead of 58 to 79, Node 20 to 24). It is also what a text may keep alive.
 */
const groupBytes = 2 * 1024

const empty = new Uint8Array(0)

/** Options of a decoder. @since 0.1.0 */
export interface Options {
  /** Whether frames must be masked (we are the server) or must not be (we are the client), §5.1. */
  readonly masked: boolean
  readonly limits: Limits
  readonly natives: Natives
  /** The reserved bits that active extensions use on the first frame of a message. */
  readonly reservedBits?: number | undefined
  /** Whether messages without such a bit are for the extensions too. */
  readonly extendsAll?: boolean | undefined
}

/** Fed with `feed`, asked with `decode`. @since 0.1.0 */
export class FrameDecoder {
  /** Whether the last `decode` stopped at its budget with input left. */
  paused = false
  private chunk: Uint8Array = empty
  private position = 0
  private words: Int32Array | undefined
  private failed = false
  /** Whether the chunk is the decoder's only until `decode` returns. */
  private lent = false
  /** What may scan the chunk, which lies in its memory. */
  private scanner: FrameScanner | undefined

  // The frame under way.
  private inPayload = false
  private opcode = 0
  private fin = false
  private reserved = 0
  private key = 0
  private remaining = 0

  // A header cut by the end of a chunk, and the payload of a control frame.
  private pending: Uint8Array | undefined
  private pendingLength = 0
  private control: Uint8Array<ArrayBuffer> | undefined
  private controlLength = 0

  private readonly masked: boolean
  private readonly reservedBits: number
  private readonly extendsAll: boolean
  private readonly limits: Limits
  private readonly natives: Natives
  private readonly assembler: MessageAssembler

  constructor(options: Options) {
    this.masked = options.masked
    this.reservedBits = options.reservedBits ?? 0
    this.extendsAll = options.extendsAll === true
    this.limits = options.limits
    this.natives = options.natives
    this.assembler = new MessageAssembler(options.natives)
  }

  /**
   * The next chunk; only when the last one was decoded to its end (`paused` is false), else it throws. What is `lent` is copied as far as
   * it is still needed when the next `decode` returns.
   */
  feed(chunk: Uint8Array, lent = false): void {
    if (this.failed) return
    if (this.paused) throw new Error("a chunk was fed while the last one is not decoded to its end")
    this.chunk = chunk
    this.position = 0
    this.words = undefined
    this.lent = lent
    const { scanner } = this.natives
    const may = lent && scanner !== undefined && !this.extendsAll && chunk.buffer === scanner.memory
    this.scanner = may ? scanner : undefined
  }

  /**
   * Appends to `out` what is now complete, until the input ends or the messages reach `maxMessages` or `maxBytes`.
   * A violation or a close frame is the last item ever: nothing behind it is looked at (§5.5.1, §7.1.7).
   */
  decode(out: Array<Item>, maxMessages: number, maxBytes: number): void {
    let messages = 0
    let bytes = 0
    const chunk = this.chunk
    const end = chunk.length
    while (this.position < end && !this.failed) {
      if (messages >= maxMessages || bytes >= maxBytes) {
        if (this.lent) this.keepRest()
        this.paused = true
        return
      }
      if (this.scanner !== undefined) {
        const scanned = this.scan(this.scanner, maxMessages - messages, maxBytes - bytes)
        if (scanned > 0) {
          messages += scanned
          bytes += this.takeScanned(out, this.scanner, scanned)
          continue
        }
      }
      if (!this.inPayload && !this.readHeader(out)) break
      const at = this.position
      const length = this.remaining
      if (at + length > end || this.opcode === Opcode.continuation || !this.fin || this.opcode >= 8 || this.inPayload) {
        const completed = this.readPayload(out)
        if (completed >= 0) {
          messages++
          bytes += completed
        }
        continue
      }
      // The whole message lies in this chunk.
      this.position = at + length
      messages++
      bytes += length
      if (this.reserved !== 0 || this.extendsAll) {
        if (this.masked) this.unmask(at, at + length)
        const payload = this.lent ? this.bytesOf(at, length) : view(chunk, at, at + length)
        out.push({ _tag: "Extended", opcode: this.opcode, reserved: this.reserved, payload })
        continue
      }
      if (length === 0) {
        out.push(this.opcode === Opcode.text ? "" : new Uint8Array(0))
        continue
      }
      const isAscii = this.masked && this.unmask(at, at + length)
      if (this.opcode === Opcode.text) {
        const text = isAscii
          ? this.natives.decodeAscii(chunk, at, at + length)
          : this.natives.decodeText(chunk, at, at + length)
        if (text === undefined) this.fail(out, "InvalidText")
        else out.push(text)
      } else out.push(this.bytesOf(at, length))
    }
    this.paused = false
    this.chunk = empty
    this.position = 0
    this.words = undefined
  }

  /** Nothing more is decoded; memory is given back. */
  stop(): void {
    this.failed = true
    this.paused = false
    this.chunk = empty
    this.position = 0
    this.words = undefined
    this.control = undefined
    this.assembler.reset()
  }

  private fail(out: Array<Item>, rule: Rule, detail?: string): false {
    out.push(violation(rule, detail))
    this.stop()
    return false
  }

  /** Reads a header at the position; `false` when it is cut by the end of the chunk, or broke a rule. */
  private readHeader(out: Array<Item>): boolean {
    const { chunk } = this
    const available = chunk.length - this.position
    if (this.pendingLength === 0) {
      const size = this.parseHeader(out, chunk, this.position, available)
      if (size > 0) {
        this.position += size
        return true
      }
      if (this.failed) return false
      this.pending ??= new Uint8Array(14)
      for (let i = 0; i < available; i++) this.pending[i] = chunk[this.position + i]!
      this.pendingLength = available
      this.position += available
      return false
    }
    // Byte by byte, so that exactly the header is taken.
    while (this.position < chunk.length) {
      this.pending![this.pendingLength++] = chunk[this.position++]!
      if (this.parseHeader(out, this.pending!, 0, this.pendingLength) > 0) {
        this.pendingLength = 0
        return true
      }
      if (this.failed) return false
    }
    return false
  }

  /** The size of the header in `bytes` at `at`, its fields taken over; 0 when it is incomplete or broke a rule. */
  private parseHeader(out: Array<Item>, bytes: Uint8Array, at: number, available: number): number {
    const first = bytes[at]!
    const opcode = first & 0x0f
    const reserved = first & Opcode.reservedBits
    const fin = (first & Opcode.finBit) !== 0
    if (reserved !== 0 && (reserved & ~this.reservedBits) !== 0) {
      this.fail(out, "ReservedBits", `RSV bits 0b${(reserved >>> 4).toString(2).padStart(3, "0")}`)
      return 0
    }
    if (opcode >= 8) {
      if (opcode > Opcode.pong) return this.failHeader(out, "ReservedOpcode", `opcode 0x${opcode.toString(16)}`)
      if (!fin) return this.failHeader(out, "FragmentedControl", `opcode 0x${opcode.toString(16)}`)
      // An extension's bits mark the first frame of a message, never a control frame (RFC 7692 §6).
      if (reserved !== 0) return this.failHeader(out, "ReservedBits", "on a control frame")
    } else if (opcode > Opcode.binary) {
      return this.failHeader(out, "ReservedOpcode", `opcode 0x${opcode.toString(16)}`)
    } else if (opcode === Opcode.continuation) {
      if (this.assembler.opcode === 0) return this.failHeader(out, "UnexpectedContinuation")
      if (reserved !== 0) return this.failHeader(out, "ReservedBits", "on a continuation frame")
    } else if (this.assembler.opcode !== 0) {
      return this.failHeader(out, "ExpectedContinuation", `opcode 0x${opcode.toString(16)}`)
    }
    if (available < 2) return 0
    const second = bytes[at + 1]!
    if (((second & Opcode.maskBit) !== 0) !== this.masked) {
      return this.failHeader(out, this.masked ? "MaskRequired" : "MaskForbidden")
    }
    let length = second & 0x7f
    let size = 2
    if (opcode >= 8 && length > Opcode.maxControlPayloadBytes) return this.failHeader(out, "ControlTooLong")
    if (length === 126) {
      if (available < 4) return 0
      length = (bytes[at + 2]! << 8) | bytes[at + 3]!
      if (length < 126) return this.failHeader(out, "LengthNotMinimal", `${length} in 16 bits`)
      size = 4
    } else if (length === 127) {
      if (available >= 3 && bytes[at + 2]! >= 0x80) return this.failHeader(out, "LengthHighBit")
      if (available < 10) return 0
      const high = bytes[at + 2]! * 0x1000000 + ((bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!)
      const low = bytes[at + 6]! * 0x1000000 + ((bytes[at + 7]! << 16) | (bytes[at + 8]! << 8) | bytes[at + 9]!)
      length = high * 0x100000000 + low
      if (length < 0x10000) return this.failHeader(out, "LengthNotMinimal", `${length} in 64 bits`)
      size = 10
    }
    if (opcode < 8) {
      const total = length + this.assembler.length
      const { maxMessageBytes } = this.limits
      // What an extension made of a message may be a little larger; its own size is checked when it is decoded.
      const extended = this.extendsAll || (opcode === Opcode.continuation ? this.assembler.reserved : reserved) !== 0
      const allowed = extended ? maxMessageBytes + (maxMessageBytes >>> 8) + 64 : maxMessageBytes
      if (total > allowed) return this.failHeader(out, "MessageTooBig", `${total} bytes, limit ${maxMessageBytes}`)
    }
    if (this.masked) {
      if (available < size + 4) return 0
      this.key = readKey(bytes, at + size)
      size += 4
    }
    this.opcode = opcode
    this.fin = fin
    this.reserved = reserved
    this.remaining = length
    return size
  }

  private failHeader(out: Array<Item>, rule: Rule, detail?: string): 0 {
    this.fail(out, rule, detail)
    return 0
  }

  /**
   * Takes what the chunk holds of the payload; appends an item when that completes a message or control frame. Gives the
   * payload bytes of the message that is complete now, else -1.
   */
  private readPayload(out: Array<Item>): number {
    const { assembler } = this
    if (!this.inPayload) {
      this.inPayload = true
      if (this.opcode >= 8) {
        this.control = this.remaining === 0 ? undefined : new Uint8Array(this.remaining)
        this.controlLength = 0
      } else if (this.opcode !== Opcode.continuation) assembler.begin(this.opcode, this.reserved)
    }
    const start = this.position
    const length = Math.min(this.remaining, this.chunk.length - start)
    const end = start + length
    this.position = end
    if (this.masked && length > 0) {
      this.unmask(start, end)
      this.key = rotateKey(this.key, length)
    }
    if (this.opcode >= 8) {
      if (length > 0) {
        for (let i = start; i < end; i++) this.control![this.controlLength++] = this.chunk[i]!
      }
    } else {
      const isText = assembler.opcode === Opcode.text && assembler.reserved === 0 && !this.extendsAll
      if (!assembler.append(this.chunk, start, end, this.fin ? this.remaining : 0, isText)) {
        this.fail(out, "InvalidText")
        return -1
      }
    }
    this.remaining -= length
    if (this.remaining > 0) return -1
    this.inPayload = false
    if (this.opcode >= 8) {
      out.push({ _tag: "Control", opcode: this.opcode, payload: this.control ?? new Uint8Array(0) })
      this.control = undefined
      if (this.opcode === Opcode.close) this.stop()
      return -1
    }
    return this.fin ? this.finishMessage(out) : -1
  }

  private finishMessage(out: Array<Item>): number {
    const { length, opcode, reserved } = this.assembler
    if (reserved !== 0 || this.extendsAll)
      out.push({ _tag: "Extended", opcode, reserved, payload: this.assembler.takeBytes() })
    else if (opcode === Opcode.binary) out.push(this.assembler.takeBytes())
    else if (this.assembler.atBoundary) out.push(this.assembler.takeText())
    // No detail: a text in one chunk fails the same way, wherever its bad byte is.
    else this.fail(out, "InvalidText")
    return length
  }

  /** How many whole messages lie at the position, which are unmasked now and in the scanner's table. */
  private scan(scanner: FrameScanner, maxMessages: number, maxBytes: number): number {
    if (this.inPayload || this.pendingLength > 0 || this.assembler.opcode !== 0) return 0
    const base = this.chunk.byteOffset
    const from = base + this.position
    const to = base + this.chunk.length
    const maskBit = this.masked ? Opcode.maskBit : 0
    return scanner.scan(from, to, maxMessages, maxBytes, this.limits.maxMessageBytes, maskBit)
  }

  /** Appends the first messages of the scanner's table, and gives the bytes of their payloads. */
  private takeScanned(out: Array<Item>, { table }: FrameScanner, count: number): number {
    const { chunk, natives } = this
    const base = chunk.byteOffset
    let bytes = 0
    let end = 0
    // Binary messages before `copyEnd` were copied to `memory`, `shift` behind where they are.
    let copyEnd = 0
    let memory: ArrayBuffer = empty.buffer
    let shift = 0
    // What lies from `textsStart` to `textsEnd` is a string, in which the texts that are ASCII are as they should be.
    let textsEnd = 0
    let textsStart = 0
    let texts = ""
    for (let i = 0; i < count; i++) {
      const start = table[2 * i]! - base
      const fields = table[2 * i + 1]!
      const length = fields >>> 2
      end = start + length
      bytes += length
      if ((fields & 3) === 3) {
        if (end > textsEnd) {
          textsStart = start
          textsEnd = endOfGroup(table, i, count) - base
          texts = natives.decodeAscii(chunk, start, textsEnd)
        }
        out.push(texts.substring(start - textsStart, end - textsStart))
      } else if ((fields & 2) !== 0) {
        const text = natives.decodeText(chunk, start, end)
        if (text === undefined) {
          this.fail(out, "InvalidText")
          return bytes
        }
        out.push(text)
      } else if (length === 0) {
        out.push(new Uint8Array(0))
      } else if (end > copyEnd && length > groupBytes / 2) {
        out.push(this.bytesOf(start, length))
      } else {
        if (end > copyEnd) {
          copyEnd = endOfGroup(table, i, count) - base
          const block = this.copyToBlock(start, copyEnd - start)
          memory = block.memory
          shift = block.position - copyEnd
        }
        out.push(new Uint8Array(memory, shift + start, length))
      }
    }
    this.position = end
    return bytes
  }

  /** Unmasks in place; whether all is ASCII then, `false` where that is not known. */
  private unmask(start: number, end: number): boolean {
    const { chunk, key } = this
    if (this.scanner !== undefined) {
      const base = chunk.byteOffset
      return this.scanner.mask(base + start, base + end, key) === 0
    }
    if (wantsWords(end - start)) this.words ??= wordsOf(chunk)
    return maskInto(this.natives, chunk, start, end, chunk, start, key, this.words)
  }

  /** The rest of a lent chunk, in memory of its own. */
  private keepRest(): void {
    this.feed(copyOf(this.natives, view(this.chunk, this.position, this.chunk.length)))
  }

  /** A binary message: the chunk's own memory, or a copy when that is lent or it would keep much else alive. */
  private bytesOf(at: number, length: number): Uint8Array {
    if (length === 0) return new Uint8Array(0)
    if (!this.lent && length * pinnedShare >= this.chunk.buffer.byteLength) return view(this.chunk, at, at + length)
    if (length > maxBlockCopyBytes) {
      const bytes = this.natives.allocate(length)
      this.natives.copy(this.chunk, at, at + length, bytes, 0)
      return view(bytes, 0, length)
    }
    const block = this.copyToBlock(at, length)
    return new Uint8Array(block.memory, block.position - length, length)
  }

  /** Copies a range of at most `maxBlockCopyBytes`; it ends at the block's position then. */
  private copyToBlock(at: number, length: number): Block {
    const block = copyBlocks[Math.max(0, 21 - Math.clz32(length - 1))]!
    if (block.position + length > block.bytes.length) {
      block.bytes = this.natives.allocate(block.size)
      block.memory = block.bytes.buffer
      block.position = 0
    }
    this.natives.copy(this.chunk, at, at + length, block.bytes, block.position)
    block.position += length
    return block
  }
}

/** Where the last message of the table ends that belongs to the group which begins with this one. */
const endOfGroup = (table: Int32Array, first: number, count: number): number => {
  const start = table[2 * first]!
  let end = start + (table[2 * first + 1]! >>> 2)
  for (let i = first + 1; i < count; i++) {
    const next = table[2 * i]! + (table[2 * i + 1]! >>> 2)
    if (next - start > groupBytes) break
    end = next
  }
  return end
}
