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
import * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Codec from "../codec/index.js"
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

/** Where a delivery is written, and who may end it. */
export interface Place {
  readonly outlet: Outlet.Outlet
  /** The open streams that are stopped together. */
  readonly openStreams: Set<Delivery> | undefined
  /** What the server calls before it closes. */
  readonly beforeClose: Set<() => void> | undefined
}

export const heartbeat: Wire = wire(Codec.heartbeat)

export class Delivery {
  readonly subscriber: Subscriber
  private readonly outlet: Outlet.Outlet
  private readonly openStreams: Set<Delivery> | undefined
  private readonly beforeClose: Set<() => void> | undefined
  private readonly ticker: Ticker.Ticker | undefined
  private subscription: Direct.Subscription<unknown, any> | undefined
  /** Whether a slow reader was cut. */
  wasCut = false
  /** Ends it from outside: interrupts the fiber that runs the stream. */
  interrupt: (by: FiberId.FiberId) => void = () => {}
  private waiting: Array<() => void> | undefined

  constructor({ beforeClose, openStreams, outlet }: Place, settings: Settings, clock: Clock.Clock) {
    this.outlet = outlet
    this.openStreams = openStreams
    this.beforeClose = beforeClose
    this.subscriber = new Subscriber(outlet, settings.allowance, this)
    this.ticker = settings.keepAlive === undefined ? undefined : Ticker.of(clock, settings.keepAlive)
  }

  /** Sends the first bytes, and subscribes. */
  begin<E, R>({ first }: Settings, source: Direct.Subscribe<E, R>): Direct.Subscription<E, R> {
    this.openStreams?.add(this)
    this.beforeClose?.add(this.stop)
    this.ticker?.join(this)
    this.outlet.open(first)
    const subscription = source(this.subscriber)
    this.subscription = subscription
    return subscription
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
      this.subscription?.leave()
      this.ticker?.leave(this)
      this.beforeClose?.delete(this.stop)
      if (isBroken(exit)) return Effect.async<void>((resume) => this.outlet.abort(() => resume(Effect.void)))
      if (!this.wasCut) this.outlet.end()
      return Effect.void
    })
  }

  /** Nothing is left of it. */
  forget(): void {
    this.openStreams?.delete(this)
    for (const resume of this.waiting ?? []) resume()
    this.waiting = undefined
  }

  /** Waits until nothing is left of it. */
  get gone(): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      if (this.openStreams?.has(this) !== true) resume(Effect.void)
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
    Effect.withFiberRuntime((fiber) => {
      const delivery = new Delivery(place, settings, clock)
      delivery.interrupt = (by) => fiber.unsafeInterruptAsFork(by)
      const { run = Direct.forever } = delivery.begin(settings, source)
      return Effect.onExit(Effect.provide(run, context), (exit) =>
        Effect.flatMap(delivery.end(exit), () => {
          delivery.forget()
          return delivery.wasCut ? Effect.die(new SlowReaderCut()) : Effect.void
        })
      )
    })
  )

/** What a detached delivery has of its request. */
export interface Request<R> {
  readonly clock: Clock.Clock
  readonly runtime: Runtime.Runtime<R>
  /** Closed when the delivery is over. */
  readonly scope: Scope.CloseableScope
  /** Calls back when the client has left, or the response is done. */
  readonly onClose: (left: () => void) => void
}

/**
 * Serves a response from now on, whatever becomes of the request. Where the source needs a fiber the stream runs in one of
 * its own; a failure is logged there. (A fiber, with the request's Scope and Context, would weigh more than the connection.)
 */
export const detach = <E, R>(
  place: Place,
  settings: Settings,
  source: Direct.Subscribe<E, R>,
  { clock, onClose, runtime, scope }: Request<R>
): void => {
  const delivery = new Delivery(place, settings, clock)
  const finish = (exit: Exit.Exit<void, E>): void => {
    delivery.interrupt = () => {}
    Runtime.runFork(runtime)(
      Effect.zipRight(delivery.end(exit), Effect.zipRight(report(delivery, exit), Scope.close(scope, exit)))
    ).addObserver(() => delivery.forget())
  }
  onClose(() => delivery.interrupt(clientAbortFiberId))
  const { run } = delivery.begin(settings, source)
  if (run === undefined) {
    delivery.interrupt = (by) => finish(Exit.interrupt(by))
    return
  }
  Runtime.runFork(runtime)(
    Effect.withFiberRuntime<void, E, R>((fiber) => {
      delivery.interrupt = (by) => fiber.unsafeInterruptAsFork(by)
      return run
    })
  ).addObserver(finish)
}

const report = <E>(delivery: Delivery, exit: Exit.Exit<void, E>): Effect.Effect<void> =>
  isBroken(exit)
    ? Effect.logError("an event stream failed, and its connection was broken", exit.cause)
    : delivery.wasCut
      ? Effect.logDebug(new SlowReaderCut().message)
      : Effect.void
