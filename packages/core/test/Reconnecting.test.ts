/** A client that stays connected, over lines in memory, on the test's clock. */
import { assert, describe, it } from "@effect/vitest"
import {
  Connection,
  type Reconnecting,
  TestTransport,
  WebSocketClient,
  WebSocketContract,
  WebSocketError
} from "@effect-ws/core"
import {
  Chunk,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Option,
  Queue,
  Schedule,
  Schema,
  Scope,
  Stream,
  SubscriptionRef,
  TestClock
} from "effect"
import { latin1, onRequest, switching } from "./rawServer.js"

// ---- a server in memory ----------------------------------------------------------------------------------------------------

/** One line that the client opened, with the server's connection on it. */
interface Line {
  readonly request: string
  readonly server: Connection.Connection
  readonly end: TestTransport.TestTransport
}

/** What the server does with the next request: accept, or answer with this head. */
type Answer = "accept" | "never" | (string & {})

interface Server {
  readonly client: WebSocketClient.Service
  /** Lines that were accepted, one by one. */
  readonly lines: Queue.Dequeue<Line>
  readonly requests: Array<string>
  readonly dials: () => number
}

const serve = (
  answer: (attempt: number) => Answer = () => "accept",
  options: TestTransport.Options = {},
  serverOptions: Connection.Options = {}
): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const lines = yield* Queue.unbounded<Line>()
    const requests: Array<string> = []
    let dials = 0
    const client = WebSocketClient.fromDialer(() =>
      Effect.gen(function* () {
        const [near, far] = yield* TestTransport.pair(options)
        const attempt = ++dials
        yield* Effect.addFinalizer(() => Effect.sync(() => near.abort()))
        onRequest(far, (request) => {
          requests.push(request)
          const what = answer(attempt)
          if (what === "never") return
          if (what !== "accept") {
            far.write([latin1(`HTTP/1.1 ${what}\r\nContent-Length: 0\r\n\r\n`)])
            return
          }
          far.write([switching(request)])
          const server = Connection.make(far, { ...serverOptions, heartbeat: false, role: "server" })
          const line = Effect.map(Scope.extend(server, scope), (server) => ({ request, server, end: far }))
          Effect.runSync(Effect.flatMap(line, (line) => Queue.offer(lines, line)))
        })
        return near
      })
    )
    return { client, lines, requests, dials: () => dials }
  })

/** Lets all run that waits for nothing but its turn. */
const settle = Effect.promise(async () => {
  for (let i = 0; i < 8; i++) await new Promise<void>((resume) => setImmediate(resume))
})

const statusOf = <E>(client: { readonly status: SubscriptionRef.SubscriptionRef<Reconnecting.Status<E>> }) =>
  SubscriptionRef.get(client.status)

/** Waits for a status. */
const until = <E, Tag extends Reconnecting.Status<E>["_tag"]>(
  client: { readonly status: SubscriptionRef.SubscriptionRef<Reconnecting.Status<E>> },
  tag: Tag
) =>
  client.status.changes.pipe(
    Stream.filter((status): status is Extract<Reconnecting.Status<E>, { readonly _tag: Tag }> => status._tag === tag),
    Stream.runHead,
    Effect.map(Option.getOrThrow)
  )

type Failure = WebSocketError.HandshakeError | WebSocketError.ConnectionError

const open = (
  server: Server,
  options: Reconnecting.Options<Failure, never, never, never, never, never, Failure, never> = {}
) =>
  WebSocketClient.reconnecting("ws://host/", {
    heartbeat: false,
    schedule: Schedule.spaced("1 second"),
    ...options
  }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))

const delayOf = (status: Reconnecting.Status<unknown>) =>
  status._tag === "Waiting" ? Duration.toMillis(status.delay) : Number.NaN

