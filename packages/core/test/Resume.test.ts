/** Sessions that outlive connections, over lines in memory, on the test's clock. */
import { KeyValueStore } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Broadcast,
  type Connection,
  MessagePack,
  type Reconnecting,
  Resume,
  WebSocketClient,
  WebSocketContract,
  WebSocketError
} from "@effect-ws/core"
import {
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Schedule,
  Schema,
  Scope,
  Stream,
  TestClock
} from "effect"
import * as Timers from "../src/internal/timers.js"
import { serveResumed } from "./resumeServer.js"

const Numbers = WebSocketContract.make("/", { incoming: Schema.Number, outgoing: Schema.Number })

/** Lets all run that waits for nothing but its turn. */
const settle = Effect.promise(async () => {
  for (let i = 0; i < 8; i++) await new Promise<void>((resume) => setImmediate(resume))
})

type Server = Effect.Effect.Success<ReturnType<typeof serveResumed<never, never>>>
type Socket = WebSocketContract.TypedConnection<number, number>

/** A server whose handlers hand out their connections and wait for the test to let them end. */
const serve = <R = never>(
  resume: Resume.Resume<R>,
  options: Pick<Parameters<typeof serveResumed>[1], "connection" | "cutAfter" | "handshake" | "owner"> = {}
) =>
  Effect.gen(function* () {
    const sockets: Array<Socket> = []
    const ends: Array<Deferred.Deferred<void>> = []
    const exits: Array<Exit.Exit<unknown, unknown>> = []
    const server = yield* serveResumed(resume, {
      ...options,
      handler: (connection) =>
        Effect.gen(function* () {
          const end = yield* Deferred.make<void>()
          sockets.push(yield* Numbers.server(connection))
          ends.push(end)
          yield* Deferred.await(end)
        }).pipe(Effect.onExit((exit) => Effect.sync(() => exits.push(exit))))
    })
    return { ...server, sockets, ends, exits }
  })

type ClientOptions = Partial<
  Reconnecting.ContractOptions<
    any,
    any,
    any,
    number,
    number,
    any,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    any,
    never
  >
>

const open = (server: { readonly client: WebSocketClient.Service }, options: ClientOptions = {}) =>
  WebSocketClient.reconnecting(Numbers, {
    url: "ws://host/",
    heartbeat: false,
    schedule: Schedule.spaced("1 second"),
    resume: Resume.memory(),
    ...options
  } as Reconnecting.ContractOptions<
    any,
    any,
    any,
    number,
    number,
    any,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    never,
    any,
    never
  >).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))

const cut = (server: Pick<Server, "lines">) =>
  Effect.zipRight(
    Effect.suspend(() => server.lines[server.lines.length - 1]!.end.cut),
    settle
  )

/** Waits out the delay before the next attempt. */
const redial = Effect.zipRight(TestClock.adjust("1 second"), settle)

const takeNumbers = (from: { readonly take: Effect.Effect<number, unknown> }, count: number) =>
  Effect.all(Array.from({ length: count }, () => from.take))

/** The gap as which a connection ended. */
const gapOf = (error: unknown): WebSocketError.ResumeGap => {
  assert.instanceOf(error, WebSocketError.ConnectionClosed)
  const { cause, code } = error as WebSocketError.ConnectionClosed
  assert.strictEqual(code, 1006)
  assert.instanceOf(cause, WebSocketError.ResumeGap)
  return cause as WebSocketError.ResumeGap
}

/** A plain connection to the server, to speak the protocol by hand. */
const plain = (server: { readonly client: WebSocketClient.Service }) =>
  Effect.tap(server.client.connect("ws://host/", { heartbeat: false }), () => settle)

const begin = "H1 - 0 0 1 0 256 65536"

/** Begins a session by hand and gives its id. */
const beginSession = (socket: Connection.Connection, hello = begin) =>
  Effect.gen(function* () {
    yield* socket.send(hello)
    const [version, status, id] = `${yield* socket.take}`.split(" ")
    assert.deepStrictEqual([version, status], ["W1", "new"])
    return id!
  })

