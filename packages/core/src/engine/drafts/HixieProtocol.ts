/**
 * A connection of hixie-75 or hixie-76 after the head of its opening handshake, at the server, without I/O: the surface of
 * `Protocol`, so that the same I/O layer drives both.
 *
 * What differs from RFC 6455: text only, no pings, close frames without code and reason (reported as 1005, "no code"). hixie-76
 * opens with the answer to a challenge, whose last 8 bytes may come late and in pieces: what is sent before waits in `output`.
 * hixie-75 has no closing frame: the end of the transport is the end of the conversation.
 */
import { ByteWriter, portableSlab, type Slab } from "../byteWriter.js"
import * as CloseCode from "../CloseCode.js"
import type { ConnectionProtocol } from "../ConnectionProtocol.js"
import { failure, lost } from "../closeInfo.js"
import * as Limits from "../Limits.js"
import { md5 } from "../md5.js"
import { copyOf } from "../Natives.js"
import type { Action, CloseFrame, CloseInfo, Message, State } from "../Protocol.js"
import type { Violation } from "../Rule.js"
import { HixieDecoder, type Item } from "./HixieDecoder.js"

/**
 * Options of {@link HixieProtocol}.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly version: "hixie-76" | "hixie-75"
  /** The 8 bytes of the keys' numbers, from the request; hixie-76 only. */
  readonly keys?: Uint8Array | undefined
  /** Default: those of `Protocol`. */
  readonly limits?: Partial<Limits.Limits> | undefined
  /** Where frames are written; default: one slab per thread in plain JavaScript. */
  readonly slab?: Slab | undefined
  /** As for `Protocol`. */
  readonly deferEnd?: boolean | undefined
}

const open: State = { _tag: "Open" }
const noActions: ReadonlyArray<Action> = []
const closeFrame: CloseFrame = { code: undefined, reason: "" }
const challengeBytes = 8

/**
 * See the module. The role is always `"server"`.
 *
 * @since 0.1.0
 * @category constructors
 */
export class HixieProtocol implements ConnectionProtocol {
  readonly output: ByteWriter
  readonly limits: Limits.Limits
  // What extensions need, of which the drafts have none.
  readonly busy = false
  readonly waitingBytes = 0
  readonly encodeKey = undefined
  state: State = open
  private readonly decoder: HixieDecoder
  private readonly hasClosingFrame: boolean
  private readonly deferEnd: boolean
  private challenge: Challenge | undefined
  /** Whether a message is half out. */
  private sending = false

  constructor(options: Options) {
    const slab = options.slab ?? portableSlab
    this.limits = options.limits === undefined ? Limits.defaults : { ...Limits.defaults, ...options.limits }
    this.hasClosingFrame = options.version === "hixie-76"
    this.deferEnd = options.deferEnd === true
    this.decoder = new HixieDecoder(this.hasClosingFrame, this.limits, slab.natives)
    if (this.hasClosingFrame) {
      if (options.keys?.length !== challengeBytes) throw new TypeError("hixie-76 needs the 8 bytes of the keys")
      this.challenge = new Challenge(slab, options.keys)
      this.output = this.challenge.output
    } else this.output = new ByteWriter(slab)
  }

  /** Whether the challenge of hixie-76 waits for its bytes. */
  get opening(): boolean {
    return this.challenge !== undefined
  }

  get paused(): boolean {
    return this.decoder.paused
  }

  receive(
    chunk: Uint8Array,
    maxMessages = Number.POSITIVE_INFINITY,
    maxBytes = Number.POSITIVE_INFINITY,
    lent = false
  ): ReadonlyArray<Action> {
    if (this.state._tag === "Closed") return noActions
    if (lent) chunk = copyOf(this.output.natives, chunk)
    if (this.challenge !== undefined) {
      const taken = this.challenge.take(chunk)
      if (!this.challenge.answered) return noActions
      this.challenge = undefined
      if (taken === chunk.length) return noActions
      chunk = chunk.subarray(taken)
    }
    this.decoder.feed(chunk)
    return this.decode(maxMessages, maxBytes)
  }

