/**
 * Decodes an event stream (WHATWG HTML §9.2.6), wherever the transport cut the bytes.
 *
 * Each chunk is turned into text at once and cut into lines by searching for the next LF and the next CR; a line that
 * lies in one chunk is never copied before its value is sliced out. (A native decoding of 64 KiB costs as much as some
 * thirty of single lines do.) Limits are in bytes of UTF-8, of the text as it was decoded.
 */
import type { Item } from "./Event.js"
import { Utf8Pieces, utf8Length } from "./utf8.js"

/** Options of a decoder. @since 0.1.0 */
export interface Options {
  /** Whether comments are items too. Default: false. */
  readonly comments?: boolean | undefined
  /** The longest line, without its line break. Default: 1 MiB. */
  readonly maxLineBytes?: number | undefined
  /** The longest event: its data, as it is joined. Default: 4 MiB. */
  readonly maxEventBytes?: number | undefined
  /** The last event ID to begin with, when the stream resumes an earlier one. Default: `""`. */
  readonly lastEventId?: string | undefined
}

/** Default max line bytes. @since 0.1.0 */
export const defaultMaxLineBytes = 1024 * 1024
/** Default max event bytes. @since 0.1.0 */
export const defaultMaxEventBytes = 4 * 1024 * 1024

const lineFeed = 0x0a
const carriageReturn = 0x0d
const colon = 0x3a
const space = 0x20

/**
 * Fed with `push`, which answers every item now complete, in order, and keeps the rest.
 *
 * A passed limit is the last item; afterwards nothing comes out any more. What is kept never exceeds
 * `maxLineBytes + maxEventBytes`, and three bytes of a cut character. At the end of the stream an incomplete event is
 * discarded (§9.2.6): there is nothing to call. The chunk is not kept, but the strings may share the memory of its text.
 *
 * @since 0.1.0
 */
export class Decoder {
  /** The last event ID: what a reconnection sends. Sticky, and set by blocks without data too. */
  lastEventId: string
  private readonly comments: boolean
  private readonly maxLineBytes: number
  private readonly maxEventBytes: number
  private readonly utf8 = new Utf8Pieces()
  private begun = false
  private failed = false
  private items: Array<Item> = []

  /** Whether the last line ended with a CR, so that a LF which follows belongs to it. */
  private afterReturn = false

  /** Whether an `id` must be searched for NUL; one search in ASCII serves all its lines. */
  private mayHoldNul = true

  // The line under way: its text, its length in bytes, and how many pieces were joined since it was last flat.
  private line = ""
  private lineBytes = 0
  private linePieces = 0

  // The block under way. `data` is undefined until its first data line, `dataBytes` 0 until it needs counting.
  private event = "message"
  private data: string | undefined
  private id: string | undefined
  private dataBytes = 0
  private dataPieces = 0

  constructor(options: Options = {}) {
    this.comments = options.comments ?? false
    this.maxLineBytes = options.maxLineBytes ?? defaultMaxLineBytes
    this.maxEventBytes = options.maxEventBytes ?? defaultMaxEventBytes
    this.lastEventId = options.lastEventId ?? ""
  }

  /** Takes the next bytes of the stream, cut anywhere. */
  push(chunk: Uint8Array): Array<Item> {
    if (this.failed || chunk.length === 0) return []
    const held = this.utf8.decodeHeld(chunk)
    if (held !== undefined) {
      this.decode(held.text, false)
      if (held.used > 0) chunk = chunk.subarray(held.used)
    }
    if (chunk.length > 0) {
      const text = this.utf8.decodeRest(chunk)
      this.decode(text, this.utf8.ascii)
    }
    const items = this.items
    this.items = []
    return items
  }