describe("continuing", () => {
  it.scoped("a handler and a client see one connection over several", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const opened: Array<string> = []
      const client = yield* open(server, { onOpen: () => Effect.sync(() => opened.push("open")) })
      yield* settle
      const socket = server.sockets[0]!
      assert.strictEqual(Resume.info(socket)?.attached, true)
      yield* client.send(1)
      assert.strictEqual(yield* socket.take, 1)
      yield* cut(server)
      assert.deepStrictEqual(Resume.info(socket), { restored: false, attached: false, unacknowledged: 0 })
      assert.deepStrictEqual(server.sessions.counts, { sessions: 1, detached: 1 })
      yield* socket.sendAll([10, 20])
      yield* client.sendAll([2, 3])
      yield* redial
      assert.deepStrictEqual(yield* takeNumbers(socket, 2), [2, 3])
      assert.deepStrictEqual(yield* takeNumbers(client, 2), [10, 20])
      assert.deepStrictEqual(server.sessions.counts, { sessions: 1, detached: 0 })
      assert.deepStrictEqual([server.sockets.length, server.lines.length, opened.length], [1, 2, 1])
    })
  )

  it.scoped("what a line had taken and not carried is sent again, what it had carried is not", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* open(server)
      yield* settle
      const socket = server.sockets[0]!
      yield* client.send(1)
      yield* socket.send(10)
      yield* settle
      yield* server.lines[0]!.end.stall
      yield* socket.sendAll([20, 30])
      yield* settle
      yield* cut(server)
      yield* redial
      assert.deepStrictEqual(yield* takeNumbers(client, 3), [10, 20, 30])
      assert.strictEqual(yield* socket.take, 1)
      yield* client.send(2)
      assert.strictEqual(yield* socket.take, 2)
    })
  )

  for (const codec of [WebSocketContract.json, MessagePack.codec]) {
    it.scoped(`what ${codec.name} and plain messages hold passes as it is`, () =>
      Effect.gen(function* () {
        const contract = WebSocketContract.make("/", { incoming: Schema.Struct({ text: Schema.String }), codec })
        const seen: Array<unknown> = []
        const server = yield* serveResumed(Resume.memory(), {
          handler: (connection) =>
            Effect.flatMap(contract.server(connection), (socket) =>
              socket.runForEach((message) => {
                seen.push(message)
                return Effect.zipRight(socket.send("7\nlike a frame"), socket.send(Uint8Array.of(0x37, 0x0a, 0)))
              })
            )
        })
        const client = yield* WebSocketClient.reconnecting(contract, {
          url: "ws://host/",
          heartbeat: false,
          resume: Resume.memory()
        }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))
        yield* client.send({ text: "1\nü\u{1f600}" })
        assert.strictEqual(yield* client.take, "7\nlike a frame")
        assert.deepStrictEqual(yield* client.take, Uint8Array.of(0x37, 0x0a, 0))
        assert.deepStrictEqual(seen, [{ text: "1\nü\u{1f600}" }])
      })
    )
  }

  it.scoped("a handler that ends says so to a client that comes back, after all that it had sent", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* open(server)
      yield* settle
      yield* server.lines[0]!.end.stall
      yield* server.sockets[0]!.sendAll([1, 2, 3])
      yield* Deferred.succeed(server.ends[0]!, undefined)
      yield* settle
      yield* cut(server)
      assert.deepStrictEqual(server.sessions.counts, { sessions: 1, detached: 1 })
      yield* redial
      const all = yield* Stream.runCollect(client.messages)
      assert.deepStrictEqual([...all], [1, 2, 3])
      assert.deepInclude(yield* client.status, { _tag: "Closed", reason: "Final" })
      assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
    })
  )

  it.scoped("either end closes with a code of its own, which the other one sees", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* open(server)
      yield* settle
      yield* client.send(1)
      yield* client.close(4001, "bye")
      assert.strictEqual(yield* server.sockets[0]!.take, 1)
      const error = yield* Effect.flip(server.sockets[0]!.take)
      assert.strictEqual(error._tag === "ConnectionClosed" && error.code, 4001)
      assert.deepInclude(yield* server.sockets[0]!.closed, {
        code: 4001,
        reason: "bye",
        initiator: "remote",
        clean: true
      })
      const other = yield* open(server)
      yield* settle
      const info = yield* server.sockets[1]!.close(4002, "enough")
      assert.deepInclude(info, { code: 4002, reason: "enough", initiator: "local", clean: true })
      yield* settle
      const cause = yield* other.status
      assert.deepInclude(cause, { _tag: "Waiting" })
      assert.isTrue(cause._tag === "Waiting" && cause.cause._tag === "ConnectionClosed" && cause.cause.code === 4002)
      assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
    })
  )

  it.scoped("the line that is continued elsewhere is closed with 1008", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const first = yield* plain(server)
      const id = yield* beginSession(first)
      yield* first.send("1\n1")
      yield* settle
      const second = yield* plain(server)
      yield* second.send(`H1 ${id} 0 0 1 1 256 65536`)
      assert.strictEqual(yield* second.take, `W1 resumed ${id} 1 0 256 65536`)
      assert.deepInclude(yield* first.closed, { code: 1008 })
      yield* second.send("2\n2")
      assert.deepStrictEqual(yield* takeNumbers(server.sockets[0]!, 2), [1, 2])
      assert.strictEqual(server.sockets.length, 1)
    })
  )
})