describe("messages", () => {
  it.scoped("span connections", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      const all = yield* Effect.fork(Stream.runCollect(client.messages))
      const first = yield* Queue.take(server.lines)
      yield* first.server.sendAll(["a", "b"])
      yield* settle
      yield* first.end.cut
      yield* until(client, "Waiting")
      yield* TestClock.adjust("1 second")
      const second = yield* Queue.take(server.lines)
      yield* second.server.send("c")
      yield* second.server.close(1000)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Fiber.join(all)), ["a", "b", "c"])
      assert.deepInclude(yield* statusOf(client), { _tag: "Closed", reason: "Final", cause: undefined })
      assert.strictEqual(server.dials(), 2)
    })
  )

  it.scoped("what a connection had received is not lost with it, and comes before what the next one receives", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      const first = yield* Queue.take(server.lines)
      yield* first.server.sendAll(["a", "b", "c"])
      yield* settle
      yield* first.end.cut
      yield* until(client, "Waiting")
      yield* TestClock.adjust("1 second")
      const second = yield* Queue.take(server.lines)
      yield* second.server.send("d")
      yield* until(client, "Open")
      assert.strictEqual(yield* client.take, "a")
      assert.strictEqual(yield* client.take, "b")
      // Someone who stops waiting takes nothing.
      const rest = yield* Effect.fork(Stream.runCollect(Stream.take(client.messages, 2)))
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Fiber.join(rest)), ["c", "d"])
      const waiting = yield* Effect.fork(client.take)
      yield* settle
      yield* Fiber.interrupt(waiting)
      yield* second.server.send("e")
      assert.strictEqual(yield* client.take, "e")
    })
  )

  it.scoped("no third connection while two that ended have messages that nobody took", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      for (const message of ["a", "b"]) {
        const line = yield* Queue.take(server.lines)
        yield* line.server.send(message)
        yield* settle
        yield* line.end.cut
        yield* until(client, "Waiting")
        yield* TestClock.adjust("1 second")
      }
      yield* settle
      assert.strictEqual(server.dials(), 2)
      assert.strictEqual(yield* client.take, "a")
      assert.strictEqual(yield* client.take, "b")
      yield* Queue.take(server.lines)
      assert.strictEqual(server.dials(), 3)
    })
  )

  it.scoped("a connection that left nothing is no reason to wait for a consumer", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      for (let i = 1; i <= 4; i++) {
        const line = yield* Queue.take(server.lines)
        yield* until(client, "Open")
        yield* line.end.cut
        yield* until(client, "Waiting")
        yield* TestClock.adjust("1 second")
      }
      yield* Queue.take(server.lines)
    })
  )

  it.scoped("one consumer at a time", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      const first = yield* Effect.fork(Stream.runDrain(client.messages))
      yield* settle
      const second = yield* Effect.exit(client.take)
      assert.isTrue(Exit.isFailure(second) && second.cause._tag === "Die")
      yield* Fiber.interrupt(first)
      const line = yield* Queue.take(server.lines)
      yield* line.server.send("x")
      assert.strictEqual(yield* client.take, "x")
    })
  )
})