  resume(maxMessages = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY): ReadonlyArray<Action> {
    return this.decoder.paused ? this.decode(maxMessages, maxBytes) : noActions
  }

  // Nothing is sent in answer to a frame, so what waits is what the consumer sent.
  drained(): void {}
  blocked(): void {}

  /** Sends a text message; `false` for bytes, which the drafts can't carry, and when no message may be sent any more. */
  send(message: Message): boolean {
    return this.sendFragment(typeof message === "string" ? "text" : "binary", message, true)
  }

  /** Sends a part of a text message, which is one frame on the wire, whatever its parts. */
  sendFragment(kind: "text" | "binary" | "continuation", payload: Message, fin: boolean): boolean {
    if (typeof payload !== "string" || (this.state !== open && this.state._tag !== "Ending")) return false
    this.writeText(kind === "text", payload, fin)
    this.sending = !fin
    return true
  }

  /** Frames of RFC 6455 are none here: always `false`. */
  sendEncoded(): boolean {
    return false
  }

  /** There are no extensions that a place would be kept for. */
  reserve(): undefined {}

  /** There are no pings: always `false`. */
  ping(): boolean {
    return false
  }

  /** There are no pongs: always `false`. */
  pong(): boolean {
    return false
  }

  /**
   * Begins the closing handshake; the code and the reason stay here. hixie-75 ends our direction of the transport and waits for the
   * peer's. While the challenge is open, or in the middle of a message, whose end the closing frame would seem to be, the transport
   * is cut.
   */
  close(): ReadonlyArray<Action> {
    if (this.state._tag === "Ending") return this.proceed()
    if (this.state._tag !== "Open") return noActions
    if (this.sending || this.opening) return [this.finish({ ...lost, initiator: "local" }), { _tag: "AbortTransport" }]
    this.state = { _tag: "Closing", sent: closeFrame }
    if (!this.hasClosingFrame) return [{ _tag: "EndTransport" }, { _tag: "StartCloseTimer" }]
    this.writeClose()
    return [{ _tag: "StartCloseTimer" }]
  }

  proceed(): ReadonlyArray<Action> {
    if (this.state._tag !== "Ending") return noActions
    const { pending } = this.state
    const actions: Array<Action> = []
    if ("rule" in pending) this.fail(pending, actions)
    else this.completeClose("remote", actions)
    return actions
  }

  transportEnded(): ReadonlyArray<Action> {
    if (this.state._tag === "Closed") return [{ _tag: "EndTransport" }]
    if (this.state._tag === "Ending") return [...this.proceed(), { _tag: "EndTransport" }]
    const actions: Array<Action> = []
    const began = this.state._tag === "Closing"
    // hixie-75: nothing else tells that the peer closes.
    if (!this.hasClosingFrame && !this.decoder.inFrame) {
      if (began) this.completeClose("local", actions)
      else this.ended(closeFrame, actions)
      return actions
    }
    actions.push(...this.lose(), { _tag: "EndTransport" })
    if (!began) actions.push({ _tag: "StartCloseTimer" })
    return actions
  }

  transportClosed(): ReadonlyArray<Action> {
    return this.lose()
  }

  closeTimerFired(): ReadonlyArray<Action> {
    if (this.state._tag === "Ending") return this.proceed()
    // The deadline of the challenge, which was kept
    if (this.state._tag === "Open" && !this.opening) return noActions
    return [...this.lose(), { _tag: "AbortTransport" }]
  }

  private decode(maxMessages: number, maxBytes: number): ReadonlyArray<Action> {
    const items: Array<Item> = []
    this.decoder.decode(items, maxMessages, maxBytes)
    const last = items.at(-1)
    if (last === undefined) return noActions
    if (typeof last === "string") return [{ _tag: "Deliver", messages: items as Array<string> }]
    const actions: Array<Action> = []
    items.pop()
    if (items.length > 0) actions.push({ _tag: "Deliver", messages: items as Array<string> })
    this.ended(last._tag === "Closing" ? closeFrame : last, actions)
    return actions
  }