describe("gaps", () => {
  it.scoped("a session without a client ends after ttl, and both ends are told", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ ttl: "10 seconds" }))
      const client = yield* open(server, { schedule: Schedule.spaced("1 minute") })
      yield* settle
      const socket = server.sockets[0]!
      yield* client.send(1)
      yield* settle
      yield* server.lines[0]!.end.stall
      yield* socket.sendAll([10, 20])
      yield* settle
      yield* cut(server)
      yield* TestClock.adjust("9999 millis")
      assert.isFalse(yield* Effect.map(Effect.fork(socket.closed), (fiber) => fiber.unsafePoll() !== null))
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* socket.take, 1)
      const gap = gapOf(yield* Effect.flip(socket.take))
      assert.deepStrictEqual(
        { ...gap, message: "", cause: undefined },
        { ...gap, reason: "Expired", received: 1, sent: 2, unacknowledged: ["10", "20"], message: "", cause: undefined }
      )
      assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
      assert.strictEqual((yield* Effect.exit(socket.send(3)))._tag, "Failure")
      yield* TestClock.adjust("1 minute")
      yield* settle
      const error = yield* Effect.flip(client.take)
      assert.deepInclude(gapOf(error), { reason: "Unknown", sent: 1, received: 0 })
      assert.deepStrictEqual(gapOf(error).unacknowledged, ["1"])
      assert.deepInclude(yield* client.status, { _tag: "Closed", reason: "Final" })
    })
  )

  for (const [name, bytes, left] of [
    ["half of the first hello", 14, 0],
    ["the first hello and half of its welcome", 60, 1]
  ] as const) {
    it.scoped(
      `a line that carries ${name}: the client begins another session, and ${left} wait in vain until ttl`,
      () =>
        Effect.gen(function* () {
          const cuts: Array<number | undefined> = [bytes]
          const server = yield* serve(Resume.memory({ ttl: "1 minute" }), {
            handshake: false,
            cutAfter: () => cuts.shift()
          })
          const client = yield* open(server)
          yield* client.send(1)
          yield* settle
          assert.deepStrictEqual(server.sessions.counts, { sessions: left, detached: left })
          yield* redial
          assert.deepStrictEqual(server.sessions.counts, { sessions: left + 1, detached: left })
          assert.strictEqual(yield* server.sockets[left]!.take, 1)
          yield* TestClock.adjust("1 minute")
          yield* settle
          assert.deepStrictEqual(server.sessions.counts, { sessions: 1, detached: 0 })
          for (const socket of server.sockets.slice(0, left)) {
            assert.strictEqual(gapOf(yield* Effect.flip(socket.take)).reason, "Expired")
          }
          yield* server.sockets[left]!.send(2)
          assert.strictEqual(yield* client.take, 2)
        })
    )
  }

  it.scoped("onGap is told before onOpen, and the client goes on in a new session", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ ttl: "10 seconds" }))
      const told: Array<unknown> = []
      const client = yield* open(server, {
        schedule: Schedule.spaced("1 minute"),
        onGap: (gap) => Effect.sync(() => told.push(gap.reason, ...gap.unacknowledged)),
        onOpen: (socket) =>
          Effect.zipRight(
            Effect.sync(() => told.push("open")),
            socket.send(0)
          )
      })
      yield* settle
      yield* server.sockets[0]!.send(10)
      yield* settle
      yield* server.lines[0]!.end.stall
      yield* cut(server)
      yield* client.send(1)
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.deepStrictEqual(told, ["open", "Unknown", "0", "open"])
      assert.deepStrictEqual(yield* takeNumbers(server.sockets[1]!, 2), [0, 1])
      yield* server.sockets[1]!.send(20)
      assert.deepStrictEqual(yield* takeNumbers(client, 2), [10, 20])
    })
  )

  it.scoped("a server that restarted without a store", () =>
    Effect.gen(function* () {
      const life = yield* Scope.make()
      const first = yield* Scope.extend(serve(Resume.memory()), life)
      let server: { readonly client: WebSocketClient.Service } = first
      const gaps: Array<string> = []
      const client = yield* open(
        { client: { connect: (url, options) => server.client.connect(url, options) } },
        { onGap: (gap) => Effect.sync(() => gaps.push(gap.reason)) }
      )
      yield* settle
      yield* client.send(1)
      yield* settle
      yield* Scope.close(life, Exit.interrupt(yield* Effect.fiberId))
      yield* settle
      const second = yield* serve(Resume.memory())
      server = second
      yield* redial
      assert.deepStrictEqual(gaps, ["Ended"])
      yield* client.send(2)
      assert.strictEqual(yield* second.sockets[0]!.take, 2)
    })
  )

  it.scoped("a store that overflows: both ends are told when the other one comes back", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ maxMessages: 3, overflow: "gap" }))
      const gaps: Array<WebSocketError.ResumeGap> = []
      const client = yield* open(server, { onGap: (gap) => Effect.sync(() => gaps.push(gap)) })
      yield* settle
      const socket = server.sockets[0]!
      yield* cut(server)
      yield* socket.sendAll([1, 2, 3, 4])
      assert.strictEqual(Resume.info(socket)?.unacknowledged, 3)
      yield* redial
      assert.strictEqual(gapOf(yield* Effect.flip(socket.take)).reason, "Overflow")
      assert.deepStrictEqual(
        gaps.map(({ reason }) => reason),
        ["Overflow"]
      )
      yield* server.sockets[1]!.send(5)
      assert.strictEqual(yield* client.take, 5)
    })
  )

  it.scoped("a store that is full lets senders wait, and no more is kept", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ maxMessages: 3 }))
      const client = yield* open(server)
      yield* settle
      const socket = server.sockets[0]!
      yield* cut(server)
      const sending = yield* Effect.fork(socket.sendAll([1, 2, 3, 4, 5, 6, 7]))
      yield* settle
      assert.deepStrictEqual([sending.unsafePoll(), Resume.info(socket)?.unacknowledged], [null, 3])
      assert.isFalse(yield* socket.trySend(8))
      yield* redial
      assert.deepStrictEqual(yield* takeNumbers(client, 7), [1, 2, 3, 4, 5, 6, 7])
      yield* Fiber.join(sending)
    })
  )

  it.scoped("no more than maxDetached wait for their clients: the oldest goes", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ maxDetached: 2 }))
      for (let i = 0; i < 3; i++) {
        yield* open(server, { schedule: Schedule.spaced("1 hour") })
        yield* settle
        yield* cut(server)
      }
      assert.deepStrictEqual(server.sessions.counts, { sessions: 2, detached: 2 })
      assert.strictEqual(gapOf(yield* Effect.flip(server.sockets[0]!.take)).reason, "Evicted")
      assert.isTrue(yield* server.sockets[1]!.trySend(1))
    })
  )
})

