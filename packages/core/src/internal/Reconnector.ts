/**
 * What keeps a reconnecting client connected: one fiber that dials, and the sessions whose messages the consumer has not
 * taken yet.
 */
import type * as Headers from "@effect/platform/Headers"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Connection } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { lost } from "../engine/closeInfo.js"
import type { Message } from "../Message.js"
import type { OutboxFull, Reconnecting, Status, Stopped, StopReason } from "../Reconnecting.js"
import type { ConnectOptions, Service } from "../WebSocketClient.js"
import {
  ConnectionClosed,
  type ConnectionError,
  HandshakeError,
  MessageError,
  type ResumeGap
} from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"
import type { Half } from "./contractMessages.js"
import { Outbox, type Overflow } from "./Outbox.js"
import { refuse } from "./refuse.js"
import type { ResumeClient } from "./resumeClient.js"
import { retryAfterMillis } from "./retry.js"

export interface Settings {
  readonly client: Service
  /** Runs for every attempt. */
  readonly request: Effect.Effect<
    {
      readonly url: string | URL
      readonly headers: Headers.Input | undefined
      readonly subprotocols: ReadonlyArray<string> | undefined
    },
    any,
    any
  >
  /** The connection as users see it. */
  readonly typed: (connection: Connection) => Effect.Effect<Socket, never, any>
  readonly sends: Pick<Half<any>, "encodeAll">
  readonly connectOptions: ConnectOptions
  readonly onOpen: ((socket: unknown) => Effect.Effect<unknown, any, any>) | undefined
  readonly onOpenMillis: number
  readonly resume: Effect.Effect<ResumeClient, never, any> | undefined
  readonly onGap: ((gap: ResumeGap) => Effect.Effect<unknown, any, any>) | undefined
  readonly schedule: Schedule.Schedule<unknown, any, any>
  readonly resetAfterMillis: number
  readonly maxRetryAfterMillis: number
  readonly retryable: (error: any) => boolean
  readonly maxMessages: number
  readonly overflow: Overflow
  readonly stopped: (reason: StopReason, cause: unknown) => Stopped
  readonly full: (maxMessages: number) => OutboxFull
}

type Failure = ConnectionError | MessageError

/** What the consumer needs of a connection. */
interface Socket {
  readonly messages: Stream.Stream<unknown, Failure>
  readonly take: Effect.Effect<unknown, Failure>
}

/** A connection that opened, until its messages are taken. With `resume` it spans the connections that are dialed. */
interface Session {
  readonly raw: BaseConnection & Connection
  readonly socket: Socket
  /** What was dialed last. */
  physical: BaseConnection & Connection
  scope: Scope.CloseableScope
  /** Waits until what was dialed has ended. */
  ended: Effect.Effect<unknown>
  /** Ends what spans connections when no other comes. */
  readonly abandon: (() => void) | undefined
  /** Whether the fiber that dials looks at it. */
  isAttended: boolean
  /** Whether the consumer is at it. */
  inUse: boolean
  /** The message that did not fit, if that ended it. */
  invalid: MessageError | undefined
  /** Whether the fiber that dials has seen its end. */
  isOver: boolean
}

/** Begins, for the Scope. */
export const start = (settings: Settings): Effect.Effect<Reconnecting<any, any, any>, never, any> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const sessions = yield* Scope.fork(scope, ExecutionStrategy.sequential)
      const status = yield* SubscriptionRef.make<Status<unknown>>({ _tag: "Connecting", attempt: 1 })
      const context = yield* Effect.context<unknown>()
      const resume = settings.resume === undefined ? undefined : yield* settings.resume
      const reconnector = new Reconnector(settings, sessions, status, context, resume)
      // The last finalizer that is added runs first: no attempt begins while connections are being closed.
      reconnector.fiber = yield* Effect.forkIn(Effect.interruptible(reconnector.run), scope)
      yield* Scope.addFinalizer(scope, reconnector.stop("Scope", undefined))
      return reconnector
    })
  )

class Reconnector implements Reconnecting<unknown, unknown, unknown> {
  fiber: Fiber.RuntimeFiber<void> | undefined
  private readonly outbox: Outbox<Stopped | OutboxFull>
  private sessions: Array<Session> = []
  /** Connections that counted as open. */
  private readonly opened = new WeakSet<BaseConnection>()
  private end: { readonly reason: StopReason; readonly cause: Cause.Cause<unknown> | undefined } | undefined
  private claimed = false
  private wakeConsumer: (() => void) | undefined
  private wakeDriver: (() => void) | undefined
  private endWait: (() => void) | undefined

