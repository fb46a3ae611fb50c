import { assert, describe, it } from "@effect/vitest"
import { WebSocketClient } from "@effect-ws/core"
import { Cause, Chunk, Effect, Exit, Fiber, Option, Stream, TestClock } from "effect"

/** A platform's WebSocket whose other end is the test. */
class Platform implements WebSocketClient.WebSocketLike {
  static readonly made: Array<Platform> = []
  binaryType = "blob"
  readyState = 0
  bufferedAmount = 0
  protocol = ""
  onopen: ((event: never) => void) | null = null
  onmessage: ((event: never) => void) | null = null
  onerror: ((event: never) => void) | null = null
  onclose: ((event: never) => void) | null = null
  readonly sent: Array<string | Uint8Array> = []
  /** What `close` was called with. */
  readonly closes: Array<ReadonlyArray<unknown>> = []
  /** Bytes of every message stay in `bufferedAmount`. */
  stalled = false

  constructor(
    readonly url: string,
    readonly protocols: Array<string> = []
  ) {
    if (new Set(protocols).size < protocols.length) throw new SyntaxError("a subprotocol twice")
    Platform.made.push(this)
  }

  send(data: string | Uint8Array): void {
    this.sent.push(data)
    if (this.stalled) this.bufferedAmount += data.length
  }

  close(code?: number, reason?: string): void {
    this.closes.push([code, reason])
    this.readyState = 2
  }

  open(protocol = ""): void {
    this.protocol = protocol
    this.readyState = 1
    this.onopen?.({} as never)
  }

  receive(data: unknown): void {
    this.onmessage?.({ data } as never)
  }

  /** The end, as the standard has it: an error first where it was not clean. */
  end(code: number, reason: string, wasClean: boolean, error?: Error): void {
    this.readyState = 3
    if (!wasClean) this.onerror?.({ error } as never)
    this.onclose?.({ code, reason, wasClean } as never)
  }
}

/** An open connection over the fake, which the test must end before the Scope does. */
const opened = (options: WebSocketClient.GlobalOptions = {}) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(WebSocketClient.connectGlobal("ws://a/", { ...options, webSocket: Platform }))
    yield* Effect.yieldNow()
    const platform = Platform.made.at(-1)!
    platform.open()
    return { socket: yield* Fiber.join(fiber), platform }
  })

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

