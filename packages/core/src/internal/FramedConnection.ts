/**
 * The meeting of engine and I/O: a connection that speaks RFC 6455 over a Transport. It performs the engine's actions from
 * first to last, holds reading back while the consumer is behind, and keeps the heartbeat and the close timer.
 */

import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Schedule from "effect/Schedule"
import type { Slab } from "../engine/byteWriter.js"
import type { ConnectionProtocol } from "../engine/ConnectionProtocol.js"
import { lost } from "../engine/closeInfo.js"
import { HixieProtocol } from "../engine/drafts/HixieProtocol.js"
import * as Extension from "../engine/Extension.js"
import type { Version } from "../engine/Handshake.js"
import type { Limits } from "../engine/Limits.js"
import { copyOf } from "../engine/Natives.js"
import * as Opcode from "../engine/Opcode.js"
import { type Action, type CloseInfo, Protocol, type Role } from "../engine/Protocol.js"
import type { Kind, Message } from "../Message.js"
import type { Listener, Transport } from "../Transport.js"
import { ConnectionClosed, HeartbeatTimeout, ProtocolError, type TransportError } from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"
import * as Timers from "./timers.js"

/** Options with all defaults applied; shared by all connections of a route. @since 0.1.0 */
export interface Settings {
  readonly role: Role
  readonly limits: Limits
  readonly highWaterMark: number
  readonly cleanCloseCodes: ReadonlyArray<number>
  readonly closeTimeoutMillis: number
  readonly heartbeat: HeartbeatSettings | undefined
  readonly slab: Slab | undefined
  readonly randomKey: (() => number) | undefined
  /** The engine answers a close frame when the consumer has dealt with what came before it. */
  readonly deferEnd: true
}

/** Milliseconds; with a schedule its delays take the place of `intervalMillis`. */
export interface HeartbeatSettings {
  readonly intervalMillis: number
  readonly timeoutMillis: number
  readonly schedule: Schedule.Schedule<unknown, unknown> | undefined
}

/** What the opening handshake agreed on about the protocol. @since 0.1.0 */
export interface Opened {
  readonly version: Version
  /** The first half of hixie-76's challenge. */
  readonly keys?: Uint8Array | undefined
}

/** RFC 6455. */
export const standard: Opened = { version: "13" }

interface PendingPing {
  readonly payload: Uint8Array
  readonly sentAt: bigint
  readonly resume: (effect: Effect.Effect<Duration.Duration, ConnectionClosed>) => void
}

const noBytes = new Uint8Array(0)

const logDefect = (cause: unknown, extension: string): void => {
  Effect.runFork(Effect.logError(`the WebSocket extension ${extension} failed`, Cause.die(cause)))
}
const graceMillis = 1000

/**
 * In place of a transport that is gone. A connection that is over can be reached for long, from a Stream that nobody runs any more or
 * from old garbage, and its socket with all that belongs to it should not.
 */
const nowhere: Transport = {
  open: () => {},
  write: () => true,
  bufferedBytes: () => 0,
  pause: () => {},
  resume: () => {},
  end: () => {},
  abort: () => {}
}

/** See the module. */
export class FramedConnection extends BaseConnection implements Listener {
  readonly protocol: ConnectionProtocol
  readonly version: Version
  /** Input that came although reading was paused. */
  private held: Array<Uint8Array> | undefined
  private readingPaused = false
  /** Whether a byte came, or we ourselves held reading back, since the last ping of the heartbeat. */
  private alive = true
  /** Milliseconds that the ping which waits for any byte has waited, -1 when none waits. */
  private silentMillis = -1
  private heartbeatTimer: Timers.Timer | undefined
  private closeTimer: Timers.Timer | undefined
  private pings: Array<PendingPing> | undefined
  private pingCount = 0
  private transportClosed = false
  private inGrace = false
  /** What the transport told of its end while messages that came before are not decoded. */
  private endWaits: (() => void) | undefined

  constructor(
    private transport: Transport,
    private readonly settings: Settings,
    readonly subprotocol: string | undefined,
    private readonly clock: Clock.Clock,
    readonly agreed: ReadonlyArray<Extension.Agreed>,
    { keys, version }: Opened = standard
  ) {
    super(settings.highWaterMark, settings.cleanCloseCodes)
    this.version = version
    this.protocol =
      version === "hixie-76" || version === "hixie-75"
        ? new HixieProtocol({ ...settings, version, keys })
        : agreed.length === 0
          ? new Protocol(settings)
          : new Protocol({
              ...settings,
              pipeline: Extension.open(agreed, { role: settings.role, onDefect: logDefect }),
              onProgress: (actions) => this.extensionProgressed(actions)
            })
  }