  constructor(
    private readonly settings: Settings,
    private readonly scope: Scope.Scope,
    readonly status: SubscriptionRef.SubscriptionRef<Status<unknown>>,
    private readonly context: Context.Context<unknown>,
    private readonly resume: ResumeClient | undefined
  ) {
    this.outbox = new Outbox<Stopped | OutboxFull>(settings.maxMessages, settings.overflow, () =>
      Effect.fail(settings.full(settings.maxMessages))
    )
  }

  // ---- connecting --------------------------------------------------------------------------------------------------------

  get run(): Effect.Effect<void, never, any> {
    const { schedule, resetAfterMillis } = this.settings
    const self = this
    return Effect.gen(function* () {
      let attempt = 0
      let connections = 0
      let state = schedule.initial
      for (;;) {
        yield* self.set({ _tag: "Connecting", attempt: ++attempt })
        const exit = yield* Effect.exit(self.dial)
        let cause: unknown
        let clean = false
        if (Exit.isFailure(exit)) {
          const failure = Cause.failureOrCause(exit.cause)
          if (failure._tag === "Right") return yield* self.stop("Defect", failure.right)
          cause = failure.left
        } else {
          const session = exit.value
          const { raw } = session
          session.isAttended = true
          const opened = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
          self.publish(session)
          yield* self.set({ _tag: "Open", attempt, connections: ++connections, subprotocol: raw.subprotocol })
          yield* self.outbox.attach(raw)
          yield* session.ended
          self.outbox.detach()
          session.isAttended = false
          if (raw.unsafeIsOver()) {
            const failure = session.invalid ?? raw.unsafeFailure()
            yield* self.settle(session)
            clean = failure === undefined
            cause = failure ?? (yield* endOf(raw))
          } else {
            cause = yield* endOf(session.physical)
            yield* Effect.forkIn(Scope.close(session.scope, Exit.void), self.scope)
          }
          const closed = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
          if (closed - opened >= resetAfterMillis) {
            attempt = 0
            state = schedule.initial
          }
        }
        if (!self.settings.retryable(cause)) return yield* self.stop("Final", clean ? undefined : Cause.fail(cause))
        const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        const [next, , decision] = yield* schedule.step(now, cause, state)
        if (ScheduleDecision.isDone(decision)) return yield* self.stop("Exhausted", Cause.fail(cause))
        state = next
        const delay = Math.max(
          0,
          ScheduleIntervals.start(decision.intervals) - now,
          Math.min(retryAfterMillis(cause, now) ?? 0, self.settings.maxRetryAfterMillis)
        )
        yield* self.set({ _tag: "Waiting", attempt, delay: Duration.millis(delay), cause })
        yield* self.wait(delay)
        yield* self.awaitTaken
      }
    }).pipe(Effect.catchAllCause((cause) => this.stop("Defect", cause)))
  }

