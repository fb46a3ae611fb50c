/**
 * A server's resumable sessions: which there are, what a client's hello leads to, and how long one waits for its client.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as ConnectionModule from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { ConnectionClosed, ResumeViolation } from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"
import {
  type Journal,
  journalOrNone,
  type Keeper,
  ResumedConnection,
  type ResumeSettings
} from "./ResumedConnection.js"
import type { Found, Journals } from "./resumeJournal.js"
import { ResumeSession } from "./resumeSession.js"
import * as Wire from "./resumeWire.js"
import * as Timers from "./timers.js"

type Connection = ConnectionModule.Connection
type Physical = BaseConnection & Connection

interface Entry {
  readonly connection: ResumedConnection
  /** The route and owner that it belongs to. */
  readonly binding: string
  readonly journal: Journal | undefined
  readonly ttl: Timers.Timer
}

/** Begins, for the Scope. */
export const make = (
  resume: ResumeSettings,
  options: ConnectionModule.Options,
  journals: Journals | undefined
): Effect.Effect<Sessions, never, Scope.Scope> =>
  Effect.clockWith((clock) =>
    Effect.acquireRelease(
      Effect.tap(
        Effect.sync(() => new Sessions(resume, options, journals, clock)),
        (sessions) => sessions.open
      ),
      (sessions) => sessions.close
    )
  )

export class Sessions implements Keeper {
  private readonly entries = new Map<string, Entry>()
  /** Those without a line, the longest first. */
  private readonly waiting = new Set<Entry>()
  /** Those of an earlier process, of which nobody has asked for yet. */
  private readonly stored = new Set<string>()
  private readonly storedTtl = new Timers.Timer(() => this.forgetStored())
  private readonly removals = new Set<Fiber.RuntimeFiber<void>>()
  private readonly oneAtATime: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  private readonly timers: Timers.Timers
  private closed = false

  constructor(
    private readonly resume: ResumeSettings,
    private readonly options: ConnectionModule.Options,
    private readonly journals: Journals | undefined,
    private readonly clock: Clock.Clock
  ) {
    this.timers = Timers.of(clock)
    this.oneAtATime = journals === undefined ? (effect) => effect : Effect.unsafeMakeSemaphore(1).withPermits(1)
  }

  /** How many sessions there are, and how many of them have no line. */
  get counts(): { readonly sessions: number; readonly detached: number } {
    return { sessions: this.entries.size + this.stored.size, detached: this.waiting.size + this.stored.size }
  }

  get open(): Effect.Effect<void> {
    if (this.journals === undefined) return Effect.void
    return Effect.matchCauseEffect(this.journals.open, {
      onSuccess: (ids) =>
        Effect.sync(() => {
          for (const id of ids) this.stored.add(id)
          if (ids.length > 0) this.timers.set(this.storedTtl, this.resume.ttlMillis)
        }),
      onFailure: (cause) => Effect.logError("the store of resumable sessions can't be read", cause)
    })
  }