describe("what is retried", () => {
  const closes: ReadonlyArray<readonly [number, boolean]> = [
    [1000, false],
    [1001, true],
    [1002, false],
    [1003, false],
    [1007, false],
    [1008, false],
    [1009, false],
    [1010, false],
    [1011, true],
    [1012, true],
    [1013, true],
    [1014, true],
    [3000, false],
    [3003, false],
    [3008, true],
    [4000, true]
  ]
  for (const [code, retried] of closes) {
    it.scoped(`a close with ${code}: ${retried ? "yes" : "no"}`, () =>
      Effect.gen(function* () {
        const server = yield* serve()
        const client = yield* open(server)
        const end = yield* Effect.fork(Effect.exit(Stream.runDrain(client.messages)))
        const line = yield* Queue.take(server.lines)
        yield* line.server.close(code)
        if (retried) {
          const status = yield* until(client, "Waiting")
          assert.strictEqual((status as { cause: WebSocketError.ConnectionClosed }).cause.code, code)
        } else {
          const exit = yield* Fiber.join(end)
          assert.strictEqual(Exit.isSuccess(exit), code === 1000)
          assert.deepInclude(yield* statusOf(client), { _tag: "Closed", reason: "Final" })
          const error = yield* Effect.flip(client.send("late"))
          assert.deepInclude(error, { _tag: "Stopped", reason: "Final" })
        }
      })
    )
  }

  const answers: ReadonlyArray<readonly [string, number | undefined]> = [
    ["400 Bad Request", undefined],
    ["401 Unauthorized", undefined],
    ["403 Forbidden", undefined],
    ["404 Not Found", undefined],
    ["200 OK", undefined],
    ["301 Moved\r\nLocation: /", undefined],
    ["501 Not Implemented", undefined],
    ["408 Request Timeout", 1000],
    ["425 Too Early", 1000],
    ["429 Too Many Requests", 1000],
    ["500 Oops", 1000],
    ["503 Unavailable", 1000],
    ["503 Unavailable\r\nRetry-After: 7", 7000],
    ["429 Too Many Requests\r\nRetry-After: 0", 1000],
    ["503 Unavailable\r\nRetry-After: Thu, 01 Jan 1970 00:00:30 GMT", 30_000],
    ["503 Unavailable\r\nRetry-After: Thu, 01 Jan 1960 00:00:30 GMT", 1000],
    ["503 Unavailable\r\nRetry-After: soon", 1000],
    ["503 Unavailable\r\nRetry-After: 99999999999", 3_600_000]
  ]
  for (const [head, delay] of answers) {
    it.scoped(`an answer ${head.replace("\r\n", ", ")}: ${delay === undefined ? "no" : `after ${delay} ms`}`, () =>
      Effect.gen(function* () {
        const server = yield* serve((attempt) => (attempt === 1 ? head : "accept"))
        const client = yield* open(server)
        if (delay === undefined) {
          const error = yield* Effect.flip(Stream.runDrain(client.messages))
          assert.deepInclude(error, { _tag: "HandshakeError", reason: "Refused" })
          return
        }
        assert.strictEqual(delayOf(yield* until(client, "Waiting")), delay)
        yield* TestClock.adjust(delay - 1)
        yield* settle
        assert.strictEqual(server.dials(), 1)
        yield* TestClock.adjust(1)
        assert.deepInclude(yield* until(client, "Open"), { attempt: 2, connections: 1 })
      })
    )
  }

  it.scoped("a handshake that gets no answer: yes; options that can't be sent: no", () =>
    Effect.gen(function* () {
      const server = yield* serve(() => "never")
      const client = yield* open(server, { handshakeTimeout: "3 seconds" })
      const waiting = yield* Effect.fork(until(client, "Waiting"))
      yield* settle
      yield* TestClock.adjust("3 seconds")
      assert.deepInclude((yield* Fiber.join(waiting)).cause, { _tag: "HandshakeError", reason: "Timeout" })
      const unsendable = yield* open(server, { headers: { "bad header": "x" } })
      assert.deepInclude(yield* Effect.flip(Stream.runDrain(unsendable.messages)), { phase: "Request" })
    })
  )

  it.scoped("another predicate", () =>
    Effect.gen(function* () {
      const server = yield* serve((attempt) => (attempt === 1 ? "404 Not Found" : "accept"))
      const client = yield* open(server, { retryable: () => true })
      yield* until(client, "Waiting")
      yield* TestClock.adjust("1 second")
      const line = yield* Queue.take(server.lines)
      const rest = yield* Effect.fork(Stream.runDrain(client.messages))
      yield* line.server.close(1000)
      yield* until(client, "Waiting")
      yield* Fiber.interrupt(rest)
    })
  )

  it.scoped("the schedule's end is the client's", () =>
    Effect.gen(function* () {
      const server = yield* serve(() => "503 Unavailable")
      const client = yield* open(server, { schedule: Schedule.recurs(2) })
      const error = yield* Effect.flip(Stream.runDrain(client.messages))
      assert.deepInclude(error, { status: 503 })
      assert.deepInclude(yield* statusOf(client), { _tag: "Closed", reason: "Exhausted" })
      assert.strictEqual(server.dials(), 3)
    })
  )

  it.scoped("the default schedule: doubled from 200 ms to 30 s, of each 50 to 100 %", () =>
    Effect.gen(function* () {
      const server = yield* serve(() => "503 Unavailable")
      const client = yield* WebSocketClient.reconnecting("ws://host/").pipe(
        Effect.provideService(WebSocketClient.WebSocketClient, server.client)
      )
      for (let i = 0; i < 12; i++) {
        const delay = delayOf(yield* until(client, "Waiting"))
        const full = Math.min(30_000, 200 * 2 ** i)
        assert.isAtLeast(delay, full / 2 - 1)
        assert.isAtMost(delay, full)
        const next = yield* Effect.fork(until(client, "Connecting"))
        yield* settle
        yield* TestClock.adjust(delay)
        yield* Fiber.join(next)
        yield* settle
      }
    })
  )

  it.scoped("a connection that lived starts the schedule anew, a short one does not", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server, { schedule: Schedule.exponential("1 second"), resetAfter: "5 seconds" })
      const lives: ReadonlyArray<readonly [number, number, number]> = [
        [0, 1, 1000],
        [4999, 2, 2000],
        [5000, 3, 1000],
        [0, 1, 2000]
      ]
      for (const [life, attempt, delay] of lives) {
        const line = yield* Queue.take(server.lines)
        yield* until(client, "Open")
        yield* settle
        yield* TestClock.adjust(life)
        yield* line.end.cut
        const status = yield* until(client, "Waiting")
        assert.strictEqual(delayOf(status), delay)
        assert.include([attempt, 0], (status as { attempt: number }).attempt)
        yield* TestClock.adjust(delay)
      }
    })
  )
})