  /** Whether the version has text messages only, and no pings. */
  override get textOnly(): boolean {
    return this.version !== "13" && this.version !== "8"
  }

  get extensions(): ReadonlyArray<Extension.Agreed> {
    return this.agreed
  }

  get role(): Role {
    return this.settings.role
  }

  /** Begins to read; called once. */
  start(): void {
    if (this.protocol.opening === true) this.startCloseTimer()
    this.transport.open(this)
    const { heartbeat } = this.settings
    if (heartbeat !== undefined && heartbeat.schedule === undefined && !this.transportClosed && !this.textOnly) {
      this.heartbeatTimer = new Timers.Timer(() => this.beat(heartbeat))
      Timers.of(this.clock).set(this.heartbeatTimer, heartbeat.intervalMillis / 2)
    }
  }

  // ---- from the transport --------------------------------------------------------------------------------------------------

  onLent(chunk: Uint8Array): void {
    this.onData(chunk, true)
  }

  onData(chunk: Uint8Array, lent = false): void {
    this.alive = true
    if (this.info !== undefined) return
    if (this.protocol.paused || this.protocol.busy || this.held !== undefined) {
      this.held ??= []
      this.held.push(lent ? copyOf(this.protocol.output.natives, chunk) : chunk)
      return this.pauseReading()
    }
    if (this.transport.bufferedBytes() === 0) this.protocol.drained()
    this.receive(chunk, lent)
    if (this.protocol.output.size > 0) this.wrote()
    if (this.info === undefined && this.isBehind) this.pauseReading()
  }

  onDrain(): void {
    this.protocol.drained()
    this.wakeSenders()
  }

  onEnd(): void {
    this.decodeMore()
    if (this.protocol.busy || this.hasHeld) {
      this.endWaits = () => this.onEnd()
      return
    }
    this.perform(this.protocol.transportEnded())
    this.flush()
  }

  onClose(error: TransportError | undefined): void {
    this.transportClosed = true
    // What was received can still be taken, whether or not the peer waited for it (with extensions as much as may be queued).
    this.decodeMore()
    if (this.protocol.busy) {
      this.endWaits = () => this.onClose(error)
      return
    }
    this.endWaits = undefined
    this.perform(this.protocol.transportClosed(), error)
    this.stopTimers()
    this.held = undefined
    this.transport = nowhere
    this.transportGone()
  }

  /** While the consumer waits everything goes to it; else up to the budget is decoded ahead. */
  private receive(chunk: Uint8Array, lent: boolean): void {
    const { maxQueuedBytes, maxQueuedMessages } = this.protocol.limits
    if (this.consumerWaits) {
      const maxBytes = this.isExtended ? maxQueuedBytes : Number.POSITIVE_INFINITY
      this.perform(this.protocol.receive(chunk, Number.POSITIVE_INFINITY, maxBytes, lent))
      if (this.isExtended && this.consumerWaits) this.decodeMore()
      return
    }
    this.perform(
      this.protocol.receive(chunk, maxQueuedMessages - this.queuedMessages, maxQueuedBytes - this.queuedBytes, lent)
    )
  }

  private get isBehind(): boolean {
    if (this.protocol.paused || this.protocol.busy) return true
    if (this.consumerWaits || this.queuedMessages === 0) return false
    const { maxQueuedBytes, maxQueuedMessages } = this.protocol.limits
    return this.queuedMessages >= maxQueuedMessages || this.queuedBytes >= maxQueuedBytes
  }

  private pauseReading(): void {
    if (this.readingPaused || this.transportClosed) return
    this.readingPaused = true
    this.transport.pause()
  }

  // ---- from the consumer -----------------------------------------------------------------------------------------------------

  protected decodeMore(): void {
    this.decodeHeld(Number.POSITIVE_INFINITY)
    if (this.protocol.output.size > 0) this.wrote()
  }

  /** Decodes what is held back, until so many messages are queued if the consumer does not wait. */
  private decodeHeld(maxQueuedMessages: number): void {
    while (this.hasHeld && !this.protocol.busy) {
      const messages = this.consumerWaits ? Number.POSITIVE_INFINITY : maxQueuedMessages - this.queuedMessages
      const bytes = this.decodableBytes
      if (messages <= 0 || bytes <= 0) break
      if (this.protocol.paused) this.perform(this.protocol.resume(messages, bytes))
      else {
        const chunk = this.held!.shift()!
        if (this.held!.length === 0) this.held = undefined
        if (this.info === undefined) this.perform(this.protocol.receive(chunk, messages, bytes))
      }
    }
  }

