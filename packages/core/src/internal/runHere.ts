/** Running a stream of messages without a fiber of its own. */
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import { pipeArguments } from "effect/Pipeable"

type AnyChannel = Channel.Channel<any, unknown, any, any, any, any, any>

/**
 * Makes runs of `channel` stay in the fiber that starts them.
 *
 * `Stream.run`, and with it `runForEach`, `runFold`, ..., is `channel.pipe(<sink>, Channel.runDrain)`, and `runDrain` forks: a
 * fiber, two Scopes and two Deferreds per run, of 30 to 70 microseconds and 11 KB per connection. If a later Effect puts it
 * differently the channel is run as any other.
 */
export const runHere = <C extends AnyChannel>(channel: C): C => Object.assign(channel, { pipe: pipeHere })

function pipeHere(this: AnyChannel, ...steps: Array<unknown>): unknown {
  const last = steps.length - 1
  if (steps[last] === Channel.runDrain) steps[last] = drain
  return pipeArguments(this, steps as unknown as IArguments)
}

/** What `Channel.runDrain` does, without its fork. */
const drain = (channel: AnyChannel): Effect.Effect<any, any, any> =>
  Effect.scopedWith((scope) => Effect.flatMap(Channel.toPullIn(channel, scope), untilDone))

const untilDone = <Done, E, R>(pull: Effect.Effect<Either.Either<unknown, Done>, E, R>): Effect.Effect<Done, E, R> =>
  Effect.flatMap(pull, (pulled) => (pulled._tag === "Left" ? Effect.succeed(pulled.left) : untilDone(pull)))