  /** A session that is ready; all that it opened is closed when it fails or is interrupted. */
  private get dial(): Effect.Effect<Session, unknown, any> {
    const { client, connectOptions, onOpen, request, typed } = this.settings
    const { resume } = this
    const self = this
    const attempt = (scope: Scope.CloseableScope) =>
      Effect.gen(function* () {
        const { headers, subprotocols, url } = yield* request
        const physical = yield* client.connect(url, { ...connectOptions, headers, subprotocols })
        if (!(physical instanceof BaseConnection)) return yield* Effect.dieMessage("not a connection of this library")
        if (resume !== undefined) return yield* self.continueOn(physical, scope, resume)
        const socket = yield* typed(physical)
        if (onOpen !== undefined) yield* self.whileOpen(physical, onOpen(socket))
        return newSession(physical, socket, physical, scope, physical.closed, undefined)
      })
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.fork(this.scope, ExecutionStrategy.sequential), (scope) =>
        Effect.onError(restore(Scope.extend(attempt(scope), scope)), (cause) =>
          Scope.close(scope, Exit.failCause(cause))
        )
      )
    )
  }

  /** Lets the session go on over a connection that opened, or begins one. */
  private continueOn(
    physical: BaseConnection & Connection,
    scope: Scope.CloseableScope,
    resume: ResumeClient
  ): Effect.Effect<Session, unknown, any> {
    const { onGap, onOpen, typed } = this.settings
    const self = this
    return Effect.gen(function* () {
      const { abandon, connection, ended, isFresh } = yield* Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const greeted = yield* restore(resume.greet(physical))
          // Leaving says that the session is over; a connection that was lost is no reason for that.
          yield* Scope.addFinalizerExit(scope, (exit) => {
            const { connection, discard } = greeted
            if (!self.opened.has(connection)) discard()
            else if (self.end === undefined && !connection.unsafeIsOver()) return Effect.void
            return connection.leave(exit)
          })
          return { ...greeted, ended: Fiber.await(yield* Effect.forkDaemon(greeted.pump)) }
        })
      )
      const known = self.sessions.find(({ raw }) => raw === connection)
      if (known !== undefined) {
        known.physical = physical
        known.scope = scope
        known.ended = ended
        return known
      }
      const { gap } = resume
      if (gap !== undefined) {
        if (onGap === undefined) {
          resume.gap = undefined
          return yield* new ConnectionClosed({ info: lost, cause: gap })
        }
        yield* self.whileOpen(physical, onGap(gap))
        resume.gap = undefined
      }
      const socket = yield* typed(connection)
      if (isFresh && onOpen !== undefined) yield* self.whileOpen(physical, onOpen(socket))
      return newSession(connection, socket, physical, scope, ended, abandon)
    })
  }

  /** Runs what precedes `Open`: not after the connection has ended, and not too long. */
  private whileOpen<E, R>(raw: BaseConnection & Connection, effect: Effect.Effect<unknown, E, R>) {
    const ended = Effect.flatMap(endOf(raw), Effect.fail)
    return Effect.raceFirst(Effect.timeoutFail(effect, timedOut(this.settings.onOpenMillis)), ended)
  }

  private wait(millis: number): Effect.Effect<void> {
    const early = Effect.async<void>((resume) => {
      this.endWait = () => resume(Effect.void)
      return Effect.sync(() => {
        this.endWait = undefined
      })
    })
    return Effect.raceFirst(Effect.sleep(Duration.millis(millis)), early)
  }

  get retryNow(): Effect.Effect<void> {
    return Effect.sync(() => this.endWait?.())
  }

  private set(status: Status<unknown>): Effect.Effect<void> {
    return Effect.suspend(() => (this.end === undefined ? SubscriptionRef.set(this.status, status) : Effect.void))
  }

  // ---- sessions and their consumer ---------------------------------------------------------------------------------------

  private publish(session: Session): void {
    this.opened.add(session.raw)
    if (!this.sessions.includes(session)) this.sessions.push(session)
    this.wakeConsumer?.()
  }

  /** The connection has ended: it is kept as long as somebody can take its messages. */
  private settle(session: Session): Effect.Effect<void> {
    session.isOver = true
    return session.inUse || session.raw.queuedMessages > 0 ? Effect.void : this.drop(session)
  }

  /** All messages of the session are taken. */
  private drop(session: Session): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (!this.sessions.includes(session)) return Effect.void
      this.sessions = this.sessions.filter((other) => other !== session)
      this.wakeDriver?.()
      // Closing may take until the closing handshake is over; the next session does not wait for that.
      return Effect.asVoid(Effect.forkIn(Scope.close(session.scope, Exit.void), this.scope))
    })
  }

  /** Waits until at most one session that ended has messages which nobody took. */
  private get awaitTaken(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      const check = () => {
        if (this.sessions.filter(({ raw }) => raw.queuedMessages > 0).length > 1) return false
        resume(Effect.void)
        return true
      }
      if (check()) return
      this.wakeDriver = check
      return Effect.sync(() => {
        this.wakeDriver = undefined
      })
    })
  }

  private get awaitSession(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      if (this.sessions.length > 0 || this.end !== undefined) return resume(Effect.void)
      this.wakeConsumer = () => resume(Effect.void)
      return Effect.sync(() => {
        this.wakeConsumer = undefined
      })
    })
  }

  private claim(): void {
    if (this.claimed) {
      throw new Error("the messages of a client have one consumer at a time: a second one began to take them")
    }
    this.claimed = true
  }

  private get unclaim(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.claimed = false
      const session = this.sessions[0]
      if (session?.inUse !== true) return Effect.void
      session.inUse = false
      return session.isOver ? this.settle(session) : Effect.void
    })
  }

  /** The consumer saw the end of a session. */
  private ended(session: Session, error: Failure | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (error instanceof MessageError) {
        session.invalid = error
        // A function that was asked about it may have left the connection open.
        refuse(session.raw, error)
        // The fiber that dials has turned away from a session that was over, and can't see why its messages end.
        if (!session.isAttended && !this.settings.retryable(error)) {
          return Effect.zipRight(this.drop(session), this.shut("Final", Cause.fail(error)))
        }
      }
      return this.drop(session)
    })
  }

  get messages(): Stream.Stream<unknown, unknown> {
    type Loop = Channel.Channel<Chunk.Chunk<unknown>, unknown, unknown, unknown, void, unknown>
    const loop: Loop = Channel.suspend((): Loop => {
      const session = this.sessions[0]
      if (session !== undefined) {
        session.inUse = true
        const all = Channel.catchAll(
          Channel.as(Stream.toChannel(session.socket.messages), undefined),
          (error: Failure) => Channel.succeed(error)
        )
        return Channel.flatMap(all, (error) => Channel.zipRight(Channel.fromEffect(this.ended(session, error)), loop))
      }
      const { end } = this
      if (end !== undefined) return end.cause === undefined ? Channel.void : Channel.failCause(end.cause)
      return Channel.flatMap(Channel.fromEffect(this.awaitSession), () => loop)
    })
    return Stream.fromChannel(
      Channel.suspend(() => {
        this.claim()
        return Channel.ensuring(loop, this.unclaim)
      })
    )
  }

  get take(): Effect.Effect<unknown, unknown> {
    return Effect.uninterruptibleMask((restore) => {
      this.claim()
      const next: Effect.Effect<unknown, unknown> = Effect.suspend(() => {
        const session = this.sessions[0]
        if (session !== undefined) {
          session.inUse = true
          return Effect.matchEffect(restore(session.socket.take), {
            onSuccess: Effect.succeed,
            onFailure: (error) => Effect.zipRight(this.ended(session, error), next)
          })
        }
        const { end } = this
        if (end === undefined) return Effect.zipRight(restore(this.awaitSession), next)
        return end.cause === undefined
          ? Effect.fail(this.settings.stopped(end.reason, undefined))
          : Effect.failCause(end.cause)
      })
      return Effect.ensuring(next, this.unclaim)
    })
  }

  // ---- sending -----------------------------------------------------------------------------------------------------------

  get send() {
    return (message: unknown): Effect.Effect<void, Stopped | OutboxFull> => this.sendArray([message])
  }

  get sendAll() {
    return (messages: Iterable<unknown>): Effect.Effect<void, Stopped | OutboxFull> =>
      Effect.suspend(() => this.sendArray(Array.isArray(messages) ? messages : [...messages]))
  }

  get sink(): Sink.Sink<void, unknown, never, Stopped | OutboxFull> {
    return Sink.forEachChunk((chunk: Chunk.Chunk<unknown>) => this.sendArray(Chunk.toReadonlyArray(chunk)))
  }

  private sendArray(messages: ReadonlyArray<unknown>): Effect.Effect<void, Stopped | OutboxFull> {
    const encoded = Effect.suspend(() => this.settings.sends.encodeAll(messages))
    return Effect.flatMap(Effect.provide(encoded, this.context) as Effect.Effect<Array<Message>>, (encoded) =>
      this.outbox.send(encoded)
    )
  }

  get pending(): Effect.Effect<number> {
    return Effect.sync(() => this.outbox.pending)
  }

  // ---- the end -----------------------------------------------------------------------------------------------------------

  stop(reason: StopReason, cause: Cause.Cause<unknown> | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.end !== undefined) return Effect.void
      this.end = { reason, cause }
      const failure = cause === undefined ? undefined : Cause.squash(cause)
      this.outbox.stop(Effect.fail(this.settings.stopped(reason, failure)))
      // What waits for another connection waits in vain. `close` says so itself, and what is open closes.
      if (reason !== "Closed") for (const { abandon, isAttended } of this.sessions) if (!isAttended) abandon?.()
      this.wakeConsumer?.()
      return SubscriptionRef.set(this.status, { _tag: "Closed", reason, cause })
    })
  }

  get close() {
    return (code = 1000, reason = ""): Effect.Effect<void> =>
      Effect.suspend(() =>
        Effect.zipRight(
          this.shut("Closed", undefined),
          Effect.forEach(this.open, ({ raw }) => raw.close(code, reason), { discard: true })
        )
      )
  }

  /** Stops, and lets the open connection close. */
  private shut(reason: StopReason, cause: Cause.Cause<unknown> | undefined): Effect.Effect<void> {
    return Effect.zipRight(
      this.stop(reason, cause),
      Effect.suspend(() => {
        if (reason === "Final") for (const { raw } of this.open) raw.unsafeClose(CloseCode.normal, "")
        // Not awaited: it may be this fiber's parent (`onOpen`).
        return this.fiber === undefined ? Effect.void : Fiber.interruptFork(this.fiber)
      })
    )
  }

  private get open(): Array<Session> {
    return this.sessions.filter(({ raw }) => !raw.unsafeIsOver())
  }
}

const newSession = (
  raw: Session["raw"],
  socket: Socket,
  physical: Session["physical"],
  scope: Scope.CloseableScope,
  ended: Session["ended"],
  abandon: Session["abandon"]
): Session => ({
  raw,
  socket,
  physical,
  scope,
  ended,
  abandon,
  isAttended: false,
  inUse: false,
  invalid: undefined,
  isOver: false
})

/** How a connection that ended did so. */
const endOf = (raw: BaseConnection): Effect.Effect<ConnectionError> =>
  Effect.map(raw.closed, (info) => raw.unsafeFailure() ?? new ConnectionClosed({ info }))

const timedOut = (millis: number) => ({
  duration: Duration.millis(millis),
  onTimeout: () =>
    new HandshakeError({ phase: "Response", reason: "Timeout", detail: `onOpen took longer than ${millis} ms` })
})