  /** Whether input is there that was not decoded. */
  private get hasHeld(): boolean {
    return this.protocol.paused || this.held !== undefined
  }

  /** Bytes of messages that may be made of what is held back: an extension can make a thousand times as much of it. */
  private get decodableBytes(): number {
    if (!this.isExtended) return Number.POSITIVE_INFINITY
    const { maxQueuedBytes } = this.protocol.limits
    return this.queuedMessages === 0 ? maxQueuedBytes : maxQueuedBytes - this.queuedBytes
  }

  private get isExtended(): boolean {
    return this.agreed.length > 0
  }

  /** An extension finished something. */
  private extensionProgressed(actions: ReadonlyArray<Action>): void {
    this.perform(actions)
    this.decodeHeld(this.protocol.limits.maxQueuedMessages)
    if (!this.endAfterInput() && !this.isBehind) this.resumeReading()
    if (this.protocol.output.size > 0) this.wrote()
    else this.wakeSenders()
  }

  /** What the transport told of its end comes after all that it brought. */
  private endAfterInput(): boolean {
    const { endWaits } = this
    if (endWaits === undefined || this.protocol.busy || (this.hasHeld && !this.transportClosed)) return false
    this.endWaits = undefined
    endWaits()
    return true
  }

  protected resumeReading(): void {
    if (this.endWaits !== undefined && this.endAfterInput()) return
    if (!this.readingPaused || this.transportClosed) return
    if (this.info === undefined && (this.hasHeld || this.protocol.busy)) return
    this.readingPaused = false
    // What the peer could not send meanwhile is no sign of its death.
    this.alive = true
    this.transport.resume()
  }

  protected override caughtUp(): void {
    this.resumeReading()
    if (this.protocol.state._tag !== "Ending") return
    this.perform(this.protocol.proceed())
    if (this.protocol.output.size > 0) this.wrote()
  }

  // ---- the engine's actions ----------------------------------------------------------------------------------------------------

  private perform(actions: ReadonlyArray<Action>, cause?: TransportError): void {
    for (let i = 0; i < actions.length; i++) {
      const action = actions[i]!
      switch (action._tag) {
        case "Deliver": {
          for (const message of action.messages) this.queuedBytes += message.length
          this.deliver(action.messages)
          break
        }
        case "PingReceived":
          break
        case "PongReceived":
          this.pongReceived(action.payload)
          break
        case "EndPending":
          // Whoever handles messages may answer those that came before; with nobody there is nothing to wait for.
          if (this.isCaughtUp) this.perform(this.protocol.proceed())
          break
        case "StartCloseTimer":
          this.startCloseTimer()
          break
        case "Closed":
          this.conversationOver(action.info, cause)
          break
        case "EndTransport":
          this.flush()
          if (!this.transportClosed) {
            this.resumeReading()
            this.transport.end()
          }
          break
        case "AbortTransport":
          this.cut()
          break
      }
    }
  }

  private conversationOver(info: CloseInfo, cause: TransportError | undefined): void {
    const { violation } = info
    this.finish(info, violation === undefined ? undefined : ProtocolError.fromViolation(violation), cause)
    const { pings } = this
    this.pings = undefined
    if (pings !== undefined) for (const ping of pings) ping.resume(this.closedFailure(info, cause))
    if (this.heartbeatTimer !== undefined) Timers.of(this.clock).cancel(this.heartbeatTimer)
    // Whatever comes now is dropped, up to the end of the transport, and what an extension has not finished by now is not waited for.
    this.held = undefined
    this.resumeReading()
  }

  private closedFailure(info: CloseInfo, cause?: TransportError): Effect.Effect<never, ConnectionClosed> {
    return Effect.fail(new ConnectionClosed({ info, cause }))
  }

  // ---- outbound ------------------------------------------------------------------------------------------------------------------

  protected isOpen(): boolean {
    const { _tag } = this.protocol.state
    return (_tag === "Open" || _tag === "Ending") && !this.transportClosed
  }

  protected write(message: Message, compress?: boolean): void {
    this.protocol.send(message, compress)
  }

  protected writeFragment(kind: Kind | "continuation", payload: Message, fin: boolean): void {
    this.protocol.sendFragment(kind, payload, fin)
  }

