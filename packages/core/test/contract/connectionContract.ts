/**
 * What every connection does, whatever carries its bytes: DESIGN.md §4 for all implementations of Transport. It needs no
 * clock, so that it runs over real sockets too; what time decides is in Connection.test.ts.
 */

import { assert, describe, it } from "@effect/vitest"
import { Connection, type Message, WebSocketError } from "@effect-ws/core"
import { Cause, Chunk, Deferred, Effect, Exit, Fiber, Option, type Scope, Stream } from "effect"

/** Options of a pair. */
export interface PairOptions {
  readonly client?: Connection.Options
  readonly server?: Connection.Options
}

/** Both ends of a line, for as long as the Scope is open. */
export interface Pair {
  readonly client: Connection.Connection
  readonly server: Connection.Connection
}

type Ends = "client" | "server"
const bothWays: ReadonlyArray<readonly [Ends, Ends]> = [
  ["client", "server"],
  ["server", "client"]
]

/** Bytes in which every position shows, so that a shift or a wrong mask does too. */
const pattern = (length: number, seed = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8) * 17 + seed) & 0xff)

const sizes = [0, 1, 125, 126, 8191, 8193, 65535, 65536, 200_000]
const samples: ReadonlyArray<Message.Message> = [
  ...sizes.map((size) => pattern(size)),
  ...sizes.map((size) => "é€😀x".repeat(Math.ceil(size / 5)).slice(0, size - (size % 5))),
  "",
  "\ufeffa byte order mark is kept",
  new Uint8Array(0)
]

const numbers = (count: number): Array<string> => Array.from({ length: count }, (_, i) => `message ${i}`)

const takeMany = (connection: Connection.Connection, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(connection.messages, count)), Chunk.toReadonlyArray)

const takeToEnd = (connection: Connection.Connection) =>
  Effect.map(Stream.runCollect(connection.messages), Chunk.toReadonlyArray)

/** All that the peer put out before this call was received, as long as it reads. */
const barrier = (connection: Connection.Connection) => connection.ping()

/** The error with which an Effect fails; anything else is a failure of the test. */
export const failureOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.flatMap(Effect.exit(effect), (exit) =>
    Exit.isFailure(exit) && Option.isSome(Cause.failureOption(exit.cause))
      ? Effect.succeed(Option.getOrThrow(Cause.failureOption(exit.cause)))
      : Effect.dieMessage(`no failure: ${exit}`)
  )

/** The message of the defect with which an Effect dies. */
export const defectOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.flatMap(Effect.exit(effect), (exit) => {
    const defect = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined
    return defect instanceof Error ? Effect.succeed(defect.message) : Effect.dieMessage(`no defect: ${exit}`)
  })

const closedWith = (error: unknown): WebSocketError.ConnectionClosed => {
  assert.instanceOf(error, WebSocketError.ConnectionClosed)
  return error as WebSocketError.ConnectionClosed
}

