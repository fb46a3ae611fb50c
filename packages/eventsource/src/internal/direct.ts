/**
 * Streams that can also write to a subscriber themselves, without a fiber or a Channel for each event.
 */
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Subscriber } from "./subscriber.js"

const DirectTypeId: unique symbol = Symbol.for("@effect-ws/eventsource/Direct") as never

/** Serves a subscriber until there is no more to send; interrupted when the subscriber leaves. */
export type Serve<E> = (subscriber: Subscriber) => Effect.Effect<void, E>

/** Marks this very stream; what is derived from it by an operator is an ordinary stream. */
export const make = <A, E, R>(stream: Stream.Stream<A, E, R>, serve: Serve<E>): Stream.Stream<A, E, R> =>
  Object.assign(stream, { [DirectTypeId]: serve })

export const get = <A, E, R>(stream: Stream.Stream<A, E, R>): Serve<E> | undefined =>
  (stream as { readonly [DirectTypeId]?: Serve<E> })[DirectTypeId]