  /** Nobody waits any more. Sessions that are written down stay in their store. */
  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closed = true
      this.timers.cancel(this.storedTtl)
      for (const { connection, ttl } of [...this.entries.values()]) {
        this.timers.cancel(ttl)
        connection.abandon()
        this.remove(connection.awaitSaved)
      }
      return Fiber.awaitAll([...this.removals])
    })
  }

  // ---- a new line --------------------------------------------------------------------------------------------------------

  /**
   * Handles a plain connection: as the line of the session that its client continues, until it has ended; or as the first line of
   * a new session, which `run` handles.
   */
  serve<E, R>(
    plain: Connection,
    binding: string,
    run: (connection: Connection) => Effect.Effect<unknown, E, R>
  ): Effect.Effect<unknown, E | ConnectionModule.Failure, R> {
    if (!(plain instanceof BaseConnection)) return Effect.dieMessage("not a connection of this library")
    const physical: Physical = plain
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(this.hello(physical)), (hello) =>
        Effect.flatMap(this.oneAtATime(this.enter(physical, binding, hello)), ({ entry, isNew, line }) => {
          const { connection } = entry
          const { owner } = physical
          const pump = Effect.forkDaemon(connection.pump(line))
          if (!isNew) {
            // Whoever shuts down interrupts all who handle connections: each of them ends the session politely.
            return Effect.flatMap(pump, (pump) =>
              Effect.onInterrupt(restore(Fiber.await(pump)), (interruptors) =>
                connection.isOn(line) ? connection.leave(interrupted(interruptors)) : Effect.void
              )
            )
          }
          if (owner?.adopt === undefined) {
            return Effect.zipRight(
              pump,
              Effect.onExit(restore(Effect.suspend(() => run(connection))), (exit) => connection.leave(exit))
            )
          }
          physical.owner = undefined
          owner.adopt(connection)
          return Effect.zipRight(pump, restore(Effect.suspend(() => run(connection))))
        })
      )
    )
  }

  private hello(physical: Physical): Effect.Effect<Wire.Hello, ConnectionModule.Failure> {
    return Effect.flatMap(Effect.timeoutOption(physical.take, Duration.millis(this.resume.helloMillis)), (message) => {
      if (Option.isNone(message)) return refuse(physical, CloseCode.policyViolation, "no hello in time")
      const frame = Wire.parse(message.value)
      if (frame._tag === "Hello") return Effect.succeed(frame)
      const detail = frame._tag === "Malformed" ? frame.detail : `a ${frame._tag} in place of a hello`
      return refuse(physical, CloseCode.protocolError, detail)
    })
  }

  /** Finds or makes the session, greets the client and attaches the line. */
  private enter(physical: Physical, binding: string, hello: Wire.Hello) {
    return Effect.map(
      Effect.flatMap(this.find(binding, hello), (found) => this.entry(found, physical, binding)),
      ({ entry, isNew, status }) => {
        const { connection } = entry
        const { ackBytes, ackMessages, acked, received } = connection.position()
        physical.unsafeSend(Wire.formatWelcome({ status, id: connection.id, received, acked, ackMessages, ackBytes }))
        this.waiting.delete(entry)
        this.timers.cancel(entry.ttl)
        const line = connection.attach(physical, status === "resumed" ? hello.received : 0, hello)
        return { entry, isNew, line }
      }
    )
  }

  private entry(
    found: Entry | (Found & { readonly id: string }) | Exclude<Wire.Welcome["status"], "resumed">,
    physical: Physical,
    binding: string
  ): Effect.Effect<{ readonly entry: Entry; readonly isNew: boolean; readonly status: Wire.Welcome["status"] }> {
    if (typeof found === "string") {
      const id = newId()
      const { journals } = this
      const journal = journals === undefined ? Effect.succeed(undefined) : journalOrNone(journals.create(id, binding))
      return Effect.map(journal, (journal) => ({
        entry: this.add(id, physical, binding, journal, undefined),
        isNew: true,
        status: found
      }))
    }
    const isNew = "snapshot" in found
    const entry = isNew ? this.add(found.id, physical, binding, found.journal, found.snapshot) : found
    return Effect.succeed({ entry, isNew, status: "resumed" })
  }

  private add(
    id: string,
    physical: Physical,
    binding: string,
    journal: Journal | undefined,
    snapshot: Found["snapshot"] | undefined
  ): Entry {
    const settings = ConnectionModule.settings(this.options, { role: "server" })
    const connection = new ResumedConnection(id, physical, this.resume, settings, this.clock, this, journal, snapshot)
    const ttl = new Timers.Timer(() => connection.lose("Expired"))
    const entry: Entry = { connection, binding, journal, ttl }
    this.entries.set(id, entry)
    return entry
  }

  /** The session of a hello, or why there is none. Who asks for what is another's learns no more than of what never was. */
  private find(
    binding: string,
    hello: Wire.Hello
  ): Effect.Effect<Entry | (Found & { readonly id: string }) | "new" | "overflow" | "unknown"> {
    const { id } = hello
    if (id === undefined) return Effect.succeed("new")
    const entry = this.entries.get(id)
    if (entry !== undefined) {
      if (entry.binding !== binding) return Effect.succeed("unknown")
      const fit = entry.connection.fit(hello)
      if (fit === "resumed") return Effect.succeed(entry)
      entry.connection.lose(fit === "overflow" ? "Overflow" : "Unknown")
      return Effect.succeed(fit)
    }
    if (this.journals === undefined || !this.stored.has(id)) return Effect.succeed("unknown")
    return Effect.catchAllCause(
      Effect.map(this.journals.find(id), (found) => {
        if (Option.isSome(found) && found.value.binding !== binding) return "unknown"
        this.stored.delete(id)
        if (Option.isSome(found)) {
          const fit = new ResumeSession(this.resume.limits, found.value.snapshot).fit(hello)
          if (fit === "resumed") return { ...found.value, id }
        }
        this.forget(id)
        return "unknown"
      }),
      (cause) => Effect.as(Effect.logError("the store of a resumable session failed", cause), "unknown" as const)
    )
  }

  // ---- what becomes of sessions ------------------------------------------------------------------------------------------

  detached(connection: ResumedConnection): void {
    const entry = this.entries.get(connection.id)
    if (entry === undefined || this.closed) return
    this.waiting.add(entry)
    this.timers.set(entry.ttl, this.resume.ttlMillis)
    if (this.waiting.size <= this.resume.maxDetached) return
    for (const oldest of this.waiting) return oldest.connection.lose("Evicted")
  }

  over(connection: ResumedConnection): void {
    const entry = this.entries.get(connection.id)
    if (entry === undefined) return
    this.entries.delete(connection.id)
    this.waiting.delete(entry)
    this.timers.cancel(entry.ttl)
    // Whoever shuts down waits until all is written.
    if (connection.isSuspended) this.remove(connection.awaitSaved)
    else if (entry.journal !== undefined && !this.closed) this.remove(entry.journal.remove)
  }

  private forgetStored(): void {
    for (const id of this.stored) this.forget(id)
    this.stored.clear()
  }

  private forget(id: string): void {
    this.remove(Effect.ignoreLogged(this.journals!.forget(id)))
  }

  private remove(removal: Effect.Effect<void>): void {
    const fiber = Effect.runFork(removal)
    this.removals.add(fiber)
    fiber.addObserver(() => this.removals.delete(fiber))
  }
}

const interrupted = (interruptors: HashSet.HashSet<FiberId.FiberId>): Exit.Exit<never> =>
  Exit.interrupt(HashSet.reduce(interruptors, FiberId.none as FiberId.FiberId, FiberId.combine))

const refuse = (physical: Physical, code: number, detail: string): Effect.Effect<never, ConnectionClosed> =>
  Effect.suspend(() => {
    const reason = `resume: ${detail}`
    physical.unsafeClose(code, reason)
    const info = {
      code,
      reason,
      clean: false,
      initiator: "local" as const,
      sent: { code, reason },
      received: undefined,
      violation: undefined
    }
    return Effect.fail(new ConnectionClosed({ info, cause: new ResumeViolation({ detail }) }))
  })

/** 128 bits that nobody can guess. */
const newId = (): string =>
  Array.from(globalThis.crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
    ""
  )
