/** Broadcasts over TCP with a peer that does not read: a real one, whose kernel takes some megabytes before it stalls. */
import { assert, describe, it } from "@effect/vitest"
import { Broadcast, type Connection, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { open, type RawClient, serve } from "./support.js"

const message = new Uint8Array(0x10000).fill(7)
const frameBytes = message.length + 10
const allowanceBytes = 1 << 20

/** A room which all clients of a server join. */
const rooms = (options: Broadcast.Options) =>
  Effect.gen(function* () {
    const room = yield* Broadcast.make(options)
    const joined = yield* Queue.unbounded<Connection.Connection>()
    const serving = yield* serve(
      WebSocketRoute.layer("/room", { heartbeat: false }, (socket) =>
        room
          .join(socket)
          .pipe(
            Effect.zipRight(Queue.offer(joined, socket)),
            Effect.zipRight(socket.runForEach((text) => room.publish(text, { except: socket })))
          )
      ),
      { drainTimeout: 1 }
    )
    const join = Effect.gen(function* () {
      const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/room`)
      return { client, member: yield* Queue.take(joined) }
    })
    /** Joins by hand, and does not read. */
    const stalled = Effect.gen(function* () {
      const client = yield* open(serving.port, "/room")
      client.socket.pause()
      return { client, member: yield* Queue.take(joined) }
    })
    return { room, join, stalled, serving }
  })

/** Publishes until `done`, and sees all others get each message before the next one. */
const publishUntil = (
  room: Broadcast.Broadcast,
  others: ReadonlyArray<{ readonly client: Connection.Connection }>,
  stalled: Connection.Connection,
  done: Effect.Effect<boolean>
) =>
  Effect.gen(function* () {
    let published = 0
    let most = 0
    while (!(yield* done)) {
      yield* room.publish(message)
      published++
      for (const { client } of others) assert.strictEqual(((yield* client.take) as Uint8Array).length, message.length)
      most = Math.max(most, yield* stalled.bufferedBytes)
      if (published > 4096) return yield* Effect.dieMessage("a peer that does not read took everything")
    }
    return { published, most }
  })

/** Reads on; the number of messages that came, and the close code after them, if any. */
const drain = (client: RawClient, count: number) =>
  Effect.gen(function* () {
    client.socket.resume()
    let messages = 0
    while (messages < count) {
      const frame = yield* client.frame
      if (frame?.opcode !== 2) return { messages, last: frame }
      assert.isTrue(Buffer.from(frame.payload).equals(message))
      messages++
    }
    return { messages, last: undefined }
  })

const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))

/** Waits until the room has so many members. */
const sizeOf = (room: Broadcast.Broadcast, count: number) =>
  Effect.repeat(Effect.zipRight(turn, room.size), { until: (size) => size === count })

/** Waits until more than the allowance waits to leave, which stays so as long as nobody reads. */
const full = (member: Connection.Connection) =>
  Effect.repeat(Effect.zipRight(turn, member.bufferedBytes), { until: (bytes) => bytes >= allowanceBytes })

describe("a stalled peer", () => {
  it.scopedLive("disconnect: is closed with 1013 within its allowance; nobody else notices", () =>
    Effect.gen(function* () {
      const { join, room, serving, stalled } = yield* rooms({ allowanceBytes })
      const others = [yield* join, yield* join]
      const slow = yield* stalled
      const { most, published } = yield* publishUntil(
        room,
        others,
        slow.member,
        Effect.map(room.disconnected, (count) => count === 1)
      )
      assert.isAtMost(most, allowanceBytes + 64)
      assert.strictEqual(yield* room.dropped, 0)
      // All that was sent before it, then the close frame.
      const { last, messages } = yield* drain(slow.client, published)
      assert.isBelow(messages, published)
      assert.strictEqual(Buffer.from(last!.payload).readUInt16BE(0), 1013)
      yield* slow.client.sendClose(1013)
      yield* slow.client.end
      yield* serving.sockets(2)
      yield* sizeOf(room, 2)
    })
  )

  it.scopedLive("drop: misses what does not fit, and goes on when it reads again", () =>
    Effect.gen(function* () {
      const { join, room, stalled } = yield* rooms({ slow: "drop", allowanceBytes })
      const others = [yield* join]
      const slow = yield* stalled
      const { most, published } = yield* publishUntil(
        room,
        others,
        slow.member,
        Effect.map(room.dropped, (count) => count >= 20)
      )
      assert.isAtMost(most, allowanceBytes)
      const kept = published - (yield* room.dropped)
      assert.strictEqual((yield* drain(slow.client, kept)).messages, kept)
      yield* room.publish("again")
      assert.strictEqual(yield* slow.client.text, "again")
      assert.strictEqual(yield* room.disconnected, 0)
    })
  )

  it.scopedLive("wait: publish waits for it, and loses nothing", () =>
    Effect.gen(function* () {
      const { join, room, stalled } = yield* rooms({ slow: "wait", allowanceBytes })
      const { client } = yield* join
      const slow = yield* stalled
      const count = 400
      const reading = yield* Effect.fork(Stream.runDrain(Stream.take(client.messages, count)))
      const publishing = yield* Effect.fork(Effect.repeatN(room.publish(message), count - 1))
      yield* full(slow.member)
      assert.isAtMost(yield* slow.member.bufferedBytes, allowanceBytes + 2 * frameBytes)
      assert.isTrue((yield* Fiber.poll(publishing))._tag === "None")
      assert.strictEqual((yield* drain(slow.client, count)).messages, count)
      yield* Fiber.join(publishing)
      yield* Fiber.join(reading)
    })
  )

  it.scopedLive("wait: a reset of it sets the others free", () =>
    Effect.gen(function* () {
      const { join, room, stalled } = yield* rooms({ slow: "wait", allowanceBytes })
      const { client } = yield* join
      const slow = yield* stalled
      const reading = yield* Effect.fork(Stream.runDrain(Stream.take(client.messages, 400)))
      const publishing = yield* Effect.fork(Effect.repeatN(room.publish(message), 399))
      yield* full(slow.member)
      yield* slow.client.reset
      yield* Fiber.join(publishing)
      yield* Fiber.join(reading)
    })
  )
})

describe("over TCP", () => {
  it.scopedLive("members talk to each other, and one that is inside a fragmented message is not interleaved", () =>
    Effect.gen(function* () {
      const { join, room } = yield* rooms({})
      const [a, b, c] = [yield* join, yield* join, yield* join]
      yield* a.client.send("from a")
      assert.strictEqual(yield* b.client.take, "from a")
      assert.strictEqual(yield* c.client.take, "from a")
      const [begun, gate] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const sending = yield* Effect.fork(
        b.member.sendFragments(
          "text",
          Stream.concat(
            Stream.make("half "),
            Stream.fromEffect(
              Effect.zipRight(Deferred.succeed(begun, undefined), Effect.as(Deferred.await(gate), "whole"))
            )
          )
        )
      )
      yield* Deferred.await(begun)
      yield* room.publish("between")
      assert.strictEqual(yield* a.client.take, "between")
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(sending)
      assert.strictEqual(yield* b.client.take, "half whole")
      assert.strictEqual(yield* b.client.take, "between")
    })
  )

  it.scopedLive("members that go away leave", () =>
    Effect.gen(function* () {
      const { join, room, serving } = yield* rooms({})
      const { client } = yield* join
      const left = yield* Effect.scoped(Effect.zipRight(join, room.size))
      assert.strictEqual(left, 2)
      const raw = yield* open(serving.port, "/room")
      yield* raw.reset
      yield* serving.sockets(1)
      yield* sizeOf(room, 1)
      yield* room.publish("to one")
      assert.strictEqual(yield* client.take, "to one")
    })
  )
})