describe("acknowledgements", () => {
  it.scoped("one for a quarter of what the peer keeps, or after an interval, or with a message", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ ackInterval: "1 second" }))
      const client = yield* plain(server)
      yield* beginSession(client, "H1 - 0 0 1 0 4 65536")
      const socket = server.sockets[0]!
      yield* client.sendAll(["1\n1", "2\n2", "3\n3"])
      yield* settle
      assert.deepStrictEqual(yield* takeNumbers(socket, 3), [1, 2, 3])
      const next = yield* Effect.fork(client.take)
      yield* settle
      assert.isNull(next.unsafePoll())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), "A3")
      yield* client.send("4\n4")
      assert.strictEqual(yield* socket.take, 4)
      yield* socket.send(10)
      assert.strictEqual(yield* client.take, "1,4\n10")
      yield* socket.send(20)
      assert.strictEqual(yield* client.take, "2\n20")
      yield* client.sendAll(["5\n5", "6\n6", "7\n7", "8\n8", "9\n9"])
      yield* settle
      // What nobody has taken is not acknowledged.
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* takeNumbers(socket, 5), [5, 6, 7, 8, 9])
      assert.strictEqual(yield* client.take, "A9")
      yield* client.send("A2")
      yield* settle
      assert.strictEqual(Resume.info(socket)?.unacknowledged, 0)
    })
  )

  it.scoped("so many bytes count too", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* plain(server)
      yield* beginSession(client, "H1 - 0 0 1 0 100 8")
      yield* client.send("1\n1234")
      assert.strictEqual(yield* server.sockets[0]!.take, 1234)
      assert.strictEqual(yield* client.take, "A1")
    })
  )

  it.scoped("a duplicate is dropped", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* plain(server)
      yield* beginSession(client)
      yield* client.sendAll(["1\n1", "2\n2", "1\n1", "2\n2", "3\n3"])
      assert.deepStrictEqual(yield* takeNumbers(server.sockets[0]!, 3), [1, 2, 3])
    })
  )
})

