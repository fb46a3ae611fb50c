/** A connection that was accepted outside a router, and the fiber that handles it, until nothing is left of either. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import type * as Scheduler from "effect/Scheduler"
import * as Connection from "../Connection.js"
import type { ConnectionSet, Entry } from "./ConnectionSet.js"

/** Whether the handler runs from the beginning, or costs no fiber before there is a message to take. */
export type Begins = "on opening" | "on input"

/** See the module. */
export class Handled<R> implements Entry {
  private fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  private watchdog: Fiber.RuntimeFiber<void> | undefined
  private hasEnded = false

  constructor(
    readonly connection: Connection.Connection,
    private readonly connections: ConnectionSet,
    private readonly runtime: Runtime.Runtime<R>,
    private readonly handlerTimeoutMillis: number,
    private readonly handler: (connection: Connection.Connection) => Effect.Effect<unknown, unknown, R>,
    private readonly scheduler: Scheduler.Scheduler | undefined
  ) {}

  start(begins: Begins): void {
    this.connections.add(this)
    Connection.setOwner(this.connection, this)
    if (begins === "on opening") this.fork(true)
    else Connection.unsafeAwaitInput(this.connection, () => this.onInput())
  }

  private onInput(): void {
    // Interrupted before it.
    if (this.hasEnded) return
    const end = Connection.unsafeEnd(this.connection)
    if (end === undefined) this.fork(false)
    else this.ended(end)
  }

  private fork(immediate: boolean): void {
    const { connection, handler, scheduler } = this
    this.fiber = Runtime.runFork(this.runtime)(
      Effect.suspend(() => handler(connection)),
      scheduler === undefined ? { immediate } : { immediate, scheduler }
    )
    this.fiber.addObserver((exit) => this.ended(exit))
  }

  interrupt(): void {
    if (this.fiber !== undefined) this.fiber.unsafeInterruptAsFork(FiberId.none)
    else if (!this.hasEnded) this.ended(Exit.interrupt(FiberId.none))
  }

  private ended(exit: Exit.Exit<unknown, unknown>): void {
    this.hasEnded = true
    this.watchdog?.unsafeInterruptAsFork(this.watchdog.id())
    const finish = Effect.zipRight(explain(exit), Connection.leave(this.connection, exit))
    Runtime.runFork(this.runtime)(Effect.uninterruptible(finish), { immediate: true }).addObserver(() =>
      this.connections.delete(this)
    )
  }

  /** A handler that goes on without its connection does so for a while, then it is interrupted. */
  connectionGone(): void {
    const { connection, fiber } = this
    if (fiber === undefined || this.hasEnded) return
    const watch = Effect.sleep(this.handlerTimeoutMillis).pipe(
      Effect.repeat({ while: () => Connection.hasMessages(connection) }),
      Effect.zipRight(Effect.sync(() => fiber.unsafeInterruptAsFork(fiber.id())))
    )
    this.watchdog = Runtime.runFork(this.runtime)(watch)
  }
}

/** That the connection ended is no failure of the handler. */
const explain = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> => {
  if (Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)) return Effect.void
  const failure = Cause.failureOrCause(exit.cause)
  return failure._tag === "Left" && Connection.isFailure(failure.left)
    ? Effect.logDebug("WebSocket connection ended", failure.left)
    : Effect.logError("the handler of a WebSocket connection failed", exit.cause)
}