describe("connections over the platform's own WebSocket", () => {
  describe("opening", () => {
    it.scoped("gives the URL and the subprotocols to the platform, and asks for ArrayBuffers", () =>
      Effect.gen(function* () {
        const connecting = WebSocketClient.connectGlobal(new URL("https://a/b?c"), {
          subprotocols: ["v2", "v1"],
          webSocket: Platform
        })
        const fiber = yield* Effect.fork(connecting)
        yield* Effect.yieldNow()
        const platform = Platform.made.at(-1)!
        assert.deepStrictEqual([platform.url, platform.protocols], ["wss://a/b?c", ["v2", "v1"]])
        platform.open("v1")
        const socket = yield* Fiber.join(fiber)
        assert.strictEqual(platform.binaryType, "arraybuffer")
        assert.deepStrictEqual([socket.role, socket.subprotocol], ["client", "v1"])
        yield* socket.abort
      })
    )

    const refused: ReadonlyArray<readonly [what: string, url: string, subprotocols: Array<string>, detail: RegExp]> = [
      ["no URL", "//", [], /not valid/],
      ["a relative URL where there is no page", "/x", [], /not valid/],
      ["a fragment", "ws://a/#b", [], /fragment/],
      ["what the constructor throws at", "ws://a/", ["a", "a"], /refused/]
    ]
    it.effect.each(refused)("fails in phase Request: %s", ([, url, subprotocols, detail]) =>
      Effect.gen(function* () {
        const connecting = WebSocketClient.connectGlobal(url, { subprotocols, webSocket: Platform })
        const error = yield* Effect.flip(Effect.scoped(connecting))
        assert.deepStrictEqual([error.phase, error.reason], ["Request", "Invalid"])
        assert.match(error.detail, detail)
      })
    )

    it.effect("the platform fails, with or without telling why", () =>
      Effect.gen(function* () {
        for (const cause of [undefined, new Error("no such host")]) {
          const connecting = WebSocketClient.connectGlobal("ws://a/b?secret", { webSocket: Platform })
          const fiber = yield* Effect.fork(Effect.flip(Effect.scoped(connecting)))
          yield* Effect.yieldNow()
          Platform.made.at(-1)!.end(1006, "", false, cause)
          const error = yield* Fiber.join(fiber)
          assert.deepStrictEqual([error.phase, error.reason, error.url], ["Response", "Failed", "ws://a/b"])
          assert.strictEqual(error.cause, cause)
        }
      })
    )

    it.effect("a deadline and an interruption close the platform's socket", () =>
      Effect.gen(function* () {
        const connecting = Effect.scoped(WebSocketClient.connectGlobal("ws://a/", { webSocket: Platform }))
        const late = yield* Effect.fork(Effect.flip(connecting))
        yield* Effect.yieldNow()
        const first = Platform.made.at(-1)!
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(late)).reason, "Timeout")
        const interrupted = yield* Effect.fork(connecting)
        yield* Effect.yieldNow()
        const second = Platform.made.at(-1)!
        yield* Fiber.interrupt(interrupted)
        for (const platform of [first, second]) {
          assert.strictEqual(platform.closes.length, 1)
          assert.deepStrictEqual([platform.onopen, platform.onmessage, platform.onclose], [null, null, null])
        }
      })
    )

    it.effect("the service refuses what this platform lacks, and says so where there is no WebSocket at all", () =>
      Effect.gen(function* () {
        const options: ReadonlyArray<WebSocketClient.ConnectOptions> = [
          { headers: { a: "b" } },
          { origin: "http://a" },
          { heartbeat: {} },
          { phaseTimeouts: { dial: 1 } },
          { followRedirects: true }
        ]
        for (const option of options) {
          const error = yield* Effect.flip(Effect.scoped(WebSocketClient.connect("ws://a/", option)))
          assert.deepStrictEqual([error.phase, error.reason], ["Request", "Invalid"])
          assert.include(error.detail, Object.keys(option)[0]!)
        }
        const fine = WebSocketClient.connect("ws://a/", { heartbeat: false, followRedirects: false })
        const fiber = yield* Effect.fork(Effect.scoped(Effect.flatMap(fine, (socket) => socket.abort)))
        yield* Effect.yieldNow()
        Platform.made.at(-1)!.open()
        yield* Fiber.join(fiber)
      }).pipe(Effect.provide(WebSocketClient.layerConstructor(Platform)))
    )

    it.effect("layerGlobal looks for globalThis.WebSocket at every connect", () =>
      Effect.gen(function* () {
        const global = globalThis as { WebSocket?: unknown }
        const before = Object.getOwnPropertyDescriptor(globalThis, "WebSocket")
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            delete global.WebSocket
            if (before !== undefined) Object.defineProperty(globalThis, "WebSocket", before)
          })
        )
        Object.defineProperty(globalThis, "WebSocket", { value: undefined, configurable: true, writable: true })
        const error = yield* Effect.flip(Effect.scoped(WebSocketClient.connect("ws://a/")))
        assert.deepStrictEqual([error.phase, error.reason], ["Request", "Failed"])
        global.WebSocket = Platform
        const fiber = yield* Effect.fork(
          Effect.scoped(Effect.flatMap(WebSocketClient.connect("ws://global/"), (socket) => socket.abort))
        )
        yield* Effect.yieldNow()
        assert.strictEqual(Platform.made.at(-1)!.url, "ws://global/")
        Platform.made.at(-1)!.open()
        yield* Fiber.join(fiber)
      }).pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal))
    )
  })

  describe("messages", () => {
    it.scoped("of both kinds, in order, whether or not someone waits", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened()
        platform.receive("a")
        platform.receive(new Uint8Array([1, 2]).buffer)
        assert.strictEqual(yield* socket.take, "a")
        platform.receive("b")
        const rest = yield* Effect.fork(Stream.runCollect(socket.messages))
        yield* turn
        platform.receive("c")
        platform.receive("d")
        platform.end(1000, "", true)
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Fiber.join(rest)), [new Uint8Array([1, 2]), "b", "c", "d"])
      })
    )

    const sizes: ReadonlyArray<readonly [message: string | Uint8Array, fits: boolean]> = [
      ["x".repeat(9), true],
      ["x".repeat(10), false],
      ["é€é€", false],
      ["é€𝄞", true],
      [new Uint8Array(9), true],
      [new Uint8Array(10), false],
      ["", true]
    ]
    it.scoped.each(sizes)("maxMessageBytes 9: %o", ([message, fits]) =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened({ maxMessageBytes: 9 })
        platform.receive("before")
        platform.receive(typeof message === "string" ? message : message.buffer)
        assert.deepStrictEqual(platform.closes, fits ? [] : [[4009, "a message is larger than 9 bytes"]])
        platform.end(fits ? 1000 : 4009, "", true)
        const received: Array<unknown> = []
        const exit = yield* Effect.exit(socket.runForEach((m) => void received.push(m)))
        assert.deepStrictEqual(received, fits ? ["before", message] : ["before"])
        assert.strictEqual(Exit.isSuccess(exit), fits)
        if (!fits) assert.strictEqual((yield* socket.closed).code, 4009)
      })
    )

    it.scoped("what may wait: by count, and by bytes, at the limit and one above", () =>
      Effect.gen(function* () {
        for (const options of [{ maxWaitingMessages: 3 }, { maxWaitingBytes: 6 }]) {
          const { platform, socket } = yield* opened(options)
          for (const message of ["a1", "a2", "a3"]) platform.receive(message)
          // What the consumer has begun to take no longer counts.
          assert.strictEqual(yield* socket.take, "a1")
          for (const message of ["b1", "b2", "b3"]) platform.receive(message)
          assert.deepStrictEqual(platform.closes, [])
          platform.receive("b4")
          assert.deepStrictEqual(platform.closes, [[4008, "too many messages wait to be taken"]])
          platform.receive("after")
          const received: Array<unknown> = []
          const error = yield* Effect.flip(socket.runForEach((m) => void received.push(m)))
          assert.deepStrictEqual(received, ["a2", "a3", "b1", "b2", "b3"])
          assert.strictEqual(error._tag === "ConnectionClosed" && error.code, 4008)
          platform.end(4008, "", true)
        }
      })
    )
  })

  describe("sending", () => {
    it.scoped("messages go to the platform as they are; after the end sending fails", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened()
        yield* socket.send("a")
        yield* socket.sendAll([new Uint8Array([1]), "b"])
        yield* Stream.run(Stream.make("c", "d"), socket.sink)
        assert.isTrue(yield* socket.trySend("e"))
        assert.deepStrictEqual(platform.sent, ["a", new Uint8Array([1]), "b", "c", "d", "e"])
        platform.end(4001, "over", true)
        const error = yield* Effect.flip(socket.send("f"))
        assert.deepStrictEqual([error.code, error.reason], [4001, "over"])
        assert.isFalse(yield* socket.trySend("f"))
      })
    )

    it.scoped("send waits while more than the high-water mark is buffered, looking at the Clock's pace", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened({ highWaterMark: 4 })
        platform.stalled = true
        const first = yield* Effect.fork(socket.send("12345"))
        const second = yield* Effect.fork(socket.send("6"))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.poll(first)))
        assert.deepStrictEqual(platform.sent, ["12345"])
        assert.isFalse(yield* socket.trySend("no"))
        assert.strictEqual(yield* socket.bufferedBytes, 5)
        platform.bufferedAmount = 3
        yield* TestClock.adjust("32 millis")
        yield* Fiber.join(first)
        yield* turn
        assert.deepStrictEqual(platform.sent, ["12345", "6"])
        // Full again: the connection ends, and whoever waits learns it.
        assert.isTrue(Option.isNone(yield* Fiber.poll(second)))
        platform.end(1006, "", false)
        assert.strictEqual((yield* Effect.flip(Fiber.join(second))).code, 1006)
      })
    )

    it.scoped("sendFragments collects, within its limit, and sends whole or not at all", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened({ maxCollectedBytes: 4 })
        yield* socket.sendFragments("text", Stream.make("\ud834", "\udd1e", "ab"))
        yield* socket.sendFragments("binary", Stream.make(new Uint8Array([1]), new Uint8Array([2, 3, 4])))
        yield* socket.sendFragments("text", Stream.empty)
        assert.deepStrictEqual(platform.sent, ["𝄞ab", new Uint8Array([1, 2, 3, 4]), ""])
        const tooMuch = yield* Effect.exit(socket.sendFragments("text", Stream.make("abc", "de")))
        assert.isTrue(Exit.isFailure(tooMuch) && Cause.isDie(tooMuch.cause))
        const wrongKind = yield* Effect.exit(socket.sendFragments("binary", Stream.make("abc")))
        assert.isTrue(Exit.isFailure(wrongKind) && Cause.isDie(wrongKind.cause))
        const failing = socket.sendFragments("text", Stream.concat(Stream.make("a"), Stream.fail("no")))
        assert.strictEqual(yield* Effect.flip(failing), "no")
        assert.strictEqual(platform.sent.length, 3)
        assert.isTrue(yield* socket.trySend("still open"))
        platform.end(1000, "", true)
      })
    )

    it.scoped("ping and pong are defects", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened()
        for (const control of [socket.ping(), socket.pong()]) {
          const exit = yield* Effect.exit(control)
          assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
        }
        platform.end(1000, "", true)
      })
    )
  })

  describe("the end", () => {
    const codes = [
      [1000, true],
      [3000, true],
      [4999, true],
      [1001, false],
      [1011, false],
      [2999, false],
      [5000, false]
    ] as const
    it.scoped.each(codes)("close(%i) is let through: %s", ([code, fine]) =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened()
        const fiber = yield* Effect.fork(Effect.exit(socket.close(code, "why")))
        yield* turn
        assert.deepStrictEqual(platform.closes, fine ? [[code, "why"]] : [])
        platform.end(code, "why", true)
        const exit = yield* Fiber.join(fiber)
        assert.strictEqual(Exit.isSuccess(exit), fine)
        if (!Exit.isSuccess(exit)) return assert.isTrue(Cause.isDie(exit.cause))
        assert.deepStrictEqual(exit.value, {
          code,
          reason: "why",
          clean: true,
          initiator: "local",
          sent: { code, reason: "why" },
          received: { code, reason: "why" },
          violation: undefined
        })
      })
    )

    const exits: ReadonlyArray<readonly [how: string, body: Effect.Effect<unknown, string>, code: number]> = [
      ["success", Effect.void, 1000],
      ["interruption", Effect.interrupt, 1000],
      ["failure", Effect.fail("no"), 4011]
    ]
    it.effect.each(exits)("leaving the Scope by %s", ([, body, code]) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(Effect.exit(Effect.scoped(Effect.zipRight(opened(), body))))
        yield* turn
        const platform = Platform.made.at(-1)!
        assert.deepStrictEqual(platform.closes, [[code, ""]])
        assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
        platform.end(code, "", true)
        yield* Fiber.join(fiber)
      })
    )

    it.scoped("the peer's close, and the loss of the transport with its cause", () =>
      Effect.gen(function* () {
        const none = yield* opened()
        none.platform.end(1005, "", true)
        const info = yield* none.socket.closed
        assert.deepStrictEqual(
          [info.code, info.initiator, info.received],
          [1005, "remote", { code: undefined, reason: "" }]
        )
        yield* Stream.runDrain(none.socket.messages)

        const lost = yield* opened()
        lost.platform.end(1006, "", false, new Error("reset"))
        const error = yield* Effect.flip(Stream.runDrain(lost.socket.messages))
        assert.strictEqual(error._tag, "ConnectionClosed")
        if (error._tag !== "ConnectionClosed") return
        assert.deepStrictEqual([error.code, error.info.initiator, error.info.clean], [1006, "transport", false])
        assert.match(error.message, /reset/)
      })
    )

    it.scoped("a peer that does not answer the close is given up after the close timeout", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened({ closeTimeout: "3 seconds" })
        const fiber = yield* Effect.fork(socket.close())
        yield* TestClock.adjust("2999 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual([(yield* Fiber.join(fiber)).code, platform.onclose], [1006, null])
      })
    )

    it.scoped("abort ends the connection here at once", () =>
      Effect.gen(function* () {
        const { platform, socket } = yield* opened()
        yield* socket.abort
        assert.strictEqual((yield* socket.closed).code, 1006)
        assert.strictEqual(platform.closes.length, 1)
        // What the platform still says reaches nobody.
        platform.receive("late")
        platform.end(1000, "", true)
        assert.strictEqual((yield* Effect.flip(socket.take))._tag, "ConnectionClosed")
      })
    )
  })
})