  protected buffered(): number {
    return this.protocol.output.size + this.protocol.waitingBytes + this.transport.bufferedBytes()
  }

  /** Connections with the same key may get the same frames: `""` without extensions, `undefined` when they need their own. */
  get sharedKey(): string | undefined {
    if (this.role === "client" || this.textOnly) return undefined
    return this.isExtended ? this.protocol.encodeKey : ""
  }

  /** Keeps a place for frames that come later, if messages of this connection pass through extensions. */
  reserve(bytes: number): ((frames: Uint8Array | undefined) => void) | undefined {
    return this.fragmenting ? undefined : this.protocol.reserve(bytes)
  }

  /** Puts out bytes that are whole frames already and are never written over; `true` if a flush is due. */
  writeEncoded(frames: Uint8Array): boolean {
    if (!this.isOpen()) return false
    this.putBetweenMessages(() => {
      this.protocol.sendEncoded(frames)
      this.wrote()
    }, frames.length)
    return true
  }

  /**
   * {@link writeEncoded} without waiting for the turn's end; `frames` is one piece, in the form in which the transport takes it (a fan-out
   * costs 6 % more when each member's output makes that form).
   */
  writeEncodedNow(frames: readonly [Uint8Array]): void {
    if (this.fragmenting || this.isExtended) {
      if (this.writeEncoded(frames[0])) this.flush()
    } else if (this.isOpen()) {
      this.flush()
      this.transport.write(frames)
      this.wroteOut()
    }
  }

  flush(): void {
    this.flushed()
    const { output } = this.protocol
    if (output.size === 0 || this.transportClosed) return
    if (this.transport.write(output.take())) output.release()
    this.wroteOut()
  }

  private wroteOut(): void {
    if (this.transport.bufferedBytes() > 0) this.protocol.blocked()
    else {
      this.protocol.drained()
      this.wakeSenders()
    }
  }

  // ---- ping, heartbeat, the end -----------------------------------------------------------------------------------------------------

  get ping() {
    return (payload?: Uint8Array) => this.pingOnce(payload)
  }

  private pingOnce(payload: Uint8Array | undefined): Effect.Effect<Duration.Duration, ConnectionClosed> {
    return Effect.async((resume) => {
      const problem = this.misuse("ping", payload)
      if (problem !== undefined) return resume(Effect.dieMessage(problem))
      if (!this.isOpen()) {
        return resume(
          this.info === undefined
            ? Effect.flatMap(this.closed, (info) => this.closedFailure(info))
            : this.closedFailure(this.info)
        )
      }
      const ping: PendingPing = {
        payload: payload === undefined ? this.nextPingPayload() : new Uint8Array(payload),
        sentAt: this.clock.unsafeCurrentTimeNanos(),
        resume
      }
      this.pings ??= []
      this.pings.push(ping)
      this.protocol.ping(ping.payload)
      this.wrote()
      return Effect.sync(() => {
        const at = this.pings?.indexOf(ping) ?? -1
        if (at >= 0) this.pings!.splice(at, 1)
      })
    })
  }

  private misuse(kind: "ping" | "pong", payload: Uint8Array | undefined): string | undefined {
    if (this.textOnly) return `${this.version} has no ${kind}s`
    const tooLong = payload !== undefined && payload.length > Opcode.maxControlPayloadBytes
    return tooLong ? `a ${kind} carries at most 125 bytes` : undefined
  }

  get pong() {
    return (payload: Uint8Array = noBytes): Effect.Effect<void, ConnectionClosed> =>
      Effect.suspend(() => {
        const problem = this.misuse("pong", payload)
        return problem === undefined ? this.sendControl(() => this.protocol.pong(payload)) : Effect.dieMessage(problem)
      })
  }

  private nextPingPayload(): Uint8Array {
    const payload = new Uint8Array(4)
    new DataView(payload.buffer).setUint32(0, ++this.pingCount)
    return payload
  }

  /** RFC 6455 §5.5.3: a pong may answer only the latest of several pings, so it answers those before it too. */
  private pongReceived(payload: Uint8Array): void {
    const { pings } = this
    if (pings === undefined) return
    const at = pings.findIndex((ping) => sameBytes(ping.payload, payload))
    if (at < 0) return
    const now = this.clock.unsafeCurrentTimeNanos()
    for (const ping of pings.splice(0, at + 1)) ping.resume(Effect.succeed(Duration.nanos(now - ping.sentAt)))
    if (pings.length === 0) this.pings = undefined
  }

