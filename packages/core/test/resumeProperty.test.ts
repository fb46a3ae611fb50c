/** Resume: ten thousand cuts at random bytes, on lines in memory. */
import { KeyValueStore } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, MessagePack, Resume, WebSocketClient, WebSocketContract } from "@effect-ws/core"
import { Deferred, Effect, Fiber, Random, Schedule, Schema, Stream } from "effect"
import { serveResumed } from "./resumeServer.js"

const Numbered = Schema.Struct({ n: Schema.Number, pad: Schema.String })

/** All else here happens in one turn of the event loop. */
const otherTurn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))

/** Sends numbered messages of random sizes, some alone and some together, until `done`. */
const sendNumbers = <E>(
  sendAll: (messages: Array<typeof Numbered.Type>) => Effect.Effect<void, E>,
  done: () => boolean,
  random: () => number
) =>
  Effect.gen(function* () {
    let n = 0
    while (!done()) {
      const together = random() < 0.5 ? 1 : Math.ceil(random() * 8)
      yield* sendAll(Array.from({ length: together }, () => ({ n: ++n, pad: "x".repeat(random() * 40) })))
      yield* otherTurn
    }
    yield* sendAll([{ n: -1 - n, pad: "" }])
    return n
  })

/** Checks that messages count up from 1, until one says how many there were. */
const checker = () => {
  let last = 0
  let total: number | undefined
  return {
    see: ({ n }: typeof Numbered.Type) => {
      if (n < 0) total = -1 - n
      else if (n !== last + 1) throw new Error(`message ${n} after ${last}`)
      else last = n
      return total
    },
    last: () => last
  }
}

/** Each end has a store of its own. */
const written = (options?: Resume.StoreOptions) => [
  Resume.keyValueStore({ ...options, prefix: "server/" }),
  Resume.keyValueStore({ ...options, prefix: "client/" })
]
const kept = (options?: Resume.Options) => [Resume.memory(options), Resume.memory(options)]

describe("ten thousand cuts at random bytes", () => {
  for (const [name, codec, ends, cutsPerRun, handshake] of [
    ["JSON", WebSocketContract.json, kept({ maxMessages: 64 }), 2000, true],
    ["JSON, a store of 8 messages", WebSocketContract.json, kept({ maxMessages: 8 }), 2000, false],
    ["MessagePack", MessagePack.codec, kept({ maxMessages: 64 }), 2000, false],
    ["MessagePack, a store of 500 bytes", MessagePack.codec, kept({ maxBytes: 500 }), 2000, false],
    ["JSON, written down", WebSocketContract.json, written({ maxMessages: 64 }), 1000, false],
    ["MessagePack, written down, a store of 8 messages", MessagePack.codec, written({ maxMessages: 8 }), 1000, false]
  ] as const) {
    const [resumeServer, resumeClient] = ends as ReadonlyArray<Resume.Resume<KeyValueStore.KeyValueStore>>
    it.effect(
      `${name}: nothing is lost, nothing comes twice, the order is kept`,
      () =>
        Effect.gen(function* () {
          const seed = yield* Random.nextIntBetween(0, 2 ** 31)
          const random = mulberry(seed)
          const contract = WebSocketContract.make("/", { incoming: Numbered, outgoing: Numbered, codec })
          let cuts = 0
          let handlers = 0
          let heard = 0
          const isDone = () => cuts >= cutsPerRun
          const over = yield* Deferred.make<void>()
          const atServer = checker()
          const atClient = checker()
          const both = yield* serveResumed(resumeServer!, {
            handshake,
            // At any byte of the opening handshake, the hello or what follows
            cutAfter: () => (isDone() ? undefined : Math.floor(random() ** 2 * (handshake ? 1500 : 900))),
            onCut: () => void cuts++,
            chunking: (available) => Math.ceil(random() * available),
            handler: (connection: Connection.Connection) =>
              Effect.gen(function* () {
                handlers++
                const socket = yield* contract.server(connection)
                const sending = yield* Effect.fork(sendNumbers(socket.sendAll, isDone, random))
                // A client whose first welcome is lost begins another session: nobody comes back to this one.
                const first = yield* Effect.raceFirst(socket.take, Deferred.await(over))
                if (first === undefined) return
                heard++
                if (atServer.see(first) === undefined) while (atServer.see(yield* socket.take) === undefined) {}
                yield* Fiber.join(sending)
              })
          })
          const client = yield* WebSocketClient.reconnecting(contract, {
            url: "ws://host/",
            heartbeat: false,
            schedule: Schedule.forever,
            resume: resumeClient!
          }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, both.client))
          const sending = yield* Effect.fork(sendNumbers(client.sendAll, isDone, random))
          let total: number | undefined
          // The handler ends when it has all, and says so.
          yield* Stream.runForEach(client.messages, (message) =>
            Effect.sync(() => {
              total = atClient.see(message)
            })
          )
          const sent = yield* Fiber.join(sending)
          yield* Deferred.succeed(over, undefined)
          yield* both.idle
          assert.strictEqual(atClient.last(), total, `seed ${seed}`)
          assert.strictEqual(atServer.last(), sent, `seed ${seed}`)
          assert.strictEqual(heard, 1)
          assert.isAtLeast(cuts, cutsPerRun)
          assert.isAbove(sent, 0)
          // Those wait for their `ttl`.
          const left = handlers - 1
          assert.deepStrictEqual(both.sessions.counts, { sessions: left, detached: left }, `seed ${seed}`)
        }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)),
      120_000
    )
  }
})

/** A generator of reproducible numbers. */
const mulberry = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