describe("who breaks the rules", () => {
  for (const [name, frames, code] of [
    ["no hello", ['{"text":"hi"}'], 1002],
    ["a binary message in place of a hello", [Uint8Array.of(1, 2, 3)], 1002],
    ["data in place of a hello", ["1\n1"], 1002],
    ["a hello of another version", ["H2 - 0 0 1 0 1 1"], 1002],
    ["a second hello", [begin, begin], 1002],
    ["no frame", [begin, "1"], 1002],
    ["a message that leaves others out", [begin, "1\n1", "3\n3"], 1002],
    ["an acknowledgement of what was not sent", [begin, "A1"], 1002],
    ["also with a message", [begin, "1,1\n1"], 1002]
  ] as const) {
    it.scoped(`${name}: ${code}`, () =>
      Effect.gen(function* () {
        const server = yield* serve(Resume.memory())
        const client = yield* plain(server)
        yield* client.sendAll(frames)
        const { info } = yield* Effect.flip(
          Stream.runDrain(client.messages)
        ) as Effect.Effect<WebSocketError.ConnectionClosed>
        assert.strictEqual(info.code, code)
        assert.match(info.reason, /^resume: /)
        yield* settle
        const socket = server.sockets[0]
        if (socket !== undefined) {
          const error = yield* Effect.flip(Stream.runDrain(socket.messages))
          assert.isTrue(
            error._tag === "ConnectionClosed" && error.cause?._tag === "ResumeViolation" && error.code === code
          )
        }
        assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
      })
    )
  }

  it.scoped("who says nothing is closed with 1008", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ helloTimeout: "3 seconds" }))
      const client = yield* plain(server)
      yield* TestClock.adjust("3 seconds")
      const error = yield* Effect.flip(Stream.runDrain(client.messages))
      assert.strictEqual(error._tag === "ConnectionClosed" && error.code, 1008)
    })
  )

  it.scoped("an id that is unknown, or another owner's, gives a new session and leaves the other one alone", () =>
    Effect.gen(function* () {
      let owner = "ada"
      const server = yield* serve(Resume.memory(), { owner: () => owner })
      const first = yield* plain(server)
      const id = yield* beginSession(first)
      owner = "eve"
      for (const forged of ["0123456789abcdef0123456789abcdef", id]) {
        const eve = yield* plain(server)
        yield* eve.send(`H1 ${forged} 0 0 1 0 256 65536`)
        const [, status, other] = `${yield* eve.take}`.split(" ")
        assert.strictEqual(status, "unknown")
        assert.notStrictEqual(other, id)
      }
      assert.strictEqual(server.sessions.counts.sessions, 3)
      yield* server.sockets[0]!.send(1)
      assert.strictEqual(yield* first.take, "1\n1")
    })
  )

  it.scoped("ids can't be guessed: 128 bits, none twice", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const ids = new Set<string>()
      for (let i = 0; i < 20; i++) ids.add(yield* beginSession(yield* plain(server)))
      assert.strictEqual(ids.size, 20)
      for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/)
    })
  )

  for (const [name, answer, reason] of [
    ["what is no welcome", "hello", "Invalid"],
    ["a welcome to another's session", "W1 resumed 0123456789abcdef 0 0 1 1", "Invalid"],
    ["nothing", undefined, "Timeout"]
  ] as const) {
    it.scoped(`a server that answers the hello with ${name}: HandshakeError, ${reason}`, () =>
      Effect.gen(function* () {
        const server = yield* serveResumed(Resume.memory(), {
          handler: () => Effect.void,
          plain: (server) =>
            Effect.zipRight(answer === undefined ? Effect.void : server.send(answer), Stream.runDrain(server.messages))
        })
        const client = yield* open(server, { resume: Resume.memory({ helloTimeout: "2 seconds" }) })
        yield* settle
        yield* TestClock.adjust("2 seconds")
        yield* settle
        const status = yield* client.status
        const cause = status._tag === "Waiting" ? status.cause : yield* Effect.flip(client.take)
        assert.deepInclude(cause, { _tag: "HandshakeError", phase: "Response", reason })
        assert.strictEqual(status._tag, reason === "Timeout" ? "Waiting" : "Closed")
      })
    )
  }
})

