/**
 * A WebSocket connection after its opening handshake (RFC 6455 §5 to §7), both roles, without I/O.
 *
 * Received bytes go into `receive`; what is to be done comes back as one ordered list of actions. Whatever is to be
 * sent, also what the RFC makes mandatory (pongs, the close echo), is appended to `output`, which the I/O layer writes
 * after every call. Time is not here: the I/O layer says when the close timer fired.
 */
import { ByteWriter, portableSlab, type Slab } from "./byteWriter.js"
import * as CloseCode from "./CloseCode.js"
import { failure, lost } from "./closeInfo.js"
import { ExtendedOutput } from "./ExtendedOutput.js"
import type { Pipeline } from "./Extension.js"
import { type ControlFrame, type ExtendedMessage, FrameDecoder, type Item } from "./FrameDecoder.js"
import { writeFrame } from "./FrameEncoder.js"
import * as Limits from "./Limits.js"
import { copyOf, type Natives, portable, view } from "./Natives.js"
import * as Opcode from "./Opcode.js"
import { describe, type Rule, type Violation, violation } from "./Rule.js"

/** Which rules apply: a client masks what it sends, a server must not (§5.1). @since 0.1.0 */
export type Role = "client" | "server"

/** What travels: a string is a text message, bytes are a binary one. @since 0.1.0 */
export type Message = string | Uint8Array

/** A close frame: its code, `undefined` when it has none (§5.5.1), and its reason. @since 0.1.0 */
export interface CloseFrame {
  readonly code: number | undefined
  readonly reason: string
}

/** How a connection ended. @since 0.1.0 */
export interface CloseInfo {
  /** The code of the peer's close frame; 1005 if it had none, 1006 if none came, or our own if the peer broke a rule. */
  readonly code: number
  readonly reason: string
  /** Whether both close frames passed (§7.1.4). */
  readonly clean: boolean
  /** Who sent the first close frame; `"transport"` if the connection was cut before any. */
  readonly initiator: "local" | "remote" | "transport"
  readonly sent: CloseFrame | undefined
  readonly received: CloseFrame | undefined
  /** The rule that the peer broke, if that is why. */
  readonly violation: Violation | undefined
}

/** What the I/O layer has to do, in order. @since 0.1.0 */
export type Action =
  /** Messages for the consumer; the array is the receiver's. */
  | { readonly _tag: "Deliver"; readonly messages: Array<Message> }
  | { readonly _tag: "PingReceived"; readonly payload: Uint8Array }
  | { readonly _tag: "PongReceived"; readonly payload: Uint8Array }
  /**
   * A close frame came or a rule was broken, so no message follows: call `proceed` when those delivered before are dealt with.
   * Only with `deferEnd`.
   */
  | { readonly _tag: "EndPending" }
  /** Call `closeTimerFired` after the close timeout, counted from here, unless the transport is gone by then. */
  | { readonly _tag: "StartCloseTimer" }
  /** The conversation is over: no message follows, sending fails. */
  | { readonly _tag: "Closed"; readonly info: CloseInfo }
  /** Send FIN after all output is written, and go on reading until the peer's. */
  | { readonly _tag: "EndTransport" }
  /** Cut the transport at once. */
  | { readonly _tag: "AbortTransport" }

/** The state of a connection; each case holds what exists in it. @since 0.1.0 */
export type State =
  | { readonly _tag: "Open" }
  /** We began the closing handshake and wait for the peer's close frame; its messages still arrive. */
  | { readonly _tag: "Closing"; readonly sent: CloseFrame }
  /** The peer's close frame or violation waits for `proceed`; until then messages may be sent (§5.5.1). Only with `deferEnd`. */
  | { readonly _tag: "Ending"; readonly pending: CloseFrame | Violation }
  | { readonly _tag: "Closed"; readonly info: CloseInfo }

