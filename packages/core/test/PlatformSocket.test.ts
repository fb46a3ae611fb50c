import { Socket } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Connection, PlatformSocket, TestTransport, WebSocketClient, WebSocketError } from "@effect-ws/core"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Queue, Stream, TestClock } from "effect"

const pair = TestTransport.connections({ client: { heartbeat: false }, server: { heartbeat: false } })

const failure = <A, E>(exit: Exit.Exit<A, E>) =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

describe("fromConnection", () => {
  it.scoped("hands messages over in order, as bytes or as they are, and writes them", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const seen: Array<string | Uint8Array> = []
      const socket = PlatformSocket.fromConnection(server)
      const running = yield* Effect.fork(
        socket.runRaw((message) => {
          seen.push(message)
        })
      )
      const write = yield* socket.writer
      yield* write("to the client")
      assert.strictEqual(yield* client.take, "to the client")
      yield* client.sendAll(["a", Uint8Array.of(1), "b"])
      yield* client.close(1000)
      yield* Fiber.join(running)
      assert.deepStrictEqual(seen, ["a", Uint8Array.of(1), "b"])
    })
  )

  it.scoped("run gives bytes", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const seen: Array<Uint8Array> = []
      const running = yield* Effect.fork(
        PlatformSocket.fromConnection(server).run((message) => {
          seen.push(message)
        })
      )
      yield* client.sendAll(["ü", Uint8Array.of(1)])
      yield* client.close()
      yield* Fiber.join(running)
      assert.deepStrictEqual(seen, [Uint8Array.of(0xc3, 0xbc), Uint8Array.of(1)])
    })
  )

  const ends: ReadonlyArray<{
    readonly name: string
    readonly end: (client: Connection.Connection) => Effect.Effect<unknown>
    readonly options?: PlatformSocket.Options
    readonly code: number | undefined
    readonly reason?: string
  }> = [
    { name: "1000 is success", end: (client) => client.close(1000), code: undefined },
    { name: "1001 is success", end: (client) => client.close(1001), code: undefined },
    { name: "3001 is a failure", end: (client) => client.close(3001, "why"), code: 3001, reason: "why" },
    { name: "a lost connection is a failure", end: (client) => client.abort, code: 1006 },
    {
      name: "closeCodeIsError decides: success",
      end: (client) => client.close(3001),
      options: { closeCodeIsError: (code) => code !== 3001 },
      code: undefined
    },
    {
      name: "closeCodeIsError decides: failure",
      end: (client) => client.close(1000),
      options: { closeCodeIsError: () => true },
      code: 1000
    }
  ]
  for (const { code, end, name, options, reason } of ends) {
    it.scoped(name, () =>
      Effect.gen(function* () {
        const { client, server } = yield* pair
        const running = yield* Effect.fork(PlatformSocket.fromConnection(server, options).runRaw(() => {}))
        yield* end(client)
        const error = failure(yield* Fiber.await(running)) as Socket.SocketCloseError | undefined
        assert.deepStrictEqual([error?.code, error?.closeReason], [code, reason])
        if (code !== undefined) assert.isTrue(Socket.SocketCloseError.is(error))
      })
    )
  }

  it.scoped("a handler that waits for a later message is not waited for", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const second = yield* Deferred.make<void>()
      const running = yield* Effect.fork(
        PlatformSocket.fromConnection(server).runRaw((message) =>
          message === "first" ? Deferred.await(second) : Deferred.succeed(second, undefined)
        )
      )
      yield* client.sendAll(["first", "second"])
      yield* client.close()
      yield* Fiber.join(running)
    })
  )

  it.scoped("no more than maxHandlers run, then reading waits", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const started = yield* Queue.unbounded<string | Uint8Array>()
      const gate = yield* Deferred.make<void>()
      const running = yield* Effect.fork(
        PlatformSocket.fromConnection(server, { maxHandlers: 2 }).runRaw((message) =>
          Effect.zipRight(Queue.offer(started, message), Deferred.await(gate))
        )
      )
      yield* client.sendAll(["1", "2", "3"])
      yield* Queue.take(started)
      yield* Queue.take(started)
      for (let i = 0; i < 100; i++) yield* Effect.yieldNow()
      assert.strictEqual(yield* Queue.size(started), 0)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Queue.take(started), "3")
      yield* client.close()
      yield* Fiber.join(running)
    })
  )

  for (const [name, end, expected] of [
    ["a clean end lets what runs finish, for handlerTimeout", (client: Connection.Connection) => client.close(), true],
    ["a lost connection does not", (client: Connection.Connection) => client.abort, false]
  ] as const) {
    it.scoped(name, () =>
      Effect.gen(function* () {
        const { client, server } = yield* pair
        const started = yield* Deferred.make<void>()
        const running = yield* Effect.fork(
          PlatformSocket.fromConnection(server, { handlerTimeout: "3 seconds" }).runRaw(() =>
            Effect.zipRight(Deferred.succeed(started, undefined), Effect.never)
          )
        )
        yield* client.send("x")
        yield* Deferred.await(started)
        yield* end(client)
        if (expected) {
          yield* TestClock.adjust("2999 millis")
          assert.isTrue(Option.isNone(yield* Fiber.poll(running)))
          yield* TestClock.adjust("1 millis")
        }
        assert.strictEqual((yield* Fiber.await(running))._tag, expected ? "Success" : "Failure")
      })
    )
  }

  it.scoped("a handler that fails ends the run and closes with 1011", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const running = yield* Effect.fork(PlatformSocket.fromConnection(server).runRaw(() => Effect.fail("no")))
      yield* client.send("x")
      const closed = yield* Effect.fork(Effect.zipRight(Effect.exit(Stream.runDrain(client.messages)), client.closed))
      assert.strictEqual(failure(yield* Fiber.await(running)), "no")
      assert.strictEqual((yield* Fiber.join(closed)).code, 1011)
    })
  )

  it.scoped("interruption closes with 1001", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const opened = yield* Deferred.make<void>()
      const running = yield* Effect.fork(
        PlatformSocket.fromConnection(server).runRaw(() => {}, {
          onOpen: Effect.asVoid(Deferred.succeed(opened, undefined))
        })
      )
      yield* Deferred.await(opened)
      const closed = yield* Effect.fork(Effect.zipRight(Stream.runDrain(client.messages), client.closed))
      yield* Fiber.interrupt(running)
      assert.strictEqual((yield* Fiber.join(closed)).code, 1001)
    })
  )

  it.scoped("runs once, and its writer fails afterwards instead of waiting", () =>
    Effect.gen(function* () {
      const { client, server } = yield* pair
      const socket = PlatformSocket.fromConnection(server)
      const running = yield* Effect.fork(socket.runRaw(() => {}))
      yield* client.close()
      yield* Fiber.join(running)
      const again = yield* Effect.flip(socket.runRaw(() => {}))
      assert.strictEqual(again.reason, "Open")
      const write = yield* socket.writer
      assert.strictEqual((yield* Effect.flip(write("x"))).reason, "Write")
    })
  )

  const closeEvents: ReadonlyArray<
    readonly [name: string, code: number, reason: string, expected: string | undefined]
  > = [
    ["a code and reason", 4001, "why", "why"],
    ["a reason that is too long is cut", 1009, "ä".repeat(100), "ä".repeat(60)],
    ["also inside a character", 1009, `x${"ä".repeat(100)}`, `x${"ä".repeat(59)}\ufffd`],
    ["a code that may not be sent", 1006, "", undefined]
  ]
  for (const [name, code, reason, expected] of closeEvents) {
    it.scoped(`CloseEvent: ${name}`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* pair
        const socket = PlatformSocket.fromConnection(server, { closeCodeIsError: () => false })
        const running = yield* Effect.fork(socket.runRaw(() => {}))
        const write = yield* socket.writer
        const exit = yield* Effect.exit(write(new Socket.CloseEvent(code, reason)))
        if (expected === undefined) {
          assert.strictEqual((failure(exit) as Socket.SocketError).reason, "Write")
          yield* Effect.forkScoped(Effect.exit(Stream.runDrain(client.messages)))
          return yield* Fiber.interrupt(running)
        }
        yield* Effect.exit(Stream.runDrain(client.messages))
        const info = yield* client.closed
        assert.deepStrictEqual([info.code, info.reason], [code, expected])
        yield* Fiber.join(running)
      })
    )
  }
})