/** The suite, for the implementation that `makePair` opens. */
export const connectionContract = <E>(
  name: string,
  makePair: (options?: PairOptions) => Effect.Effect<Pair, E, Scope.Scope>
): void => {
  const test = (title: string, body: (make: typeof makePair) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
    it.scopedLive(title, () => body(makePair))

  describe(`connection contract: ${name}`, () => {
    describe("messages", () => {
      for (const [from, to] of bothWays) {
        test(`of every size and kind arrive in order, from the ${from}`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            const sending = yield* Effect.fork(pair[from].sendAll(samples))
            const received = yield* takeMany(pair[to], samples.length)
            assert.deepStrictEqual(received, samples)
            yield* Fiber.join(sending)
          }))
      }

      test("echo by Stream.run(messages, sink)", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const echo = yield* Effect.fork(Stream.run(server.messages, server.sink))
          yield* Effect.fork(client.sendAll(samples))
          assert.deepStrictEqual(yield* takeMany(client, samples.length), samples)
          yield* client.close()
          yield* Fiber.join(echo)
        }))

      test("echo by runForEach(send)", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const echo = yield* Effect.fork(server.runForEach(server.send))
          yield* Effect.fork(Effect.forEach(samples, client.send, { discard: true }))
          assert.deepStrictEqual(yield* takeMany(client, samples.length), samples)
          yield* client.close()
          yield* Fiber.join(echo)
        }))

      test("a late reader loses nothing, even after the end", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          yield* server.sendAll(numbers(10))
          yield* Effect.fork(server.close())
          yield* Effect.yieldNow()
          assert.deepStrictEqual(yield* takeToEnd(client), numbers(10))
        }))

      test("the budget pauses reading, and nothing is lost or reordered", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make({ server: { maxQueuedMessages: 2, maxQueuedBytes: 1000 } })
          const sending = yield* Effect.fork(Effect.forEach(numbers(500), client.send, { discard: true }))
          for (const expected of numbers(100)) assert.strictEqual(yield* server.take, expected)
          const rest: Array<Message.Message> = []
          const reading = yield* Effect.fork(server.runForEach((message) => void rest.push(message)))
          yield* Fiber.join(sending)
          yield* client.close()
          yield* Fiber.join(reading)
          assert.deepStrictEqual(rest, numbers(500).slice(100))
        }))

      test("take: interruption loses none", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const waiting = yield* Effect.fork(server.take)
          yield* barrier(client)
          yield* Fiber.interrupt(waiting)
          yield* client.sendAll(["a", "b"])
          assert.strictEqual(yield* server.take, "a")
          assert.strictEqual(yield* server.take, "b")
        }))

      test("take fails with ConnectionClosed after a clean end", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          yield* client.send("last")
          yield* Effect.fork(client.close(1000, "done"))
          assert.strictEqual(yield* server.take, "last")
          const error = closedWith(yield* failureOf(server.take))
          assert.strictEqual(error.code, 1000)
          assert.strictEqual(error.reason, "done")
        }))

      test("runForEach: f gives nothing, or an Effect that may fail", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const seen: Array<Message.Message> = []
          const failing = yield* Effect.fork(
            server.runForEach((message) => (message === "stop" ? Effect.fail("stopped") : void seen.push(message)))
          )
          yield* client.sendAll(["a", "b", "stop", "c"])
          assert.strictEqual(yield* failureOf(Fiber.join(failing)), "stopped")
          assert.deepStrictEqual(seen, ["a", "b"])
          assert.strictEqual(yield* server.take, "c")
        }))

      test("runForEach: interruption loses no message that f did not get", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const got = yield* Deferred.make<void>()
          const stuck = yield* Effect.fork(
            server.runForEach(() => Effect.zipRight(Deferred.succeed(got, undefined), Effect.never))
          )
          yield* client.sendAll(["a", "b", "c"])
          yield* Deferred.await(got)
          yield* Fiber.interrupt(stuck)
          assert.strictEqual(yield* server.take, "b")
          assert.strictEqual(yield* server.take, "c")
        }))
    })

    describe("one consumer at a time", () => {
      const ways: ReadonlyArray<
        readonly [string, (connection: Connection.Connection) => Effect.Effect<unknown, unknown>]
      > = [
        ["messages", (connection) => Stream.runDrain(connection.messages)],
        ["take", (connection) => connection.take],
        ["runForEach", (connection) => connection.runForEach(() => undefined)]
      ]
      for (const [first, begin] of ways) {
        for (const [second, intrude] of ways) {
          test(`${second} dies while ${first} waits, and may begin after it`, (make) =>
            Effect.gen(function* () {
              const { client, server } = yield* make()
              const consumer = yield* Effect.fork(begin(server))
              yield* barrier(client)
              assert.include(yield* defectOf(intrude(server)), "one consumer at a time")
              yield* Fiber.interrupt(consumer)
              const next = yield* Effect.fork(intrude(server))
              yield* client.send("x")
              yield* Effect.fork(client.close())
              assert.isTrue(Exit.isSuccess(yield* Fiber.await(next)))
            }))
        }
      }
    })

    describe("the end", () => {
      const codes: ReadonlyArray<readonly [code: number, reason: string, clean: boolean]> = [
        [1000, "", true],
        [1000, "good bye é", true],
        [1001, "", true],
        [1002, "", false],
        [1008, "policy", false],
        [1011, "", false],
        [3000, "r".repeat(123), false],
        [4999, "", false]
      ]
      for (const [from, to] of bothWays) {
        for (const [code, reason, clean] of codes) {
          test(`${from} closes with ${code}: messages ${clean ? "end" : "fail"}`, (make) =>
            Effect.gen(function* () {
              const pair = yield* make()
              const consumer = yield* Effect.fork(Effect.exit(takeToEnd(pair[to])))
              const frame = { code, reason }
              const local = yield* pair[from].close(code, reason)
              assert.deepInclude(local, { code, reason, clean: true, initiator: "local", sent: frame, received: frame })
              const remote = yield* pair[to].closed
              assert.deepInclude(remote, {
                code,
                reason,
                clean: true,
                initiator: "remote",
                sent: frame,
                received: frame
              })
              const exit = yield* Fiber.join(consumer)
              assert.strictEqual(Exit.isSuccess(exit), clean)
              if (!clean) assert.deepStrictEqual(closedWith(yield* failureOf(exit)).info, remote)
            }))
        }
      }

      test("which codes are clean is an option", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make({ server: { cleanCloseCodes: [4000] } })
          const consumer = yield* Effect.fork(takeToEnd(server))
          yield* client.close(4000)
          assert.deepStrictEqual(yield* Fiber.join(consumer), [])
          const other = yield* make({ server: { cleanCloseCodes: [4000] } })
          const failing = yield* Effect.fork(failureOf(takeToEnd(other.server)))
          yield* other.client.close(1000)
          assert.strictEqual(closedWith(yield* Fiber.join(failing)).code, 1000)
        }))

      for (const [from, to] of bothWays) {
        test(`abort by the ${from}: 1006 for the ${to}, with all that waits failing`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            const consumer = yield* Effect.fork(failureOf(takeToEnd(pair[to])))
            yield* barrier(pair[to])
            yield* pair[from].abort
            const error = closedWith(yield* Fiber.join(consumer))
            assert.strictEqual(error.code, 1006)
            assert.deepInclude(error.info, {
              clean: false,
              initiator: "transport",
              sent: undefined,
              received: undefined
            })
            for (const connection of [pair[from], pair[to]]) {
              assert.strictEqual((yield* connection.closed).code, 1006)
              assert.strictEqual(closedWith(yield* failureOf(connection.send("x"))).code, 1006)
              assert.strictEqual(closedWith(yield* failureOf(connection.ping())).code, 1006)
              assert.strictEqual(closedWith(yield* failureOf(connection.take)).code, 1006)
              assert.isFalse(yield* connection.trySend("x"))
              assert.strictEqual((yield* connection.close()).code, 1006)
            }
          }))

        test(`messages that the ${from} sent before its close frame can be taken after it, and answered`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            yield* pair[from].sendAll(numbers(10))
            const closing = yield* Effect.fork(pair[from].close())
            yield* Effect.yieldNow()
            yield* Stream.run(pair[to].messages, pair[to].sink)
            assert.isTrue((yield* Fiber.join(closing)).clean)
            assert.deepStrictEqual(yield* takeToEnd(pair[from]), numbers(10))
          }))
      }

      test("both sides may begin at once, and close again", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const [byClient, byServer, again] = yield* Effect.all(
            [client.close(4001, "client"), server.close(4002, "server"), client.close(4003, "too late")],
            { concurrency: "unbounded" }
          )
          for (const info of [byClient, byServer, again]) assert.isTrue(info.clean)
          assert.deepStrictEqual(again, byClient)
          // On a fast line the server may have seen the client's frame before its own close began.
          assert.include([4001, 4002], byClient.code)
          assert.strictEqual(byServer.code, 4001)
        }))

      test("a closing connection sends nothing more, but takes what comes", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const closing = yield* Effect.fork(client.close())
          yield* Effect.yieldNow()
          closedWith(yield* failureOf(client.send("late")))
          closedWith(yield* failureOf(client.sendAll(["late"])))
          closedWith(yield* failureOf(Stream.run(Stream.make("late"), client.sink)))
          closedWith(yield* failureOf(client.sendFragments("text", Stream.make("late"))))
          closedWith(yield* failureOf(client.ping()))
          assert.isFalse(client.unsafeTrySend("late"))
          yield* Fiber.join(closing)
          assert.deepStrictEqual(yield* takeToEnd(server), [])
        }))

      test("what must not be sent is a defect, and the connection goes on", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1000.5, Number.NaN]) {
            assert.include(yield* defectOf(client.close(code)), "no close code")
          }
          assert.include(yield* defectOf(client.close(1000, "é".repeat(62))), "123 bytes")
          assert.include(yield* defectOf(client.ping(new Uint8Array(126))), "125 bytes")
          yield* client.send("still here")
          assert.strictEqual(yield* server.take, "still here")
        }))

      const exits: ReadonlyArray<readonly [string, Exit.Exit<unknown, unknown>, number]> = [
        ["success", Exit.void, 1000],
        ["interruption", Exit.interrupt(Fiber.id(Fiber.void)), 1001],
        ["failure", Exit.fail("secret"), 1011],
        ["defect", Exit.die(new Error("secret")), 1011]
      ]
      for (const [from, to] of bothWays) {
        for (const [what, exit, code] of exits) {
          test(`the ${from} leaves after ${what}: the peer sees ${code}, and no details`, (make) =>
            Effect.gen(function* () {
              const pair = yield* make()
              yield* Connection.leave(pair[from], exit)
              const info = yield* pair[to].closed
              assert.deepInclude(info, { code, reason: "", clean: true, initiator: "remote" })
            }))
        }

        test(`the ${from} leaves while the ${to} sends on and nobody reads what waits`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            yield* pair[to].sendAll(numbers(100)).pipe(Effect.timeout("10 seconds"))
            // More than the inbound budget, so that the close frame is behind messages which nobody will take.
            const sending = yield* Effect.fork(
              Effect.ignore(pair[to].sendAll(Array.from({ length: 30 }, (_, i) => pattern(100_000, i))))
            )
            yield* Connection.leave(pair[from], Exit.void)
            yield* Fiber.join(sending)
            assert.deepInclude(yield* pair[from].closed, { clean: true, code: 1000 })
          }))
      }

      test("a message over the limit: 1009 for its sender, ProtocolError for the program", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make({ server: { maxMessageBytes: 100 } })
          yield* client.sendAll([pattern(100), pattern(101), "never seen"])
          assert.deepStrictEqual(yield* server.take, pattern(100))
          const error = yield* failureOf(server.take)
          assert.instanceOf(error, WebSocketError.ProtocolError)
          assert.deepInclude(error, { rule: "MessageTooBig", code: 1009 })
          const closed = closedWith(yield* failureOf(client.take))
          assert.strictEqual(closed.code, 1009)
          assert.deepInclude(yield* server.closed, { code: 1009, clean: false, initiator: "local" })
        }))
    })

    describe("sending", () => {
      /** Sends until the transport takes no more; the peer must not read. */
      const fill = (connection: Connection.Connection, message: Message.Message) =>
        Effect.gen(function* () {
          let sent = 0
          for (let idle = 0; idle < 20; ) {
            if (yield* connection.trySend(message)) {
              sent++
              idle = 0
            } else {
              idle++
              yield* Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
            }
          }
          return sent
        })

      const narrow: PairOptions = { server: { maxQueuedMessages: 1 }, client: { highWaterMark: 200_000 } }

      test("waits above the high-water mark, and completes when the peer reads", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make(narrow)
          const filled = yield* fill(client, pattern(100_000))
          assert.isAtLeast(yield* client.bufferedBytes, 200_000)
          assert.isFalse(client.unsafeTrySend("no room"))
          const waiting = yield* Effect.fork(client.send("waited"))
          yield* Effect.yieldNow()
          assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
          const received = yield* takeMany(server, filled + 1)
          yield* Fiber.join(waiting)
          assert.strictEqual(received.at(-1), "waited")
          assert.isTrue(received.slice(0, -1).every((message) => message.length === 100_000))
          yield* barrier(client)
          assert.strictEqual(yield* client.bufferedBytes, 0)
        }))

      test("never hangs when the line is cut while it waits", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make(narrow)
          yield* fill(client, pattern(100_000))
          const waiting = yield* Effect.forEach(
            [
              client.send("x"),
              client.sendAll(["x", "y"]),
              Stream.run(Stream.make("x"), client.sink),
              client.sendFragments("text", Stream.make("x"))
            ],
            (effect) => Effect.fork(failureOf(effect))
          )
          yield* Effect.yieldNow()
          yield* server.abort
          for (const fiber of waiting) assert.strictEqual(closedWith(yield* Fiber.join(fiber)).code, 1006)
        }))

      test("interrupting a waiting send leaves whole messages only", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make(narrow)
          const filled = yield* fill(client, pattern(100_000))
          const waiting = yield* Effect.forEach(numbers(5), (message) => Effect.fork(client.send(message)))
          yield* Effect.yieldNow()
          for (const i of [0, 2, 4]) yield* Fiber.interrupt(waiting[i]!)
          const sending = yield* Effect.fork(client.send("end"))
          const received = yield* takeMany(server, filled + 3)
          assert.deepStrictEqual(received.slice(filled), ["message 1", "message 3", "end"])
          yield* Fiber.join(sending)
        }))

      test("who waits longest is served first", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make(narrow)
          const filled = yield* fill(client, pattern(100_000))
          const big = (n: number) => pattern(150_000, n)
          const sending = yield* Effect.forEach([0, 1, 2, 3, 4], (n) =>
            Effect.zipRight(
              Effect.fork(n % 2 === 0 ? client.send(big(n)) : client.sendAll([big(n), `after ${n}`])),
              Effect.yieldNow()
            )
          )
          assert.strictEqual(sending.length, 5)
          const received = yield* takeMany(server, filled + 7)
          const order = received.slice(filled).map((message) => (typeof message === "string" ? message : message[0]))
          assert.deepStrictEqual(
            order.filter((one) => typeof one === "number"),
            [0, 1, 2, 3, 4]
          )
        }))

      test("a busy sender does not starve another", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make(narrow)
          const big = pattern(150_000)
          const busy = yield* Effect.fork(
            Effect.forEach(
              Array.from({ length: 40 }, () => big),
              client.send,
              { discard: true }
            )
          )
          yield* Effect.yieldNow()
          yield* Effect.fork(client.send("in between"))
          const received = yield* takeMany(server, 41)
          yield* Fiber.join(busy)
          assert.isBelow(received.indexOf("in between"), 39)
        }))
    })

    test("what is no message, sent by programs without types, is a defect, and nothing else is lost", (make) =>
      Effect.gen(function* () {
        const { client, server } = yield* make()
        const wrong = [
          new ArrayBuffer(9000),
          new DataView(new ArrayBuffer(4)),
          new Float32Array(3),
          7,
          null,
          { length: 3 }
        ]
        for (const one of wrong as unknown as ReadonlyArray<Message.Message>) {
          for (const sending of [
            client.send(one),
            client.sendWith(one, {}),
            client.sendAll(["not sent", one]),
            client.trySend(one),
            Effect.sync(() => client.unsafeTrySend(one)),
            Stream.run(Stream.make(one), client.sink)
          ]) {
            assert.include(yield* defectOf(sending), "a message is a string or a Uint8Array")
          }
        }
        yield* client.send("sent")
        assert.strictEqual(yield* server.take, "sent")
      }))

    describe("sendFragments", () => {
      const texts: ReadonlyArray<readonly [string, ReadonlyArray<string>, string]> = [
        ["no piece is an empty message", [], ""],
        ["empty pieces", ["", "a", "", "b", ""], "ab"],
        ["a surrogate pair that two pieces share", ["x\ud83d", "\ude00y"], "x😀y"],
        ["a surrogate pair across an empty piece", ["\ud83d", "", "\ude00"], "😀"],
        ["a lone surrogate becomes U+FFFD", ["a\ud83d", "b", "\ud83d"], "a\ufffdb\ufffd"],
        ["many pieces", numbers(300), numbers(300).join("")]
      ]
      for (const [from, to] of bothWays) {
        for (const [what, pieces, expected] of texts) {
          test(`${what}, from the ${from}`, (make) =>
            Effect.gen(function* () {
              const pair = yield* make()
              const sending = yield* Effect.fork(pair[from].sendFragments("text", Stream.fromIterable(pieces)))
              assert.strictEqual(yield* pair[to].take, expected)
              yield* Fiber.join(sending)
            }))
        }

        test(`bytes, from the ${from}`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            const pieces = [pattern(0), pattern(70_000), pattern(1), pattern(300)]
            yield* Effect.fork(pair[from].sendFragments("binary", Stream.fromIterable(pieces)))
            const message = (yield* pair[to].take) as Uint8Array
            assert.deepStrictEqual(message, Uint8Array.from(pieces.flatMap((piece) => [...piece])))
            yield* Effect.fork(pair[from].sendFragments("binary", Stream.empty))
            assert.deepStrictEqual(yield* pair[to].take, new Uint8Array(0))
          }))
      }

      test("pings pass between fragments, other messages wait for the end", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const gate = yield* Deferred.make<void>()
          const begun = yield* Deferred.make<void>()
          const pieces = Stream.concat(
            Stream.make("first "),
            Stream.fromEffect(
              Effect.zipRight(Deferred.succeed(begun, undefined), Effect.as(Deferred.await(gate), "second"))
            )
          )
          const sending = yield* Effect.fork(client.sendFragments("text", pieces))
          yield* Deferred.await(begun)
          yield* client.ping()
          yield* server.ping()
          assert.isFalse(client.unsafeTrySend("dropped"))
          const others = yield* Effect.forEach(
            [client.send("a"), client.sendAll(["b", "c"]), client.sendFragments("text", Stream.make("d", "e"))],
            (effect) => Effect.zipLeft(Effect.fork(effect), Effect.yieldNow())
          )
          yield* client.ping()
          yield* Deferred.succeed(gate, undefined)
          assert.deepStrictEqual(yield* takeMany(server, 5), ["first second", "a", "b", "c", "de"])
          yield* Fiber.joinAll([sending, ...others])
        }))

      const half = Stream.make("half")
      const broken: ReadonlyArray<
        readonly [string, Stream.Stream<Message.Message, string>, (exit: Exit.Exit<void, unknown>) => boolean]
      > = [
        [
          "fail",
          Stream.concat(half, Stream.fail("broken")),
          (exit) => Exit.isFailure(exit) && Cause.isFailure(exit.cause)
        ],
        ["die", Stream.concat(half, Stream.die("broken")), (exit) => Exit.isFailure(exit) && Cause.isDie(exit.cause)],
        [
          "are of the wrong kind",
          Stream.concat(half, Stream.make(pattern(1))),
          (exit) => Exit.isFailure(exit) && Cause.isDie(exit.cause)
        ]
      ]
      for (const [what, pieces, matches] of broken) {
        test(`pieces that ${what} in the middle close with 1011`, (make) =>
          Effect.gen(function* () {
            const { client, server } = yield* make()
            const exit = yield* Effect.exit(client.sendFragments("text", pieces))
            assert.isTrue(matches(exit))
            assert.strictEqual(closedWith(yield* failureOf(server.take)).code, 1011)
          }))
      }

      test("interruption in the middle closes with 1011", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          const sending = yield* Effect.fork(client.sendFragments("text", Stream.concat(half, Stream.never)))
          yield* barrier(client)
          yield* Fiber.interrupt(sending)
          assert.strictEqual(closedWith(yield* failureOf(server.take)).code, 1011)
        }))

      test("pieces that fail before the first fragment leave the connection as it is", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          assert.strictEqual(yield* failureOf(client.sendFragments("text", Stream.fail("early"))), "early")
          const waiting = yield* Effect.fork(client.sendFragments("text", Stream.never))
          yield* Effect.yieldNow()
          yield* Fiber.interrupt(waiting)
          yield* client.send("fine")
          assert.strictEqual(yield* server.take, "fine")
        }))
    })

    describe("ping", () => {
      for (const [from] of bothWays) {
        test(`several at once give their round trips, from the ${from}`, (make) =>
          Effect.gen(function* () {
            const pair = yield* make()
            const trips = yield* Effect.all(
              [pair[from].ping(), pair[from].ping(pattern(125)), pair[from].ping(new Uint8Array(0)), pair[from].ping()],
              { concurrency: "unbounded" }
            )
            assert.strictEqual(trips.length, 4)
          }))
      }

      test("is answered while messages wait for their consumer", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          yield* client.sendAll(numbers(10))
          yield* client.ping()
          assert.deepStrictEqual(yield* takeMany(server, 10), numbers(10))
        }))

      test("is not answered by a pong that nobody asked for", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make()
          yield* server.pong(pattern(125))
          yield* client.pong()
          yield* Effect.all([client.ping(), server.ping()], { concurrency: "unbounded" })
          yield* client.send("open")
          assert.strictEqual(yield* server.take, "open")
        }))

      test("fails when the connection ends first", (make) =>
        Effect.gen(function* () {
          const { client, server } = yield* make({ server: { maxQueuedMessages: 1 } })
          yield* client.sendAll(["fills", "the", "queue"])
          const waiting = yield* Effect.fork(failureOf(client.ping()))
          yield* Effect.yieldNow()
          yield* server.abort
          assert.strictEqual(closedWith(yield* Fiber.join(waiting)).code, 1006)
        }))
    })
  })
}