  /** Cuts text into lines. `ascii`: one code unit is one byte. */
  private decode(text: string, ascii: boolean): void {
    const end = text.length
    if (end === 0 || this.failed) return
    let start = 0
    if (!this.begun) {
      this.begun = true
      if (text.charCodeAt(0) === 0xfeff) start = 1 // §9.2.5: one leading byte order mark is ignored
    }
    if (this.afterReturn && start < end) {
      this.afterReturn = false
      if (text.charCodeAt(start) === lineFeed) start++
    }
    this.mayHoldNul = !ascii || text.includes("\0")
    let feedAt = next(text, "\n", start)
    let returnAt = next(text, "\r", start)
    while (true) {
      if (this.data === undefined && this.lineBytes === 0) {
        start = this.decodeBlocks(text, start, feedAt, returnAt)
        if (feedAt < start) feedAt = next(text, "\n", start)
        if (returnAt < start) returnAt = next(text, "\r", start)
      }
      const stop = Math.min(feedAt, returnAt)
      if (stop === end) break
      if (this.lineBytes > 0) {
        if (!this.endKeptLine(text.slice(start, stop), ascii)) return
      } else if (start === stop) {
        this.dispatch()
      } else if (!this.endLine(text, start, stop, ascii, 0)) {
        return
      }
      start = stop + 1
      if (stop === returnAt) {
        if (start === end) this.afterReturn = true
        else if (start === feedAt) start++
        returnAt = next(text, "\r", start)
      }
      if (feedAt < start) feedAt = next(text, "\n", start)
    }
    if (start < end) this.keep(text, start, ascii)
  }

  /**
   * The fast path: blocks of one data line that ends them, after `id` and `event`. Stops before the first line of any other
   * form, and says where. (A small event costs 110 ns so, and 160 line by line. What matters most to V8 is that no index is
   * out of bounds, here and below.)
   */
  private decodeBlocks(text: string, start: number, feedAt: number, returnAt: number): number {
    const { items, mayHoldNul } = this
    const longest = Math.min(this.maxLineBytes, this.maxEventBytes) / 3
    const end = text.length
    let { event, id, lastEventId } = this
    while (true) {
      const stop = Math.min(feedAt, returnAt)
      const length = stop - start
      let after = stop + 1
      if (feedAt === after) after++
      if (after >= end || length > longest) break
      if (length > 5 && isData(text, start)) {
        const blank = text.charCodeAt(after++)
        if (blank === carriageReturn) {
          if (after === end) break
          if (text.charCodeAt(after) === lineFeed) after++
        } else if (blank !== lineFeed) {
          break
        }
        if (id !== undefined) lastEventId = id
        const data = text.slice(text.charCodeAt(start + 5) === space ? start + 6 : start + 5, stop)
        items.push({ _tag: "Event", event, data, id, lastEventId })
        event = "message"
        id = undefined
      } else if (length > 3 && isId(text, start)) {
        const value = text.slice(text.charCodeAt(start + 3) === space ? start + 4 : start + 3, stop)
        if (mayHoldNul && value.includes("\0")) break
        id = value
      } else if (length > 6 && isEvent(text, start)) {
        event = text.slice(text.charCodeAt(start + 6) === space ? start + 7 : start + 6, stop) || "message"
      } else {
        break
      }
      start = after
      if (feedAt < start) feedAt = next(text, "\n", start)
      if (returnAt < start) returnAt = next(text, "\r", start)
    }
    this.event = event
    this.id = id
    this.lastEventId = lastEventId
    return start
  }

  /** Keeps the beginning of a line, within its limit. */
  private keep(text: string, start: number, ascii: boolean): void {
    this.lineBytes += ascii ? text.length - start : utf8Length(text, start)
    if (this.lineBytes > this.maxLineBytes) {
      this.fail("maxLineBytes", this.maxLineBytes)
      return
    }
    this.line += text.slice(start)
    if (++this.linePieces * pieceBytes > this.line.length + 1024) {
      flatten(this.line)
      this.linePieces = 0
    }
  }

  /** Ends the line that was kept, with its last piece. */
  private endKeptLine(piece: string, ascii: boolean): boolean {
    const line = this.line + piece
    const bytes = this.lineBytes + (ascii ? piece.length : utf8Length(piece, 0))
    const { mayHoldNul } = this
    this.line = ""
    this.lineBytes = 0
    this.linePieces = 0
    this.mayHoldNul = true
    const within = this.endLine(line, 0, line.length, bytes === line.length, bytes)
    this.mayHoldNul = mayHoldNul
    return within
  }

