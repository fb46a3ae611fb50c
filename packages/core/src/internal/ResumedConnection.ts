/**
 * A connection that spans transports: what users hold while plain connections, here called lines, come and go below it.
 *
 *     users  <->  ResumedConnection: queue, ResumeSession (numbers, kept messages)  <->  line, or none
 *
 * It exchanges the frames of resumeWire, but for hello and welcome, which whoever makes the lines exchanges (resumeServer,
 * Reconnector) before `attach`.
 */

import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Stream from "effect/Stream"
import type { Connection } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { lost } from "../engine/closeInfo.js"
import type { CloseFrame, CloseInfo, Role } from "../engine/Protocol.js"
import type { Kind, Message } from "../Message.js"
import { ConnectionClosed, type ConnectionError, ResumeGap, ResumeViolation } from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"
import { collect } from "./collect.js"
import type { Settings } from "./FramedConnection.js"
import { type Fit, type Position, ResumeSession, type Snapshot, type StoreLimits, sizeOf } from "./resumeSession.js"
import * as Wire from "./resumeWire.js"
import * as Timers from "./timers.js"

/** What both ends of a session need. */
export interface ResumeSettings {
  readonly limits: StoreLimits
  /** How long an acknowledgement may wait. */
  readonly ackMillis: number
  readonly helloMillis: number
  readonly ttlMillis: number
  readonly maxDetached: number
}

/** Where a session stands; `first` is the oldest message of ours that is kept. */
export type Saved = Omit<Snapshot, "messages"> & { readonly first: number }

/** Where a session is written down, so that it outlives the process. */
export interface Journal {
  /** Writes all that is new. `messages` are those after the last that was written. */
  readonly save: (state: Saved, messages: ReadonlyArray<Message>) => Effect.Effect<void, unknown>
  readonly remove: Effect.Effect<void>
}

/** The journal of a new session; none if its store fails, which the session goes on without. */
export const journalOrNone = (create: Effect.Effect<Journal, unknown>): Effect.Effect<Journal | undefined> =>
  Effect.catchAllCause(create, (cause) =>
    Effect.as(Effect.logError("the store of a resumable session failed, it goes on without", cause), undefined)
  )

/** Whom a session tells what becomes of it. */
export interface Keeper {
  /** Its line is gone, another one may come. */
  readonly detached: (connection: ResumedConnection) => void
  /** No line can come any more. */
  readonly over: (connection: ResumedConnection) => void
}

type Physical = BaseConnection & Connection

/** A transport of the session: a plain connection after hello and welcome. */
export interface Line {
  readonly physical: Physical
  readonly wish: Wire.AckWish
  /** The last of our messages that was put out on it. */
  transmitted: number
  byeSent: boolean
  /** What comes is dropped, the peer will send it again. */
  deaf: boolean
}

export class ResumedConnection extends BaseConnection implements Connection {
  readonly role: Role
  readonly subprotocol: string | undefined
  readonly version: Connection["version"]
  readonly extensions: Connection["extensions"]
  /** Whether an earlier process began it. */
  readonly restored: boolean
  private readonly session: ResumeSession
  private line: Line | undefined
  /** `closing`: a bye is to be sent, also on a later line. */
  private phase: "open" | "closing" | "over" = "open"
  private closeFrame: CloseFrame = { code: CloseCode.normal, reason: "" }
  private pumpWaits: (() => void) | undefined

  /** Bytes of messages that the line has not got yet. */
  private waitingBytes = 0
  private transmitting = false

  /** The last acknowledgement that the peer was told, and the bytes that came since. */
  private told: number
  private untoldBytes = 0
  private readonly ackTimer = new Timers.Timer(() => this.tellAck())
  private readonly closeTimer = new Timers.Timer(() => this.cutLine())

  // What the journal has.
  private savedSent: number
  private savedTaken: number
  private isSaving = false
  private saveAgain = false
  private savedWaits: Array<() => void> = []
  private ackAfterSave = false
  /** What was taken when the consumer left; what is dropped then was not. */
  private takenAtEnd: number | undefined
  private suspended = false

  constructor(
    readonly id: string,
    physical: Connection,
    private readonly resume: ResumeSettings,
    private readonly settings: Settings,
    private readonly clock: Clock.Clock,
    private readonly keeper: Keeper,
    private readonly journal?: Journal | undefined,
    /** What the journal had when it began. */
    snapshot?: Snapshot | undefined
  ) {
    super(settings.highWaterMark, settings.cleanCloseCodes)
    this.role = physical.role
    this.subprotocol = physical.subprotocol
    this.version = physical.version
    this.extensions = physical.extensions
    this.restored = snapshot !== undefined
    this.session = new ResumeSession(resume.limits, snapshot)
    this.told = this.savedTaken = this.session.received
    this.savedSent = this.session.sent
  }

