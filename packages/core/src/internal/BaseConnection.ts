/**
 * What every connection does, whatever carries its messages: the inbound queue and its one consumer, waiting senders,
 * the end and how it is told. Subclasses speak the protocol (FramedConnection) or drive a platform's WebSocket
 * (GlobalConnection).
 */
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Connection, HandshakeResponse } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { portable } from "../engine/Natives.js"
import type { CloseInfo } from "../engine/Protocol.js"
import type { Kind, Message } from "../Message.js"
import { ConnectionClosed, type ConnectionError, type TransportError } from "../WebSocketError.js"
import { chunkOf } from "./chunk.js"
import { exitCloseCode } from "./compat.js"
import * as Flush from "./flush.js"
import { type Put, puts, runHere } from "./runHere.js"

type Resume = (effect: Effect.Effect<void>) => void

/**
 * A consumer that needs no fiber as long as what it does with each message is done at once.
 *
 * @since 0.1.0
 * @category advanced
 */
export interface DirectConsumer {
  /** Gives what is left to be done, if anything. */
  readonly onMessage: (message: Message) => Effect.Effect<unknown, any, any> | void
  /** Called once: with the rest of a `runForEach` when there is such, or else with nothing at the end. */
  readonly onLeft: (rest: Effect.Effect<void, any, any> | undefined) => void
}

/** Who handles a connection. */
export interface Owner {
  readonly connectionGone: () => void
  /** Handles `connection` from now on, for which this one is a transport. */
  readonly adopt?: (connection: BaseConnection & Connection) => void
}

/** Someone who waits to send, or for what was sent to leave. */
interface Sender {
  /** Goes on as far as there is room; what to resume with, or `undefined` while there is more to wait for. */
  readonly step: () => Effect.Effect<void, ConnectionClosed> | undefined
  readonly resume: (effect: Effect.Effect<void, ConnectionClosed>) => void
}

/** `send` as an Effect that loops know, without a closure for each message. */
class Send extends Effectable.Class<void, ConnectionClosed> {
  constructor(
    private readonly connection: BaseConnection,
    private readonly message: Message
  ) {
    super()
  }

  commit(): Effect.Effect<void, ConnectionClosed> {
    return this.connection.sendNow(this.message)
  }
}

/** What is left of an Effect that a consumer gave for a message. */
const restOf = <E, R>(
  effect: Effect.Effect<unknown, E, R> | void
): Effect.Effect<unknown, E | ConnectionClosed, R> | undefined => {
  if (effect === undefined || effect === Effect.void) return undefined
  if (!(effect instanceof Send)) return effect
  // What an echo does, without a step of the fiber.
  const rest = effect.commit()
  return rest === Effect.void ? undefined : rest
}

const attempt = (consumer: DirectConsumer, message: Message): Effect.Effect<unknown, any, any> | undefined => {
  try {
    return restOf(consumer.onMessage(message))
  } catch (defect) {
    return Effect.die(defect)
  }
}

const nothing: Array<Message> = []

/** The parts of a connection above the protocol. */
export abstract class BaseConnection implements Flush.Turn {
  // Inbound: messages not yet taken, `head` of them already are.
  private queue: Array<Message> = nothing
  private head = 0
  protected queuedBytes = 0
  private waiting: Resume | "direct" | undefined
  /** Gets messages, or the end, when this turn ends, unless it waits. */
  private direct: DirectConsumer | undefined
  private claimed = false

  // Outbound.
  private flushing = false
  private senders: Array<Sender> | undefined
  /** Whether a message is half out, so that no other may be. */
  protected fragmenting = false

  // The end.
  protected info: CloseInfo | undefined
  private error: ConnectionError | undefined
  private endWaiters: Array<Resume> | undefined
  private goneWaiters: Array<Resume> | undefined
  /** What the server answered, at a client that could see it. */
  response: HandshakeResponse | undefined
  /** Told when nothing of the transport is left, and when another connection takes the place of this one. */
  owner: Owner | undefined
  /** Told when there may be room to send, or no hope of it. */
  onRoom: (() => void) | undefined
  private isGone = false
  private discards = false

  constructor(
    protected readonly highWaterMark: number,
    protected readonly cleanCloseCodes: ReadonlyArray<number>
  ) {}

  // ---- what a subclass does -------------------------------------------------------------------------------------------