  /**
   * Carries out a line that is not blank (§9.2.6). `bytes` is its length where it is known. False: a limit was passed.
   *
   * Lengths are counted only where three bytes for each code unit, the most there can be, would pass the limit.
   */
  private endLine(text: string, start: number, end: number, ascii: boolean, bytes: number): boolean {
    const length = end - start
    if (length * 3 > this.maxLineBytes) {
      if (bytes === 0) bytes = ascii ? length : utf8Length(text.slice(start, end), 0)
      if (bytes > this.maxLineBytes) {
        this.fail("maxLineBytes", this.maxLineBytes)
        return false
      }
    }
    switch (text.charCodeAt(start)) {
      case 0x64: // d
        if (length > 4 ? isData(text, start) : text.slice(start, end) === "data") {
          return this.addData(fieldValue(text, start + 5, end), ascii)
        }
        return true
      case 0x65: // e
        if (length > 5 ? isEvent(text, start) : text.slice(start, end) === "event") {
          this.event = fieldValue(text, start + 6, end) || "message"
        }
        return true
      case 0x69: // i
        if (length > 2 ? isId(text, start) : text.slice(start, end) === "id") {
          const id = fieldValue(text, start + 3, end)
          if (!this.mayHoldNul || !id.includes("\0")) this.id = id
        }
        return true
      case 0x72: // r
        this.retry(text.slice(start, end))
        return true
      case colon:
        if (this.comments) this.items.push({ _tag: "Comment", text: fieldValue(text, start + 1, end) })
        return true
      default:
        return true
    }
  }

  /** Only digits make a reconnection time (§9.2.6). */
  private retry(line: string): void {
    const digits = /^retry: ?([0-9]+)$/.exec(line)?.[1]
    if (digits !== undefined) {
      this.items.push({ _tag: "Retry", milliseconds: Math.min(Number(digits), Number.MAX_SAFE_INTEGER) })
    }
  }

  private addData(value: string, ascii: boolean): boolean {
    const first = this.data === undefined
    const data = first ? value : `${this.data}\n${value}`
    this.data = data
    if (!first && ++this.dataPieces * pieceBytes > data.length + 1024) {
      flatten(data)
      this.dataPieces = 0
    }
    // Within a third of the limit nothing needs counting; from then on every line is, once.
    if (data.length * 3 <= this.maxEventBytes) return true
    this.dataBytes =
      this.dataBytes > 0
        ? this.dataBytes + 1 + (ascii ? value.length : utf8Length(value, 0))
        : ascii && first
          ? value.length
          : utf8Length(data, 0)
    if (this.dataBytes > this.maxEventBytes) {
      this.fail("maxEventBytes", this.maxEventBytes)
      return false
    }
    return true
  }

  /** A blank line: dispatches the block under way (§9.2.6, "dispatch the event"). */
  private dispatch(): void {
    const { data, event, id } = this
    if (id !== undefined) {
      this.lastEventId = id
      this.id = undefined
    }
    if (data !== undefined) {
      this.items.push({ _tag: "Event", event, data, id, lastEventId: this.lastEventId })
      this.data = undefined
      this.dataBytes = 0
      this.dataPieces = 0
    }
    if (event !== "message") this.event = "message"
  }

  private fail(limit: "maxLineBytes" | "maxEventBytes", bytes: number): void {
    this.items.push({ _tag: "LimitExceeded", limit, bytes })
    this.failed = true
    this.line = ""
    this.data = undefined
  }
}

/** Whether the text goes on with the field's name and a colon, for which it is long enough. */
const isData = (text: string, start: number): boolean =>
  text.charCodeAt(start) === 0x64 &&
  text.charCodeAt(start + 4) === colon &&
  text.charCodeAt(start + 1) === 0x61 &&
  text.charCodeAt(start + 2) === 0x74 &&
  text.charCodeAt(start + 3) === 0x61

const isEvent = (text: string, start: number): boolean =>
  text.charCodeAt(start) === 0x65 &&
  text.charCodeAt(start + 5) === colon &&
  text.charCodeAt(start + 1) === 0x76 &&
  text.charCodeAt(start + 2) === 0x65 &&
  text.charCodeAt(start + 3) === 0x6e &&
  text.charCodeAt(start + 4) === 0x74

const isId = (text: string, start: number): boolean =>
  text.charCodeAt(start) === 0x69 && text.charCodeAt(start + 2) === colon && text.charCodeAt(start + 1) === 0x64

/** The value of a field from this index on, which may be behind the end; one leading space is not part of it (§9.2.6). */
const fieldValue = (text: string, start: number, end: number): string =>
  start >= end ? "" : text.slice(text.charCodeAt(start) === space ? start + 1 : start, end)

/** Where the next such character is; the end where there is none, so that it is not searched for again. */
const next = (text: string, character: string, start: number): number => {
  const index = text.indexOf(character, start)
  return index === -1 ? text.length : index
}

/**
 * A string joined from many pieces is a tree of them, each weighing about this much. It is made flat whenever the tree
 * would weigh more than its text, each time at twice the length: linear in all, also for chunks of one byte.
 */
const pieceBytes = 64

const flatten = (text: string): number => text.charCodeAt(0)
