/**
 * Streams that can also write to a subscriber themselves, without a fiber or a Channel for each event.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Subscriber } from "./subscriber.js"

const DirectTypeId: unique symbol = Symbol.for("@effect-ws/eventsource/Direct") as never

/** A subscription that was begun: it ends when `run` does, without it never by itself; `leave` is called in any case. */
export interface Subscription<E, R = never> {
  readonly run: Effect.Effect<void, E, R | Scope.Scope> | undefined
  readonly leave: () => void
}

/** `Effect.never` without its timer, of which each would weigh as much as the rest of a subscription. */
export const forever: Effect.Effect<never> = Effect.async<never>(() => {})

/** Subscribes, and writes to the subscriber from then on. */
export type Subscribe<E, R = never> = (subscriber: Subscriber) => Subscription<E, R>

/** Marks this very stream; what is derived from it by an operator is an ordinary stream. */
export const make = <A, E, R>(stream: Stream.Stream<A, E, R>, subscribe: Subscribe<E>): Stream.Stream<A, E, R> =>
  Object.assign(stream, { [DirectTypeId]: subscribe })

export const get = <A, E, R>(stream: Stream.Stream<A, E, R>): Subscribe<E> | undefined =>
  (stream as { readonly [DirectTypeId]?: Subscribe<E> })[DirectTypeId]
