/** Connections with extensions as users write them; what compresses is tested where it is. */
import { assert, describe, it } from "@effect/vitest"
import { Connection, TestTransport } from "@effect-ws/core"
import { Extension } from "@effect-ws/core/engine"
import { Chunk, Effect, Fiber, Stream, TestClock } from "effect"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const bytes = (text: string) => new TextEncoder().encode(text)

/** Memory that every result lies in, as an extension may have it: a result is read before the next call. */
const shared = Buffer.alloc(4096)
const lent = (content: string): Uint8Array => shared.subarray(0, shared.write(content))

type Transform = (content: string) => string
const extension = (name: string, rsv: number, encode: Transform, decode: Transform): Extension.Extension => {
  const open: Extension.Open = () => ({
    encode: ({ payload }) => ({ payload: lent(encode(text(payload))), rsv }),
    decode: ({ payload }) => lent(decode(text(payload)))
  })
  return { name, rsv, offer: () => [[]], accept: () => open, negotiate: () => ({ params: [], open }) }
}
const turned: Transform = (content) => [...content].reverse().join("")
const reverse = extension("x-reverse", 0, turned, turned)
const quote = extension(
  "x-quote",
  0x40,
  (content) => `<${content}>`,
  (content) => content.slice(1, -1)
)

/** The same, but every result comes in a later turn of the event loop. */
const slow = (one: Extension.Extension): Extension.Extension => {
  const opening = one.negotiate([[]])!.open
  const later =
    <A, B>(run: (message: A) => Extension.Result<B>) =>
    (message: A, done: Extension.Done<B>): undefined => {
      setImmediate(() => done(run(message)!))
    }
  const open: Extension.Open = (options) => {
    const session = opening(options)
    return {
      encode: later((message: Extension.Outgoing) => session.encode(message, () => {})),
      decode: later((message: Extension.Incoming) => session.decode(message, () => {}))
    }
  }
  return { ...one, accept: () => open, negotiate: () => ({ params: [], open }) }
}

const connected = (extensions: ReadonlyArray<Extension.Extension>, options: Connection.Options = {}) =>
  Effect.suspend(() => {
    const offered = Extension.offer(extensions)
    const agreed = Extension.negotiate(extensions, offered)
    const accepted = Extension.accept(offered, agreed) as ReadonlyArray<Extension.Agreed>
    return TestTransport.connections({
      client: { ...options, extensions: accepted },
      server: { ...options, extensions: agreed }
    })
  })

const takeMany = (socket: Connection.Connection, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(socket.messages, count)), Chunk.toReadonlyArray)

describe("connections with extensions", () => {
  const chains: Readonly<Record<string, ReadonlyArray<Extension.Extension>>> = {
    "x-reverse": [reverse],
    "x-quote, x-reverse": [quote, reverse],
    "x-reverse, x-quote": [reverse, quote],
    "x-quote, then x-reverse later": [quote, slow(reverse)],
    "x-reverse later, then x-quote": [slow(reverse), quote],
    "both later": [slow(quote), slow(reverse)]
  }
  const all = ["one", "", "two", "x".repeat(1000), "three"]
  for (const [name, extensions] of Object.entries(chains)) {
    it.scopedLive(`${name}: text and bytes both ways, in order`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected(extensions)
        assert.deepStrictEqual(
          client.extensions.map(({ name }) => name),
          extensions.map(({ name }) => name)
        )
        for (const [from, to] of [
          [client, server],
          [server, client]
        ] as const) {
          const messages = all.flatMap((content) => [content, bytes(content)])
          const sending = yield* Effect.fork(from.sendAll(messages))
          assert.deepStrictEqual(yield* takeMany(to, messages.length), messages)
          yield* Fiber.join(sending)
          yield* from.ping()
        }
      })
    )

    it.scopedLive(`${name}: a message of fragments leaves as one, in its turn`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected(extensions)
        yield* server.send("before")
        yield* server.sendFragments("text", Stream.make("in ", "é\ud83d", "\ude00", " pieces"))
        const reused = new Uint8Array(2)
        yield* server.sendFragments(
          "binary",
          Stream.map(Stream.rechunk(Stream.make(1, 2, 3), 1), (n) => reused.fill(n))
        )
        yield* server.send("after")
        assert.deepStrictEqual(yield* takeMany(client, 4), [
          "before",
          "in é😀 pieces",
          Uint8Array.of(1, 1, 2, 2, 3, 3),
          "after"
        ])
      })
    )
  }

  it.scopedLive("bytes on the line are those of the last one: sent in order, received in reverse", () =>
    Effect.gen(function* () {
      const [near, far] = yield* TestTransport.pair()
      const seen: Array<number> = []
      far.open({ onData: (chunk) => void seen.push(...chunk), onDrain: () => {}, onEnd: () => {}, onClose: () => {} })
      const agreed = Extension.negotiate([quote, reverse], Extension.offer([quote, reverse]))
      const socket = yield* Connection.make(near, { role: "server", extensions: agreed, closeTimeout: 1 })
      yield* socket.send("ab")
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.deepStrictEqual(seen, [0xc1, 4, ...bytes(">ba<")])
      yield* near.cut
    })
  )

  /** Decodes at the server, and never ends. */
  const stuck: Extension.Extension = {
    ...reverse,
    negotiate: () => ({
      params: [],
      open: () => ({ encode: ({ payload }) => ({ payload, rsv: 0 }), decode: () => undefined })
    })
  }
  for (const [name, end] of Object.entries({
    abort: (socket: Connection.Connection) => socket.abort,
    "the closing timeout": (socket: Connection.Connection) =>
      Effect.zipRight(Effect.fork(socket.close()), TestClock.adjust("10 seconds"))
  })) {
    it.scoped(`an extension that never finishes holds no connection: ${name} after the transport is gone`, () =>
      Effect.gen(function* () {
        const { client, clientTransport, server } = yield* connected([stuck])
        yield* client.send("never")
        yield* Effect.repeatN(Effect.yieldNow(), 20)
        yield* clientTransport.cut
        yield* Effect.repeatN(Effect.yieldNow(), 20)
        yield* end(server)
        assert.strictEqual((yield* server.closed).code, 1006)
      })
    )
  }
})
