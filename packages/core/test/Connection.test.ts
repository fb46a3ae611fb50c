import { assert, describe, it } from "@effect/vitest"
import { Connection, TestTransport, type Transport, WebSocketError } from "@effect-ws/core"
import { Opcode, Rule } from "@effect-ws/core/engine"
import {
  Cause,
  Chunk,
  type Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  Option,
  Schedule,
  type Scheduler,
  Scope,
  Stream,
  TestClock
} from "effect"
import * as Timers from "../src/internal/timers.js"
import { closePayload, concat, encodeFrame, FrameReader, hex, type RawFrame, utf8 } from "./conformance/rawFrames.js"
import { connectionContract, defectOf, failureOf } from "./contract/connectionContract.js"
import { lending } from "./recorder.js"

for (const chunking of ["as written", "together", 7, 4096] as const) {
  connectionContract(`in memory, chunks ${chunking}`, (options) => TestTransport.connections({ ...options, chunking }))
}

// ---- a raw peer ------------------------------------------------------------------------------------------------------------

const key = Uint8Array.of(0x12, 0x34, 0x56, 0x78)

/** Lets all run that waits for nothing but its turn. */
const settle = Effect.promise(async () => {
  for (let i = 0; i < 8; i++) await new Promise<void>((resume) => setImmediate(resume))
})

/** The far end of a connection's line, by hand; what it is sent is read with the tests' own reader. */
class RawPeer implements Transport.Listener {
  readonly frames: Array<RawFrame> = []
  ended = false
  closed = false
  private readonly reader = new FrameReader()

  constructor(
    readonly end: TestTransport.TestTransport,
    private readonly role: Connection.Role
  ) {
    end.open(this)
  }

  onData(chunk: Uint8Array): void {
    this.reader.push(chunk)
    for (let frame = this.reader.next(); frame !== undefined; frame = this.reader.next()) this.frames.push(frame)
  }
  onDrain(): void {}
  onEnd(): void {
    this.ended = true
  }
  onClose(): void {
    this.closed = true
  }

  frame(opcode: number, payload: Uint8Array | string = new Uint8Array(0), fin = true): Uint8Array {
    const bytes = typeof payload === "string" ? utf8(payload) : payload
    return encodeFrame({ opcode, payload: bytes, fin }, this.role === "client" ? key : undefined)
  }

  send(...frames: ReadonlyArray<Uint8Array>): void {
    this.end.write([concat(frames)])
  }

  sendText(...texts: ReadonlyArray<string>): void {
    this.send(...texts.map((text) => this.frame(Opcode.text, text)))
  }

  sendClose(code?: number): void {
    this.send(this.frame(Opcode.close, code === undefined ? "" : closePayload(code)))
  }

  framesOf(opcode: number): Array<RawFrame> {
    return this.frames.filter((frame) => frame.opcode === opcode)
  }

  get texts(): Array<string> {
    return this.framesOf(Opcode.text).map((frame) => new TextDecoder().decode(frame.payload))
  }

  get closeCode(): number | undefined {
    const payload = this.framesOf(Opcode.close)[0]?.payload
    return payload === undefined || payload.length < 2 ? undefined : payload[0]! * 256 + payload[1]!
  }
}

/** {@link bareRaw}, whose line is cut at the end of the test, so that leaving waits for nobody. */
const withRaw = (options: Parameters<typeof bareRaw>[0] = {}) =>
  Effect.tap(bareRaw(options), ({ far }) => Effect.addFinalizer(() => far.cut))

/** A connection, the raw peer, and the writes that the connection did. */
const bareRaw = (options: Partial<Connection.MakeOptions> & TestTransport.Options & { lentBytes?: number } = {}) =>
  Effect.gen(function* () {
    const [near, far] = yield* TestTransport.pair(options)
    const role = options.role ?? "server"
    const writes: Array<number> = []
    const counted: Transport.Transport = {
      ...near,
      write: (chunks) => {
        writes.push(chunks.reduce((size, chunk) => size + chunk.length, 0))
        return near.write(chunks)
      }
    }
    const transport = options.lentBytes === undefined ? counted : lending(counted, options.lentBytes)
    const connection = yield* Connection.make(transport, { ...options, role })
    const peer = new RawPeer(far, role === "server" ? "client" : "server")
    return { connection, peer, near, far, writes }
  })

const takeToEnd = (connection: Connection.Connection) =>
  Effect.map(Stream.runCollect(connection.messages), Chunk.toReadonlyArray)

const numbers = (count: number, from = 0): Array<string> => Array.from({ length: count }, (_, i) => `m${from + i}`)

const timersOf = Effect.map(Effect.clock, (clock: Clock.Clock) => Timers.of(clock))

// ---- without a fiber -------------------------------------------------------------------------------------------------------