/** Options of {@link Protocol}. @since 0.1.0 */
export interface Options {
  readonly role: Role
  /** Default: {@link Limits.defaults}. */
  readonly limits?: Partial<Limits.Limits> | undefined
  /** A random 32-bit number for each masked frame (§5.3: unpredictable). Needed for the role `"client"`. */
  readonly randomKey?: (() => number) | undefined
  /** Where frames are written; default: one slab per thread in plain JavaScript. */
  readonly slab?: Slab | undefined
  /**
   * Whether the answer to a close frame, or to a broken rule, waits for `proceed`, so that messages which came right before
   * it can still be answered (§5.5.1: "as soon as practical"). Default: false, it is written at once.
   */
  readonly deferEnd?: boolean | undefined
  /** The extensions that were agreed on; closed when the conversation is over. */
  readonly pipeline?: Pipeline | undefined
  /**
   * Called when an extension finished what it could not do at once, never from within another call: there may be output, input
   * that `resume` goes on with, and these actions. Needed with `pipeline`.
   */
  readonly onProgress?: ((actions: ReadonlyArray<Action>) => void) | undefined
}

const open: State = { _tag: "Open" }
const noActions: ReadonlyArray<Action> = []
const noProgress = () => {}
const noCloseFrame: CloseFrame = { code: undefined, reason: "" }

/** See the module. Messages that are sent or received belong to the receiving side from then on. @since 0.1.0 */
export class Protocol {
  /** Bytes to write; take them after every call. */
  readonly output: ByteWriter
  readonly role: Role
  readonly limits: Limits.Limits
  state: State = open
  /** Pongs put into `output` since the transport last had room. */
  private pendingPongs = 0
  private transportBlocked = false
  private readonly randomKey: (() => number) | undefined
  private readonly deferEnd: boolean
  private readonly decoder: FrameDecoder
  // With extensions only.
  private readonly pipeline: Pipeline | undefined
  private readonly extended: ExtendedOutput | undefined
  private readonly onProgress: (actions: ReadonlyArray<Action>) => void
  private readonly decoded: (result: Uint8Array | Violation) => void
  /** Opcode of the message that an extension decodes, 0 when there is none. */
  private decoding = 0
  /** The end, once all is sent that was to be sent before. */
  private afterOutput: CloseFrame | undefined
  /** The peer ended its side of the transport while `afterOutput` waits. */
  private inputEnded = false

  constructor(options: Options) {
    const slab = options.slab ?? portableSlab
    this.role = options.role
    this.limits = options.limits === undefined ? Limits.defaults : Limits.complete(options.limits)
    this.output = new ByteWriter(slab)
    if (options.role === "client" && options.randomKey === undefined) throw new TypeError("a client needs randomKey")
    this.randomKey = options.role === "client" ? options.randomKey : undefined
    this.deferEnd = options.deferEnd === true
    this.decoder = new FrameDecoder({
      masked: options.role === "server",
      limits: this.limits,
      natives: slab.natives ?? portable,
      reservedBits: options.pipeline?.reservedBits,
      extendsAll: options.pipeline?.decodesAll
    })
    const { pipeline } = options
    this.pipeline = pipeline
    this.onProgress = options.onProgress ?? noProgress
    this.decoded = pipeline === undefined ? noProgress : (result) => this.decodedLater(result)
    this.extended =
      pipeline === undefined
        ? undefined
        : new ExtendedOutput(pipeline, this.output, () => this.nextKey(), {
            outputAdvanced: () => this.outputAdvanced(),
            outputFailed: (broken) => {
              const actions: Array<Action> = []
              this.failWith(broken, actions)
              this.onProgress(actions)
            }
          })
  }

  /** Whether input is held back because the consumer is behind; `resume` goes on with it. */
  get paused(): boolean {
    return this.decoder.paused
  }

  /** Whether an extension works on a received message: nothing may be received or resumed until `onProgress`. */
  get busy(): boolean {
    return this.decoding !== 0
  }

  /** See `Extension.Pipeline`. */
  get encodeKey(): string | undefined {
    return this.pipeline?.encodeKey
  }

  /** Bytes of messages that wait for an extension before they become output. */
  get waitingBytes(): number {
    return this.extended === undefined ? 0 : this.extended.waitingBytes
  }

