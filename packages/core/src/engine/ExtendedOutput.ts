/**
 * What a connection with extensions sends. An extension may take its time (RFC 6455 §9 says nothing of it): what is sent meanwhile
 * waits behind it, so that messages keep their order, except control frames, which never pass through here.
 */
import type { ByteWriter } from "./byteWriter.js"
import type { Encoded, Pipeline } from "./Extension.js"
import { inlineBytes, writeFrame } from "./FrameEncoder.js"
import { copyOf, encodeText } from "./Natives.js"
import * as Opcode from "./Opcode.js"
import type { Message } from "./Protocol.js"
import type { Violation } from "./Rule.js"

/** Something that waits for its turn; it gives `false` when those behind it have to go on waiting. */
interface Entry {
  readonly bytes: number
  readonly write: () => boolean
}

/** What the queue tells its connection, never from within a call of the connection. */
export interface Listener {
  /** Something was written, or the queue is empty now. */
  readonly outputAdvanced: () => void
  /** An extension could not encode a message. */
  readonly outputFailed: (broken: Violation) => void
}

/** See the module. */
export class ExtendedOutput {
  /** Bytes of what waits, as they were given. */
  waitingBytes = 0
  private entries: Array<Entry> = []
  /** The message that an extension works on. */
  private encoding: { readonly opcode: number; readonly bytes: number } | undefined
  /** A message of fragments which extensions need as a whole. */
  private pieces: Array<Uint8Array> | undefined
  private piecesOpcode: number = Opcode.text
  private stopped = false

  constructor(
    private readonly pipeline: Pipeline,
    private readonly output: ByteWriter,
    private readonly nextKey: () => number | undefined,
    private readonly listener: Listener
  ) {}

  /** Whether nothing waits. */
  get isIdle(): boolean {
    return this.encoding === undefined && this.entries.length === 0
  }

  send(message: Message, compress: boolean | undefined): void {
    const opcode = typeof message === "string" ? Opcode.text : Opcode.binary
    if (this.isIdle) this.encode(opcode, message, compress)
    else this.enqueue(message.length, () => this.encode(opcode, message, compress))
  }

  /** Fragments pass as they are, unless an extension has to see every message, which then leaves as one. */
  sendFragment(opcode: number, payload: Message, fin: boolean): void {
    if (this.pipeline.decodesAll) {
      this.collect(opcode, payload, fin)
      return
    }
    const write = (): true => {
      writeFrame(this.output, (fin ? Opcode.finBit : 0) | opcode, payload, this.nextKey())
      return true
    }
    if (this.isIdle) write()
    else this.enqueue(payload.length, write)
  }

  /** Frames that are whole already. */
  sendEncoded(frames: Uint8Array): void {
    if (this.isIdle) this.output.push(frames)
    else {
      this.enqueue(frames.length, () => {
        this.output.push(frames)
        return true
      })
    }
  }

  /** Keeps a place for frames that come later: give them to the result, or `undefined` to leave the place empty. */
  reserve(bytes: number): (frames: Uint8Array | undefined) => void {
    let given = false
    let frames: Uint8Array | undefined
    this.enqueue(bytes, () => {
      if (given && frames !== undefined) this.output.push(frames)
      return given
    })
    return (result) => {
      if (given) return
      given = true
      frames = result
      this.pump()
    }
  }

  /** Runs `write` (the close frame) after all that waits, or at once. */
  sendLast(write: () => void): void {
    if (this.isIdle) write()
    else {
      this.enqueue(0, () => {
        write()
        return true
      })
    }
  }

  /** Nothing of what waits is sent. */
  stop(): void {
    this.stopped = true
    this.entries = []
    this.encoding = undefined
    this.pieces = undefined
    this.waitingBytes = 0
    this.pipeline.close()
  }

  private enqueue(bytes: number, write: () => boolean): void {
    this.entries.push({ bytes, write })
    this.waitingBytes += bytes
  }

  private collect(opcode: number, payload: Message, fin: boolean): void {
    if (opcode !== Opcode.continuation) {
      this.pieces = []
      this.piecesOpcode = opcode
    }
    const { pieces } = this
    if (pieces === undefined) return
    const bytes = this.bytesOf(payload)
    // The sender may reuse its bytes once they are sent.
    pieces.push(bytes === payload ? copyOf(this.output.natives, bytes) : bytes)
    if (!fin) return
    this.pieces = undefined
    const message = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0))
    let at = 0
    for (const piece of pieces) {
      message.set(piece, at)
      at += piece.length
    }
    const kind = this.piecesOpcode
    if (this.isIdle) this.encode(kind, message, undefined)
    else this.enqueue(message.length, () => this.encode(kind, message, undefined))
  }

  private bytesOf(message: Message): Uint8Array {
    return typeof message === "string" ? encodeText(this.output.natives, message) : message
  }

  /** Sends a message through the extensions; `false` when the result comes later. */
  private encode(opcode: number, message: Message, compress: boolean | undefined): boolean {
    if (!this.pipeline.takes(message, compress)) {
      writeFrame(this.output, Opcode.finBit | opcode, message, this.nextKey())
      return true
    }
    const payload = this.bytesOf(message)
    const result = this.pipeline.encode({ payload, isText: opcode === Opcode.text, compress }, this.encoded)
    if (result !== undefined) return this.write(opcode, result)
    this.encoding = { opcode, bytes: payload.length }
    this.waitingBytes += payload.length
    return false
  }

  private write(opcode: number, result: Encoded | Violation): boolean {
    if ("rule" in result) {
      // The caller is in the middle of sending; nothing more of this connection is.
      this.encoding = { opcode, bytes: 0 }
      Promise.resolve().then(() => {
        if (!this.stopped) this.listener.outputFailed(result)
      })
      return false
    }
    const { payload, rsv } = result
    const key = this.nextKey()
    // A result is only lent, and a large one would be sent from where it lies.
    const own = key !== undefined || payload.length <= inlineBytes ? payload : copyOf(this.output.natives, payload)
    writeFrame(this.output, Opcode.finBit | rsv | opcode, own, key)
    return true
  }

  private readonly encoded = (result: Encoded | Violation): void => {
    const { encoding } = this
    if (encoding === undefined) return
    this.encoding = undefined
    this.waitingBytes -= encoding.bytes
    if (this.write(encoding.opcode, result)) this.pump()
  }

  private pump(): void {
    if (this.encoding !== undefined || this.stopped) return
    let done = 0
    while (done < this.entries.length) {
      const entry = this.entries[done]!
      // An entry that begins to wait for an extension is done here; one that waits for its own frames is not.
      const finished = entry.write()
      if (this.stopped) return
      if (!finished && this.encoding === undefined) break
      this.waitingBytes -= entry.bytes
      done++
      if (!finished) break
    }
    this.entries = this.entries.slice(done)
    this.listener.outputAdvanced()
  }
}