  // ---- lines -------------------------------------------------------------------------------------------------------------

  get isAttached(): boolean {
    return this.line !== undefined
  }
  isOn(line: Line): boolean {
    return this.line === line
  }
  /** Whether no line can come any more. */
  get isDone(): boolean {
    return this.phase === "over"
  }
  /** Whether it is left, as it was written down, to the next process. */
  get isSuspended(): boolean {
    return this.suspended
  }
  get unacknowledged(): number {
    return this.session.count
  }

  /** Where this end stands, for hello and welcome; what it says is said. */
  position(): Position & Wire.AckWish {
    const { first, received, sent } = this.session
    const { maxBytes, maxMessages } = this.resume.limits
    this.told = this.ackable
    return {
      received,
      acked: this.told,
      first,
      sent: this.journal === undefined ? sent : this.savedSent,
      // A quarter of what is kept: senders need not wait for acknowledgements that wait for more messages.
      ackMessages: Math.max(1, maxMessages >> 2),
      ackBytes: Math.max(1, maxBytes >> 2)
    }
  }

  fit(peer: Position): Fit {
    return this.session.fit(peer)
  }

  /** Goes on over `physical`, whose peer has received our messages up to number `received`. A line that it had is given up. */
  attach(physical: Physical, received: number, wish: Wire.AckWish): Line {
    const previous = this.line
    const line: Line = {
      physical,
      wish,
      transmitted: Math.max(received, this.session.first - 1),
      byeSent: false,
      deaf: false
    }
    this.line = line
    this.waitingBytes = this.session.bytesAfter(line.transmitted)
    if (previous !== undefined) this.giveUp(previous, CloseCode.policyViolation, "the session continues elsewhere")
    physical.onRoom = () => {
      if (this.line === line) this.roomOnLine()
    }
    if (this.phase === "closing") this.startCloseTimer()
    this.roomOnLine()
    return line
  }

  private giveUp(line: Line, code: number, reason: string): void {
    line.deaf = true
    line.physical.onRoom = undefined
    line.physical.unsafeClose(code, reason)
    this.wakePump()
  }

  /** Takes what comes on a line until that has ended. */
  pump(line: Line): Effect.Effect<void> {
    const { physical } = line
    return Effect.exit(physical.runForEach((message) => this.receive(line, message))).pipe(
      Effect.zipRight(physical.closed),
      Effect.flatMap((info) => Effect.sync(() => this.lineEnded(line, info))),
      Effect.uninterruptible
    )
  }

  private lineEnded(line: Line, info: CloseInfo): void {
    if (this.line !== line) return
    this.line = undefined
    this.waitingBytes = 0
    line.physical.onRoom = undefined
    const timers = Timers.of(this.clock)
    timers.cancel(this.ackTimer)
    timers.cancel(this.closeTimer)
    const failure = line.physical.unsafeFailure()
    if (this.phase === "closing") {
      const delivered = info.clean && line.byeSent
      this.finish({ ...this.localClose, clean: delivered, received: info.received }, undefined)
      if (delivered || this.role === "client") this.phase = "over"
    } else if (this.phase === "open" && (failure?._tag === "ProtocolError" || isFinal(info))) {
      this.phase = "over"
      this.finish(info, failure)
    }
    if (this.phase === "over") this.done()
    else this.keeper.detached(this)
    if (this.info !== undefined) this.transportGone()
    // Whoever waits to send may have to wait elsewhere.
    this.wakeSenders()
  }

  /** No line can come any more. */
  private done(): void {
    const timers = Timers.of(this.clock)
    timers.cancel(this.ackTimer)
    if (this.line === undefined) timers.cancel(this.closeTimer)
    this.keeper.over(this)
  }

  /** The session waits for another line. */
  cutLine(): void {
    if (this.line !== undefined) Effect.runSync(this.line.physical.abort)
  }

  // ---- inbound -----------------------------------------------------------------------------------------------------------

  private receive(line: Line, message: Message): Effect.Effect<void> | undefined {
    if (line.deaf || this.line !== line || this.phase === "over") return undefined
    const frame = Wire.parse(message)
    switch (frame._tag) {
      case "Data": {
        if (frame.ack !== undefined && !this.acknowledged(line, frame.ack)) return undefined
        return this.receiveData(line, frame.seq, frame.payload)
      }
      case "Ack":
        if (this.acknowledged(line, frame.ack) && this.journal !== undefined) this.saveSoon()
        return undefined
      case "Bye":
        return this.peerCloses({ code: frame.code, reason: frame.reason })
      case "Malformed":
        return this.violated(line, frame.detail)
      default:
        return this.violated(line, `a ${frame._tag} in the middle of a session`)
    }
  }

