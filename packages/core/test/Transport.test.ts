import { assert, describe, it } from "@effect/vitest"
import { Connection, TestTransport, Transport } from "@effect-ws/core"
import { Chunk, Deferred, Effect, Exit, Fiber, Queue, Ref, Scope, Stream } from "effect"
import { connectionContract, failureOf } from "./contract/connectionContract.js"
import { bytes, Recorder } from "./recorder.js"

const settle = Effect.promise(async () => {
  for (let i = 0; i < 8; i++) await new Promise<void>((resume) => setImmediate(resume))
})

type Sent = Uint8Array | "end" | "reset"

/** A transport from Queues of bytes: what a program makes of message ports. */
const overQueues = (incoming: Queue.Queue<Sent>, outgoing: Queue.Queue<Sent>) =>
  Transport.fromEffect({
    incoming: Stream.fromQueue(incoming).pipe(
      Stream.takeWhile((one) => one !== "end"),
      Stream.mapEffect((one) => (one instanceof Uint8Array ? Effect.succeed(one) : Effect.fail("reset")))
    ),
    write: (chunks) => outgoing.offerAll(chunks.map((chunk) => chunk.slice())),
    end: outgoing.offer("end"),
    abort: outgoing.offer("reset")
  })

connectionContract("over Transport.fromEffect", (options) =>
  Effect.gen(function* () {
    // Bounded, so that a peer that does not read is felt.
    const [there, back] = [yield* Queue.bounded<Sent>(2), yield* Queue.bounded<Sent>(2)]
    // `abort` must get through a full queue.
    const unblocked = (queue: Queue.Queue<Sent>, other: Queue.Queue<Sent>) =>
      Transport.fromEffect({
        incoming: Stream.fromQueue(queue, { maxChunkSize: 1 }).pipe(
          Stream.takeWhile((one) => one !== "end"),
          Stream.mapEffect((one) => (one instanceof Uint8Array ? Effect.succeed(one) : Effect.fail("reset")))
        ),
        write: (chunks) => Effect.forEach(chunks, (chunk) => other.offer(chunk.slice()), { discard: true }),
        end: other.offer("end"),
        abort: Effect.zipRight(Effect.zipRight(other.shutdown, queue.shutdown), Effect.void)
      })
    const client = yield* Connection.make(yield* unblocked(back, there), { ...options?.client, role: "client" })
    const server = yield* Connection.make(yield* unblocked(there, back), { ...options?.server, role: "server" })
    return { client, server }
  })
)

describe("fromEffect", () => {
  it.scoped("reads, writes and ends in order; nothing is called from inside a call", () =>
    Effect.gen(function* () {
      const [incoming, outgoing] = [yield* Queue.unbounded<Sent>(), yield* Queue.unbounded<Sent>()]
      const transport = yield* overQueues(incoming, outgoing)
      const recorder = new Recorder()
      yield* incoming.offer(bytes(1))
      transport.open(recorder)
      assert.isFalse(transport.write([bytes(2), bytes(3, 4)]))
      assert.strictEqual(transport.bufferedBytes(), 3)
      transport.end()
      assert.deepStrictEqual(recorder.events, [])
      yield* settle
      assert.deepStrictEqual(recorder.events, ["drain", "data 1"].sort().reverse())
      assert.strictEqual(transport.bufferedBytes(), 0)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* outgoing.takeAll), [bytes(2), bytes(3, 4), "end"])
      yield* incoming.offer("end")
      yield* settle
      assert.deepStrictEqual(recorder.events.slice(2), ["end", "close"])
      assert.strictEqual(recorder.error, undefined)
    })
  )

  it.scoped("what is written while a write runs goes out as one array when it is done", () =>
    Effect.gen(function* () {
      const writes: Array<ReadonlyArray<Uint8Array>> = []
      const gate = yield* Queue.unbounded<void>()
      const recorder = new Recorder()
      const transport = yield* Transport.fromEffect({
        incoming: Stream.never,
        write: (chunks) =>
          Effect.zipRight(
            Effect.sync(() => writes.push(chunks)),
            gate.take
          ),
        end: Effect.void,
        abort: Effect.void
      })
      transport.open(recorder)
      transport.write([bytes(1)])
      yield* settle
      transport.write([bytes(2)])
      transport.write([bytes(3), bytes(4)])
      assert.strictEqual(transport.bufferedBytes(), 4)
      yield* gate.offer(undefined)
      yield* settle
      assert.deepStrictEqual(writes, [[bytes(1)], [bytes(2), bytes(3), bytes(4)]])
      assert.strictEqual(transport.bufferedBytes(), 3)
      assert.deepStrictEqual(recorder.events, [])
      yield* gate.offer(undefined)
      yield* settle
      assert.deepStrictEqual(recorder.events, ["drain"])
    })
  )

  it.scoped("incoming is pulled only when the connection wants more", () =>
    Effect.gen(function* () {
      let pulled = 0
      const recorder = new Recorder()
      const transport = yield* Transport.fromEffect({
        incoming: Stream.repeatEffect(Effect.sync(() => bytes(++pulled))),
        write: () => Effect.void,
        end: Effect.void,
        abort: Effect.void
      })
      recorder.onData = (chunk) => {
        recorder.events.push(`data ${chunk.join(",")}`)
        if (recorder.events.length % 3 === 0) transport.pause()
      }
      transport.open(recorder)
      yield* settle
      assert.strictEqual(recorder.events.length, 3)
      const before = pulled
      yield* settle
      assert.strictEqual(pulled, before)
      transport.resume()
      yield* settle
      assert.strictEqual(recorder.events.length, 6)
    })
  )

  it.scoped("errors of either side cut with the reason, the cause and one abort", () =>
    Effect.gen(function* () {
      const failing = [
        ["Read", Stream.fail("bad read"), Effect.void, "bad read"],
        ["Read", Stream.die("defect"), Effect.void, "defect"],
        ["Write", Stream.never, Effect.fail("bad write"), "bad write"]
      ] as const
      for (const [reason, incoming, write, cause] of failing) {
        const aborts = yield* Ref.make(0)
        const recorder = new Recorder()
        const transport = yield* Transport.fromEffect({
          incoming,
          write: () => write,
          end: Effect.void,
          abort: Ref.update(aborts, (n) => n + 1)
        })
        transport.open(recorder)
        transport.write([bytes(1)])
        yield* settle
        assert.strictEqual(recorder.events.at(-1), "close")
        assert.deepInclude(recorder.error, { _tag: "TransportError", reason, cause })
        transport.abort()
        transport.write([bytes(2)])
        yield* settle
        assert.strictEqual(yield* aborts, 1)
        assert.strictEqual(recorder.events.filter((event) => event === "close").length, 1)
      }
    })
  )

  it.scoped("a connection over it fails with 1006 and the cause", () =>
    Effect.gen(function* () {
      const [incoming, outgoing] = [yield* Queue.unbounded<Sent>(), yield* Queue.unbounded<Sent>()]
      const connection = yield* Connection.make(yield* overQueues(incoming, outgoing), { role: "server" })
      yield* incoming.offer("reset")
      const error = yield* failureOf(connection.take)
      assert.deepInclude(error, { _tag: "ConnectionClosed", code: 1006 })
      assert.include((error as Error).message, "the transport failed (Read): reset")
    })
  )

  it.effect.each([
    { made: "anywhere", region: Effect.interruptible },
    { made: "in an uninterruptible region", region: Effect.uninterruptible }
  ])("made $made: leaving the Scope runs abort to its end, and interrupts reading and writing", ({ region }) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const log = yield* Ref.make<ReadonlyArray<string>>([])
      const note = (what: string) => Ref.update(log, (all) => [...all, what])
      const gate = yield* Deferred.make<void>()
      const recorder = new Recorder()
      const transport = yield* Scope.extend(
        Transport.fromEffect({
          incoming: Stream.fromEffect(Effect.onInterrupt(Effect.never, () => note("read interrupted"))),
          write: () => Effect.onInterrupt(Effect.never, () => note("write interrupted")),
          end: note("end"),
          abort: Effect.zipRight(Deferred.await(gate), note("abort"))
        }).pipe(region),
        scope
      )
      transport.open(recorder)
      transport.write([bytes(1)])
      yield* settle
      const leaving = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* settle
      assert.deepStrictEqual([...(yield* log)].sort(), ["read interrupted", "write interrupted"])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(leaving)
      assert.include(yield* log, "abort")
      assert.notInclude(yield* log, "end")
      yield* settle
      assert.deepStrictEqual(recorder.events, ["close"])
    })
  )
})