describe("a direct consumer", () => {
  type Rest = Effect.Effect<void, any, any> | undefined

  /** What it was called with, and whether that was within a fiber. */
  const consume = (
    connection: Connection.Connection,
    onMessage: (message: string | Uint8Array) => Effect.Effect<unknown, unknown> | void
  ) => {
    const taken: Array<string> = []
    const fibers: Array<boolean> = []
    const left: Array<Rest> = []
    Connection.unsafeConsume(connection, {
      onMessage: (message) => {
        taken.push(String(message))
        fibers.push(Option.isSome(Fiber.getCurrentFiber()))
        return onMessage(message)
      },
      onLeft: (rest) => left.push(rest)
    })
    return { taken, fibers, left }
  }

  it.scoped("gets all messages of a chunk, and what it sends leaves with one write", () =>
    Effect.gen(function* () {
      const { connection, peer, writes } = yield* withRaw()
      const { fibers, left, taken } = consume(connection, (message) =>
        message === "m1" ? undefined : message === "m2" ? Effect.void : connection.send(message)
      )
      peer.sendText(...numbers(5))
      yield* settle
      assert.deepStrictEqual(taken, numbers(5))
      assert.deepStrictEqual(peer.texts, ["m0", "m3", "m4"])
      assert.strictEqual(writes.length, 1)
      peer.sendText("later")
      yield* settle
      assert.deepStrictEqual(peer.texts, ["m0", "m3", "m4", "later"])
      assert.isFalse(fibers.includes(true))
      assert.deepStrictEqual(left, [])
    })
  )

  it.scoped("messages that came before it begins are its own too", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      peer.sendText(...numbers(2))
      yield* settle
      const { taken } = consume(connection, () => {})
      assert.deepStrictEqual(taken, [], "not while it is set")
      yield* settle
      assert.deepStrictEqual(taken, numbers(2))
    })
  )

  it.scoped("an Effect that takes its time is left, and all messages behind it in order", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const gate = yield* Deferred.make<void>()
      const { fibers, left, taken } = consume(connection, (message) =>
        message === "m1" ? Effect.zipRight(Deferred.await(gate), connection.send("slow")) : connection.send(message)
      )
      peer.sendText(...numbers(4))
      peer.sendClose(1000)
      yield* settle
      assert.deepStrictEqual(taken, ["m0", "m1"])
      assert.strictEqual(left.length, 1)
      assert.isUndefined(peer.closeCode, "the handshake ends when what came before is dealt with")
      const run = yield* Effect.fork(left[0]!)
      yield* settle
      assert.include(yield* defectOf(connection.take), "one consumer", "it is still the consumer")
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.await(run), Exit.void)
      assert.deepStrictEqual(peer.texts, ["m0", "slow", "m2", "m3"])
      assert.deepStrictEqual(fibers, [false, false, true, true])
      yield* settle
      assert.strictEqual(peer.closeCode, 1000)
      assert.strictEqual(left.length, 1)
    })
  )

  it.scoped("sends wait for room as in a fiber: nothing is put out above the mark", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw({ highWaterMark: 10 })
      yield* near.stall
      const { left, taken } = consume(connection, (message) => connection.send(message))
      peer.sendText(...numbers(50))
      yield* settle
      assert.isBelow(taken.length, 10)
      const run = yield* Effect.fork(left[0]!)
      yield* settle
      assert.isBelow(taken.length, 10)
      yield* near.flow
      yield* settle
      assert.deepStrictEqual(peer.texts, numbers(50))
      yield* Fiber.interrupt(run)
      assert.deepStrictEqual(yield* Effect.timeoutOption(connection.take, 0), Option.none(), "messages are free again")
    })
  )

  it.scoped("what it throws is left as a defect, and no message is taken behind it", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const { left, taken } = consume(connection, () => {
        throw new Error("no such room")
      })
      peer.sendText(...numbers(3))
      yield* settle
      assert.deepStrictEqual(taken, ["m0"])
      assert.strictEqual(yield* defectOf(left[0]!), "no such room")
    })
  )

  for (const [what, code, tag] of [
    ["a clean end", 1000, "Success"],
    ["a failure", 1008, "Failure"]
  ] as const) {
    it.scoped(`${what}: what came before is dealt with, then nothing is left`, () =>
      Effect.gen(function* () {
        const { connection, peer } = yield* withRaw()
        const { left, taken } = consume(connection, (message) => connection.send(message))
        peer.sendText(...numbers(2))
        peer.sendClose(code)
        yield* settle
        assert.deepStrictEqual(taken, numbers(2))
        assert.deepStrictEqual(peer.texts, numbers(2))
        assert.deepStrictEqual(left, [undefined])
        assert.strictEqual(Connection.unsafeEnd(connection)?._tag, tag)
      })
    )
  }

  it.scoped("a connection that is left in the middle gives no more", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const { left, taken } = consume(connection, () => {
        Connection.unsafeLeave(connection, Exit.void)
        return Effect.never
      })
      peer.sendText(...numbers(3))
      yield* settle
      peer.sendText("late")
      peer.sendClose(1000)
      yield* settle
      assert.deepStrictEqual(taken, ["m0"])
      assert.deepStrictEqual(left, [])
      assert.strictEqual(peer.closeCode, 1000)
    })
  )

  it.scoped("is one of the consumers of which there is one at a time", () =>
    Effect.gen(function* () {
      const { connection } = yield* withRaw()
      consume(connection, () => {})
      assert.include(yield* defectOf(connection.take), "one consumer")
      assert.throws(() => consume(connection, () => {}))
    })
  )
})

// ---- what the peer may not do ----------------------------------------------------------------------------------------------

describe("a broken rule", () => {
  // The same mistake as a client makes it (masked with a key of zeros, so that the payload can be read here) and a server.
  const rows: ReadonlyArray<readonly [Rule.Rule, { readonly server: string; readonly client: string }, number]> = [
    ["ReservedBits", { server: "c1 80 00000000", client: "c1 00" }, 1002],
    ["ReservedOpcode", { server: "83 80 00000000", client: "83 00" }, 1002],
    ["ReservedOpcode", { server: "8b 80 00000000", client: "8b 00" }, 1002],
    ["FragmentedControl", { server: "09 80 00000000", client: "09 00" }, 1002],
    ["ControlTooLong", { server: "89 fe 007e 00000000", client: "89 7e 007e" }, 1002],
    ["MaskRequired", { server: "81 00", client: "" }, 1002],
    ["MaskForbidden", { server: "", client: "81 80 00000000" }, 1002],
    ["LengthNotMinimal", { server: "82 fe 007d 00000000", client: "82 7e 007d" }, 1002],
    ["LengthNotMinimal", { server: "82 ff 000000000000ffff 00000000", client: "82 7f 000000000000ffff" }, 1002],
    ["LengthHighBit", { server: "82 ff 8000000000000000", client: "82 7f 8000000000000000" }, 1002],
    ["UnexpectedContinuation", { server: "80 80 00000000", client: "80 00" }, 1002],
    ["ExpectedContinuation", { server: "01 80 00000000 81 80 00000000", client: "01 00 81 00" }, 1002],
    ["ClosePayload", { server: "88 81 00000000 03", client: "88 01 03" }, 1002],
    ["InvalidCloseCode", { server: "88 82 00000000 03ed", client: "88 02 03ed" }, 1002],
    ["InvalidCloseReason", { server: "88 83 00000000 03e8 ff", client: "88 03 03e8 ff" }, 1007],
    ["InvalidText", { server: "81 81 00000000 ff", client: "81 01 ff" }, 1007],
    ["MessageTooBig", { server: "82 ff 0000000000100001", client: "82 7f 0000000000100001" }, 1009]
  ]
  for (const role of ["server", "client"] as const) {
    for (const [rule, bytes, code] of rows) {
      if (bytes[role] === "") continue
      for (const chunking of ["as written", "every byte"] as const) {
        it.scoped(`${rule} (${Rule.rules[rule].section}) towards a ${role}, ${chunking}: ${code}`, () =>
          Effect.gen(function* () {
            const { connection, near, peer } = yield* withRaw({ role, chunking })
            const consumer = yield* Effect.fork(
              Stream.runForEach(connection.messages, (message) => connection.send(message)).pipe(failureOf)
            )
            // What came before is handled, and what comes after is not looked at.
            peer.send(peer.frame(Opcode.text, "before"), hex(bytes[role]), peer.frame(Opcode.text, "after"))
            const error = yield* Fiber.join(consumer)
            assert.instanceOf(error, WebSocketError.ProtocolError)
            assert.deepInclude(error, { rule, code })
            yield* settle
            assert.deepStrictEqual(peer.texts, ["before"])
            assert.strictEqual(peer.closeCode, code)
            assert.isTrue(peer.ended)
            assert.deepInclude(yield* connection.closed, {
              code,
              clean: false,
              initiator: "local",
              received: undefined
            })
            peer.end.end()
            yield* settle
            assert.isTrue(yield* near.isClosed)
          })
        )
      }
    }
  }

  it.scoped("TooManyPings: 1008 when pongs wait for a transport that takes no more", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw({ maxPendingPongs: 3 })
      const consumer = yield* Effect.fork(failureOf(takeToEnd(connection)))
      const ping = peer.frame(Opcode.ping, "p")
      // While they leave, any number is fine.
      for (let i = 0; i < 20; i++) {
        peer.send(ping)
        yield* settle
      }
      assert.strictEqual(peer.framesOf(Opcode.pong).length, 20)
      yield* near.stall
      for (let i = 0; i < 6; i++) {
        peer.send(ping)
        yield* settle
      }
      assert.deepInclude(yield* Fiber.join(consumer), { _tag: "ProtocolError", rule: "TooManyPings", code: 1008 })
      yield* near.flow
      yield* settle
      assert.strictEqual(peer.closeCode, 1008)
      assert.isAtMost(peer.framesOf(Opcode.pong).length, 24)
      peer.end.end()
    })
  )

  it.scoped(
    "is told to the peer at once when nobody handles messages, and within the close timeout if they are never done",
    () =>
      Effect.gen(function* () {
        const idle = yield* withRaw()
        idle.peer.send(hex("81 00"))
        yield* settle
        assert.strictEqual(idle.peer.closeCode, 1002)
        idle.peer.end.end()

        const busy = yield* withRaw()
        yield* Effect.fork(busy.connection.runForEach(() => Effect.never))
        busy.peer.send(busy.peer.frame(Opcode.text, "never done"), hex("81 00"))
        yield* settle
        assert.strictEqual(busy.peer.closeCode, undefined)
        yield* TestClock.adjust("10 seconds")
        yield* settle
        assert.strictEqual(busy.peer.closeCode, 1002)
        assert.isTrue(busy.peer.ended)
        assert.isFalse(busy.peer.closed)
        // The peer does not end its side.
        yield* TestClock.adjust("10 seconds")
        yield* settle
        assert.isTrue(busy.peer.closed)
      })
  )
})