describe("sending", () => {
  it.scoped("waits for the connection, goes out after onOpen, and is not put out twice", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server, { onOpen: (socket) => socket.send("auth") })
      yield* client.send("a")
      const first = yield* Queue.take(server.lines)
      assert.strictEqual(yield* first.server.take, "auth")
      assert.strictEqual(yield* first.server.take, "a")
      yield* client.sendAll(["b", "c"])
      assert.strictEqual(yield* first.server.take, "b")
      assert.strictEqual(yield* first.server.take, "c")
      yield* first.end.cut
      yield* until(client, "Waiting")
      yield* Stream.run(Stream.make("d", "e"), client.sink)
      assert.strictEqual(yield* client.pending, 2)
      yield* TestClock.adjust("1 second")
      const second = yield* Queue.take(server.lines)
      assert.strictEqual(yield* second.server.take, "auth")
      assert.strictEqual(yield* second.server.take, "d")
      assert.strictEqual(yield* second.server.take, "e")
      assert.strictEqual(yield* client.pending, 0)
    })
  )

  const policies: ReadonlyArray<readonly [Reconnecting.OutboxOptions, ReadonlyArray<string>, boolean]> = [
    [{ maxMessages: 2, overflow: "dropOldest" }, ["3", "4"], true],
    [{ maxMessages: 2, overflow: "dropNewest" }, ["1", "2"], true],
    [{ maxMessages: 2, overflow: "fail" }, ["1", "2"], false],
    [{ maxMessages: 0, overflow: "dropOldest" }, [], true],
    [{ maxMessages: 0, overflow: "dropNewest" }, [], true],
    [{ maxMessages: 0, overflow: "fail" }, [], false]
  ]
  for (const [outbox, kept, succeeds] of policies) {
    it.scoped(`a full outbox of ${outbox.maxMessages}: ${outbox.overflow}`, () =>
      Effect.gen(function* () {
        const server = yield* serve((attempt) => (attempt === 1 ? "503 Unavailable" : "accept"))
        const client = yield* open(server, { outbox })
        yield* until(client, "Waiting")
        const exit = yield* Effect.exit(client.sendAll(["1", "2", "3", "4"]))
        assert.strictEqual(Exit.isSuccess(exit), succeeds)
        if (!succeeds) assert.deepInclude(yield* Effect.flip(client.send("5")), { _tag: "OutboxFull" })
        yield* TestClock.adjust("1 second")
        const line = yield* Queue.take(server.lines)
        yield* until(client, "Open")
        yield* settle
        yield* client.send("end")
        for (const message of [...kept, "end"]) assert.strictEqual(yield* line.server.take, message)
      })
    )
  }

  for (const maxMessages of [0, 1, 3]) {
    it.scoped(`a full outbox of ${maxMessages}: senders wait in order, and who gives up sends nothing`, () =>
      Effect.gen(function* () {
        const server = yield* serve((attempt) => (attempt === 1 ? "503 Unavailable" : "accept"))
        const client = yield* open(server, { outbox: { maxMessages } })
        yield* until(client, "Waiting")
        const sender = yield* Effect.fork(client.sendAll(["1", "2", "3", "4"]))
        yield* settle
        const givesUp = yield* Effect.fork(client.send("no"))
        yield* settle
        const last = yield* Effect.fork(client.send("5"))
        yield* settle
        yield* Fiber.interrupt(givesUp)
        assert.strictEqual(yield* client.pending, 5)
        yield* TestClock.adjust("1 second")
        const line = yield* Queue.take(server.lines)
        for (const message of ["1", "2", "3", "4", "5"]) assert.strictEqual(yield* line.server.take, message)
        yield* Fiber.join(sender)
        yield* Fiber.join(last)
      })
    )
  }

  it.scoped("waits for room while connected, whatever the policy", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server, { highWaterMark: 1, outbox: { maxMessages: 1, overflow: "fail" } })
      const first = yield* Queue.take(server.lines)
      yield* until(client, "Open")
      const near = yield* Effect.fork(Effect.forEach(["a", "b", "c"], client.send))
      assert.strictEqual(yield* first.server.take, "a")
      assert.strictEqual(yield* first.server.take, "b")
      assert.strictEqual(yield* first.server.take, "c")
      yield* Fiber.join(near)
    })
  )
})