  /**
   * Received bytes, which are the engine's from now on (it unmasks in place), or if they are `lent` until it returns. At most
   * `maxMessages` messages and about `maxBytes` are decoded; if then `paused` or `busy` is true the rest waits, and no more may be
   * received before.
   */
  receive(
    chunk: Uint8Array,
    maxMessages = Number.POSITIVE_INFINITY,
    maxBytes = Number.POSITIVE_INFINITY,
    lent = false
  ): ReadonlyArray<Action> {
    if (this.state._tag === "Closed") return noActions
    this.decoder.feed(chunk, lent)
    return this.decode(maxMessages, maxBytes)
  }

  /** Decodes more of the input that was held back. */
  resume(maxMessages = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY): ReadonlyArray<Action> {
    return this.decoder.paused && this.decoding === 0 ? this.decode(maxMessages, maxBytes) : noActions
  }

  /** The transport has written all output: pongs before this do not count as pending. */
  drained(): void {
    this.pendingPongs = 0
    this.transportBlocked = false
  }

  /** The transport could not write all output yet: from now until `drained` pongs are limited by `maxPendingPongs`. */
  blocked(): void {
    this.transportBlocked = true
  }

  /**
   * Sends a message in one frame; `false` when no message may be sent any more. `compress` is the sender's wish for extensions which
   * compress.
   */
  send(message: Message, compress?: boolean): boolean {
    if (!this.maySend()) return false
    if (this.extended !== undefined) {
      this.extended.send(message, compress)
      return true
    }
    const opcode = typeof message === "string" ? Opcode.text : Opcode.binary
    writeFrame(this.output, Opcode.finBit | opcode, message, this.nextKey())
    return true
  }

  /**
   * Sends a fragment (§5.4): `kind` on the first of a message, `"continuation"` after it, `fin` on the last. The
   * caller keeps other data frames out of the way until `fin`; control frames may pass between.
   */
  sendFragment(kind: "text" | "binary" | "continuation", payload: Message, fin: boolean): boolean {
    if (!this.maySend()) return false
    const opcode = kind === "text" ? Opcode.text : kind === "binary" ? Opcode.binary : Opcode.continuation
    if (this.extended !== undefined) this.extended.sendFragment(opcode, payload, fin)
    else writeFrame(this.output, (fin ? Opcode.finBit : 0) | opcode, payload, this.nextKey())
    return true
  }

  /**
   * Sends bytes that are whole unmasked frames already (a broadcast) as they are; only for the role `"server"`. They must not
   * change until they are written.
   */
  sendEncoded(frames: Uint8Array): boolean {
    if (!this.maySend()) return false
    if (this.extended !== undefined) this.extended.sendEncoded(frames)
    else this.output.push(frames)
    return true
  }

  /**
   * Keeps a place among the messages for whole frames that come later (a broadcast that is compressed once for many); `undefined` when no message
   * may be sent, or without extensions.
   */
  reserve(bytes: number): ((frames: Uint8Array | undefined) => void) | undefined {
    return this.maySend() ? this.extended?.reserve(bytes) : undefined
  }

  /** Sends a ping with at most 125 bytes; `false` when the connection is not open. */
  ping(payload: Uint8Array): boolean {
    return this.sendControl(Opcode.ping, payload)
  }

  /** Sends an unasked pong with at most 125 bytes (§5.5.3: a one-way heartbeat). */
  pong(payload: Uint8Array): boolean {
    return this.sendControl(Opcode.pong, payload)
  }

  /**
   * Begins the closing handshake (§7.1.2); messages of the peer are delivered until its close frame comes. Without a code
   * the frame is empty. `code` must be sendable and the reason at most 123 bytes (the I/O layer checks). Nothing happens when
   * we began the closing handshake already or it is over; if the peer ended the conversation, this is `proceed`.
   */
  close(code?: number, reason = ""): ReadonlyArray<Action> {
    if (this.state._tag === "Ending") return this.proceed()
    if (this.state._tag !== "Open") return noActions
    const sent: CloseFrame = { code, reason }
    this.state = { _tag: "Closing", sent }
    this.sendClose(sent)
    return [{ _tag: "StartCloseTimer" }]
  }

  /** Goes on with what `EndPending` told of: writes our close frame. Nothing happens in other states. */
  proceed(): ReadonlyArray<Action> {
    if (this.state._tag !== "Ending" || this.afterOutput !== undefined) return noActions
    const { pending } = this.state
    const actions: Array<Action> = []
    if ("rule" in pending) this.failWith(pending, actions)
    else this.completeClose(pending, undefined, actions)
    return actions
  }

