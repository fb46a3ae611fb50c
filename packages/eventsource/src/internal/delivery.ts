/**
 * One response from its first byte to its last: what it joins meanwhile, and everything that can end it.
 *
 * Either in the fiber of a platform that waits for the body, or detached: then the request is over, and what an idle
 * subscriber weighs is the platform's connection, this, and the fiber of a stream that is pulled.
 */

import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as FiberRefs from "effect/FiberRefs"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Codec from "../codec/index.js"
import * as Detached from "./detached.js"
import * as Direct from "./direct.js"
import * as Outlet from "./outlet.js"
import { type Allowance, Subscriber } from "./subscriber.js"
import * as Ticker from "./ticker.js"
import { type Wire, wire } from "./wire.js"

/** What the options of responses come to, made once for all of them. */
export interface Settings {
  /** The bytes that every response begins with. */
  readonly first: Wire
  /** The interval of the comments in milliseconds; undefined: none are sent. */
  readonly keepAlive: number | undefined
  readonly allowance: Allowance
}

/** Deliveries that are stopped together, and whether they were. */
export interface Together {
  readonly deliveries: Set<Delivery>
  stopped: boolean
}

/** Where a delivery is written, and who may end it. */
export interface Place {
  readonly outlet: Outlet.Outlet
  /** Those that are stopped together. */
  readonly openStreams: Together | undefined
  /** What the server calls before it closes. */
  readonly beforeClose: Set<() => void> | undefined
}

export const heartbeat: Wire = wire(Codec.heartbeat)

export class Delivery {
  readonly subscriber: Subscriber
  private readonly outlet: Outlet.Outlet
  private readonly openStreams: Together | undefined
  private readonly beforeClose: Set<() => void> | undefined
  private readonly ticker: Ticker.Ticker | undefined
  private leave: (() => void) | undefined
  /** The fiber that runs the stream. */
  fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  /** Whether a slow reader was cut. */
  wasCut = false
  private waiting: Array<() => void> | undefined

  constructor({ beforeClose, openStreams, outlet }: Place, settings: Settings, clock: Clock.Clock) {
    this.outlet = outlet
    this.openStreams = openStreams
    this.beforeClose = beforeClose
    this.subscriber = new Subscriber(outlet, settings.allowance, this)
    this.ticker = settings.keepAlive === undefined ? undefined : Ticker.of(clock, settings.keepAlive)
  }

  /** Sends the first bytes, and subscribes. Answers what is to be run, if there is anything. */
  begin<E, R>({ first }: Settings, source: Direct.Subscribe<E, R>): Direct.Subscription<E, R>["run"] {
    this.openStreams?.deliveries.add(this)
    this.beforeClose?.add(this.stop)
    this.ticker?.join(this)
    this.outlet.open(first)
    const { leave, run } = source(this.subscriber)
    this.leave = leave
    return run
  }

  /** Ends one that was begun too late: while other pre-response handlers ran, all were stopped. */
  stopIfLate(): void {
    if (this.openStreams?.stopped === true) this.stop()
  }

  /** Ends the stream. */
  interrupt(by: FiberId.FiberId): void {
    this.fiber?.unsafeInterruptAsFork(by)
  }

  /** The time of a heartbeat has come: bytes that wait are as good. */
  tick(): void {
    if (this.outlet.bufferedBytes() === 0) this.outlet.write(heartbeat)
  }

  /** Ends the response as it should end, and the stream. */
  readonly stop = (): void => {
    this.outlet.end(Outlet.patience)
    this.interrupt(FiberId.none)
  }

  /** Breaks the connection of a slow reader. */
  cut(): void {
    if (this.wasCut) return
    this.wasCut = true
    this.outlet.abort(() => this.interrupt(FiberId.none))
  }

  /** The stream is over: ends the response, or breaks the connection if it failed. Completes when that is done. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.leave?.()
      this.ticker?.leave(this)
      this.beforeClose?.delete(this.stop)
      if (isBroken(exit)) return Effect.async<void>((resume) => this.outlet.abort(() => resume(Effect.void)))
      if (!this.wasCut) this.outlet.end()
      return Effect.void
    })
  }

  /** Nothing is left of it. */
  forget(): void {
    this.openStreams?.deliveries.delete(this)
    for (const resume of this.waiting ?? []) resume()
    this.waiting = undefined
  }

  /** Waits until nothing is left of it. */
  get gone(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      if (this.openStreams?.deliveries.has(this) !== true) resume(Effect.void)
      else (this.waiting ??= []).push(() => resume(Effect.void))
    })
  }
}