describe("attempts", () => {
  it.scoped("url, headers and subprotocols are evaluated for each", () =>
    Effect.gen(function* () {
      const server = yield* serve((attempt) => (attempt < 3 ? "503 Unavailable" : "accept"))
      let token = 0
      const client = yield* WebSocketClient.reconnecting(
        Effect.sync(() => `ws://host/?token=${++token}`),
        {
          heartbeat: false,
          schedule: Schedule.spaced("1 second"),
          headers: Effect.sync(() => ({ "x-token": String(token) })),
          subprotocols: Effect.sync(() => [`v${token}`])
        }
      ).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))
      for (let i = 0; i < 2; i++) {
        yield* until(client, "Waiting")
        yield* TestClock.adjust("1 second")
      }
      yield* Queue.take(server.lines)
      server.requests.forEach((request, i) => {
        assert.include(request, `GET /?token=${i + 1} HTTP/1.1`)
        assert.match(request, new RegExp(`^x-token: ${i + 1}\r$`, "im"))
        assert.match(request, new RegExp(`^sec-websocket-protocol: v${i + 1}\r$`, "im"))
      })
      assert.strictEqual(server.requests.length, 3)
    })
  )

  it.scoped("a failing Effect is a failed attempt, a defect the end", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      let runs = 0
      const client = yield* WebSocketClient.reconnecting(
        Effect.suspend(() => (++runs === 1 ? Effect.fail("no token" as const) : Effect.die(new Error("bug")))),
        { schedule: Schedule.spaced("1 second") }
      ).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))
      assert.deepInclude(yield* until(client, "Waiting"), { cause: "no token", attempt: 1 })
      yield* TestClock.adjust("1 second")
      const exit = yield* Effect.exit(Stream.runDrain(client.messages))
      assert.isTrue(Exit.isFailure(exit) && exit.cause._tag === "Die")
      assert.deepInclude(yield* statusOf(client), { _tag: "Closed", reason: "Defect" })
    })
  )

  it.scoped("onOpen may talk first; its failure, its time and its connection's end are failed attempts", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const results = yield* Queue.unbounded<unknown>()
      let opens = 0
      const client = yield* open(server, {
        onOpenTimeout: "2 seconds",
        onOpen: (socket) => {
          switch (++opens) {
            case 1:
              return Effect.fail(
                new WebSocketError.HandshakeError({ phase: "Response", reason: "Timeout", detail: "own" })
              )
            case 2:
            case 3:
              return Effect.never
            default:
              return Effect.flatMap(socket.take, (message) => Queue.offer(results, message))
          }
        }
      })
      yield* client.send("queued")
      yield* Queue.take(server.lines)
      assert.deepInclude((yield* until(client, "Waiting")).cause, { detail: "own" })
      yield* TestClock.adjust("1 second")
      yield* Queue.take(server.lines)
      yield* settle
      const late = yield* Effect.fork(until(client, "Waiting"))
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude((yield* Fiber.join(late)).cause, { reason: "Timeout", phase: "Response" })
      yield* TestClock.adjust("1 second")
      const third = yield* Queue.take(server.lines)
      yield* third.end.cut
      assert.deepInclude((yield* until(client, "Waiting")).cause, { _tag: "ConnectionClosed" })
      yield* TestClock.adjust("1 second")
      const fourth = yield* Queue.take(server.lines)
      yield* fourth.server.sendAll(["hello", "first"])
      assert.strictEqual(yield* Queue.take(results), "hello")
      assert.strictEqual(yield* client.take, "first")
      assert.strictEqual(yield* fourth.server.take, "queued")
    })
  )

  it.scoped("retryNow ends a wait", () =>
    Effect.gen(function* () {
      const server = yield* serve((attempt) => (attempt === 1 ? "503 Unavailable" : "accept"))
      const client = yield* open(server)
      yield* until(client, "Waiting")
      yield* settle
      yield* client.retryNow
      yield* Queue.take(server.lines)
    })
  )
})