  private receiveData(line: Line, seq: number, payload: Message): Effect.Effect<void> | undefined {
    // A line that ended politely is all that will come; of another one the rest comes again.
    if (this.isBehind && line.physical.unsafeIsOver() && !endedClean(line.physical)) {
      line.deaf = true
      return undefined
    }
    const verdict = this.session.receive(seq)
    if (verdict === "gap") return this.violated(line, `message ${seq} after message ${this.session.received}`)
    if (verdict === "duplicate") return undefined
    const size = sizeOf(payload)
    this.queuedBytes += size
    this.untoldBytes += size
    this.deliver([payload])
    this.ackSoon()
    return this.isBehind ? this.awaitRoom(line) : undefined
  }

  private get isBehind(): boolean {
    if (this.consumerWaits || this.queuedMessages === 0) return false
    const { maxQueuedBytes, maxQueuedMessages } = this.settings.limits
    return this.queuedMessages >= maxQueuedMessages || this.queuedBytes >= maxQueuedBytes
  }

  private awaitRoom(line: Line): Effect.Effect<void> {
    const room = Effect.async<void>((resume) => {
      if (!this.isBehind || line.deaf) return resume(Effect.void)
      this.pumpWaits = () => resume(Effect.void)
    })
    return Effect.raceFirst(Effect.interruptible(room), Effect.interruptible(Effect.asVoid(line.physical.closed)))
  }

  private wakePump(): void {
    const resume = this.pumpWaits
    this.pumpWaits = undefined
    resume?.()
  }

  protected decodeMore(): void {}

  protected resumeReading(): void {
    this.wakePump()
    if (this.taken > this.told) this.ackSoon()
  }

  // ---- acknowledgements --------------------------------------------------------------------------------------------------

  /** How many messages of the peer its consumer has taken. */
  private get taken(): number {
    return this.takenAtEnd ?? this.session.received - this.queuedMessages
  }

  private get ackable(): number {
    return this.journal === undefined ? this.taken : this.savedTaken
  }

  private acknowledged(line: Line, ack: number): boolean {
    const { acked } = this.session
    if (ack > line.transmitted || !this.session.acknowledge(ack)) {
      this.violated(line, `an acknowledgement of message ${ack}, which was not sent`)
      return false
    }
    if (this.session.acked > acked) this.wakeSenders()
    return true
  }

  /** Acknowledges at once when the peer wants it, else within the interval. */
  private ackSoon(): void {
    const { line } = this
    const untold = this.taken - this.told
    if (line === undefined || untold <= 0) return
    if (untold >= line.wish.ackMessages || this.untoldBytes >= line.wish.ackBytes) this.tellAck()
    else if (this.ackTimer.list === undefined) Timers.of(this.clock).set(this.ackTimer, this.resume.ackMillis)
  }

  private tellAck(): void {
    if (this.line === undefined || this.phase === "over") return
    const { ackable } = this
    if (ackable > this.told && this.line.physical.unsafeTrySend(Wire.formatAck(ackable))) this.ackTold(ackable)
    if (this.journal !== undefined && this.taken > ackable) {
      this.ackAfterSave = true
      this.saveSoon()
    }
  }

  private ackTold(ack: number): void {
    this.told = ack
    // What waits for the consumer is still to be told: the peer's store has it.
    this.untoldBytes = this.queuedBytes
    if (this.taken === ack) Timers.of(this.clock).cancel(this.ackTimer)
  }

  // ---- outbound ----------------------------------------------------------------------------------------------------------

  protected isOpen(): boolean {
    // A client's messages wait in its outbox while there is no line.
    return this.phase === "open" && (this.role === "server" || this.line?.physical.unsafeIsOpen() === true)
  }

  /** Messages of ours up to this number may be given up for new ones (only if they overflow, by choice). */
  private get expendable(): number {
    return Math.min(this.line?.transmitted ?? this.session.sent, this.durable)
  }

  /** Messages of ours up to this number may be put out. */
  private get durable(): number {
    return this.journal === undefined ? this.session.sent : this.savedSent
  }

  protected override maxBurst(): number {
    return this.session.room(this.expendable)
  }

  protected write(message: Message): void {
    this.session.send(message, this.expendable)
    if (this.line !== undefined) this.waitingBytes += sizeOf(message)
  }

