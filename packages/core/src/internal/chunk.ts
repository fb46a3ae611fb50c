/**
 * Chunks whose memory is free when nobody has them any more.
 *
 * `Chunk.unsafeFromArray` keeps the array in an object literal. In every second process or so V8 has decided, by what Effect makes while it is imported,
 * that such literals live long, and makes each of them old from the start; then all messages that came in a Chunk stay until the whole heap is collected. Small
 * collections took 8 milliseconds instead of 1.4, and a client that pipelines ran at 0.6 of its speed. Instances of a class are never made old.
 */
import * as Chunk from "effect/Chunk"

/** What a Chunk has in it, as Effect tells it. */
interface Backing {
  readonly _tag: string
  array?: unknown
  a?: unknown
}

class ArrayBacking implements Backing {
  readonly _tag = "IArray"
  constructor(public array: ReadonlyArray<unknown>) {}
}

const none: ReadonlyArray<never> = []

/** `Chunk.unsafeFromArray`. Where a later Effect keeps the array differently it is left as it is. */
export const chunkOf = <A>(array: ReadonlyArray<A>): Chunk.Chunk<A> => {
  const chunk = Chunk.unsafeFromArray(array)
  const keeper = chunk as { backing?: Backing }
  const { backing } = keeper
  if (backing?._tag === "IArray" && backing.array === array) backing.array = none
  else if (backing?._tag === "ISingleton" && backing.a === array[0]) backing.a = undefined
  else return chunk
  keeper.backing = new ArrayBacking(array)
  return chunk
}