describe("the end", () => {
  it.scoped("close sends its code; what was received can be taken; then messages end and sending fails", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const client = yield* open(server)
      const line = yield* Queue.take(server.lines)
      yield* line.server.send("last")
      yield* until(client, "Open")
      yield* settle
      yield* client.close(4001, "bye")
      assert.deepInclude(yield* line.server.closed, { code: 4001, reason: "bye" })
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(client.messages)), ["last"])
      assert.deepInclude(yield* Effect.flip(client.take), { _tag: "Stopped", reason: "Closed" })
      assert.deepInclude(yield* Effect.flip(client.send("x")), { _tag: "Stopped", reason: "Closed" })
      assert.strictEqual(server.dials(), 1)
    })
  )

  const stages: ReadonlyArray<readonly [string, Answer, Reconnecting.Status<unknown>["_tag"]]> = [
    ["dialing", "never", "Connecting"],
    ["waiting", "503 Unavailable", "Waiting"],
    ["open", "accept", "Open"]
  ]
  for (const [stage, answer, tag] of stages) {
    it.scoped(`the Scope closes while ${stage}: nothing is left`, () =>
      Effect.gen(function* () {
        const server = yield* serve(() => answer)
        const scope = yield* Scope.make()
        const client = yield* Scope.extend(open(server, { outbox: { maxMessages: 0 } }), scope)
        yield* until(client, tag)
        const taking = yield* Effect.fork(Effect.exit(client.take))
        const sending = tag === "Open" ? undefined : yield* Effect.fork(Effect.exit(client.send("x")))
        yield* settle
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(taking)))
        if (sending !== undefined) assert.isTrue(Exit.isFailure(yield* Fiber.join(sending)))
        assert.deepInclude(yield* statusOf(client), { _tag: "Closed", reason: "Scope" })
        const dials = server.dials()
        yield* TestClock.adjust("1 hour")
        yield* settle
        assert.strictEqual(server.dials(), dials)
        if (tag === "Open") {
          const line = yield* Queue.take(server.lines)
          assert.strictEqual((yield* line.server.closed).code, 1000)
          assert.isTrue(yield* line.end.isClosed)
        }
      })
    )
  }
})