  /** Fails the connection (§7.1.7): a close frame that names the rule, then the end of the transport. */
  fail(rule: Rule, detail?: string): ReadonlyArray<Action> {
    const actions: Array<Action> = []
    this.failWith(violation(rule, detail), actions)
    return actions
  }

  /** The peer ended its side of the transport; what `paused` held back is dropped, so `resume` first. */
  transportEnded(): ReadonlyArray<Action> {
    if (this.state._tag === "Closed") return [{ _tag: "EndTransport" }]
    // Both close frames will have passed when what waits for an extension is written.
    if (this.afterOutput !== undefined) {
      this.inputEnded = true
      return noActions
    }
    // The peer may still read: what it is owed goes out before our FIN.
    if (this.state._tag === "Ending") {
      const actions = this.proceed()
      if (this.afterOutput === undefined) return [...actions, { _tag: "EndTransport" }]
      this.inputEnded = true
      return actions
    }
    const began = this.state._tag === "Closing"
    const actions: Array<Action> = [...this.lose(), { _tag: "EndTransport" }]
    if (!began) actions.push({ _tag: "StartCloseTimer" })
    return actions
  }

  /** The transport is gone in both directions. */
  transportClosed(): ReadonlyArray<Action> {
    return this.lose()
  }

  /** The close timeout passed since the last `StartCloseTimer`. */
  closeTimerFired(): ReadonlyArray<Action> {
    if (this.state._tag === "Ending" && this.afterOutput === undefined) return this.proceed()
    return [...this.lose(), { _tag: "AbortTransport" }]
  }

  private lose(): ReadonlyArray<Action> {
    if (this.state._tag === "Closed") return noActions
    const sent = this.state._tag === "Closing" ? this.state.sent : undefined
    const pending = this.state._tag === "Ending" ? this.state.pending : this.afterOutput
    if (pending !== undefined && "rule" in pending) return [this.finish(failure(pending, undefined))]
    const ending = pending && { code: pending.code ?? CloseCode.noCode, reason: pending.reason, received: pending }
    const initiator = sent !== undefined ? "local" : pending !== undefined ? "remote" : "transport"
    return [this.finish({ ...lost, ...ending, initiator, sent })]
  }

  private decode(maxMessages: number, maxBytes: number): ReadonlyArray<Action> {
    if (this.pipeline !== undefined) return this.decodeExtended(this.pipeline, maxMessages, maxBytes)
    const items: Array<Item> = []
    this.decoder.decode(items, maxMessages, maxBytes)
    const count = items.length
    if (count === 0) return noActions
    // Nearly always all items are messages; then the decoder's array is what goes up.
    let i = 0
    while (i < count && isMessage(items[i]!)) i++
    if (i === count) return [{ _tag: "Deliver", messages: items as Array<Message> }]
    const actions: Array<Action> = []
    let messages: Array<Message> = items.slice(0, i) as Array<Message>
    for (; i < count && this.state._tag !== "Closed"; i++) {
      const item = items[i]!
      if (isMessage(item)) {
        messages.push(item)
        continue
      }
      if (messages.length > 0) {
        actions.push({ _tag: "Deliver", messages })
        messages = []
      }
      if (item._tag === "Violation") this.ended(item, actions)
      else if (item._tag === "Control") this.control(item, actions)
    }
    if (messages.length > 0) actions.push({ _tag: "Deliver", messages })
    return actions
  }

