/**
 * One reader of an event stream: a plain TCP socket, one request, a body in chunks or up to the end. Decodes just enough
 * of the format to learn what a server's events look like; from then on they are compared byte for byte.
 */
import type { Socket } from "node:net"
import type { BenchEvent } from "../servers/sse/harness.js"
import { open, readBuffer } from "./socket.js"
import { headerOf } from "./wire.js"

export interface EventReader {
  readonly socket: Socket
  /** Gets bytes of the body, `from` to `to` of a buffer that is written over after the call. */
  onBody: (buffer: Buffer, from: number, to: number) => void
  onEnd: (cause: Error | undefined) => void
}

/** Asks for `path`. `onOpen` runs after the first bytes of the body. A wrong answer destroys the socket with that error. */
export const connect = (port: number, path: string, onOpen: (reader: EventReader) => void): EventReader => {
  let isOpen = false
  let chunks: Chunks | undefined
  const request = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: text/event-stream\r\n\r\n`
  const socket = open(port, request, {
    onHead: (head) => {
      if (!/^HTTP\/1\.1 200 .*\r\ncontent-type: *text\/event-stream/is.test(head)) {
        throw new Error(`not an event stream: ${head.slice(0, 200)}`)
      }
      if (headerOf(head, "transfer-encoding")?.toLowerCase() === "chunked") chunks = new Chunks()
    },
    onBody: (from, to) => {
      if (chunks === undefined) reader.onBody(readBuffer, from, to)
      else chunks.receive(readBuffer, from, to, reader.onBody)
      if (isOpen) return
      isOpen = true
      onOpen(reader)
    },
    onEnd: (cause) => reader.onEnd(cause)
  })
  const reader: EventReader = { socket, onBody: () => {}, onEnd: () => {} }
  return reader
}

/** A chunked body (RFC 9112 §7.1), without extensions. */
class Chunks {
  /** Of the head of the chunk that is read: what its digits say so far, and how many there are, -1 behind the CR. */
  private size = 0
  private digits = 0
  /** Bytes that the chunk under way still has, with the CR and LF after its data. */
  private left = 0

  receive(buffer: Buffer, from: number, to: number, onBody: EventReader["onBody"]): void {
    while (from < to) {
      if (this.left > 0) {
        const end = Math.min(to, from + this.left)
        const dataEnd = Math.min(end, from + this.left - 2)
        if (dataEnd > from) onBody(buffer, from, dataEnd)
        this.left -= end - from
        from = end
        continue
      }
      this.receiveHead(buffer[from++]!)
    }
  }

  // By numbers: with a string and an expression for each chunk the load generator was the bottleneck of a fan-out.
  private receiveHead(byte: number): void {
    const digit = digitOf(byte)
    if (digit >= 0 && this.digits >= 0 && this.digits < 7) {
      this.size = this.size * 16 + digit
      this.digits++
    } else if (byte === 0x0d && this.digits > 0 && this.size > 0) this.digits = -1
    else if (byte === 0x0a && this.digits < 0) {
      this.left = this.size + 2
      this.size = this.digits = 0
    } else throw new Error(`not the head of a chunk with data: byte 0x${byte.toString(16)}`)
  }
}

/** The value of a hexadecimal digit, -1 for other bytes. */
const digitOf = (byte: number): number => {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

const blankLine = /\r\n\r\n|\n\n|\r\r/

/** The events of a whole piece of a stream, by the rules that benchmark servers make use of. */
export const decode = (text: string): ReadonlyArray<BenchEvent> =>
  text
    .split(blankLine)
    .map((block) => Object.fromEntries(block.split(/\r\n|\n|\r/).map((line) => line.split(/: ?(.*)/s))))
    .filter((fields) => "data" in fields)
    .map(({ data, event = "message", id = "" }) => ({ data, event, id }))

/** Where the block that ends first ends; undefined while none is complete. */
export const blockEnd = (text: string): number | undefined => {
  const end = blankLine.exec(text)
  return end === null ? undefined : end.index + end[0].length
}

/** Long enough that most reads are one comparison. */
const ringBytes = 64 * 1024

/** What a stream of the learned events looks like, over and over. */
export interface Rotation {
  readonly ring: Buffer
  readonly blockBytes: number
}

/** One for all readers: with a ring each, comparing was a tenth of the load generator's time in a fan-out, spent on cache misses. */
export const rotationOf = (blocks: ReadonlyArray<Buffer>): Rotation => {
  const blockBytes = blocks[0]!.length
  const whole = Buffer.concat(blocks)
  if (whole.length !== blockBytes * blocks.length) throw new Error("events of different lengths")
  const times = Math.max(1, Math.floor(ringBytes / whole.length))
  return { ring: Buffer.concat(Array.from({ length: times }, () => whole)), blockBytes }
}

/** Counts and checks events against the bytes that were learned. Comments between them are skipped. */
export class EventChecker {
  private readonly ring: Buffer
  private readonly blockBytes: number
  private at = 0
  private partial = 0
  /** Line breaks in a row, inside a comment. */
  private breaks: number | undefined

  constructor({ blockBytes, ring }: Rotation) {
    this.ring = ring
    this.blockBytes = blockBytes
  }

  /** Returns how many events ended. */
  receive(buffer: Buffer, from: number, to: number): number {
    let count = 0
    while (from < to) {
      if (this.breaks !== undefined || (this.partial === 0 && buffer[from] === 0x3a)) {
        from = this.skipComment(buffer, from, to)
        continue
      }
      const run = Math.min(to - from, this.ring.length - this.at)
      if (this.ring.compare(buffer, from, from + run, this.at, this.at + run) === 0) {
        count += this.advance(run)
        from += run
        continue
      }
      const piece = Math.min(to - from, this.blockBytes - this.partial)
      if (this.ring.compare(buffer, from, from + piece, this.at, this.at + piece) !== 0) {
        throw new Error(`a wrong event: ${JSON.stringify(buffer.toString("latin1", from, from + piece).slice(0, 200))}`)
      }
      count += this.advance(piece)
      from += piece
    }
    return count
  }

  private advance(bytes: number): number {
    this.at = (this.at + bytes) % this.ring.length
    this.partial += bytes
    const whole = Math.floor(this.partial / this.blockBytes)
    this.partial -= whole * this.blockBytes
    return whole
  }

  private skipComment(buffer: Buffer, from: number, to: number): number {
    this.breaks ??= 0
    for (; from < to && this.breaks < 2; from++) {
      if (buffer[from] === 0x0a) this.breaks++
      else if (buffer[from] !== 0x0d) this.breaks = 0
    }
    if (this.breaks === 2) this.breaks = undefined
    return from
  }
}
