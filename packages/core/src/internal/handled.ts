/** An accepted connection and what handles it, until nothing is left of either. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRefs from "effect/FiberRefs"
import * as Runtime from "effect/Runtime"
import * as Connection from "../Connection.js"
import type { Message } from "../Message.js"
import type * as Upgrade from "../Upgrade.js"
import { MessageError } from "../WebSocketError.js"
import { unsendable } from "./BaseConnection.js"
import type { Entry, Place } from "./ConnectionSet.js"
import { schedulerRef, standardScheduler } from "./compat.js"
import * as Timers from "./timers.js"

/** The close frame that an application wants for a failure of its handler. */
export type CloseFrame = { readonly code: number; readonly reason?: string }

/** See the module. */
export abstract class Handled implements Entry, Connection.DirectConsumer {
  private fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  /** How the handler ended. */
  private exit: Exit.Exit<unknown, unknown> | undefined
  /** Whether the connection was told so, or nothing was left of it to tell. */
  private hasLeft = false
  /** Whether nothing is left of the connection. */
  private isGone = false
  private watchdog: Timers.Timer | undefined
  private place: Place | undefined

  constructor(
    public connection: Connection.Connection,
    private readonly runtime: Runtime.Runtime<never>,
    private readonly clock: Clock.Clock,
    private readonly server: Upgrade.UpgradeServer
  ) {}

  /** How long the handler may go on without its connection. */
  protected abstract readonly handlerTimeoutMillis: number
  /** Whose handler it is, for the log. */
  protected abstract readonly subject: string
  /** What is done with one message, of a handler that {@link startEach} began. */
  abstract onMessage(message: Message): Effect.Effect<unknown, unknown, any> | void
  /** Takes it into the sets of those who end it, and out of them. */
  protected enterSets(): void {
    this.place = this.server.connections.add(this)
  }
  protected leaveSets(): void {
    this.server.connections.delete(this.place!)
  }
  /** What is to be closed last. */
  protected closeLast(_exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    return undefined
  }
  /** The application's close frame for a failure. */
  protected closeFrame(_error: unknown): CloseFrame | undefined {
    return undefined
  }

  /** Runs the handler from now on. */
  start(run: () => Effect.Effect<unknown, unknown, any>): void {
    this.begin()
    this.fork(Effect.suspend(run), true)
  }

  /** Handles one message after the other, without a fiber before one takes more than a call. */
  startEach(): void {
    this.begin()
    Connection.unsafeConsume(this.connection, this)
  }

  private begin(): void {
    this.enterSets()
    Connection.setOwner(this.connection, this)
  }

  onLeft(rest: Effect.Effect<void, unknown, any> | undefined): void {
    if (rest === undefined) this.handlerEnded(Connection.unsafeEnd(this.connection)!)
    else this.fork(rest, false)
  }

  private fork(handler: Effect.Effect<unknown, unknown, any>, immediate: boolean): void {
    // One that the application has set stays.
    const isStandard = FiberRefs.getOrDefault(this.runtime.fiberRefs, schedulerRef) === standardScheduler
    const scheduler = isStandard ? this.server.scheduler : undefined
    const fiber = Runtime.runFork(this.runtime as Runtime.Runtime<any>)(
      handler,
      scheduler === undefined ? { immediate } : { immediate, scheduler }
    )
    this.fiber = fiber
    fiber.addObserver((exit) => this.handlerEnded(exit))
    if (this.isGone) this.watch()
  }

  interrupt(): void {
    if (this.fiber !== undefined) this.fiber.unsafeInterruptAsFork(FiberId.none)
    else if (this.exit === undefined) this.handlerEnded(Exit.interrupt(FiberId.none))
  }

  connectionGone(): void {
    this.isGone = true
    if (this.hasLeft) this.release()
    else this.watch()
  }

  /** A handler that goes on without its connection does so for a while, then it is interrupted. */
  private watch(): void {
    const { fiber, handlerTimeoutMillis } = this
    if (fiber === undefined || this.exit !== undefined) return
    const timers = Timers.of(this.clock)
    const timer = new Timers.Timer(() => {
      if (Connection.hasMessages(this.connection)) timers.set(timer, handlerTimeoutMillis)
      else fiber.unsafeInterruptAsFork(fiber.id())
    })
    this.watchdog = timer
    timers.set(timer, handlerTimeoutMillis)
  }

  private stopWatching(): void {
    if (this.watchdog !== undefined) Timers.of(this.clock).cancel(this.watchdog)
  }

  /** The handler's connection spans others, of which the one that was accepted is the first. */
  adopt(connection: Connection.Connection): void {
    this.stopWatching()
    this.connection = connection
    this.isGone = false
    Connection.setOwner(connection, this)
  }

  /** Says why if the handler failed, then closes the connection. */
  private handlerEnded(exit: Exit.Exit<unknown, unknown>): void {
    this.exit = exit
    this.stopWatching()
    if (exit._tag === "Success" || Cause.isInterruptedOnly(exit.cause)) return this.leave(exit, undefined)
    Runtime.runFork(this.runtime)(this.explain(exit.cause), { immediate: true }).addObserver((explained) =>
      this.leave(exit, explained._tag === "Success" ? explained.value : undefined)
    )
  }

  private leave(exit: Exit.Exit<unknown, unknown>, frame: CloseFrame | undefined): void {
    this.hasLeft = true
    if (this.isGone) return this.release()
    Connection.unsafeLeave(this.connection, exit, frame)
  }

  private release(): void {
    const close = this.closeLast(this.exit ?? Exit.void)
    // What is left of one that is over should not keep the rest alive between small garbage collections, nor should its connection.
    this.fiber = undefined
    Connection.disown(this.connection)
    if (close === undefined) this.leaveSets()
    else Runtime.runFork(this.runtime)(close, { immediate: true }).addObserver(() => this.leaveSets())
  }

  /** Says in the log why the handler failed, unless that is the connection's end, or there is a close frame for it. */
  private explain(cause: Cause.Cause<unknown>): Effect.Effect<CloseFrame | undefined> {
    const failure = Cause.failureOrCause(cause)
    let explained = cause
    if (failure._tag === "Left") {
      if (Connection.isFailure(failure.left) || failure.left instanceof MessageError) {
        return Effect.as(Effect.logDebug("WebSocket connection ended", failure.left), undefined)
      }
      try {
        const frame = this.closeFrame(failure.left)
        const problem = frame === undefined ? undefined : unsendable(frame.code, frame.reason ?? "")
        if (problem !== undefined) explained = Cause.sequential(cause, Cause.die(new Error(`onError: ${problem}`)))
        else if (frame !== undefined) return Effect.succeed(frame)
      } catch (defect) {
        explained = Cause.sequential(cause, Cause.die(defect))
      }
    }
    return Effect.as(Effect.logError(`the handler of ${this.subject} failed`, explained), undefined)
  }
}