  /** One message at a time: how much an extension makes of it counts, and it may take its time. */
  private decodeExtended(pipeline: Pipeline, maxMessages: number, maxBytes: number): ReadonlyArray<Action> {
    const actions: Array<Action> = []
    let messages: Array<Message> = []
    let bytes = 0
    let count = 0
    const items: Array<Item> = []
    // Without a budget this only finds out whether there is input left.
    const step = maxMessages > 0 && maxBytes > 0 ? 1 : 0
    do {
      items.length = 0
      this.decoder.decode(items, step, Number.POSITIVE_INFINITY)
      for (let i = 0; i < items.length && this.state._tag !== "Closed"; i++) {
        const item = items[i]!
        let result: Message | Violation | ControlFrame | undefined
        if (isMessage(item) || item._tag !== "Extended") result = item
        else result = this.decodeOne(pipeline, item)
        if (result === undefined) continue
        if (isMessage(result)) {
          messages.push(result)
          bytes += result.length
          count++
          continue
        }
        if (messages.length > 0) {
          actions.push({ _tag: "Deliver", messages })
          messages = []
        }
        if (result._tag === "Violation") this.ended(result, actions)
        else this.control(result, actions)
      }
    } while (
      this.decoder.paused &&
      this.decoding === 0 &&
      this.state._tag !== "Closed" &&
      count < maxMessages &&
      bytes < maxBytes
    )
    if (messages.length > 0) actions.push({ _tag: "Deliver", messages })
    return actions
  }

  private decodeOne(pipeline: Pipeline, item: ExtendedMessage): Message | Violation | undefined {
    const result = pipeline.decode(
      {
        payload: item.payload,
        isText: item.opcode === Opcode.text,
        rsv: item.reserved,
        maxBytes: this.limits.maxMessageBytes
      },
      this.decoded
    )
    if (result === undefined) {
      this.decoding = item.opcode
      return undefined
    }
    return this.decodedMessage(item.opcode, result)
  }

  private decodedLater(result: Uint8Array | Violation): void {
    const opcode = this.decoding
    if (opcode === 0 || this.state._tag === "Closed") return
    this.decoding = 0
    const message = this.decodedMessage(opcode, result)
    const actions: Array<Action> = []
    if (isMessage(message)) actions.push({ _tag: "Deliver", messages: [message] })
    else this.ended(message, actions)
    this.onProgress(actions)
  }

  private decodedMessage(opcode: number, result: Uint8Array | Violation): Message | Violation {
    if (!(result instanceof Uint8Array)) {
      this.decoder.stop()
      return result
    }
    const { natives } = this.output
    if (opcode === Opcode.text) {
      const text = natives.decodeText(result, 0, result.length)
      if (text !== undefined) return text
      this.decoder.stop()
      return violation("InvalidText")
    }
    // A result is only lent, unless it is all of its memory.
    return view(result.length === result.buffer.byteLength ? result : copyOf(natives, result), 0, result.length)
  }

  /** Something that waited for an extension was sent. */
  private outputAdvanced(): void {
    const actions: Array<Action> = []
    const { afterOutput } = this
    if (afterOutput !== undefined && this.extended!.isIdle && this.state._tag !== "Closed") {
      this.afterOutput = undefined
      this.completeClose(afterOutput, this.state._tag === "Closing" ? this.state.sent : undefined, actions)
    }
    this.onProgress(actions)
  }

  /** Our close frame leaves behind what was sent before it. */
  private sendClose(frame: CloseFrame): void {
    if (this.extended === undefined) this.writeClose(frame)
    else this.extended.sendLast(() => this.writeClose(frame))
  }

  private control({ opcode, payload }: ControlFrame, actions: Array<Action>): void {
    switch (opcode) {
      case Opcode.ping: {
        // A ping after our close frame needs no answer (§5.5.2: "unless it already received a Close frame"; we send
        // nothing after ours, §5.5.1).
        if (this.state._tag === "Open") {
          if (this.transportBlocked && this.pendingPongs >= this.limits.maxPendingPongs) {
            this.failWith(violation("TooManyPings", `limit ${this.limits.maxPendingPongs}`), actions)
            return
          }
          this.pendingPongs++
          this.sendControl(Opcode.pong, payload)
        }
        actions.push({ _tag: "PingReceived", payload })
        return
      }
      case Opcode.pong:
        actions.push({ _tag: "PongReceived", payload })
        return
      default:
        this.ended(decodeClose(payload, this.output.natives), actions)
    }
  }

