import { Cause, Channel, Chunk, Effect, Exit, Fiber, FiberId, FiberRef, Sink, Stream } from "effect"
import { describe, expect, it } from "vitest"
import { runHere } from "../src/internal/runHere.js"

/** What was released, in order, beside what a run gave. */
const tracked = <E>(end: Channel.Channel<never, unknown, E, unknown, void, unknown>) => {
  const released: Array<string> = []
  const channel = Channel.write(Chunk.make(1, 2, 3)).pipe(
    Channel.zipRight(Channel.write(Chunk.make(4))),
    Channel.zipRight(end),
    Channel.ensuringWith((exit) => Effect.sync(() => released.push(exit._tag)))
  )
  return { released, here: Stream.fromChannel(runHere(channel)), forked: Stream.fromChannel(channel) }
}

const runs: Record<string, <E>(stream: Stream.Stream<number, E>) => Effect.Effect<unknown, E | string>> = {
  runDrain: Stream.runDrain,
  runFold: Stream.runFold(0, (sum, n) => sum + n),
  "a sink that leaves a rest": Stream.run(Sink.take<number>(2)),
  "a sink that fails": Stream.run(Sink.fail("sink")),
  "a sink whose effect fails": Stream.runForEach(() => Effect.fail("effect")),
  "a sink whose effect dies": Stream.runForEach(() => Effect.die("defect")),
  "a sink that handles what comes to it": Stream.run(
    Sink.fromChannel(
      Channel.readWithCause({
        onInput: () => Channel.fail("input"),
        onFailure: () => Channel.succeed("handled"),
        onDone: () => Channel.succeed("done")
      })
    )
  ),
  "a sink that is not asked for more": Stream.run(Sink.succeed(1)),
  "another stream of it": (stream) => Stream.runCollect(Stream.map(stream, (n) => n * 2))
}

const ends: Record<string, Channel.Channel<never, unknown, string, unknown, void, unknown>> = {
  "a clean end": Channel.void,
  "a failure": Channel.fail("source"),
  "a defect": Channel.failCause(Cause.die("defect"))
}

describe("a run in the fiber that starts it", () => {
  for (const [name, run] of Object.entries(runs)) {
    for (const [what, end] of Object.entries(ends)) {
      it(`${name}, ${what}: gives and releases what Effect's own run does`, async () => {
        const expected = tracked(end)
        const actual = tracked(end)
        const exit = await Effect.runPromiseExit(run(actual.here))
        expect(exit).toEqual(await Effect.runPromiseExit(run(expected.forked)))
        expect(actual.released).toEqual(expected.released)
      })
    }
  }

  it("runs every message in that fiber", async () => {
    const ids = Effect.gen(function* () {
      const seen: Array<FiberId.FiberId> = []
      yield* Stream.runForEach(tracked(Channel.void).here, () => Effect.map(Effect.fiberId, (id) => seen.push(id)))
      return { seen, own: yield* Effect.fiberId }
    })
    const { own, seen } = await Effect.runPromise(ids)
    expect(seen).toEqual([own, own, own, own])
  })

  it("keeps what the sink set in FiberRefs", async () => {
    const ref = FiberRef.unsafeMake(0)
    const set = Stream.runForEach(tracked(Channel.void).here, (n) => FiberRef.set(ref, n))
    expect(await Effect.runPromise(Effect.zipRight(set, FiberRef.get(ref)))).toBe(4)
  })

  it("releases when it is interrupted, before the interruption is over", async () => {
    const { here, released } = tracked(Channel.fromEffect(Effect.never))
    const fiber = Effect.runFork(Stream.runDrain(here))
    const exit = await Effect.runPromise(Fiber.interruptAs(fiber, FiberId.none))
    expect(Exit.isInterrupted(exit)).toBe(true)
    expect(released).toEqual(["Failure"])
  })
})