// ---- inbound -----------------------------------------------------------------------------------------------------------------

describe("inbound budget", () => {
  it.scoped("16 messages are decoded ahead, then reading pauses until all are taken", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const size = peer.frame(Opcode.text, "m00").length
      for (const text of numbers(90, 10)) peer.send(peer.frame(Opcode.text, text))
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), (90 - 16) * size)
      for (const text of numbers(15, 10)) assert.strictEqual(yield* connection.take, text)
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), (90 - 16) * size)
      assert.strictEqual(yield* connection.take, "m25")
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), (90 - 32) * size)
      peer.sendClose(1000)
      assert.deepStrictEqual(yield* takeToEnd(connection), numbers(74, 26))
    })
  )

  const MiB = 1024 * 1024
  it.scoped("1 MiB is decoded ahead, with the message that reaches it", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ chunking: "as written" })
      const size = peer.frame(Opcode.binary, new Uint8Array(MiB / 4)).length
      for (let i = 0; i < 10; i++) peer.send(peer.frame(Opcode.binary, new Uint8Array(MiB / 4)))
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), 6 * size)
      for (let i = 0; i < 4; i++) yield* connection.take
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), 2 * size)
    })
  )

  it.scoped("the bytes that a waiting consumer was woken for count when it does not take them", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const waiting = yield* Effect.fork(connection.take)
      yield* settle
      const frame = peer.frame(Opcode.binary, new Uint8Array(MiB))
      peer.send(frame, frame)
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(waiting)
      for (let i = 0; i < 3; i++) peer.send(frame)
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), 3 * frame.length)
    })
  )

  it.scoped("reading stays paused while received bytes are not decoded, whoever takes one by one", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ maxQueuedMessages: 4 })
      peer.sendText(...numbers(8))
      yield* settle
      for (const text of numbers(4)) assert.strictEqual(yield* connection.take, text)
      // Taking the last decoded one must not open the line: half of the chunk is still held back.
      for (const text of numbers(100, 8)) peer.sendText(text)
      yield* settle
      const waiting = peer.end.bufferedBytes()
      assert.isAbove(waiting, 0)
      yield* settle
      assert.strictEqual(peer.end.bufferedBytes(), waiting)
      for (const text of numbers(104, 4)) assert.strictEqual(yield* connection.take, text)
      assert.strictEqual(peer.end.bufferedBytes(), 0)
    })
  )

  it.scoped("a partial frame behind a full budget does not stop reading for ever", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ maxQueuedMessages: 2, chunking: "as written" })
      const last = peer.frame(Opcode.text, "split")
      peer.send(...numbers(2).map((text) => peer.frame(Opcode.text, text)), last.slice(0, 3))
      yield* settle
      peer.send(last.slice(3))
      assert.strictEqual(yield* connection.take, "m0")
      assert.strictEqual(yield* connection.take, "m1")
      assert.strictEqual(yield* connection.take, "split")
    })
  )

  it.scoped("control frames are answered while messages wait, and not while reading is paused", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ maxQueuedMessages: 3 })
      peer.sendText("a", "b")
      peer.send(peer.frame(Opcode.ping, "1"))
      yield* settle
      assert.deepStrictEqual(
        peer.framesOf(Opcode.pong).map((frame) => frame.payload),
        [utf8("1")]
      )
      peer.sendText("c")
      peer.send(peer.frame(Opcode.ping, "2"))
      yield* settle
      assert.strictEqual(peer.framesOf(Opcode.pong).length, 1)
      for (const text of ["a", "b", "c"]) assert.strictEqual(yield* connection.take, text)
      yield* settle
      assert.strictEqual(peer.framesOf(Opcode.pong).length, 2)
    })
  )

  it.scoped.each([{}, { lentBytes: 64 }])(
    "what was received before the line was cut can be taken, also what was not decoded yet (%o)",
    (lent) =>
      Effect.gen(function* () {
        const { connection, near, peer } = yield* withRaw({ maxQueuedMessages: 3, ...lent })
        peer.sendText(...numbers(50))
        yield* settle
        yield* near.cut
        yield* settle
        for (const text of numbers(50)) assert.strictEqual(yield* connection.take, text)
        assert.deepInclude(yield* failureOf(connection.take), { _tag: "ConnectionClosed", code: 1006 })
      })
  )

  it.scoped("frames that were there before the connection wait for it", () =>
    Effect.gen(function* () {
      const [near, far] = yield* TestTransport.pair({ chunking: "every byte" })
      const peer = new RawPeer(far, "client")
      peer.sendText(...numbers(5))
      peer.sendClose(1000)
      peer.end.end()
      yield* settle
      const connection = yield* Connection.make(near, { role: "server" })
      yield* settle
      assert.deepStrictEqual(yield* takeToEnd(connection), numbers(5))
    })
  )

  it.scoped("a consumer that stops inside a chunk drops the rest of it, and the next one goes on behind", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      peer.sendText("a", "b", "c")
      yield* settle
      assert.deepStrictEqual(Option.getOrNull(yield* Stream.runHead(connection.messages)), "a")
      peer.sendText("d")
      assert.strictEqual(yield* connection.take, "d")
    })
  )
})