describe("make", () => {
  it.scoped("opens a connection for each run; the writer waits for it", () =>
    Effect.gen(function* () {
      const servers = yield* Queue.unbounded<Connection.Connection>()
      const socket = yield* PlatformSocket.make(
        Effect.gen(function* () {
          const { client, server } = yield* pair
          yield* Queue.offer(servers, server)
          return client
        })
      )
      const write = yield* socket.writer
      for (const text of ["first", "second"]) {
        const writing = yield* Effect.fork(write(text))
        for (let i = 0; i < 20; i++) yield* Effect.yieldNow()
        assert.isTrue(Option.isNone(yield* Fiber.poll(writing)))
        const running = yield* Effect.fork(socket.runRaw(() => {}))
        const server = yield* Queue.take(servers)
        assert.strictEqual(yield* server.take, text)
        yield* Fiber.join(writing)
        yield* server.close(1000)
        yield* Fiber.join(running)
      }
    })
  )

  const opening: ReadonlyArray<readonly [WebSocketError.HandshakeError["reason"], "Open" | "OpenTimeout"]> = [
    ["Timeout", "OpenTimeout"],
    ["Refused", "Open"]
  ]
  for (const [reason, expected] of opening) {
    it.effect(`${reason} is ${expected}`, () =>
      Effect.gen(function* () {
        const error = new WebSocketError.HandshakeError({ phase: "Response", reason, detail: "" })
        const socket = yield* PlatformSocket.make(Effect.fail(error))
        const failed = yield* Effect.flip(socket.runRaw(() => {}))
        assert.deepStrictEqual([failed.reason, (failed as Socket.SocketGenericError).cause], [expected, error])
      })
    )
  }
})