  /**
   * A ping goes out when nothing came for at least half of the interval and at most all of it: connections that talk cost two looks
   * at a field per interval and no ping.
   */
  private beat({ intervalMillis, timeoutMillis }: HeartbeatSettings): void {
    // The closing handshake has a deadline of its own.
    if (this.protocol.state._tag !== "Open") return
    const timer = this.heartbeatTimer!
    const timers = Timers.of(this.clock)
    const stepMillis = Math.min(intervalMillis / 2, timeoutMillis)
    if (this.alive) {
      this.silentMillis = -1
      // While we ourselves do not read, no pong can come in.
      this.alive = this.readingPaused
      return timers.set(timer, intervalMillis / 2)
    }
    if (this.silentMillis < 0) {
      this.expectLife()
      this.sendHeartbeat()
    } else if ((this.silentMillis += stepMillis) >= timeoutMillis) return this.peerIsDead(timeoutMillis)
    else if (this.silentMillis % intervalMillis === 0) this.sendHeartbeat()
    timers.set(timer, Math.min(stepMillis, timeoutMillis - this.silentMillis))
  }

  private expectLife(): void {
    // While we ourselves do not read, no pong can come in.
    this.alive = this.readingPaused
    this.silentMillis = 0
  }

  private sendHeartbeat(): void {
    this.protocol.ping(noBytes)
    this.wrote()
  }

  private peerIsDead(timeoutMillis: number): void {
    if (this.info !== undefined) return
    this.finish(lost, new HeartbeatTimeout({ timeout: Duration.millis(timeoutMillis) }))
    this.cut()
  }

  /** The heartbeat by a schedule: a ping at each of its steps, until it is done. */
  scheduledHeartbeat(heartbeat: HeartbeatSettings, schedule: Schedule.Schedule<unknown, unknown>): Effect.Effect<void> {
    const { timeoutMillis } = heartbeat
    const beat = Effect.suspend(() => {
      if (this.protocol.state._tag !== "Open") return Effect.interrupt
      if (this.silentMillis < 0 || this.alive) {
        this.expectLife()
        this.heartbeatTimer ??= new Timers.Timer(() => {
          this.silentMillis = -1
          if (!this.alive && this.protocol.state._tag === "Open") this.peerIsDead(timeoutMillis)
        })
        Timers.of(this.clock).set(this.heartbeatTimer, timeoutMillis)
      }
      this.sendHeartbeat()
      return Effect.void
    })
    return Effect.asVoid(Effect.schedule(beat, schedule))
  }

  heartbeatFiber: Fiber.RuntimeFiber<void> | undefined

  private startCloseTimer(): void {
    if (this.transportClosed && this.endWaits === undefined) return
    this.closeTimer ??= new Timers.Timer(() => this.closeTimerFired())
    const { closeTimeoutMillis } = this.settings
    // Nobody takes what the peer sent before its close frame: whoever may still come has a second, then it is answered.
    this.inGrace = this.protocol.state._tag === "Ending" && !this.hasConsumer && closeTimeoutMillis > graceMillis
    Timers.of(this.clock).set(this.closeTimer, this.inGrace ? graceMillis : closeTimeoutMillis)
  }

  private closeTimerFired(): void {
    if (this.inGrace && this.hasConsumer) {
      this.inGrace = false
      return Timers.of(this.clock).set(this.closeTimer!, this.settings.closeTimeoutMillis - graceMillis)
    }
    // It was set for an opening handshake which is over meanwhile.
    if (this.protocol.state._tag === "Open" && this.protocol.opening !== true) return
    // The peer's close frame may be in what was held back.
    this.decodeMore()
    this.perform(this.protocol.closeTimerFired())
    if (this.protocol.output.size > 0) this.wrote()
  }

  private stopTimers(): void {
    const timers = Timers.of(this.clock)
    if (this.closeTimer !== undefined) timers.cancel(this.closeTimer)
    if (this.heartbeatTimer !== undefined) timers.cancel(this.heartbeatTimer)
    this.heartbeatFiber?.unsafeInterruptAsFork(this.heartbeatFiber.id())
  }

  protected beginClose(code: number | undefined, reason: string): void {
    this.perform(this.protocol.close(code, reason))
  }

  protected cut(): void {
    if (this.transportClosed) {
      if (this.endWaits !== undefined) this.perform(this.protocol.transportClosed())
      return
    }
    // Nothing is to be read any more, so the end of the conversation need not resume it.
    this.readingPaused = false
    this.perform(this.protocol.transportClosed())
    this.stopTimers()
    this.transport.abort()
  }
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i])