describe("a scheduler that yields everywhere", () => {
  /** Yields every few operations: what happens between two of them can then happen to fibers. */
  const restless = (operations: number): Scheduler.Scheduler => ({
    shouldYield: (fiber) => (fiber.currentOpCount > operations ? 0 : false),
    scheduleTask: (task) => void setImmediate(task)
  })

  for (const operations of [10, 11, 12, 13, 14, 15, 17, 19]) {
    it.scoped(`no wake-up is lost (every ${operations})`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* TestTransport.connections({ chunking: 5, client: { highWaterMark: 10 } })
        const echoes: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          Effect.forEach(numbers(40), () => Effect.flatMap(server.take, server.send), { discard: true }),
          server.runForEach((message) =>
            message === "m79" ? Effect.zipRight(server.send(message), Effect.fail("next")) : server.send(message)
          ),
          Stream.run(server.messages, server.sink)
        ]
        const echo = yield* Effect.fork(
          Effect.withScheduler(
            Effect.forEach(echoes, (one) => Effect.exit(one)),
            restless(operations)
          )
        )
        const sending = yield* Effect.fork(
          Effect.withScheduler(
            Effect.forEach(numbers(120), (text) => Effect.zipRight(client.send(text), Effect.yieldNow())),
            restless(operations)
          )
        )
        for (const text of numbers(120)) assert.strictEqual(yield* client.take, text)
        yield* Fiber.join(sending)
        yield* client.close()
        yield* Fiber.join(echo)
      })
    )

    it.scoped(`interruption leaves neither a claim nor a turn behind (every ${operations})`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* TestTransport.connections()
        const consumers = [server.take, Stream.runDrain(server.messages), server.runForEach(() => undefined)]
        for (let steps = 0; steps < 25; steps++) {
          for (const effect of [...consumers, client.sendFragments("text", Stream.never)]) {
            const fiber = yield* Effect.fork(Effect.withScheduler(effect, restless(operations)))
            for (let i = 0; i < steps; i++) yield* Effect.promise(() => Promise.resolve())
            yield* Fiber.interrupt(fiber)
          }
        }
        assert.isTrue(yield* client.trySend("still whole"))
        assert.strictEqual(yield* server.take, "still whole")
      })
    )
  }
})

// ---- outbound ----------------------------------------------------------------------------------------------------------------

describe("writes", () => {
  it.scoped("what one chunk brought leaves as one write: sink, runForEach and sendAll", () =>
    Effect.gen(function* () {
      const ways: ReadonlyArray<(connection: Connection.Connection) => Effect.Effect<unknown, unknown>> = [
        (connection) => Stream.run(connection.messages, connection.sink),
        (connection) => connection.runForEach((message) => void connection.unsafeTrySend(message)),
        (connection) => Effect.flatMap(takeToEnd(connection), connection.sendAll)
      ]
      for (const way of ways) {
        const { connection, peer, writes } = yield* withRaw()
        const echo = yield* Effect.fork(Effect.exit(way(connection)))
        yield* settle
        peer.send(
          ...numbers(50).map((text) => peer.frame(Opcode.text, text)),
          peer.frame(Opcode.close, closePayload(1000))
        )
        yield* Fiber.join(echo)
        yield* settle
        if (peer.texts.length > 0) assert.deepStrictEqual(peer.texts, numbers(50))
        assert.isAtMost(writes.length, 2)
        assert.strictEqual(peer.closeCode, 1000)
      }
    })
  )

  it.scoped("several sends of one turn leave as one write", () =>
    Effect.gen(function* () {
      const { connection, peer, writes } = yield* withRaw()
      yield* Effect.forEach(numbers(20), connection.send)
      yield* connection.trySend("last")
      yield* settle
      assert.deepStrictEqual(peer.texts, [...numbers(20), "last"])
      assert.strictEqual(writes.length, 1)
    })
  )

  it.scoped("several pings of one chunk are answered with one write", () =>
    Effect.gen(function* () {
      const { peer, writes } = yield* withRaw()
      peer.send(...numbers(20).map((text) => peer.frame(Opcode.ping, text)))
      yield* settle
      assert.deepStrictEqual(
        peer.framesOf(Opcode.pong).map((frame) => frame.payload),
        numbers(20).map(utf8)
      )
      assert.strictEqual(writes.length, 1)
    })
  )

  it.scoped("send waits at the high-water mark, trySend refuses, bufferedBytes tells", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw({ highWaterMark: 1000 })
      yield* near.stall
      // 4 bytes of header each: 900 of 1000 are taken
      yield* connection.send("x".repeat(896))
      assert.strictEqual(yield* connection.bufferedBytes, 900)
      assert.isTrue(yield* connection.trySend("y".repeat(98)))
      assert.strictEqual(yield* connection.bufferedBytes, 1000)
      assert.isFalse(yield* connection.trySend(""))
      const waiting = yield* Effect.fork(connection.send("z"))
      yield* settle
      assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
      assert.strictEqual(yield* connection.bufferedBytes, 1000)
      yield* near.flow
      yield* Fiber.join(waiting)
      yield* settle
      assert.strictEqual(yield* connection.bufferedBytes, 0)
      assert.deepStrictEqual(
        peer.texts.map((text) => text[0]),
        ["x", "y", "z"]
      )
    })
  )

  it.scoped("a message that crosses the mark completes when it has left", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw({ highWaterMark: 10 })
      yield* near.stall
      const waiting = yield* Effect.fork(connection.send("longer than that"))
      yield* settle
      assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
      yield* near.flow
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(peer.texts, ["longer than that"])
    })
  )

  it.scoped("senders that wait fail as soon as the closing handshake begins", () =>
    Effect.gen(function* () {
      const { connection, near } = yield* withRaw({ highWaterMark: 10 })
      yield* near.stall
      assert.isTrue(yield* connection.trySend("longer than that"))
      const waiting = yield* Effect.fork(failureOf(connection.send("late")))
      yield* settle
      yield* Effect.fork(connection.close())
      assert.deepInclude(yield* Fiber.join(waiting), { _tag: "ConnectionClosed" })
      yield* near.cut
    })
  )

  it.scoped("bytes of the caller are not changed, by a masking client either", () =>
    Effect.gen(function* () {
      const { connection } = yield* withRaw({ role: "client" })
      for (const size of [10, 10_000, 100_000]) {
        const bytes = new Uint8Array(size).fill(7)
        yield* connection.send(bytes)
        assert.isTrue(bytes.every((byte) => byte === 7))
      }
    })
  )

  it.scoped("an owner is told once that nothing of the transport is left, or is left any more", () =>
    Effect.gen(function* () {
      const { connection } = yield* withRaw()
      const told: Array<string> = []
      Connection.setOwner(connection, { connectionGone: () => told.push("first") })
      assert.deepStrictEqual(told, [])
      yield* connection.abort
      yield* settle
      assert.deepStrictEqual(told, ["first"])
      Connection.setOwner(connection, { connectionGone: () => told.push("late") })
      assert.deepStrictEqual(told, ["first", "late"])
    })
  )

  it.scoped("settings: mask keys of one's own (RFC 6455 §5.3)", () =>
    Effect.gen(function* () {
      const [near, far] = yield* TestTransport.pair()
      const peer = new RawPeer(far, "server")
      const bytes: Array<Uint8Array> = []
      const onData = peer.onData.bind(peer)
      peer.onData = (chunk) => {
        bytes.push(chunk.slice())
        onData(chunk)
      }
      const settings = Connection.settings({}, { role: "client", randomKey: () => 0x3d21fa37 })
      const connection = yield* Connection.fromSettings(near, settings, undefined)
      yield* Effect.addFinalizer(() => far.cut)
      yield* connection.send("Hello")
      yield* settle
      // The masked frame of §5.7
      assert.deepStrictEqual(concat(bytes), hex("8185 37fa213d 7f9f4d5158"))
    })
  )

  it.scoped("the last fragment that waits for room can be interrupted, and the message is whole", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw({ highWaterMark: 10 })
      yield* near.stall
      const sending = yield* Effect.fork(
        connection.sendFragments(
          "text",
          Stream.concat(Stream.make("a".repeat(5)), Stream.drain(Stream.fromEffect(settle)))
        )
      )
      yield* settle
      yield* settle
      yield* settle
      yield* Fiber.interrupt(sending)
      yield* near.flow
      yield* settle
      const payload = concat(peer.frames.map((frame) => frame.payload))
      assert.isTrue(peer.frames.at(-1)?.fin)
      assert.strictEqual(new TextDecoder().decode(payload), "aaaaa")
      assert.strictEqual(peer.closeCode, undefined)
    })
  )
})