describe("by contract", () => {
  const Numbers = WebSocketContract.make("/numbers/:id", {
    path: Schema.Struct({ id: Schema.NumberFromString }),
    urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
    incoming: Schema.Struct({ ask: Schema.Number }),
    outgoing: Schema.Struct({ n: Schema.Number }),
    subprotocols: ["numbers.v1"]
  })

  it.scoped("messages have types, and the query is evaluated for each attempt", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      let seen = 0
      const client = yield* WebSocketClient.reconnecting(Numbers, {
        baseUrl: "ws://host/api",
        path: { id: 7 },
        urlParams: Effect.sync(() => (seen === 0 ? {} : { since: seen })),
        heartbeat: false,
        schedule: Schedule.spaced("1 second"),
        onOpen: (socket) => socket.send({ ask: seen })
      }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))
      const first = yield* Queue.take(server.lines)
      assert.strictEqual(yield* first.server.take, '{"ask":0}')
      yield* first.server.send('{"n":41}')
      seen = (yield* client.take).n
      yield* first.end.cut
      yield* until(client, "Waiting")
      yield* TestClock.adjust("1 second")
      const second = yield* Queue.take(server.lines)
      assert.strictEqual(yield* second.server.take, '{"ask":41}')
      assert.include(first.request, "GET /api/numbers/7 HTTP/1.1")
      assert.include(second.request, "GET /api/numbers/7?since=41 HTTP/1.1")
      assert.match(second.request, /^sec-websocket-protocol: numbers\.v1\r$/im)
    })
  )

  for (const [when, cut] of [
    ["while the connection is open", false],
    ["after it was cut", true]
  ] as const) {
    it.scoped(`a message that does not fit is final, ${when}`, () =>
      Effect.gen(function* () {
        const server = yield* serve()
        const client = yield* WebSocketClient.reconnecting(Numbers, {
          url: "ws://host/",
          heartbeat: false,
          schedule: Schedule.spaced("1 second")
        }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, server.client))
        const line = yield* Queue.take(server.lines)
        yield* line.server.sendAll(['{"n":1}', '{"n":"two"}', '{"n":3}'])
        yield* until(client, "Open")
        yield* settle
        if (cut) {
          yield* line.end.cut
          yield* until(client, "Waiting")
          yield* TestClock.adjust("1 second")
          yield* until(client, "Open")
        }
        const taken: Array<number> = []
        const error = yield* Effect.flip(
          Stream.runForEach(client.messages, ({ n }) => Effect.sync(() => taken.push(n)))
        )
        assert.deepStrictEqual(taken, [1])
        assert.instanceOf(error, WebSocketError.MessageError)
        assert.deepStrictEqual((error as WebSocketError.MessageError).path, ["n"])
        assert.deepInclude(yield* until(client, "Closed"), { reason: "Final" })
        if (!cut) assert.strictEqual((yield* line.server.closed).code, 1008)
      })
    )
  }
})

// ---- random cuts -----------------------------------------------------------------------------------------------------------