describe("join", () => {
  /** Two lines with a proxy between them. */
  const joined = Effect.gen(function* () {
    const [a, left] = yield* TestTransport.pair()
    const [b, right] = yield* TestTransport.pair()
    const joining = yield* Effect.fork(Transport.join(left, right))
    const [heardA, heardB] = [new Recorder(), new Recorder()]
    a.open(heardA)
    b.open(heardB)
    yield* settle
    return { a, b, heardA, heardB, left, right, joining }
  })

  /** Without when it drained. */
  const told = ({ events }: Recorder) => events.filter((event) => event !== "drain")

  it.effect("passes bytes and the end of each direction, and ends with both", () =>
    Effect.gen(function* () {
      const { a, b, heardA, heardB, joining } = yield* joined
      a.write([Uint8Array.of(1, 2)])
      b.write([Uint8Array.of(3)])
      yield* settle
      a.end()
      yield* settle
      assert.deepStrictEqual([told(heardA), told(heardB)], [["data 3"], ["data 1,2", "end"]])
      // One direction is open still
      b.write([Uint8Array.of(4)])
      yield* settle
      b.end()
      yield* Fiber.join(joining)
      yield* settle
      assert.deepStrictEqual(told(heardA), ["data 3", "data 4", "end", "close"])
      assert.deepStrictEqual(told(heardB), ["data 1,2", "end", "close"])
    })
  )

  it.effect("a side that is lost cuts the other one, and is the failure", () =>
    Effect.gen(function* () {
      const { a, heardB, joining } = yield* joined
      yield* a.cut
      assert.strictEqual((yield* failureOf(Fiber.join(joining)))._tag, "TransportError")
      yield* settle
      assert.strictEqual(heardB.events.at(-1), "close")
    })
  )

  it.effect("interruption cuts both", () =>
    Effect.gen(function* () {
      const { heardA, heardB, joining } = yield* joined
      yield* Fiber.interrupt(joining)
      yield* settle
      assert.deepStrictEqual([heardA.events.at(-1), heardB.events.at(-1)], ["close", "close"])
    })
  )

  it.effect("a side that does not take its bytes makes the other wait", () =>
    Effect.gen(function* () {
      const { a, heardB, right } = yield* joined
      yield* right.stall
      for (let i = 0; i < 10; i++) {
        a.write([new Uint8Array(0x8000)])
        yield* settle
      }
      assert.isBelow(right.bufferedBytes(), 0x20000)
      assert.isAbove(a.bufferedBytes(), 0)
      assert.deepStrictEqual(heardB.events, [])
      yield* right.flow
      yield* settle
      yield* settle
      assert.strictEqual(heardB.events.length, 10)
      assert.strictEqual(a.bufferedBytes(), 0)
    })
  )
})