  /** The peer's frames ended with a close frame or a violation. */
  private ended(pending: CloseFrame | Violation, actions: Array<Action>): void {
    if (this.deferEnd && this.state._tag === "Open") {
      this.state = { _tag: "Ending", pending }
      actions.push({ _tag: "EndPending" }, { _tag: "StartCloseTimer" })
    } else if ("rule" in pending) this.failWith(pending, actions)
    else this.completeClose(pending, this.state._tag === "Closing" ? this.state.sent : undefined, actions)
  }

  /** Both close frames are there once ours is written, if `began` says that it was not before. */
  private completeClose(received: CloseFrame, began: CloseFrame | undefined, actions: Array<Action>): void {
    if (this.extended?.isIdle === false) {
      this.afterOutput = received
      if (began === undefined && this.state._tag !== "Ending") {
        this.state = { _tag: "Ending", pending: received }
        actions.push({ _tag: "StartCloseTimer" })
      }
      return
    }
    const sent = began ?? received
    if (began === undefined) this.writeClose(sent)
    actions.push(
      this.finish({
        code: received.code ?? CloseCode.noCode,
        reason: received.reason,
        clean: true,
        initiator: began === undefined ? "remote" : "local",
        sent,
        received,
        violation: undefined
      })
    )
    // §7.1.1: the server closes the TCP connection first, the client waits for it (but not for ever).
    if (this.role === "server" || this.inputEnded) actions.push({ _tag: "EndTransport" })
    if (began === undefined) actions.push({ _tag: "StartCloseTimer" })
  }

  private failWith(broken: Violation, actions: Array<Action>): void {
    if (this.state._tag === "Closed") return
    const began = this.state._tag === "Closing" ? this.state.sent : undefined
    const sent = began ?? { code: broken.code, reason: truncate(describe(broken), CloseCode.maxReasonBytes) }
    // Ours may wait behind what waits for an extension.
    if (began === undefined || this.extended?.isIdle === false) this.writeClose(sent)
    this.decoder.stop()
    actions.push(
      this.finish(failure(broken, sent)),
      // Going on reading (and dropping) until the peer's FIN keeps a reset from overtaking our close frame.
      { _tag: "EndTransport" }
    )
    if (began === undefined) actions.push({ _tag: "StartCloseTimer" })
  }

  private maySend(): boolean {
    return this.state === open || (this.state._tag === "Ending" && this.afterOutput === undefined)
  }

  private finish(info: CloseInfo): Action {
    this.state = { _tag: "Closed", info }
    this.decoder.stop()
    this.decoding = 0
    this.extended?.stop()
    return { _tag: "Closed", info }
  }

  private sendControl(opcode: number, payload: Uint8Array): boolean {
    if (this.state._tag !== "Open") return false
    writeFrame(this.output, Opcode.finBit | opcode, payload, this.nextKey())
    return true
  }

  private writeClose({ code, reason }: CloseFrame): void {
    let payload: Uint8Array = new Uint8Array(0)
    if (code !== undefined) {
      const { natives } = this.output
      payload = new Uint8Array(2 + natives.textByteLength(reason))
      payload[0] = code >>> 8
      payload[1] = code
      natives.writeText(reason, payload, 2)
    }
    writeFrame(this.output, Opcode.finBit | Opcode.close, payload, this.nextKey())
  }

  private nextKey(): number | undefined {
    return this.randomKey === undefined ? undefined : this.randomKey()
  }
}

/** §5.5.1, §7.1.5 and §7.1.6. */
const decodeClose = (payload: Uint8Array, natives: Natives): CloseFrame | Violation => {
  if (payload.length === 0) return noCloseFrame
  if (payload.length === 1) return violation("ClosePayload")
  const code = (payload[0]! << 8) | payload[1]!
  if (!CloseCode.isSendable(code)) return violation("InvalidCloseCode", String(code))
  const reason = natives.decodeText(payload, 2, payload.length)
  return reason === undefined ? violation("InvalidCloseReason") : { code, reason }
}

const isMessage = (item: Item): item is Message => typeof item === "string" || item instanceof Uint8Array

/** The longest prefix of an ASCII or short text that takes at most `maxBytes`. */
const truncate = (text: string, maxBytes: number): string => {
  let end = Math.min(text.length, maxBytes)
  while (portable.textByteLength(text.slice(0, end)) > maxBytes) end--
  return text.slice(0, end)
}