describe("the client", () => {
  for (const [overflow, sent, failures] of [
    ["suspend", [1, 2, 3, 4], 0],
    ["dropOldest", [3, 4], 0],
    ["dropNewest", [1, 2], 0],
    ["fail", [1, 2], 2]
  ] as const) {
    it.scoped(`its outbox has its own policy while there is no connection: ${overflow}`, () =>
      Effect.gen(function* () {
        const server = yield* serve(Resume.memory())
        const client = yield* open(server, { outbox: { maxMessages: 2, overflow } })
        yield* settle
        yield* cut(server)
        const sending = yield* Effect.forEach([1, 2, 3, 4], (n) =>
          Effect.zipLeft(Effect.fork(Effect.exit(client.send(n))), settle)
        )
        yield* redial
        const exits = yield* Effect.forEach(sending, (fiber) => Fiber.join(fiber))
        assert.strictEqual(exits.filter(Exit.isFailure).length, failures)
        assert.deepStrictEqual(yield* takeNumbers(server.sockets[0]!, sent.length), [...sent])
      })
    )
  }

  it.scoped(
    "senders wait for acknowledgements when its store is full, and in its outbox when the connection is lost",
    () =>
      Effect.gen(function* () {
        const server = yield* serve(Resume.memory())
        const client = yield* open(server, { resume: Resume.memory({ maxMessages: 2 }), outbox: { maxMessages: 1 } })
        yield* settle
        const sending = yield* Effect.fork(client.sendAll([1, 2, 3, 4, 5]))
        yield* settle
        assert.isNull(sending.unsafePoll())
        yield* cut(server)
        yield* redial
        assert.isNull(sending.unsafePoll())
        assert.deepStrictEqual(yield* takeNumbers(server.sockets[0]!, 5), [1, 2, 3, 4, 5])
        yield* Fiber.join(sending)
      })
  )

  for (const state of ["open", "waiting"] as const) {
    it.effect(`leaving its Scope while ${state} ends its session and leaves nothing`, () =>
      Effect.gen(function* () {
        const outer = yield* Scope.make()
        const server = yield* Scope.extend(serve(Resume.memory({ ttl: "1 minute" })), outer)
        const scope = yield* Scope.make()
        const client = yield* Scope.extend(open(server), scope)
        yield* settle
        const reading = yield* Effect.fork(Stream.runDrain(client.messages))
        yield* server.sockets[0]!.send(1)
        yield* client.send(1)
        yield* settle
        if (state === "waiting") yield* cut(server)
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(reading)
        yield* settle
        if (state === "open") {
          assert.strictEqual(yield* server.sockets[0]!.take, 1)
          assert.deepInclude(yield* server.sockets[0]!.closed, { code: 1000, initiator: "remote", clean: true })
          assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
        }
        assert.deepInclude(yield* client.status, { _tag: "Closed", reason: "Scope" })
        assert.strictEqual((yield* Effect.exit(client.send(2)))._tag, "Failure")
        yield* Scope.close(outer, Exit.void)
        yield* settle
        assert.deepStrictEqual(server.sessions.counts, { sessions: 0, detached: 0 })
        assert.strictEqual(Timers.of(yield* Effect.clock).size, 0)
      })
    )
  }

  it.scoped("a message that does not fit is final, and the server is told", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* open(server)
      yield* settle
      yield* server.sockets[0]!.raw.send('"no number"')
      const error = yield* Effect.flip(client.take)
      assert.strictEqual(error._tag, "MessageError")
      assert.deepInclude(yield* server.sockets[0]!.closed, { code: 1008, initiator: "remote" })
    })
  )

  it.scoped("`messages` ends where no further attempt is made", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* open(server, { schedule: Schedule.recurs(0) })
      yield* settle
      yield* server.sockets[0]!.send(1)
      yield* settle
      const all = yield* Effect.fork(Effect.either(Stream.runCollect(client.messages)))
      yield* settle
      yield* cut(server)
      yield* settle
      assert.strictEqual((yield* Fiber.join(all))._tag, "Left")
      assert.deepInclude(yield* client.status, { _tag: "Closed", reason: "Exhausted" })
    })
  )

  it.scoped("what waited while an acknowledgement left counts for the next one", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory())
      const client = yield* plain(server)
      // Wants to be told after 4 bytes, two digits.
      yield* client.send("H1 - 0 0 1 0 256 4")
      assert.match(`${yield* client.take}`, /^W1 new /)
      yield* settle
      const socket = server.sockets[0]!
      yield* client.sendAll(["1\n11", "2\n22"])
      yield* settle
      assert.strictEqual(yield* socket.take, 11)
      yield* socket.send(5)
      assert.strictEqual(yield* client.take, "1,1\n5")
      assert.strictEqual(yield* socket.take, 22)
      // At once, not after the interval
      assert.strictEqual(yield* client.take, "A2")
    })
  )

  it.scoped("a Broadcast gives up a client that is away when its store is full and the allowance is used up", () =>
    Effect.gen(function* () {
      const server = yield* serve(Resume.memory({ maxBytes: 1000 }), { connection: { highWaterMark: 500 } })
      yield* open(server, { schedule: Schedule.spaced("1 hour") })
      yield* settle
      const { raw } = server.sockets[0]!
      const room = yield* Broadcast.make({ allowanceBytes: 1500 })
      yield* room.join(raw)
      yield* cut(server)
      const counts: Array<number> = []
      for (let i = 0; i < 30; i++) {
        yield* room.publish("x".repeat(50))
        yield* settle
        counts.push(Resume.info(raw)!.unacknowledged)
      }
      // 1000 bytes of the store and 1000 past it, which make it look 1500 full.
      assert.strictEqual(Math.max(...counts), 20)
      assert.strictEqual(yield* room.disconnected, 1)
      assert.strictEqual((yield* raw.closed).code, 1013)
    })
  )
})

