/**
 * Every Effect primitive whose name or shape differs between Effect 3 and Effect 4 and which more than one module uses,
 * so that an edition for Effect 4 changes this file first.
 */
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as CloseCode from "../engine/CloseCode.js"

/** The close code that a handler's or scope's exit stands for: 1000, interrupted 1001, failed 1011. */
export const exitCloseCode = (exit: Exit.Exit<unknown, unknown>): number =>
  exit._tag === "Success"
    ? CloseCode.normal
    : Cause.isInterruptedOnly(exit.cause)
      ? CloseCode.goingAway
      : CloseCode.internalError

/** Where fibers read their scheduler from, and what is there when nobody chose one. */
export const standardScheduler: Scheduler.Scheduler = Scheduler.defaultScheduler
export const schedulerRef: FiberRef.FiberRef<Scheduler.Scheduler> = FiberRef.currentScheduler

/**
 * Closes a scope at once if it has nothing to release, as nearly always, which saves a fiber per connection; else gives what is
 * to be run. (Where Effect keeps a scope's state is no promise of it; a scope that looks otherwise is not touched.)
 */
export const closeScope = (
  scope: Scope.CloseableScope,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> | undefined => {
  const stateful = scope as {
    state?: { readonly _tag: string; readonly finalizers?: unknown; readonly exit?: unknown }
  }
  const finalizers = stateful.state?._tag === "Open" ? stateful.state.finalizers : undefined
  if (finalizers instanceof Map && finalizers.size === 0) {
    stateful.state = { _tag: "Closed", exit }
    return undefined
  }
  return Scope.close(scope, exit)
}