// ---- ping ----------------------------------------------------------------------------------------------------------------------

describe("ping", () => {
  it.scoped("gives the round trip of its own pong", () =>
    Effect.gen(function* () {
      const { client } = yield* TestTransport.connections({ delay: "100 millis" })
      const ping = yield* Effect.fork(client.ping())
      yield* TestClock.adjust("199 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(ping)))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(Duration.toMillis(yield* Fiber.join(ping)), 200)
      // Leaving takes another round trip of the line.
      yield* Effect.fork(Effect.forever(TestClock.adjust("100 millis")))
    })
  )

  it.scoped("a later pong answers earlier pings, a foreign one none (RFC 6455 §5.5.3)", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const pings = yield* Effect.forEach(["a", "b", "c"], (text) => Effect.fork(connection.ping(utf8(text))))
      yield* settle
      peer.send(peer.frame(Opcode.pong, "foreign"), peer.frame(Opcode.pong))
      yield* settle
      assert.isTrue(Option.isNone(yield* Fiber.poll(pings[0]!)))
      peer.send(peer.frame(Opcode.pong, "b"))
      yield* settle
      assert.isTrue(Option.isSome(yield* Fiber.poll(pings[0]!)))
      assert.isTrue(Option.isSome(yield* Fiber.poll(pings[1]!)))
      assert.isTrue(Option.isNone(yield* Fiber.poll(pings[2]!)))
      yield* Fiber.interrupt(pings[2]!)
      peer.send(peer.frame(Opcode.pong, "c"))
      yield* settle
      assert.strictEqual(peer.closeCode, undefined)
    })
  )

  it.scoped("fails when the peer closes instead", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const ping = yield* Effect.fork(failureOf(connection.ping()))
      yield* settle
      peer.sendClose(1000)
      assert.deepInclude(yield* Fiber.join(ping), { _tag: "ConnectionClosed", code: 1000 })
    })
  )
})

describe("pong", () => {
  it.scoped("goes out unasked, is no answer to anything, and is not bigger than a control frame", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      yield* connection.pong()
      yield* connection.pong(new Uint8Array(125))
      yield* settle
      assert.deepStrictEqual(
        peer.framesOf(Opcode.pong).map(({ payload }) => payload.length),
        [0, 125]
      )
      const exit = yield* Effect.exit(connection.pong(new Uint8Array(126)))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      peer.sendClose(1000)
      yield* connection.closed
      assert.deepInclude(yield* failureOf(connection.pong()), { _tag: "ConnectionClosed", code: 1000 })
      assert.lengthOf(peer.framesOf(Opcode.pong), 2)
    })
  )
})

// ---- heartbeat -----------------------------------------------------------------------------------------------------------------