  /** Whether messages may be sent. */
  protected abstract isOpen(): boolean
  /** Puts a message out; `isOpen` was asked. */
  protected abstract write(message: Message, compress?: boolean): void
  protected abstract writeFragment(kind: Kind | "continuation", payload: Message, fin: boolean): void
  /** Bytes put out and not yet sent. */
  protected abstract buffered(): number
  abstract flush(): void
  /** How many messages may be put out without asking again. */
  protected maxBurst(): number {
    return Number.MAX_SAFE_INTEGER
  }
  /** Decodes what was held back; called before the consumer waits or takes. */
  protected abstract decodeMore(): void
  /** The queue has room: go on reading. */
  protected abstract resumeReading(): void
  /** The consumer dealt with all that it took and asks for more, and there is none. */
  protected caughtUp(): void {
    this.resumeReading()
  }
  /** Whether the peer's version of the protocol has no binary messages. */
  get textOnly(): boolean {
    return false
  }
  protected abstract beginClose(code: number | undefined, reason: string): void
  protected abstract cut(): void

  // ---- inbound -----------------------------------------------------------------------------------------------------------

  get queuedMessages(): number {
    return this.queue.length - this.head
  }

  /** Whether the consumer waits, so that whatever comes goes to it at once, or none will come again. */
  protected get consumerWaits(): boolean {
    return this.waiting !== undefined || this.discards
  }

  protected get hasConsumer(): boolean {
    return this.claimed
  }

  /** Whether nobody has messages that are not dealt with, and none wait. */
  protected get isCaughtUp(): boolean {
    return this.queuedMessages === 0 && (this.consumerWaits || !this.claimed)
  }

  /** Messages for the consumer; the array becomes the queue if that is empty. */
  protected deliver(messages: Array<Message>): void {
    // After `leave` no consumer will come: what arrives is dropped, so that the peer's close frame is not stuck behind it.
    if (this.discards) return
    if (this.head === this.queue.length) {
      this.queue = messages
      this.head = 0
    } else {
      if (this.head > 0) {
        this.queue = this.queue.slice(this.head)
        this.head = 0
      }
      for (const message of messages) this.queue.push(message)
    }
    this.wake()
  }

  /** The conversation is over; what is queued can still be taken, then `error` or the end follows. */
  protected finish(info: CloseInfo, failure: ConnectionError | undefined, cause?: TransportError): void {
    if (this.info !== undefined) return
    this.info = info
    this.error =
      failure ??
      (info.code !== CloseCode.abnormal && this.cleanCloseCodes.includes(info.code)
        ? undefined
        : new ConnectionClosed({ info, cause }))
    const waiters = this.endWaiters
    this.endWaiters = undefined
    if (waiters !== undefined) for (const resume of waiters) resume(Effect.void)
    this.wake()
    this.wakeSenders()
  }

  ownedBy(owner: Owner): void {
    this.owner = owner
    if (this.isGone) owner.connectionGone()
  }

  /** Nothing of the transport is left. */
  protected transportGone(): void {
    if (this.isGone) return
    this.isGone = true
    this.owner?.connectionGone()
    const waiters = this.goneWaiters
    this.goneWaiters = undefined
    if (waiters !== undefined) for (const resume of waiters) resume(Effect.void)
  }

  private wake(): void {
    const { waiting } = this
    if (waiting === undefined) return
    this.waiting = undefined
    if (waiting !== "direct") waiting(Effect.void)
    else this.endTurnSoon()
  }

  /** Waits until there is a message or the end. Nothing is taken, so interruption loses nothing. */
  private get awaitInput(): Effect.Effect<void> {
    this.awaitInputEffect ??= Effect.async<void>((resume) => {
      // The fiber may have yielded since it looked.
      if (this.queuedMessages > 0 || this.info !== undefined) return resume(Effect.void)
      // No finalizer, which would cost several operations per wake-up: an interrupted wait ignores its `resume`, and
      // `unclaim` forgets it.
      this.waiting = resume
    })
    return this.awaitInputEffect
  }
  private awaitInputEffect: Effect.Effect<void> | undefined

  /** All that can be had at once. */
  private takeAll(): ReadonlyArray<Message> {
    this.decodeMore()
    const { head, queue } = this
    if (head === queue.length) {
      this.caughtUp()
      return nothing
    }
    this.queue = nothing
    this.head = 0
    this.queuedBytes = 0
    this.resumeReading()
    return head === 0 ? queue : queue.slice(head)
  }

