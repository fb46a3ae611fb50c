import { TestTransport } from "@effect-ws/core"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Fiber, Stream } from "effect"

describe("Connection", () => {
  it.scoped("echo by Stream.run(messages, sink), both kinds, in order", () =>
    Effect.gen(function* () {
      const { client, server } = yield* TestTransport.connections({ chunking: "every byte" })
      const echo = yield* Effect.fork(Stream.run(server.messages, server.sink))
      yield* client.send("héllo")
      yield* client.send(new Uint8Array([1, 2, 3]))
      yield* client.sendAll(["a", "b", "x".repeat(70000)])
      const received = yield* client.messages.pipe(Stream.take(5), Stream.runCollect)
      assert.deepStrictEqual(Chunk.toReadonlyArray(received), ["héllo", new Uint8Array([1, 2, 3]), "a", "b", "x".repeat(70000)])
      const info = yield* client.close()
      assert.strictEqual(info.code, 1000)
      assert.isTrue(info.clean)
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(echo)))
    }))
})