describe("in a KeyValueStore", () => {
  const stores = Effect.map(Layer.build(KeyValueStore.layerMemory), Context.get(KeyValueStore.KeyValueStore))
  const onStore = <A, E, R>(store: KeyValueStore.KeyValueStore, effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, KeyValueStore.KeyValueStore, store)
  const stored = Resume.keyValueStore({ ttl: "1 minute" })

  for (const how of ["shutdown", "crash"] as const) {
    it.scoped(`a session outlives its server: ${how}`, () =>
      Effect.gen(function* () {
        const store = yield* stores
        const life = yield* Scope.make()
        const first = yield* Scope.extend(onStore(store, serve(stored)), life)
        let server: { readonly client: WebSocketClient.Service } = first
        const client = yield* open({ client: { connect: (url, options) => server.client.connect(url, options) } })
        yield* settle
        const before = first.sockets[0]!
        yield* client.sendAll([1, 2, 3])
        yield* settle
        assert.strictEqual(yield* before.take, 1)
        // Taken is what a consumer has: the line ends before 2 and 3 are.
        yield* TestClock.adjust("1 second")
        yield* before.send(10)
        yield* settle
        assert.strictEqual(yield* client.take, 10)
        yield* first.lines[0]!.end.stall
        yield* before.sendAll([20, 30])
        yield* settle
        yield* cut(first)
        if (how === "shutdown") yield* Scope.close(life, Exit.interrupt(yield* Effect.fiberId))
        const second = yield* onStore(store, serve(stored))
        assert.deepStrictEqual(second.sessions.counts, { sessions: 1, detached: 1 })
        server = second
        yield* redial
        const after = second.sockets[0]!
        assert.deepInclude(Resume.info(after), { restored: true, attached: true })
        assert.deepStrictEqual(yield* takeNumbers(client, 2), [20, 30])
        yield* after.send(40)
        yield* client.send(4)
        assert.strictEqual(yield* client.take, 40)
        assert.deepStrictEqual(yield* takeNumbers(after, 3), [2, 3, 4])
        assert.strictEqual(second.sockets.length, 1)
        yield* client.close()
        yield* settle
        // Nothing is left but the indexes.
        assert.isAtMost(yield* store.size, 16)
        yield* Scope.close(life, Exit.void)
      })
    )
  }

  it.scoped("what nobody asks for within ttl after the restart is removed", () =>
    Effect.gen(function* () {
      const store = yield* stores
      const life = yield* Scope.make()
      const first = yield* Scope.extend(onStore(store, serve(stored)), life)
      const client = yield* plain(first)
      const id = yield* beginSession(client)
      yield* first.sockets[0]!.sendAll([1, 2])
      yield* settle
      yield* Effect.fork(Stream.runDrain(client.messages))
      yield* Scope.close(life, Exit.interrupt(yield* Effect.fiberId))
      assert.isTrue(yield* store.has(`resume/${id}`))
      const second = yield* onStore(store, serve(stored))
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.deepStrictEqual(second.sessions.counts, { sessions: 0, detached: 0 })
      assert.isFalse(yield* store.has(`resume/${id}`))
      assert.isFalse(yield* store.has(`resume/${id}.1`))
      const late = yield* plain(second)
      yield* late.send(`H1 ${id} 0 0 1 0 256 65536`)
      assert.match(`${yield* late.take}`, /^W1 unknown /)
    })
  )

  it.scoped("what is acknowledged is removed", () =>
    Effect.gen(function* () {
      const store = yield* stores
      const server = yield* onStore(store, serve(stored))
      const client = yield* plain(server)
      const id = yield* beginSession(client)
      for (let i = 1; i <= 5; i++) {
        yield* server.sockets[0]!.send(i)
        yield* settle
      }
      assert.isTrue(yield* store.has(`resume/${id}.5`))
      const full = yield* store.size
      yield* client.send("A4")
      yield* settle
      assert.strictEqual(yield* store.size, full - 4)
    })
  )

  it.scoped("another owner does not get it", () =>
    Effect.gen(function* () {
      const store = yield* stores
      const life = yield* Scope.make()
      const first = yield* Scope.extend(onStore(store, serve(stored, { owner: () => "ada" })), life)
      const socket = yield* plain(first)
      const id = yield* beginSession(socket)
      yield* Effect.fork(Stream.runDrain(socket.messages))
      yield* Scope.close(life, Exit.interrupt(yield* Effect.fiberId))
      let owner = "eve"
      const second = yield* onStore(store, serve(stored, { owner: () => owner }))
      const eve = yield* plain(second)
      yield* eve.send(`H1 ${id} 0 0 1 0 256 65536`)
      assert.match(`${yield* eve.take}`, /^W1 unknown /)
      owner = "ada"
      const ada = yield* plain(second)
      yield* ada.send(`H1 ${id} 0 0 1 0 256 65536`)
      assert.match(`${yield* ada.take}`, new RegExp(`^W1 resumed ${id} `))
    })
  )

  it.scoped("a client that is interrupted leaves its session to the next one", () =>
    Effect.gen(function* () {
      const store = yield* stores
      const server = yield* serve(Resume.memory())
      const life = yield* Scope.make()
      const opened: Array<string> = []
      const options = {
        resume: Resume.keyValueStore({ prefix: "page/" }) as Resume.Resume,
        onOpen: () => Effect.sync(() => opened.push("open"))
      }
      const first = yield* Scope.extend(onStore(store, open(server, options)), life)
      yield* settle
      yield* server.lines[0]!.end.stall
      yield* first.send(1)
      yield* server.sockets[0]!.sendAll([10])
      yield* settle
      const closing = yield* Effect.fork(Scope.close(life, Exit.interrupt(yield* Effect.fiberId)))
      yield* settle
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(closing)
      yield* settle
      const second = yield* onStore(store, open(server, options))
      yield* settle
      yield* second.send(2)
      assert.deepStrictEqual(yield* takeNumbers(server.sockets[0]!, 2), [1, 2])
      assert.strictEqual(yield* second.take, 10)
      assert.deepStrictEqual([server.sockets.length, opened.length], [1, 1])
    })
  )

  it.scoped("bytes are kept as they are", () =>
    Effect.gen(function* () {
      const store = yield* stores
      const life = yield* Scope.make()
      const first = yield* Scope.extend(onStore(store, serve(stored)), life)
      const one = yield* plain(first)
      const id = yield* beginSession(one)
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
      yield* first.sockets[0]!.raw.sendAll([bytes, "text"])
      yield* settle
      yield* Effect.fork(Stream.runDrain(one.messages))
      yield* Scope.close(life, Exit.interrupt(yield* Effect.fiberId))
      const second = yield* onStore(store, serve(stored))
      const two = yield* plain(second)
      yield* two.send(`H1 ${id} 0 0 1 0 256 65536`)
      yield* two.take
      assert.deepStrictEqual(yield* two.take, Uint8Array.of(0x31, 0x0a, ...bytes))
      assert.strictEqual(yield* two.take, "2\ntext")
    })
  )

  it.scoped("a store that fails ends the session, and nothing is put out that was not written", () =>
    Effect.gen(function* () {
      const store = yield* stores
      let broken = false
      const failing: KeyValueStore.KeyValueStore = {
        ...store,
        set: (key, value) => (broken ? Effect.die(new Error("disk full")) : store.set(key, value))
      }
      const server = yield* onStore(failing, serve(stored))
      const client = yield* plain(server)
      yield* beginSession(client)
      broken = true
      yield* server.sockets[0]!.send(1)
      const gap = gapOf(yield* Effect.flip(server.sockets[0]!.take))
      assert.deepStrictEqual([gap.reason, gap.unacknowledged], ["Store", ["1"]])
      assert.deepInclude(yield* client.closed, { code: 1001 })
      assert.isTrue(Option.isNone(yield* Stream.runHead(client.messages)))
    })
  )
})