describe("heartbeat", () => {
  const pings = (peer: RawPeer) => peer.framesOf(Opcode.ping).length
  const pong = (peer: RawPeer) => peer.send(peer.frame(Opcode.pong))

  it.scoped("pings every 20 seconds as long as the peer answers", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      yield* TestClock.adjust("19999 millis")
      assert.strictEqual(pings(peer), 0)
      yield* TestClock.adjust("1 millis")
      yield* settle
      for (let i = 1; i <= 10; i++) {
        assert.strictEqual(pings(peer), i)
        pong(peer)
        yield* settle
        yield* TestClock.adjust("20 seconds")
        yield* settle
      }
      assert.strictEqual(peer.framesOf(Opcode.ping)[0]!.payload.length, 0)
      assert.isTrue(yield* connection.trySend("alive"))
    })
  )

  it.scoped("a peer that talks is not pinged; one that falls silent is, within 20 seconds of its last byte", () =>
    Effect.gen(function* () {
      const { peer } = yield* withRaw()
      for (let i = 0; i < 12; i++) {
        yield* TestClock.adjust("9 seconds")
        pong(peer)
        yield* settle
      }
      assert.strictEqual(pings(peer), 0)
      yield* TestClock.adjust("20 seconds")
      yield* settle
      assert.strictEqual(pings(peer), 1)
    })
  )

  it.scoped("a peer that stays silent for 20 seconds is cut: HeartbeatTimeout, and 1006", () =>
    Effect.gen(function* () {
      const { connection, near, peer } = yield* withRaw()
      const consumer = yield* Effect.fork(failureOf(takeToEnd(connection)))
      const ping = yield* Effect.fork(failureOf(connection.ping()))
      yield* TestClock.adjust("39999 millis")
      yield* settle
      assert.isFalse(peer.closed)
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(consumer)
      assert.instanceOf(error, WebSocketError.HeartbeatTimeout)
      assert.strictEqual(Duration.toMillis((error as WebSocketError.HeartbeatTimeout).timeout), 20_000)
      assert.deepInclude(yield* Fiber.join(ping), { _tag: "ConnectionClosed", code: 1006 })
      assert.deepInclude(yield* connection.closed, { code: 1006, clean: false, initiator: "transport" })
      assert.deepInclude(yield* failureOf(connection.send("x")), { _tag: "ConnectionClosed", code: 1006 })
      yield* settle
      assert.isTrue(yield* near.isClosed)
    })
  )

  it.scoped("any byte counts as life, half a frame too", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const frame = peer.frame(Opcode.text, "0123456789")
      for (const byte of frame) {
        yield* TestClock.adjust("20 seconds")
        peer.send(Uint8Array.of(byte))
        yield* settle
      }
      assert.strictEqual(yield* connection.take, "0123456789")
    })
  )

  it.scoped("our own pause is not the peer's death, and after it the peer has its time again", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ maxQueuedMessages: 1 })
      peer.sendText("a", "b")
      yield* settle
      yield* TestClock.adjust("5 minutes")
      yield* settle
      assert.isFalse(peer.closed)
      assert.strictEqual(yield* connection.take, "a")
      assert.strictEqual(yield* connection.take, "b")
      yield* TestClock.adjust("20 seconds")
      yield* settle
      assert.isFalse(peer.closed)
      yield* TestClock.adjust("40 seconds")
      yield* settle
      assert.isTrue(peer.closed)
    })
  )

  it.scoped("goes on while the consumer is slow but reads", () =>
    Effect.gen(function* () {
      const { connection } = yield* TestTransport.connections({}).pipe(
        Effect.map(({ client, server }) => ({ connection: client, server }))
      )
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(yield* connection.trySend("alive"))
    })
  )

  const plans: ReadonlyArray<readonly [string, Connection.Heartbeat, ReadonlyArray<number>, number]> = [
    ["timeout below the interval", { interval: "30 seconds", timeout: "5 seconds" }, [30], 35],
    ["interval below the timeout", { interval: "5 seconds", timeout: "20 seconds" }, [5, 10, 15, 20], 25],
    ["only a timeout", { timeout: "7 seconds" }, [20], 27],
    ["only an interval", { interval: "40 seconds" }, [40], 60],
    ["a schedule", { schedule: Schedule.spaced("8 seconds"), timeout: "20 seconds" }, [8, 16, 24], 28],
    ["a schedule with a short timeout", { schedule: Schedule.spaced("8 seconds"), timeout: "3 seconds" }, [8], 11]
  ]
  for (const [what, heartbeat, at, dead] of plans) {
    it.scoped(`${what}: pings at ${at.join(", ")} s, dead at ${dead} s`, () =>
      Effect.gen(function* () {
        const { connection, peer } = yield* withRaw({ heartbeat })
        const seen: Array<number> = []
        for (let second = 1; second <= dead; second++) {
          assert.isFalse(peer.closed)
          const before = pings(peer)
          yield* TestClock.adjust("1 seconds")
          yield* settle
          if (pings(peer) > before) seen.push(second)
        }
        assert.isTrue(peer.closed)
        assert.deepStrictEqual(seen, at)
        assert.instanceOf(yield* failureOf(connection.take), WebSocketError.HeartbeatTimeout)
      })
    )

    it.scoped(`${what}: a peer that answers lives`, () =>
      Effect.gen(function* () {
        const { connection, peer } = yield* withRaw({ heartbeat })
        for (let second = 1, answered = 0; second <= 100; second++) {
          yield* TestClock.adjust("1 seconds")
          yield* settle
          for (; answered < pings(peer); answered++) pong(peer)
          yield* settle
        }
        assert.isAbove(pings(peer), 1)
        assert.isTrue(yield* connection.trySend("alive"))
      })
    )
  }

  it.scoped("a schedule that ends stops the pings", () =>
    Effect.gen(function* () {
      const schedule = Schedule.compose(Schedule.spaced("1 seconds"), Schedule.recurs(2))
      const { connection, peer } = yield* withRaw({ heartbeat: { schedule } })
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust("1 seconds")
        yield* settle
        pong(peer)
        yield* settle
      }
      const count = pings(peer)
      yield* TestClock.adjust("10 minutes")
      yield* settle
      assert.strictEqual(pings(peer), count)
      assert.isTrue(yield* connection.trySend("alive"))
    })
  )

  it.scoped("false switches it off, and no timer is set", () =>
    Effect.gen(function* () {
      const timers = yield* timersOf
      const before = timers.size
      const { connection, peer } = yield* withRaw({ heartbeat: false })
      assert.strictEqual(timers.size, before)
      yield* TestClock.adjust("1 hours")
      yield* settle
      assert.strictEqual(peer.frames.length, 0)
      assert.isTrue(yield* connection.trySend("alive"))
    })
  )

  it.scoped("the closing handshake has its own deadline, however long", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ closeTimeout: "5 minutes" })
      yield* TestClock.adjust("20 seconds")
      const closing = yield* Effect.fork(connection.close())
      yield* TestClock.adjust("4 minutes")
      yield* settle
      assert.isFalse(peer.closed)
      peer.sendClose(1000)
      peer.end.end()
      assert.deepInclude(yield* Fiber.join(closing), { code: 1000, clean: true })
    })
  )
})

// ---- the end -------------------------------------------------------------------------------------------------------------------