  /** The peer's frames ended with a close frame or a violation. */
  private ended(pending: CloseFrame | Violation, actions: Array<Action>): void {
    if (this.deferEnd && this.state._tag === "Open") {
      this.state = { _tag: "Ending", pending }
      actions.push({ _tag: "EndPending" }, { _tag: "StartCloseTimer" })
    } else if ("rule" in pending) this.fail(pending, actions)
    else this.completeClose(this.state._tag === "Closing" ? "local" : "remote", actions)
  }

  private completeClose(initiator: "local" | "remote", actions: Array<Action>): void {
    if (this.sending) {
      actions.push(this.finish({ ...lost, initiator: "remote" }), { _tag: "AbortTransport" })
      return
    }
    if (initiator === "remote") this.writeClose()
    actions.push(
      this.finish({
        code: CloseCode.noCode,
        reason: "",
        clean: true,
        initiator,
        sent: closeFrame,
        received: closeFrame,
        violation: undefined
      }),
      { _tag: "EndTransport" }
    )
    if (initiator === "remote") actions.push({ _tag: "StartCloseTimer" })
  }

  private fail(broken: Violation, actions: Array<Action>): void {
    const began = this.state._tag === "Closing"
    if (!began && !this.sending) this.writeClose()
    actions.push(this.finish(failure(broken, closeFrame)), { _tag: "EndTransport" })
    if (!began) actions.push({ _tag: "StartCloseTimer" })
  }

  private lose(): ReadonlyArray<Action> {
    switch (this.state._tag) {
      case "Closed":
        return noActions
      case "Closing":
        return [this.finish({ ...lost, initiator: "local", sent: closeFrame })]
      case "Ending": {
        const { pending } = this.state
        if ("rule" in pending) return [this.finish(failure(pending, undefined))]
        return [this.finish({ ...lost, code: CloseCode.noCode, initiator: "remote", received: closeFrame })]
      }
      case "Open":
        return [this.finish(lost)]
    }
  }

  private finish(info: CloseInfo): Action {
    this.state = { _tag: "Closed", info }
    this.decoder.stop()
    return { _tag: "Closed", info }
  }

  private writeText(first: boolean, text: string, fin: boolean): void {
    const { natives } = this.output
    const start = first ? 1 : 0
    const bytes = natives.allocate(start + natives.textByteLength(text) + (fin ? 1 : 0))
    if (first) bytes[0] = 0
    natives.writeText(text, bytes, start)
    if (fin) bytes[bytes.length - 1] = 0xff
    if (bytes.length > 0) this.output.push(bytes)
  }

  private writeClose(): void {
    if (this.hasClosingFrame) this.output.push(Uint8Array.of(0xff, 0))
  }
}

/** The challenge of hixie-76 (§1.3): collects its last 8 bytes; all output waits behind the answer. */
class Challenge {
  readonly output: GatedWriter
  answered = false
  private readonly question = new Uint8Array(16)
  /** Goes first, and is filled in when it is known. */
  private readonly answer = new Uint8Array(16)
  private length = challengeBytes

  constructor(slab: Slab, keys: Uint8Array) {
    this.question.set(keys)
    this.output = new GatedWriter(slab)
    this.output.push(this.answer)
  }

  /** Takes what it needs from the front of the chunk; says how many bytes that was. */
  take(chunk: Uint8Array): number {
    const size = Math.min(16 - this.length, chunk.length)
    this.question.set(chunk.subarray(0, size), this.length)
    this.length += size
    if (this.length === 16) {
      this.answer.set(md5(this.question))
      this.output.gated = false
      this.answered = true
    }
    return size
  }
}

/** Gives nothing away while it is gated. */
class GatedWriter extends ByteWriter {
  gated = true

  override take(): Array<Uint8Array> {
    return this.gated ? [] : super.take()
  }
}