  /** One message, if there is one. */
  private takeOne(): Message | undefined {
    if (this.head === this.queue.length) {
      this.decodeMore()
      if (this.head === this.queue.length) {
        this.caughtUp()
        return undefined
      }
    }
    const message = this.queue[this.head]!
    this.queue[this.head++] = ""
    if (this.head === this.queue.length) {
      this.queue = nothing
      this.head = 0
      this.queuedBytes = 0
      this.resumeReading()
    }
    return message
  }

  private claim(): void {
    if (this.claimed) {
      throw new Error(
        "the messages of a connection have one consumer at a time: a second one began to take them " +
          "(share one stream with Stream.broadcast, or use a PubSub)"
      )
    }
    this.claimed = true
  }

  private get unclaim(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.waiting = undefined
      this.claimed = false
    })
  }

  get messages(): Stream.Stream<Message, ConnectionError> {
    type Loop = Channel.Channel<Chunk.Chunk<Message>, unknown, ConnectionError, unknown, void, unknown>
    const loop: Loop = Channel.suspend((): Loop => {
      const messages = this.takeAll()
      if (messages.length > 0) return Channel.flatMap(Channel.write(chunkOf(messages)), () => loop)
      if (this.info !== undefined) return this.error === undefined ? Channel.void : Channel.fail(this.error)
      return Channel.flatMap(Channel.fromEffect(this.awaitInput), () => loop)
    })
    return Stream.fromChannel(
      runHere(
        Channel.suspend(() => {
          this.claim()
          return Channel.ensuring(loop, this.unclaim)
        }),
        (put) => this.runInto(put)
      )
    )
  }

  /** `Stream.run(messages, sink)` for the sink of a connection: what their Channels do, as one loop. */
  private runInto(put: Put<Message, ConnectionClosed>): Effect.Effect<void, ConnectionError> {
    return Effect.uninterruptibleMask((restore) => {
      this.claim()
      let running = true
      const body = (): Effect.Effect<void, ConnectionError> => {
        for (let messages = this.takeAll(); messages.length > 0; messages = this.takeAll()) {
          const rest = put(messages)
          if (rest !== undefined) return rest
        }
        if (this.info === undefined) return this.awaitInput
        running = false
        return this.error === undefined ? Effect.void : Effect.fail(this.error)
      }
      return Effect.ensuring(restore(Effect.whileLoop({ while: () => running, body, step: ignore })), this.unclaim)
    })
  }

  get take(): Effect.Effect<Message, ConnectionError> {
    const attempt: Effect.Effect<Message, ConnectionError> = Effect.suspend(() => {
      const message = this.takeOne()
      if (message !== undefined) return Effect.succeed(message)
      if (this.info !== undefined) return Effect.fail(this.error ?? new ConnectionClosed({ info: this.info }))
      return Effect.flatMap(this.awaitInput, () => attempt)
    })
    // Uninterruptible up to `ensuring`: a fiber that is interrupted where it yields must not keep the claim.
    return Effect.uninterruptibleMask((restore) => {
      this.claim()
      return Effect.ensuring(restore(attempt), this.unclaim)
    })
  }

  get runForEach() {
    return <E = never, R = never>(f: (message: Message) => Effect.Effect<unknown, E, R> | void) => this.loop(f)
  }

  /** `rest` is what a direct consumer left of a message: then messages are its own already. */
  private loop<E, R>(
    f: (message: Message) => Effect.Effect<unknown, E, R> | void,
    rest?: Effect.Effect<unknown, E, R>
  ): Effect.Effect<void, E | ConnectionError, R> {
    return Effect.uninterruptibleMask((restore) => {
      if (rest === undefined) this.claim()
      let running = true
      const body = (): Effect.Effect<unknown, E | ConnectionError, R> => {
        for (let message = this.takeOne(); message !== undefined; message = this.takeOne()) {
          const rest = restOf(f(message))
          if (rest !== undefined) return rest
        }
        if (this.info === undefined) return this.awaitInput
        running = false
        return this.error === undefined ? Effect.void : Effect.fail(this.error)
      }
      const all = Effect.whileLoop({ while: () => running, body, step: ignore })
      return Effect.ensuring(restore(rest === undefined ? all : Effect.zipRight(rest, all)), this.unclaim)
    })
  }

  /** See `Connection.unsafeConsume`. */
  unsafeConsume(consumer: DirectConsumer): void {
    this.claim()
    this.direct = consumer
    if (this.queuedMessages > 0 || this.info !== undefined) this.endTurnSoon()
    else this.waiting = "direct"
  }

  private runDirect(direct: DirectConsumer): void {
    let rest: Effect.Effect<unknown, any, any> | undefined
    for (let message = this.takeOne(); message !== undefined; message = this.takeOne()) {
      rest = attempt(direct, message)
      if (rest !== undefined) break
    }
    // It left the connection.
    if (this.direct === undefined) return
    if (rest === undefined && this.info === undefined) {
      this.waiting = "direct"
      return
    }
    this.direct = undefined
    direct.onLeft(rest === undefined ? undefined : this.loop((message) => direct.onMessage(message), rest))
  }

  endTurn(): void {
    // Not when messages come, which is in the middle of what a chunk holds; before the write, which takes along what it sends.
    if (this.direct !== undefined && this.waiting === undefined) this.runDirect(this.direct)
    this.flush()
  }

  /** See `Connection.unsafeEnd`. */
  unsafeEnd(): Exit.Exit<void, ConnectionError> | undefined {
    if (this.info === undefined || this.queuedMessages > 0) return undefined
    return this.error === undefined ? Exit.void : Exit.fail(this.error)
  }

  // ---- outbound ----------------------------------------------------------------------------------------------------------

  /** Something was put out: it leaves when this turn ends, or now if it is much. */
  protected wrote(): void {
    if (!this.flushing) this.endTurnSoon()
    else if (this.buffered() >= this.highWaterMark) this.flush()
  }

  private endTurnSoon(): void {
    if (this.flushing) return
    this.flushing = true
    Flush.soon(this)
  }

  protected flushed(): void {
    this.flushing = false
  }

  /** There may be room again, or no hope of it: who waits longest goes on first. */
  protected wakeSenders(): void {
    this.onRoom?.()
    const { senders } = this
    if (senders === undefined) return
    this.senders = undefined
    let waiting: Array<Sender> | undefined
    for (const sender of senders) {
      const result = sender.step()
      if (result === undefined) (waiting ??= []).push(sender)
      else sender.resume(result)
    }
    this.senders = waiting
  }

  private get isBelowMark(): boolean {
    return this.buffered() < this.highWaterMark
  }

  private get hasRoom(): boolean {
    return !this.fragmenting && this.isBelowMark
  }

  /** Whether a message may go out now, before nobody who waits. */
  private get mayPass(): boolean {
    return this.senders === undefined && this.hasRoom
  }

  /** Waits until `step`, called when there may be room, gives what to go on with; `queues` behind others who wait. */
  private awaitStep(step: Sender["step"], queues: boolean): Effect.Effect<void, ConnectionClosed> {
    return Effect.async<void, ConnectionClosed>((resume) => {
      const sender: Sender = { step, resume }
      if (!queues || this.senders === undefined) {
        const result = step()
        if (result !== undefined) return resume(result)
      }
      if (this.senders === undefined) this.senders = [sender]
      else if (queues) this.senders.push(sender)
      else this.senders.unshift(sender)
      return Effect.sync(() => {
        remove(this.senders, sender)
        if (this.senders?.length === 0) this.senders = undefined
      })
    })
  }

  /** Room after a message was put out: it is on its way, or the connection died before it left. */
  private get awaitSent(): Effect.Effect<void, ConnectionClosed> {
    return this.awaitStep(
      () => (this.info !== undefined ? this.closedError() : this.isBelowMark ? Effect.void : undefined),
      false
    )
  }

  /** The failure of whoever sends when nothing can be sent any more. */
  private closedError(): Effect.Effect<never, ConnectionClosed> {
    const info = this.info ?? {
      code: CloseCode.noCode,
      reason: "the closing handshake has begun",
      clean: false,
      initiator: "local",
      sent: undefined,
      received: undefined,
      violation: undefined
    }
    return Effect.fail(this.error instanceof ConnectionClosed ? this.error : new ConnectionClosed({ info }))
  }

  // What users may pass on by name (`Stream.runForEach(messages, socket.send)`) are getters of bound functions; only the one
  // that is called per message is kept, so that an idle connection holds none.
  private boundSend: ((message: Message) => Effect.Effect<void, ConnectionClosed>) | undefined

  get send(): (message: Message) => Effect.Effect<void, ConnectionClosed> {
    this.boundSend ??= (message) => new Send(this, message)
    return this.boundSend
  }

  get sendWith() {
    return (message: Message, options: { readonly compress?: boolean | undefined }) =>
      Effect.suspend(() => this.sendNow(message, options.compress))
  }

  /** The Effect of `send`, done; an Effect for what is left to wait for. */
  sendNow(message: Message, compress?: boolean): Effect.Effect<void, ConnectionClosed> {
    if (!this.isOpen()) return this.closedError()
    const misuse = this.misfit(message)
    if (misuse !== undefined) return Effect.dieMessage(misuse)
    return this.mayPass ? this.putOut(message, compress) : this.sendLater(message, compress)
  }

  /** Why this is no message for this peer: what is not typed may send anything, and a transport takes only bytes. */
  private misfit(message: Message): string | undefined {
    if (typeof message === "string") return undefined
    return noMessage(message) ?? (this.textOnly ? noBinary : undefined)
  }

  // Apart from `sendNow`, whose calls would all pay for what the closure captures.
  private sendLater(message: Message, compress: boolean | undefined): Effect.Effect<void, ConnectionClosed> {
    return this.awaitStep(
      () => (!this.isOpen() ? this.closedError() : this.hasRoom ? this.putOut(message, compress) : undefined),
      true
    )
  }

  private putOut(message: Message, compress: boolean | undefined): Effect.Effect<void, ConnectionClosed> {
    this.write(message, compress)
    return this.afterPut()
  }

  /** Something was put out; an Effect for the room that is left to wait for. */
  private afterPut(): Effect.Effect<void, ConnectionClosed> {
    // As after most messages of a turn.
    if (this.flushing && this.isBelowMark) return Effect.void
    this.wrote()
    return this.isBelowMark ? Effect.void : this.awaitSent
  }

  /** A control frame, which overtakes the messages that wait for room. */
  protected sendControl(put: () => void): Effect.Effect<void, ConnectionClosed> {
    if (!this.isOpen()) return this.closedError()
    put()
    return this.afterPut()
  }

  /** Puts out messages; an Effect for the rest when there is no room, `undefined` when all are out. */
  private sendChunk(messages: ReadonlyArray<Message>): Effect.Effect<void, ConnectionClosed> | undefined {
    const count = messages.length
    if (count === 0) return undefined
    if (!this.isOpen()) return this.closedError()
    for (let i = 0; i < count; i++) {
      const misuse = this.misfit(messages[i]!)
      if (misuse !== undefined) return Effect.dieMessage(misuse)
    }
    const next = this.mayPass ? this.putOutWhileRoom(messages, 0) : 0
    if (next < count) return this.sendChunkLater(messages, next)
    return this.isBelowMark ? undefined : this.awaitSent
  }

  private sendChunkLater(messages: ReadonlyArray<Message>, from: number): Effect.Effect<void, ConnectionClosed> {
    let next = from
    return this.awaitStep(() => {
      while (this.isOpen()) {
        if (next === messages.length) return this.isBelowMark ? Effect.void : this.awaitSent
        if (!this.hasRoom) return undefined
        next = this.putOutWhileRoom(messages, next)
      }
      return this.closedError()
    }, from === 0)
  }

  /** Puts out messages from `from` on; the index of the first that has no room. */
  private putOutWhileRoom(messages: ReadonlyArray<Message>, from: number): number {
    let i = from
    const end = Math.min(messages.length, from + this.maxBurst())
    for (let room = this.highWaterMark - this.buffered(); i < end && room > 0; i++) {
      const message = messages[i]!
      this.write(message)
      room -= message.length + 2
    }
    this.wrote()
    return i
  }

  get sendAll() {
    return (messages: Iterable<Message>): Effect.Effect<void, ConnectionClosed> =>
      Effect.suspend(() => this.sendChunk(Array.isArray(messages) ? messages : [...messages]) ?? Effect.void)
  }

  get trySend() {
    return (message: Message): Effect.Effect<boolean> => Effect.sync(() => this.trySendNow(message))
  }

  get unsafeTrySend() {
    return (message: Message): boolean => this.trySendNow(message)
  }

  private trySendNow(message: Message): boolean {
    const misuse = this.misfit(message)
    if (misuse !== undefined) throw new TypeError(misuse)
    if (!this.isOpen() || !this.mayPass) return false
    this.write(message)
    this.wrote()
    return true
  }

  // ---- for Broadcast: without waiting, allowances are its business -----------------------------------------------------------

  private heldBytes = 0

  /** Bytes put out or held for a broadcast that have not left. */
  unsafeBufferedBytes(): number {
    return this.buffered() + this.heldBytes
  }

  unsafeIsOpen(): boolean {
    return this.isOpen()
  }

  /** Puts a message out whatever waits, but not inside a message that is half out. */
  unsafeSend(message: Message): void {
    if (typeof message !== "string" && this.textOnly) return this.unsafeClose(CloseCode.unsupportedData, noBinary)
    this.putBetweenMessages(() => {
      this.write(message)
      this.wrote()
    }, message.length)
  }

  unsafeClose(code: number, reason: string): void {
    this.startClose(code, reason)
  }

  /** Waits until fewer bytes than `allowance` wait to leave, or none will any more. */
  awaitBuffered(allowance: number): Effect.Effect<void> {
    return Effect.ignore(
      this.awaitStep(() => (!this.isOpen() || this.unsafeBufferedBytes() < allowance ? Effect.void : undefined), true)
    )
  }

  /** Waits until a message may go out, or none will any more. */
  get awaitTurn(): Effect.Effect<void> {
    return Effect.ignore(
      this.awaitStep(() => (!this.isOpen() ? this.closedError() : this.hasRoom ? Effect.void : undefined), true)
    )
  }

  /** Whether the conversation is over; messages may still wait. */
  unsafeIsOver(): boolean {
    return this.info !== undefined
  }

  /** How `messages` fails after what is queued; `undefined` for a clean end, or none yet. */
  unsafeFailure(): ConnectionError | undefined {
    return this.error
  }

  protected putBetweenMessages(put: () => void, bytes: number): void {
    if (!this.fragmenting) return put()
    this.heldBytes += bytes
    const step = () => {
      if (this.fragmenting && this.info === undefined) return undefined
      this.heldBytes -= bytes
      if (this.isOpen()) put()
      return Effect.void
    }
    this.senders ??= []
    this.senders.push({ step, resume: ignore })
  }

  get bufferedBytes(): Effect.Effect<number> {
    return Effect.sync(() => this.buffered())
  }

  get sink(): Sink.Sink<void, Message, never, ConnectionClosed> {
    type Loop = Channel.Channel<Chunk.Chunk<never>, Chunk.Chunk<Message>, ConnectionClosed, never, void, unknown>
    const loop: Loop = Channel.readWithCause({
      onInput: (chunk: Chunk.Chunk<Message>): Loop => {
        const rest = this.sendChunk(Chunk.toReadonlyArray(chunk))
        return rest === undefined ? loop : Channel.flatMap(Channel.fromEffect(rest), () => loop)
      },
      onFailure: (cause) => Channel.failCause(cause),
      onDone: () => Channel.void
    })
    return Sink.fromChannel(puts(loop, (messages: ReadonlyArray<Message>) => this.sendChunk(messages)))
  }

  get sendFragments() {
    return <E, R>(kind: Kind, pieces: Stream.Stream<Message, E, R>) => this.fragments(kind, pieces)
  }

  private fragments<E, R>(
    kind: Kind,
    pieces: Stream.Stream<Message, E, R>
  ): Effect.Effect<void, E | ConnectionClosed, R> {
    if (kind === "binary" && this.textOnly) return Effect.dieMessage(noBinary)
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.takeTurn(restore), () => {
        let first = true
        let carry = ""
        const put = (piece: Message, fin: boolean): Effect.Effect<void, ConnectionClosed> => {
          if (!this.isOpen()) return this.closedError()
          this.writeFragment(first ? kind : "continuation", piece, fin)
          first = false
          return this.afterPut()
        }
        const each = (piece: Message): Effect.Effect<void, ConnectionClosed> => {
          if (kind === "text" ? typeof piece !== "string" : !isBytes(piece)) {
            return Effect.dieMessage(`a ${kind} message is made of ${kind === "text" ? "strings" : "Uint8Arrays"}`)
          }
          if (typeof piece !== "string") return put(piece, false)
          // A surrogate pair that two pieces share is one code point on the wire.
          const text = carry + piece
          const cut = text.length > 0 && (text.charCodeAt(text.length - 1) & 0xfc00) === 0xd800
          carry = cut ? text.slice(-1) : ""
          return put(cut ? text.slice(0, -1) : text, false)
        }
        return Effect.matchCauseEffect(restore(Stream.runForEach(pieces, each)), {
          onFailure: (cause) => {
            // The peer has half a message: it must not take it for a whole one.
            if (!first) this.startClose(CloseCode.internalError, "")
            this.endFragments()
            return Effect.failCause(cause)
          },
          onSuccess: () =>
            Effect.suspend(() => {
              const sent = put(kind === "text" ? carry : new Uint8Array(0), true)
              this.endFragments()
              return restore(sent)
            })
        })
      })
    )
  }

  /** Waits until no other message is half out, then keeps others from going out. */
  private takeTurn(
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<void, ConnectionClosed> {
    return Effect.suspend(() => {
      let mine = false
      const turn = this.awaitStep(() => {
        if (!this.isOpen()) return this.closedError()
        if (!this.hasRoom) return undefined
        this.fragmenting = mine = true
        return Effect.void
      }, true)
      return Effect.onError(restore(turn), () =>
        Effect.sync(() => {
          if (mine) this.endFragments()
        })
      )
    })
  }

  private endFragments(): void {
    this.fragmenting = false
    this.wakeSenders()
  }

  // ---- the end -----------------------------------------------------------------------------------------------------------

  get closed(): Effect.Effect<CloseInfo> {
    return Effect.async<CloseInfo>((resume) => {
      if (this.info !== undefined) return resume(Effect.succeed(this.info))
      const waiter: Resume = () => resume(Effect.succeed(this.info!))
      this.endWaiters ??= []
      this.endWaiters.push(waiter)
      return Effect.sync(() => remove(this.endWaiters, waiter))
    })
  }

  private get awaitGone(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      if (this.isGone) return resume(Effect.void)
      this.goneWaiters ??= []
      this.goneWaiters.push(resume)
      return Effect.sync(() => remove(this.goneWaiters, resume))
    })
  }

  private startClose(code: number | undefined, reason: string): void {
    this.beginClose(code, reason)
    this.flush()
    this.wakeSenders()
  }

  get close() {
    return (code: number = CloseCode.normal, reason = "") => this.closeWith(code, reason)
  }

  private closeWith(code: number, reason: string): Effect.Effect<CloseInfo> {
    return Effect.suspend(() => {
      const problem = unsendable(code, reason)
      if (problem !== undefined) return Effect.dieMessage(problem)
      this.startClose(code, reason)
      return Effect.zipLeft(this.closed, this.awaitGone)
    })
  }

  get abort(): Effect.Effect<void> {
    return Effect.sync(() => this.cut())
  }

  /** Leaves politely: with `frame`, or the close code that `exit` stands for; nothing more is delivered; waits until all is gone. */
  leave(
    exit: Exit.Exit<unknown, unknown>,
    frame?: { readonly code: number; readonly reason?: string }
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.unsafeLeave(exit, frame)
      return this.isGone ? Effect.void : this.awaitGone
    })
  }

  /** {@link leave} without waiting. */
  unsafeLeave(exit: Exit.Exit<unknown, unknown>, frame?: { readonly code: number; readonly reason?: string }): void {
    if (this.isGone) return
    this.startClose(frame?.code ?? exitCloseCode(exit), frame?.reason ?? "")
    this.discards = true
    this.direct = undefined
    this.takeAll()
  }
}

/** Why a close frame can't be sent, if so. */
export const unsendable = (code: number, reason: string): string | undefined =>
  !CloseCode.isSendable(code)
    ? `${code} is no close code that may be sent (1000-1003, 1007-1014, 3000-4999)`
    : portable.textByteLength(reason) > CloseCode.maxReasonBytes
      ? `a close reason has at most ${CloseCode.maxReasonBytes} bytes of UTF-8`
      : undefined

const noBinary = "the peer's version of the protocol has no binary messages"

/** Why this is no message, if so. */
export const noMessage = (message: unknown): string | undefined =>
  typeof message === "string" || isBytes(message) ? undefined : "a message is a string or a Uint8Array"

/** Of this realm or another one. */
const isBytes = (message: unknown): boolean =>
  message instanceof Uint8Array || Object.prototype.toString.call(message) === "[object Uint8Array]"

const remove = <A>(waiters: Array<A> | undefined, waiter: A): void => {
  const at = waiters?.indexOf(waiter) ?? -1
  if (at >= 0) waiters!.splice(at, 1)
}

const ignore = () => {}