describe("closing handshake", () => {
  it.scoped("close frames without a code: 1005, clean, and answered without one", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      peer.sendClose()
      assert.deepStrictEqual(yield* takeToEnd(connection), [])
      yield* settle
      assert.deepStrictEqual(peer.framesOf(Opcode.close)[0]?.payload, new Uint8Array(0))
      const none = { code: undefined, reason: "" }
      assert.deepInclude(yield* connection.closed, { code: 1005, clean: true, sent: none, received: none })
    })
  )

  it.scoped("a server ends the transport first, a client waits for it (RFC 6455 §7.1.1)", () =>
    Effect.gen(function* () {
      const server = yield* withRaw({ role: "server" })
      server.peer.sendClose(1000)
      yield* settle
      assert.isTrue(server.peer.ended)
      const client = yield* withRaw({ role: "client" })
      client.peer.sendClose(1000)
      yield* settle
      assert.strictEqual(client.peer.closeCode, 1000)
      assert.isFalse(client.peer.ended)
      client.peer.end.end()
      yield* settle
      assert.isTrue(client.peer.ended)
      assert.isTrue(yield* client.near.isClosed)
    })
  )

  for (const role of ["server", "client"] as const) {
    it.scoped(`a ${role} whose peer does not answer cuts after 10 seconds: 1006`, () =>
      Effect.gen(function* () {
        const { connection, peer } = yield* withRaw({ role, heartbeat: false })
        const closing = yield* Effect.fork(connection.close(3000, "bye"))
        yield* TestClock.adjust("9999 millis")
        yield* settle
        assert.isFalse(peer.closed)
        yield* TestClock.adjust("1 millis")
        const info = yield* Fiber.join(closing)
        assert.deepInclude(info, { code: 1006, clean: false, initiator: "local", received: undefined })
        assert.deepStrictEqual(info.sent, { code: 3000, reason: "bye" })
        assert.isTrue(peer.closed)
      })
    )

    it.scoped(`a ${role} whose peer answers but never ends its transport cuts then, and it was clean`, () =>
      Effect.gen(function* () {
        const { connection, near, peer } = yield* withRaw({ role, heartbeat: false, closeTimeout: "3 seconds" })
        const closing = yield* Effect.fork(connection.close())
        yield* settle
        peer.sendClose(1000)
        yield* settle
        yield* TestClock.adjust("2999 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(closing)))
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* Fiber.join(closing), { code: 1000, clean: true, initiator: "local" })
        assert.isTrue(yield* near.isClosed)
      })
    )

    it.scoped(`a ${role} whose peer stalls: leaving the Scope takes the close timeout and no longer`, () =>
      Effect.gen(function* () {
        const [near, far] = yield* TestTransport.pair()
        const scope = yield* Scope.make()
        const connection = yield* Scope.extend(Connection.make(near, { role, heartbeat: false }), scope)
        new RawPeer(far, role).end.pause()
        yield* Effect.fork(Effect.ignore(connection.sendAll(Array.from({ length: 100 }, () => "x".repeat(10_000)))))
        yield* settle
        const leaving = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* TestClock.adjust("9999 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(leaving)))
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(leaving)
        assert.isTrue(yield* far.isClosed)
      })
    )
  }

  it.scoped("simultaneous: each has the peer's code, and both were clean", () =>
    Effect.gen(function* () {
      const { client, server } = yield* TestTransport.connections({ delay: "1 seconds", client: { heartbeat: false } })
      const closing = yield* Effect.fork(
        Effect.all([client.close(4001), server.close(4002)], { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("3 seconds")
      const [byClient, byServer] = yield* Fiber.join(closing)
      assert.deepInclude(byClient, { code: 4002, clean: true, initiator: "local" })
      assert.deepInclude(byServer, { code: 4001, clean: true, initiator: "local" })
    })
  )

  it.scoped("messages before the peer's close frame are still taken after our own close began", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const closing = yield* Effect.fork(connection.close())
      yield* settle
      peer.sendText(...numbers(10))
      peer.send(peer.frame(Opcode.ping, "unanswered"))
      peer.sendClose(1000)
      peer.end.end()
      assert.isTrue((yield* Fiber.join(closing)).clean)
      assert.deepStrictEqual(yield* takeToEnd(connection), numbers(10))
      assert.strictEqual(peer.framesOf(Opcode.pong).length, 0)
    })
  )

  it.scoped("a full queue that nobody reads: the close frame behind it is found at the deadline", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw({ maxQueuedMessages: 2, heartbeat: false })
      peer.send(
        ...numbers(10).map((text) => peer.frame(Opcode.text, text)),
        peer.frame(Opcode.close, closePayload(1000))
      )
      const closing = yield* Effect.fork(connection.close())
      yield* TestClock.adjust("10 seconds")
      assert.deepInclude(yield* Fiber.join(closing), { code: 1000, clean: true })
      assert.deepStrictEqual(yield* takeToEnd(connection), numbers(10))
    })
  )

  it.scoped("the answer to a close frame waits for the messages before it to be handled", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      const gate = yield* Deferred.make<void>()
      const echo = yield* Effect.fork(
        connection.runForEach((message) => Effect.zipRight(Deferred.await(gate), connection.send(message)))
      )
      yield* settle
      peer.send(
        peer.frame(Opcode.text, "a"),
        peer.frame(Opcode.text, "b"),
        peer.frame(Opcode.close, closePayload(1000))
      )
      yield* settle
      assert.strictEqual(peer.closeCode, undefined)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(echo)
      yield* settle
      assert.deepStrictEqual(peer.texts, ["a", "b"])
      assert.strictEqual(peer.closeCode, 1000)
      assert.strictEqual(peer.frames.at(-1)?.opcode, Opcode.close)
    })
  )

  it.scoped("but not for a consumer that there is not", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      peer.sendClose(1001)
      yield* settle
      assert.strictEqual(peer.closeCode, 1001)
      assert.deepInclude(yield* failureOf(connection.send("x")), { _tag: "ConnectionClosed", code: 1001 })
    })
  )

  it.scoped("and for messages that nobody takes only as long as the close timeout", () =>
    Effect.gen(function* () {
      const { connection, peer } = yield* withRaw()
      peer.send(peer.frame(Opcode.text, "unread"), peer.frame(Opcode.close, closePayload(1000)))
      yield* settle
      yield* connection.send("sending is still possible")
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual(peer.closeCode, 1000)
      assert.deepStrictEqual(peer.texts, ["sending is still possible"])
      assert.deepStrictEqual(yield* takeToEnd(connection), ["unread"])
    })
  )

  it.scoped("a peer that half-closes without a close frame: 1006, and our side ends too", () =>
    Effect.gen(function* () {
      for (const role of ["server", "client"] as const) {
        const { connection, near, peer } = yield* withRaw({ role })
        peer.sendText("before")
        peer.end.end()
        assert.strictEqual(yield* connection.take, "before")
        const error = yield* failureOf(connection.take)
        assert.deepInclude(error, { _tag: "ConnectionClosed", code: 1006, cause: undefined })
        yield* settle
        assert.isTrue(peer.ended)
        assert.isTrue(yield* near.isClosed)
      }
    })
  )

  it.scoped("a cut line: 1006 with the cause, for everyone who waits", () =>
    Effect.gen(function* () {
      const { connection, near } = yield* withRaw()
      const waiting = yield* Effect.forEach(
        [
          takeToEnd(connection),
          connection.ping(),
          connection.sendFragments(
            "text",
            Stream.concat(Stream.make("x"), Stream.tick("1 seconds").pipe(Stream.as("y")))
          )
        ],
        (effect) => Effect.fork(failureOf(effect))
      )
      yield* settle
      yield* near.cut
      yield* settle
      yield* TestClock.adjust("1 seconds")
      for (const fiber of waiting) {
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, WebSocketError.ConnectionClosed)
        assert.strictEqual(error.code, 1006)
        assert.deepInclude(error.cause, { _tag: "TransportError", reason: "Reset" })
        assert.include(error.message, "the line was cut")
      }
    })
  )

  it.scoped("a line that was cut before the connection began: 1006", () =>
    Effect.gen(function* () {
      const [near] = yield* TestTransport.pair()
      yield* near.cut
      const connection = yield* Connection.make(near, { role: "client" })
      assert.deepInclude(yield* failureOf(takeToEnd(connection)), { _tag: "ConnectionClosed", code: 1006 })
    })
  )

  const exits: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>, number]> = [
    ["success", Effect.void, 1000],
    ["interruption", Effect.interrupt, 1001],
    ["failure", Effect.fail("secret"), 1011],
    ["defect", Effect.dieMessage("secret"), 1011],
    [
      "failure beside interruption",
      Effect.failCause(Cause.parallel(Cause.interrupt(FiberId.none), Cause.fail("x"))),
      1011
    ]
  ]
  for (const [what, effect, code] of exits) {
    it.effect(`leaving the Scope by ${what} sends ${code} and no details`, () =>
      Effect.gen(function* () {
        const [near, far] = yield* TestTransport.pair()
        const peer = new RawPeer(far, "client")
        const leaving = yield* Effect.fork(
          Effect.exit(Effect.scoped(Effect.zipRight(Connection.make(near, { role: "server" }), effect)))
        )
        yield* settle
        assert.strictEqual(peer.closeCode, code)
        assert.strictEqual(peer.framesOf(Opcode.close)[0]?.payload.length, 2)
        peer.sendClose(code)
        peer.end.end()
        yield* Fiber.join(leaving)
        assert.isTrue(yield* near.isClosed)
      })
    )
  }

  for (const role of ["server", "client"] as const) {
    it.effect(
      `leaving as a ${role} reads over whatever still comes, and over what nobody read, up to the close frame`,
      () =>
        Effect.gen(function* () {
          const [near, far] = yield* TestTransport.pair()
          const peer = new RawPeer(far, role === "server" ? "client" : "server")
          const scope = yield* Scope.make()
          yield* Scope.extend(Connection.make(near, { role }), scope)
          const half = peer.frame(Opcode.binary, new Uint8Array(512 * 1024))
          for (let i = 0; i < 6; i++) peer.send(half)
          yield* settle
          assert.isAbove(far.bufferedBytes(), 0)
          const leaving = yield* Effect.fork(Scope.close(scope, Exit.void))
          for (let i = 0; i < 6; i++) peer.send(half)
          for (let i = 0; i < 100; i++) peer.sendText("small")
          yield* settle
          peer.sendClose(1000)
          peer.end.end()
          yield* Fiber.join(leaving)
          assert.isTrue(yield* near.isClosed)
        })
    )
  }

  it.scoped("a second consumer dies with advice", () =>
    Effect.gen(function* () {
      const { connection } = yield* withRaw()
      yield* Effect.fork(connection.take)
      yield* settle
      assert.include(yield* defectOf(takeToEnd(connection)), "Stream.broadcast")
    })
  )
})