  protected buffered(): number {
    const { session } = this
    const line = this.line === undefined ? 0 : this.waitingBytes + this.line.physical.unsafeBufferedBytes()
    if (session.room(this.expendable) === Number.MAX_SAFE_INTEGER) return line
    const { maxBytes, maxMessages } = session.limits
    // The less room the store has, the fuller it looks; and past it, so that who does not wait (a Broadcast) sees it too.
    const room = maxBytes - session.bytes
    const roomBytes = session.count >= maxMessages ? Math.min(0, room) : room
    return Math.max(line, this.highWaterMark - roomBytes)
  }

  override get bufferedBytes(): Effect.Effect<number> {
    return Effect.sync(() =>
      this.line === undefined ? 0 : this.waitingBytes + this.line.physical.unsafeBufferedBytes()
    )
  }

  flush(): void {
    this.flushed()
    if (this.journal === undefined) this.transmit()
    else this.saveSoon()
  }

  private roomOnLine(): void {
    this.transmit()
    if (this.taken > this.told) this.ackSoon()
    this.wakeSenders()
  }

  /** Puts out what the line has room for. */
  private transmit(): void {
    const { line } = this
    if (line === undefined || this.transmitting || !line.physical.unsafeIsOpen()) return
    this.transmitting = true
    while (line.transmitted < this.durable) {
      const seq = line.transmitted + 1
      const message = this.session.at(seq)!
      const { ackable } = this
      const frame = Wire.formatData(seq, ackable > this.told ? ackable : undefined, message)
      if (!line.physical.unsafeTrySend(frame)) break
      if (ackable > this.told) this.ackTold(ackable)
      line.transmitted = seq
      this.waitingBytes -= sizeOf(message)
    }
    this.transmitting = false
    if (this.phase === "closing" && line.transmitted === this.session.sent) this.sayBye(line)
  }

  private sayBye(line: Line): void {
    if (line.byeSent) return
    line.byeSent = true
    const { code = CloseCode.normal, reason } = this.closeFrame
    line.physical.unsafeSend(Wire.formatBye(code, reason))
    line.physical.unsafeClose(code, reason)
  }

  override get sendFragments() {
    return <E, R>(kind: Kind, pieces: Stream.Stream<Message, E, R>): Effect.Effect<void, E | ConnectionClosed, R> =>
      Effect.flatMap(collect(kind, pieces, this.settings.limits.maxMessageBytes), this.send)
  }

  /** `sendFragments` collects instead. */
  protected writeFragment(_kind: Kind | "continuation", payload: Message): void {
    this.write(payload)
  }

  get ping() {
    return (payload?: Uint8Array) => this.physically(({ ping }) => ping(payload))
  }

  get pong() {
    return (payload?: Uint8Array) => this.physically(({ pong }) => pong(payload))
  }

  private physically<A>(use: (physical: Connection) => Effect.Effect<A, ConnectionClosed>) {
    return Effect.suspend(() =>
      this.line === undefined ? Effect.fail(new ConnectionClosed({ info: this.info ?? lost })) : use(this.line.physical)
    )
  }

  // ---- the journal -------------------------------------------------------------------------------------------------------

  private saveSoon(): void {
    if (this.isSaving) {
      this.saveAgain = true
      return
    }
    this.isSaving = true
    Effect.runFork(this.saveAll)
  }

  /** Waits until all is saved that was to be. */
  readonly awaitSaved = Effect.async<void>((resume) => {
    if (!this.isSaving) return resume(Effect.void)
    this.savedWaits.push(() => resume(Effect.void))
  })

  private get saveAll(): Effect.Effect<void> {
    return Effect.catchAllCause(
      Effect.suspend(() => {
        this.saveAgain = false
        const { acked, first, sent } = this.session
        const { taken } = this
        const from = Math.max(this.savedSent + 1, first)
        const messages: Array<Message> = []
        for (let seq = from; seq <= sent; seq++) messages.push(this.session.at(seq)!)
        return Effect.flatMap(this.journal!.save({ sent, acked, first, received: taken }, messages), () => {
          this.savedSent = sent
          this.savedTaken = taken
          this.transmit()
          this.wakeSenders()
          if (this.ackAfterSave) {
            this.ackAfterSave = false
            this.tellAck()
          }
          if (this.saveAgain) return this.saveAll
          this.savingEnded()
          return Effect.void
        })
      }),
      (cause) =>
        Effect.zipRight(
          Effect.logError("the store of a resumable session failed", cause),
          Effect.sync(() => {
            this.lose("Store")
            this.savingEnded()
          })
        )
    )
  }