// ---- a Socket of bytes ---------------------------------------------------------------------------------------------------

/** Two Sockets of bytes, as `NodeSocket` has them: the release of a writer ends its direction. */
const byteSockets = Effect.gen(function* () {
  const make = (incoming: Queue.Queue<Uint8Array | "end">, outgoing: Queue.Queue<Uint8Array | "end">) =>
    Socket.fromTransformStream(
      Effect.sync(() => ({
        readable: new ReadableStream<Uint8Array>({
          pull: (controller) =>
            Effect.runPromise(
              Effect.map(Queue.take(incoming), (one) => (one === "end" ? controller.close() : controller.enqueue(one)))
            )
        }),
        writable: new WritableStream<Uint8Array>({
          write: (chunk) => Effect.runPromise(Effect.asVoid(outgoing.offer(chunk.slice()))),
          close: () => Effect.runPromise(Effect.asVoid(outgoing.offer("end"))),
          abort: () => Effect.runPromise(Effect.asVoid(outgoing.offer("end")))
        })
      }))
    )
  const [there, back] = [yield* Queue.unbounded<Uint8Array | "end">(), yield* Queue.unbounded<Uint8Array | "end">()]
  return { client: yield* make(back, there), server: yield* make(there, back), there, back }
})

describe("toTransport", () => {
  it.scopedLive("carries a connection, opening handshake included", () =>
    Effect.gen(function* () {
      const sockets = yield* byteSockets
      const transport = yield* PlatformSocket.toTransport(sockets.client)
      const opening = yield* Effect.fork(
        WebSocketClient.overTransport(transport, { url: "ws://localhost/", heartbeat: false })
      )
      const request = Buffer.from((yield* Queue.take(sockets.there)) as Uint8Array).toString()
      const key = /Sec-WebSocket-Key: (.*)\r\n/i.exec(request)![1]!
      const { Handshake } = yield* Effect.promise(() => import("@effect-ws/core/engine"))
      yield* Queue.offer(sockets.back, Buffer.from(Handshake.formatAccept({ key }) as string))
      yield* Queue.offer(sockets.back, Uint8Array.of(0x81, 2, 0x6f, 0x6b))
      const socket = yield* Fiber.join(opening)
      assert.strictEqual(yield* socket.take, "ok")
      yield* socket.send("hello")
      assert.strictEqual(((yield* Queue.take(sockets.there)) as Uint8Array).length, 2 + 4 + 5)
      yield* socket.abort
    })
  )

  it.scopedLive("the peer's end is the transport's", () =>
    Effect.gen(function* () {
      const sockets = yield* byteSockets
      const socket = yield* Connection.make(yield* PlatformSocket.toTransport(sockets.server), {
        role: "server",
        heartbeat: false
      })
      yield* Queue.offer(sockets.there, "end")
      yield* Effect.exit(Stream.runDrain(socket.messages))
      assert.strictEqual((yield* socket.closed).code, 1006)
    })
  )

  it.scopedLive("what nobody reads is bounded", () =>
    Effect.gen(function* () {
      const sockets = yield* byteSockets
      const transport = yield* PlatformSocket.toTransport(sockets.server, { maxHeldBytes: 1000 })
      const closed = yield* Deferred.make<WebSocketError.TransportError | undefined>()
      let first = true
      transport.open({
        onData: () => {
          if (first) transport.pause()
          first = false
        },
        onDrain: () => {},
        onEnd: () => {},
        onClose: (error) => Deferred.unsafeDone(closed, Exit.succeed(error))
      })
      for (let i = 0; i < 20; i++) yield* Queue.offer(sockets.there, new Uint8Array(100))
      const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
      // 11 chunks are one too many, and one more is under way when the Socket ends.
      yield* Effect.repeat(turn, { until: () => sockets.there.unsafeSize().pipe(Option.getOrElse(() => 0)) <= 8 })
      transport.resume()
      const error = yield* Deferred.await(closed)
      assert.strictEqual(error?.reason, "Read")
      assert.include(String(error?.cause), "1000 bytes")
    })
  )
})