// ---- what stays behind -----------------------------------------------------------------------------------------------------------

describe("nothing stays behind", () => {
  type Context = Effect.Effect.Success<ReturnType<typeof bareRaw>>
  const ways: ReadonlyArray<readonly [string, (context: Context) => Effect.Effect<unknown, unknown>]> = [
    ["cut", ({ near }) => near.cut],
    [
      "cut while sending",
      ({ connection, near }) =>
        Effect.zipRight(
          near.stall,
          Effect.zipRight(Effect.fork(Effect.forever(connection.send("x".repeat(50_000)))), near.cut)
        )
    ],
    ["abort", ({ connection }) => connection.abort],
    ["abort by the peer", ({ far }) => Effect.sync(() => far.abort())],
    ["half-close by the peer", ({ far }) => far.halfClose],
    ["protocol error", ({ peer }) => Effect.sync(() => peer.send(hex("ff ff ff ff")))],
    ["close by the peer", ({ peer }) => Effect.sync(() => peer.sendClose(1000))],
    ["close without answer", ({ connection }) => connection.close()],
    ["heartbeat timeout", () => Effect.sleep("1 minutes")],
    ["interrupted consumer", ({ connection }) => Effect.flatMap(Effect.fork(takeToEnd(connection)), Fiber.interrupt)],
    ["failing handler", () => Effect.fail("broken")],
    ["defect", () => Effect.dieMessage("broken")],
    ["interruption", () => Effect.interrupt],
    [
      "half a message",
      ({ connection }) => connection.sendFragments("text", Stream.concat(Stream.make("x"), Stream.fail("no")))
    ],
    ["unread messages", ({ peer }) => Effect.sync(() => peer.sendText(...numbers(100)))],
    ["ping without pong", ({ connection }) => Effect.fork(connection.ping())],
    ["nothing", () => Effect.void]
  ]
  const breakAll = (
    heartbeat: Connection.Options["heartbeat"],
    breaks: ReadonlyArray<(context: Context) => Effect.Effect<unknown, unknown>>
  ) =>
    Effect.gen(function* () {
      const timers = yield* timersOf
      const rootsBefore = new Set(yield* Fiber.roots)
      const ends: Array<TestTransport.TestTransport> = []
      const runs = yield* Effect.forEach(breaks, (way, i) =>
        Effect.fork(
          Effect.exit(
            Effect.scoped(
              Effect.flatMap(bareRaw({ heartbeat, role: i % 2 === 0 ? "server" : "client" }), (context) => {
                ends.push(context.near, context.far)
                return Effect.zipRight(settle, way(context))
              })
            )
          )
        )
      )
      yield* settle
      yield* settle
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.joinAll(runs)
      yield* settle
      assert.strictEqual(ends.length, 2 * breaks.length)
      assert.strictEqual(timers.size, 0)
      for (const end of ends) assert.isTrue(yield* end.isClosed)
      const left = (yield* Fiber.roots).filter((fiber) => !rootsBefore.has(fiber))
      assert.strictEqual(left.length, 0)
    })
  for (const heartbeat of [undefined, { schedule: Schedule.spaced("20 seconds") }, false] as const) {
    const kind = heartbeat === undefined ? "timers" : heartbeat === false ? "no heartbeat" : "a schedule"
    for (const [what, way] of ways) {
      it.effect(`after ${what}, with ${kind}`, () => breakAll(heartbeat, [way, way]))
    }
  }

  it.effect("after thousands of connections that broke in all these ways", () =>
    breakAll(
      undefined,
      Array.from({ length: 2000 }, (_, i) => ways[i % ways.length]![1])
    )
  )

  it.effect("the fibers of both ends, counted while they live and after", () =>
    Effect.gen(function* () {
      const timers = yield* timersOf
      const rootsBefore = (yield* Fiber.roots).length
      yield* Effect.scoped(
        Effect.gen(function* () {
          const all = yield* Effect.forEach(Array.from({ length: 50 }), () => TestTransport.connections())
          assert.strictEqual(timers.size, 100)
          // One fiber sleeps for all heartbeats.
          assert.strictEqual((yield* Fiber.roots).length, rootsBefore + 1)
          yield* TestClock.adjust("3 minutes")
          for (const { client } of all) assert.isTrue(yield* client.trySend("alive"))
        })
      )
      yield* settle
      assert.strictEqual(timers.size, 0)
      assert.strictEqual((yield* Fiber.roots).length, rootsBefore)
    })
  )
})