  private savingEnded(): void {
    this.isSaving = false
    const waits = this.savedWaits
    this.savedWaits = []
    for (const resume of waits) resume()
  }

  // ---- the end -----------------------------------------------------------------------------------------------------------

  /** What was sent and perhaps not taken, and why that will not change. */
  gap(reason: ResumeGap["reason"]): ResumeGap {
    const { received, sent, unacknowledged } = this.session
    return new ResumeGap({ reason, received, sent, unacknowledged })
  }

  /** The session can't be continued. */
  lose(reason: ResumeGap["reason"]): void {
    this.end(new ConnectionClosed({ info: lost, cause: this.gap(reason) }))
  }

  /** No line will come any more, for a reason that is told elsewhere. What is written down of it stays. */
  abandon(): void {
    this.suspended = this.journal !== undefined
    this.end(undefined)
  }

  private end(failure: ConnectionClosed | undefined): void {
    if (this.phase === "over") return
    this.phase = "over"
    this.finish(failure?.info ?? lost, failure)
    const { line } = this
    if (line !== undefined) this.giveUp(line, CloseCode.goingAway, "the session is over")
    this.done()
    if (line === undefined) this.transportGone()
  }

  private violated(line: Line, detail: string): undefined {
    const reason = `resume: ${detail}`
    const info: CloseInfo = {
      ...this.localClose,
      code: CloseCode.protocolError,
      reason,
      sent: { code: CloseCode.protocolError, reason }
    }
    this.phase = "over"
    this.finish(info, new ConnectionClosed({ info, cause: new ResumeViolation({ detail }) }))
    line.deaf = true
    line.physical.unsafeClose(CloseCode.protocolError, reason)
    this.done()
    return undefined
  }

  private peerCloses(frame: CloseFrame): undefined {
    this.phase = "over"
    const { code = CloseCode.noCode, reason } = frame
    const initiator = "remote"
    this.finish({ code, reason, clean: true, initiator, sent: frame, received: frame, violation: undefined }, undefined)
    this.done()
    return undefined
  }

  private get localClose(): CloseInfo {
    const { code = CloseCode.normal, reason } = this.closeFrame
    return {
      code,
      reason,
      clean: false,
      initiator: "local",
      sent: this.closeFrame,
      received: undefined,
      violation: undefined
    }
  }

  protected beginClose(code: number | undefined, reason: string): void {
    if (this.phase !== "open") return
    this.phase = "closing"
    this.closeFrame = { code, reason }
    if (this.line !== undefined) {
      this.startCloseTimer()
      this.transmit()
      return
    }
    this.finish(this.localClose, undefined)
    if (this.role === "client") {
      this.phase = "over"
      this.done()
    }
    this.transportGone()
  }

  private startCloseTimer(): void {
    Timers.of(this.clock).set(this.closeTimer, this.settings.closeTimeoutMillis)
  }

  protected cut(): void {
    this.cutLine()
    this.end(undefined)
  }

  override leave(
    exit: Exit.Exit<unknown, unknown>,
    frame?: { readonly code: number; readonly reason?: string }
  ): Effect.Effect<void> {
    return Effect.zipRight(
      super.leave(exit, frame),
      Effect.suspend(() => (this.suspended ? this.awaitSaved : Effect.void))
    )
  }

  /** A process that shuts down leaves a session that is written down as it is, for the next one. */
  override unsafeLeave(
    exit: Exit.Exit<unknown, unknown>,
    frame?: { readonly code: number; readonly reason?: string }
  ): void {
    this.takenAtEnd ??= this.taken
    if (
      this.journal !== undefined &&
      this.phase === "open" &&
      Exit.isFailure(exit) &&
      Cause.isInterruptedOnly(exit.cause)
    ) {
      this.suspended = true
      const info: CloseInfo = { ...this.localClose, code: CloseCode.goingAway, reason: "" }
      this.phase = "over"
      this.finish(info, new ConnectionClosed({ info }))
      this.saveSoon()
      const { line } = this
      if (line !== undefined) this.giveUp(line, CloseCode.goingAway, "")
      else this.transportGone()
    }
    super.unsafeLeave(exit, frame)
  }
}

/** Codes of a plain close that end the session too: all is said, or it would happen again. */
const finalCodes: ReadonlySet<number> = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010, 4009])

const isFinal = ({ code, initiator }: CloseInfo): boolean => initiator !== "transport" && finalCodes.has(code)

const endedClean = (physical: Physical): boolean => {
  const failure: ConnectionError | undefined = physical.unsafeFailure()
  return failure === undefined || (failure._tag === "ConnectionClosed" && failure.info.clean)
}