/** Small random numbers from a seed (mulberry32), so that a failure can be run again. */
const randoms = (seed: number) => {
  let state = seed
  return (below: number) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

describe("random cuts", () => {
  const seeds = Array.from({ length: 40 }, (_, i) => i + 1)
  it.scoped.each(seeds)("nothing that arrived is lost or doubled, order is kept (seed %i)", (seed) =>
    Effect.gen(function* () {
      const random = randoms(seed)
      const server = yield* serve(() => (random(5) === 0 ? "503 Unavailable" : "accept"), {
        chunking: () => 1 + random(40)
      })
      const client = yield* open(server, { schedule: Schedule.spaced("1 millis") })
      const taken: Array<string> = []
      const done = yield* Deferred.make<void>()
      const consume = Effect.gen(function* () {
        for (;;) {
          for (let i = random(4); i > 0; i--) yield* settle
          // Sometimes late, sometimes one by one, sometimes by the stream, which is left while it waits.
          if (random(2) === 0) taken.push(yield* client.take as Effect.Effect<string>)
          else {
            yield* client.messages.pipe(
              Stream.runForEachChunk((chunk) =>
                Effect.sync(() => taken.push(...(Chunk.toReadonlyArray(chunk) as ReadonlyArray<string>)))
              ),
              Effect.raceFirst(settle)
            )
          }
        }
      })
      yield* Effect.fork(consume)
      const total = 100
      yield* Effect.fork(
        Effect.forEach(
          Array.from({ length: total }, (_, i) => i),
          (i) => Effect.zipRight(random(4) === 0 ? settle : Effect.void, client.send(`c${i}`)),
          { discard: true }
        ).pipe(Effect.zipRight(Deferred.succeed(done, undefined)))
      )
      /** What each connection's server was sent, and gave out. */
      const received: Array<Array<string>> = []
      const sent: Array<Array<string>> = []
      /** How many messages of each connection had certainly arrived when it was cut. */
      const arrived: Array<number> = []
      let n = 0
      for (let connection = 0; ; connection++) {
        const finished = yield* Deferred.isDone(done)
        let line = yield* Queue.poll(server.lines)
        while (Option.isNone(line)) {
          yield* TestClock.adjust("1 millis")
          yield* settle
          line = yield* Queue.poll(server.lines)
        }
        const { end, server: far } = line.value
        const got: Array<string> = []
        received.push(got)
        const gave: Array<string> = []
        sent.push(gave)
        let sure = 0
        yield* Effect.fork(Effect.ignore(far.runForEach((message) => void got.push(message as string))))
        for (let i = random(12); i > 0; i--) {
          const message = `s${n++}`
          gave.push(message)
          yield* Effect.ignore(far.send(message))
          if (random(3) === 0) {
            yield* settle
            sure = gave.length
          }
        }
        arrived.push(sure)
        if (connection >= 12 && finished) {
          yield* settle
          yield* far.close(1000)
          break
        }
        for (let i = random(30); i > 0; i--) yield* Effect.promise(() => Promise.resolve())
        yield* end.cut
      }
      yield* until(client, "Closed")
      yield* settle
      // Of each connection a beginning of what its server sent was taken, in order.
      let at = 0
      sent.forEach((gave, connection) => {
        const from = at
        for (const message of gave) {
          if (taken[at] !== message) break
          at++
        }
        assert.isAtLeast(at - from, arrived[connection]!, JSON.stringify({ connection, gave, taken }))
      })
      assert.strictEqual(at, taken.length, JSON.stringify({ sent, taken }))
      // All that the last connection sent arrived, since it closed in order.
      const last = sent[sent.length - 1]!
      assert.deepStrictEqual(taken.slice(taken.length - last.length), last)
      // Each message went out on one connection, in order, and what is missing was the end of one that was cut.
      const numbers = received.flat().map((message) => Number(message.slice(1)))
      assert.deepStrictEqual(
        numbers,
        [...new Set(numbers)].sort((a, b) => a - b)
      )
      for (const got of received) {
        const own = got.map((message) => Number(message.slice(1)))
        own.forEach((number, i) => assert.strictEqual(number, own[0]! + i))
      }
    })
  )
})
