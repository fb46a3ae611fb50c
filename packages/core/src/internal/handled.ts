/** A connection that was accepted outside a router, and the fiber that handles it, until nothing is left of either. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import type * as Scheduler from "effect/Scheduler"
import * as Connection from "../Connection.js"
import type { ConnectionSet, Entry } from "./ConnectionSet.js"

/** See the module. */
export class Handled<R> implements Entry {
  fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  private watchdog: Fiber.RuntimeFiber<void> | undefined

  constructor(
    readonly connection: Connection.Connection,
    private readonly connections: ConnectionSet,
    private readonly runtime: Runtime.Runtime<R>,
    private readonly handlerTimeoutMillis: number
  ) {}

  start(handler: Effect.Effect<unknown, unknown, R>, scheduler: Scheduler.Scheduler | undefined): void {
    this.connections.add(this)
    Connection.setOwner(this.connection, this)
    const options = scheduler === undefined ? { immediate: true } : { immediate: true, scheduler }
    this.fiber = Runtime.runFork(this.runtime)(handler, options)
    this.fiber.addObserver((exit) => {
      this.watchdog?.unsafeInterruptAsFork(this.watchdog.id())
      const finish = Effect.zipRight(explain(exit), Connection.leave(this.connection, exit))
      Runtime.runFork(this.runtime)(Effect.uninterruptible(finish), { immediate: true }).addObserver(() =>
        this.connections.delete(this)
      )
    })
  }

  /** A handler that goes on without its connection does so for a while, then it is interrupted. */
  connectionGone(): void {
    const { connection, fiber } = this
    if (fiber === undefined || fiber.unsafePoll() !== null) return
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