/** Whether a stream failed, rather than ended or was told to end. */
export const isBroken = <E>(exit: Exit.Exit<unknown, E>): exit is Exit.Failure<never, E> =>
  Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)

/** A reader was too slow, and the policy is to cut. */
class SlowReaderCut extends Error {
  override readonly name = "SlowReaderCut"
  override readonly message = "The reader of an event stream was too slow, and was cut"
}

/** Serves a response in the fiber that runs this, to its end. Fails as the stream does. */
export const serve = <E, R>(
  place: Place,
  settings: Settings,
  source: Direct.Subscribe<E, R>,
  context: Context.Context<R>
): Effect.Effect<void, E> =>
  Effect.clockWith((clock) =>
    Effect.withFiberRuntime((fiber) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const delivery = new Delivery(place, settings, clock)
          delivery.fiber = fiber
          const run = delivery.begin(settings, source) ?? Direct.forever
          delivery.stopIfLate()
          return { delivery, run }
        }),
        ({ run }) => Effect.provide(Effect.scoped(run), context),
        ({ delivery }, exit) =>
          Effect.flatMap(delivery.end(exit), () => {
            delivery.forget()
            return delivery.wasCut ? Effect.die(new SlowReaderCut()) : Effect.void
          })
      )
    )
  )

/** What a detached delivery has of its request. */
export interface Request<R> {
  readonly clock: Clock.Clock
  readonly context: Context.Context<R>
  readonly refs: FiberRefs.FiberRefs
  /** The request's, which is closed when the delivery is over. */
  readonly scope: Scope.CloseableScope
  /** Calls back when the client has left, or the response is done. */
  readonly onClose: (left: () => void) => void
}

/**
 * Serves a response from now on, whatever becomes of the request. Where the source needs a fiber the stream runs in one of
 * its own, and a failure is logged there. (The request's fiber, with what it refers to, would weigh three times the connection.)
 */
export const detach = <E, R>(
  place: Place,
  settings: Settings,
  source: Direct.Subscribe<E, R>,
  { clock, context, onClose, refs, scope }: Request<R>
): void => {
  const delivery = new DetachedDelivery(place, settings, clock, scope)
  onClose(delivery.left)
  delivery.start(delivery.begin(settings, source), context, refs)
  delivery.stopIfLate()
}

class DetachedDelivery extends Delivery {
  /** Where there is no fiber: what its end runs in, until then. */
  private runtime: Runtime.Runtime<never> | undefined

  constructor(
    place: Place,
    settings: Settings,
    clock: Clock.Clock,
    private readonly scope: Scope.CloseableScope
  ) {
    super(place, settings, clock)
  }

  /**
   * The scope of the stream is its own: that of the request may be one which a middleware closes when the head is sent.
   */
  start<E, R>(
    run: Effect.Effect<void, E, R | Scope.Scope> | undefined,
    context: Context.Context<R>,
    refs: FiberRefs.FiberRefs
  ): void {
    if (run === undefined) {
      this.runtime = Detached.runtime(context, this.scope, refs)
      return
    }
    const scope = Effect.runSync(Scope.make())
    Runtime.runFork(Detached.runtime(context, scope, refs))(runIn(this, run)).addObserver((exit) =>
      this.finish(exit, scope)
    )
  }

  readonly left = (): void => this.interrupt(clientAbortFiberId)

  override interrupt(by: FiberId.FiberId): void {
    if (this.runtime !== undefined) this.finish(Exit.interrupt(by))
    else super.interrupt(by)
  }

  private finish<E>(exit: Exit.Exit<void, E>, streamScope?: Scope.CloseableScope): void {
    const runtime = this.runtime ?? Detached.runtimeOf(this.fiber!)
    this.runtime = undefined
    const closed = streamScope === undefined ? Effect.void : Scope.close(streamScope, exit)
    const done = Effect.zipRight(closed, Scope.close(this.scope, exit))
    Runtime.runFork(runtime)(Effect.zipRight(this.end(exit), Effect.zipRight(this.report(exit), done))).addObserver(
      () => this.forget()
    )
  }

  private report<E>(exit: Exit.Exit<void, E>): Effect.Effect<void> {
    if (isBroken(exit)) return Effect.logError("an event stream failed, and its connection was broken", exit.cause)
    return this.wasCut ? Effect.logDebug(new SlowReaderCut().message) : Effect.void
  }
}

/** The fiber is known before anything runs that may end it. */
const runIn = <E, R>(delivery: Delivery, run: Effect.Effect<void, E, R>): Effect.Effect<void, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    delivery.fiber = fiber
    return run
  })
