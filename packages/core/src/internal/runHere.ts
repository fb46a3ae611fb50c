/** Running a stream of messages without a fiber of its own. */
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import { pipeArguments } from "effect/Pipeable"

type AnyChannel = Channel.Channel<any, any, any, any, any, any, any>

/**
 * Makes runs of `channel` stay in the fiber that starts them.
 *
 * `Stream.run`, and with it `runForEach`, `runFold`, ..., is `channel.pipe(Channel.pipeToOrFail(<sink>), Channel.runDrain)`.
 * `runDrain` forks: a fiber, two Scopes and two Deferreds per run, 30 to 70 microseconds and 11 KB per connection. `pipeToOrFail`
 * has two channels more than source and sink, which every wake-up and the end pass through. If a later Effect puts either
 * differently the channel is run as any other.
 */
export const runHere = <C extends object>(channel: C, run?: RunInto): C =>
  Object.assign(channel, { pipe: pipeHere, [runsInto]: run })

/** Takes what arrives together; an Effect for what is left to wait for. */
export type Put<A, E> = (elements: ReadonlyArray<A>) => Effect.Effect<void, E> | undefined

/** Runs a source into what `puts` made, without Channels: ping-pong 0.6 to 1.0 of ws. */
type RunInto = (put: Put<any, any>) => Effect.Effect<void, any>

const runsInto: unique symbol = Symbol("runsInto")
const putsBy: unique symbol = Symbol("putsBy")

/** Lets a source of {@link runHere} run into `channel`, that of a sink, by calls of `put`, which must do the same. */
export const puts = <C extends object>(channel: C, put: Put<any, any>): C => Object.assign(channel, { [putsBy]: put })

function pipeHere(this: AnyChannel, ...steps: Array<unknown>): unknown {
  const last = steps.length - 1
  if (steps[last] === Channel.runDrain) {
    steps[last] = drain
    if (last === 1) {
      const piped = (steps[0] as (channel: AnyChannel) => unknown)(this)
      const sink = sinkOf(piped, this)
      if (sink === undefined) return drain(piped as AnyChannel)
      const put = (sink as { readonly [putsBy]?: Put<any, any> })[putsBy]
      const run = (this as { readonly [runsInto]?: RunInto })[runsInto]
      return put === undefined || run === undefined ? runInto(this, sink) : run(put)
    }
  }
  return pipeArguments(this, steps as unknown as IArguments)
}

/** What `Channel.runDrain` does, without its fork. */
const drain = (channel: AnyChannel): Effect.Effect<any, any, any> =>
  Effect.scopedWith((scope) => Effect.flatMap(Channel.toPullIn(channel, scope), untilDone))

const untilDone = <Done, E, R>(pull: Effect.Effect<Either.Either<unknown, Done>, E, R>): Effect.Effect<Done, E, R> =>
  Effect.flatMap(pull, (pulled) => (pulled._tag === "Left" ? Effect.succeed(pulled.left) : untilDone(pull)))

/** A failure of the source on its way past the sink, which would handle it otherwise. */
class Bypass {
  constructor(readonly failure: unknown) {}
}

/** What `Channel.pipeToOrFail` means: the source's failure is the run's, whatever the sink does with failures. */
const runInto = (source: AnyChannel, sink: AnyChannel): Effect.Effect<any, any, any> =>
  Effect.suspend(() => {
    let bypass: Bypass | undefined
    const guarded = Channel.catchAllCause(source, (cause) => {
      const failure = Cause.failureOrCause(cause)
      if (failure._tag === "Right") return Channel.failCause(failure.right)
      bypass = new Bypass(failure.left)
      return Channel.failCause(Cause.die(bypass))
    })
    return Effect.catchAllCause(drain(Channel.pipeTo(guarded, sink)), (cause) =>
      bypass !== undefined && Cause.isDieType(cause) && cause.defect === bypass
        ? Effect.fail(bypass.failure)
        : Effect.failCause(cause)
    )
  })

type Thunk = (() => unknown) | undefined

/** The sink of `Channel.pipeToOrFail`: of a suspended `source | reader | sink | writer`, if `piped` is that. */
const sinkOf = (piped: unknown, source: AnyChannel): AnyChannel | undefined => {
  const written = leftOf((piped as { readonly channel?: Thunk }).channel?.())
  const read = leftOf(written)
  if (leftOf(read) !== source) return undefined
  return (written as { readonly right?: Thunk }).right?.() as AnyChannel | undefined
}

const leftOf = (piped: unknown): unknown => (piped as { readonly left?: Thunk } | undefined)?.left?.()
