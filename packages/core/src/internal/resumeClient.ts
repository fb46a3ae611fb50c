/**
 * A client's resumable session: what it says when a connection has opened, and what the answer leads to.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ConnectionModule from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { type ConnectionError, HandshakeError, type ResumeGap, ResumeViolation } from "../WebSocketError.js"
import type { BaseConnection } from "./BaseConnection.js"
import {
  type Journal,
  journalOrNone,
  type Keeper,
  ResumedConnection,
  type ResumeSettings
} from "./ResumedConnection.js"
import type { Found, Journals } from "./resumeJournal.js"
import * as Wire from "./resumeWire.js"

type Physical = BaseConnection & ConnectionModule.Connection

/** A session that goes on over a new connection. */
export interface Greeted {
  readonly connection: BaseConnection & ConnectionModule.Connection
  /** Whether it begins here: nothing was sent or received in it, also by no earlier process. */
  readonly isFresh: boolean
  /** Takes what comes until the connection has ended. */
  readonly pump: Effect.Effect<void>
  readonly abandon: () => void
  /** It never counted as open, so that its end is no gap. */
  readonly discard: () => void
}

export interface ResumeClient {
  /** Continues the session over `physical`, or begins one. */
  readonly greet: (physical: Physical) => Effect.Effect<Greeted, HandshakeError | ConnectionError>
  /** A session that ended, until it was told. */
  gap: ResumeGap | undefined
}

export const make = (
  resume: ResumeSettings,
  options: ConnectionModule.Options,
  journals: Journals | undefined
): Effect.Effect<ResumeClient> =>
  Effect.clockWith((clock) =>
    Effect.tap(
      Effect.sync(() => new Client(resume, options, journals, clock)),
      (client) => client.open
    )
  )

class Client implements ResumeClient, Keeper {
  gap: ResumeGap | undefined
  private current: ResumedConnection | undefined
  /** What an earlier process left. */
  private left: (Found & { readonly id: string }) | undefined
  private readonly journalsOf = new Map<string, Journal>()

  constructor(
    private readonly resume: ResumeSettings,
    private readonly options: ConnectionModule.Options,
    private readonly journals: Journals | undefined,
    private readonly clock: Clock.Clock
  ) {}

  get open(): Effect.Effect<void> {
    const { journals } = this
    if (journals === undefined) return Effect.void
    const found = Effect.flatMap(Effect.zipRight(journals.open, journals.current), (id) =>
      id === undefined
        ? Effect.void
        : Effect.map(journals.find(id), (found) => {
            if (Option.isSome(found)) this.left = { ...found.value, id }
          })
    )
    return Effect.catchAllCause(found, (cause) =>
      Effect.logError("the store of a resumable session can't be read", cause)
    )
  }

  greet(physical: Physical): Effect.Effect<Greeted, HandshakeError | ConnectionError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const session = this.take(physical)
        const position = session?.position() ?? this.nothing
        physical.unsafeSend(Wire.formatHello({ ...position, id: session?.id }))
        return Effect.flatMap(restore(this.welcome(physical)), (welcome) => this.enter(physical, session, welcome))
      })
    )
  }

  /** The session to continue, if one is. */
  private take(physical: Physical): ResumedConnection | undefined {
    const { current, left } = this
    if (current?.isDone === true) {
      // The server closed it, and the client goes on: whether it had taken all is not known.
      if (current.unacknowledged > 0) this.gap ??= current.gap("Ended")
      this.current = undefined
    }
    if (left !== undefined) {
      this.left = undefined
      this.current = this.connection(left.id, physical, left.journal, left.snapshot)
    }
    return this.current
  }

  private get nothing() {
    const { maxBytes, maxMessages } = this.resume.limits
    return {
      received: 0,
      acked: 0,
      first: 1,
      sent: 0,
      ackMessages: Math.max(1, maxMessages >> 2),
      ackBytes: Math.max(1, maxBytes >> 2)
    }
  }

  private welcome(physical: Physical): Effect.Effect<Wire.Welcome, HandshakeError | ConnectionError> {
    const { helloMillis } = this.resume
    return Effect.flatMap(Effect.timeoutOption(physical.take, Duration.millis(helloMillis)), (message) => {
      if (Option.isNone(message)) {
        const detail = `the server did not answer the hello of the session in ${helloMillis} ms`
        return Effect.fail(new HandshakeError({ phase: "Response", reason: "Timeout", detail }))
      }
      const frame = Wire.parse(message.value)
      if (frame._tag === "Welcome") return Effect.succeed(frame)
      return refuse(physical, frame._tag === "Malformed" ? frame.detail : `a ${frame._tag} in place of a welcome`)
    })
  }

  private enter(
    physical: Physical,
    session: ResumedConnection | undefined,
    welcome: Wire.Welcome
  ): Effect.Effect<Greeted, HandshakeError> {
    const { acked, id, received, status } = welcome
    if (status === "resumed") {
      // What the server still has is its business: that it continues says that it is enough.
      const fits =
        session?.id === id &&
        !session.isDone &&
        session.fit({ received, acked, first: 1, sent: Number.MAX_SAFE_INTEGER })
      if (fits !== "resumed") return refuse(physical, "a welcome to a session that is none of ours")
      return Effect.succeed(this.attached(session!, physical, welcome, false))
    }
    if (session !== undefined) {
      const reason = status === "overflow" ? "Overflow" : "Unknown"
      this.gap ??= session.gap(reason)
      session.lose(reason)
    }
    return Effect.map(this.journal(id), (journal) => {
      this.current = this.connection(id, physical, journal, undefined)
      return this.attached(this.current, physical, welcome, true)
    })
  }

  private attached(
    connection: ResumedConnection,
    physical: Physical,
    welcome: Wire.Welcome,
    isFresh: boolean
  ): Greeted {
    const line = connection.attach(physical, welcome.received, welcome)
    return {
      connection,
      isFresh,
      pump: connection.pump(line),
      abandon: () => connection.abandon(),
      discard: () => {
        if (this.current === connection) this.current = undefined
      }
    }
  }

  private journal(id: string): Effect.Effect<Journal | undefined> {
    const { journals } = this
    return journals === undefined
      ? Effect.succeed(undefined)
      : journalOrNone(Effect.zipLeft(journals.create(id, ""), journals.setCurrent(id)))
  }

  private connection(
    id: string,
    physical: Physical,
    journal: Journal | undefined,
    snapshot: Found["snapshot"] | undefined
  ): ResumedConnection {
    const settings = ConnectionModule.settings(this.options, { role: "client" })
    if (journal !== undefined) this.journalsOf.set(id, journal)
    return new ResumedConnection(id, physical, this.resume, settings, this.clock, this, journal, snapshot)
  }

  detached(): void {}

  over(connection: ResumedConnection): void {
    const journal = this.journalsOf.get(connection.id)
    this.journalsOf.delete(connection.id)
    if (journal !== undefined && !connection.isSuspended) Effect.runFork(journal.remove)
  }
}

const refuse = (physical: Physical, detail: string): Effect.Effect<never, HandshakeError> =>
  Effect.suspend(() => {
    physical.unsafeClose(CloseCode.protocolError, `resume: ${detail}`)
    const cause = new ResumeViolation({ detail })
    return Effect.fail(new HandshakeError({ phase: "Response", reason: "Invalid", detail: "no session", cause }))
  })
