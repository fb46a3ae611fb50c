/** Broadcasts on connections in memory: who gets what, in which order, and what happens to the slow. */

import { assert, describe, it } from "@effect/vitest"
import { Broadcast, type Connection, type Message, TestTransport } from "@effect-ws/core"
import { Extension, Rule } from "@effect-ws/core/engine"
import { Cause, Chunk, Deferred, Effect, Exit, Fiber, Scope, Stream } from "effect"

/** A member, and the other end of its connection. */
const memberOf = (options: Parameters<typeof TestTransport.connections>[0] = {}) =>
  Effect.map(TestTransport.connections(options), ({ client, clientTransport, server, serverTransport }) => ({
    member: server,
    peer: client,
    line: serverTransport,
    peerLine: clientTransport
  }))

const take = (connection: Connection.Connection, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(connection.messages, count)), Chunk.toReadonlyArray)

const numbers = (count: number) => Array.from({ length: count }, (_, i) => `message ${i}`)
const publishAll = (room: Broadcast.Broadcast, messages: Iterable<Message.Message>) =>
  Effect.forEach(messages, (message) => room.publish(message), { discard: true })

describe("members", () => {
  it.scoped("get all messages in order, of both kinds", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const members = yield* Effect.replicateEffect(memberOf(), 5)
      for (const { member } of members) yield* room.join(member)
      assert.strictEqual(yield* room.size, 5)
      const messages: ReadonlyArray<Message.Message> = ["text é", new Uint8Array([1, 2, 3]), "", ...numbers(100)]
      yield* publishAll(room, messages)
      for (const { peer } of members) assert.deepStrictEqual(yield* take(peer, messages.length), messages)
    })
  )

  it.scoped("except one", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const [a, b] = [yield* memberOf(), yield* memberOf()]
      yield* room.join(a.member)
      yield* room.join(b.member)
      yield* room.publish("1")
      yield* room.publish("not a", { except: a.member })
      yield* room.publish("2")
      yield* room.publish("not b", { except: b.member })
      assert.deepStrictEqual(yield* take(a.peer, 3), ["1", "2", "not b"])
      assert.deepStrictEqual(yield* take(b.peer, 3), ["1", "not a", "2"])
    })
  )

  it.scoped("messages of a turn come after what the member sends in it", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const { member, peer } = yield* memberOf()
      yield* room.join(member)
      yield* room.publish("published")
      yield* member.send("own")
      assert.deepStrictEqual(yield* take(peer, 2), ["own", "published"])
    })
  )

  it.scoped("messages of a turn leave together", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const chunks: Array<number> = []
      const { member, peer } = yield* memberOf({
        chunking: (available) => {
          chunks.push(available)
          return available
        }
      })
      yield* room.join(member)
      yield* publishAll(room, numbers(10))
      assert.deepStrictEqual(yield* take(peer, 10), numbers(10))
      assert.deepStrictEqual(chunks, [10 * ("message 0".length + 2)])
    })
  )

  it.scoped("until their Scope closes; joining twice needs leaving twice", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const { member, peer } = yield* memberOf()
      const [first, second] = [yield* Scope.make(), yield* Scope.make()]
      yield* Scope.extend(room.join(member), first)
      yield* Scope.extend(room.join(member), second)
      assert.strictEqual(yield* room.size, 1)
      yield* room.publish("once")
      yield* Scope.close(first, Exit.void)
      assert.strictEqual(yield* room.size, 1)
      yield* room.publish("still")
      yield* Scope.close(second, Exit.void)
      assert.strictEqual(yield* room.size, 0)
      yield* room.publish("to nobody")
      yield* member.send("own")
      assert.deepStrictEqual(yield* take(peer, 3), ["once", "still", "own"])
    })
  )

  it.scoped("get what is published between joining and leaving, even in one turn", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const [a, b] = [yield* memberOf(), yield* memberOf()]
      const scope = yield* Scope.make()
      yield* room.join(a.member)
      yield* room.publish("before")
      yield* Scope.extend(room.join(b.member), scope)
      yield* room.publish("during")
      yield* Scope.close(scope, Exit.void)
      yield* room.publish("after")
      yield* b.member.send("own")
      assert.deepStrictEqual(yield* take(a.peer, 3), ["before", "during", "after"])
      assert.deepStrictEqual(yield* take(b.peer, 2), ["during", "own"])
    })
  )

  it.scoped("that have closed are passed over", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ slow: "wait" })
      const [a, b, c] = [yield* memberOf(), yield* memberOf(), yield* memberOf()]
      for (const { member } of [a, b, c]) yield* room.join(member)
      yield* Effect.fork(Stream.runDrain(a.peer.messages))
      yield* a.member.close()
      yield* b.line.cut
      yield* b.member.closed
      yield* publishAll(room, numbers(3))
      assert.deepStrictEqual(yield* take(c.peer, 3), numbers(3))
      assert.strictEqual(yield* room.disconnected, 0)
      assert.strictEqual(yield* room.dropped, 0)
    })
  )

  it.scoped("clients may be members, and mask what they send", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const { member, peer } = yield* memberOf()
      yield* room.join(peer)
      const messages = ["a", new Uint8Array([1, 2, 3]), "b"]
      yield* publishAll(room, messages)
      // A server refuses frames that are not masked.
      assert.deepStrictEqual(yield* take(member, 3), messages)
    })
  )

  it.scoped("one that is inside a fragmented message gets the others after it", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const [a, b] = [yield* memberOf(), yield* memberOf()]
      yield* room.join(a.member)
      yield* room.join(b.member)
      const [begun, gate] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const pieces = Stream.concat(
        Stream.make("half "),
        Stream.fromEffect(Effect.zipRight(Deferred.succeed(begun, undefined), Effect.as(Deferred.await(gate), "whole")))
      )
      const sending = yield* Effect.fork(a.member.sendFragments("text", pieces))
      yield* Deferred.await(begun)
      yield* publishAll(room, ["1", "2"])
      assert.deepStrictEqual(yield* take(b.peer, 2), ["1", "2"])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(sending)
      assert.deepStrictEqual(yield* take(a.peer, 3), ["half whole", "1", "2"])
    })
  )

  it.scoped("get nothing of what is no message, which is a defect", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const { member, peer } = yield* memberOf()
      yield* room.join(member)
      for (const wrong of [new ArrayBuffer(4), 7, undefined] as unknown as ReadonlyArray<Message.Message>) {
        const defect = yield* Effect.flip(Effect.sandbox(room.publish(wrong)))
        assert.include(Cause.pretty(defect), "a message is a string or a Uint8Array")
      }
      yield* room.publish("1")
      assert.strictEqual(yield* peer.take, "1")
    })
  )

  it.effect("must be connections of this library", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const defect = yield* Effect.flip(Effect.sandbox(Effect.scoped(room.join({} as Connection.Connection))))
      assert.include(Cause.pretty(defect), "connections of this library")
    })
  )
})

describe("members with extensions", () => {
  /** Sends messages backwards, large ones in a later turn; `encoded` gets what the server encodes. */
  const turning = (
    encodeKey: string | undefined,
    encoded: Array<string>,
    { fails = false }: { readonly fails?: boolean } = {}
  ): Extension.Extension => {
    const session: Extension.Session = {
      encodeKey,
      encode: ({ payload }, done) => {
        encoded.push(new TextDecoder().decode(payload))
        const result = fails ? Rule.violation("ExtensionFailure") : { payload: payload.slice().reverse(), rsv: 0 }
        if (payload.length < large.length) return result
        setImmediate(() => done(result))
        return undefined
      },
      decode: ({ payload }) => payload.slice().reverse()
    }
    const open = () => session
    return { name: "x-turn", rsv: 0, offer: () => [[]], accept: () => open, negotiate: () => ({ params: [], open }) }
  }
  const memberWith = (extension: Extension.Extension) => {
    const offered = Extension.offer([extension])
    const agreed = Extension.negotiate([extension], offered)
    const accepted = Extension.accept(offered, agreed) as ReadonlyArray<Extension.Agreed>
    return memberOf({ client: { extensions: accepted }, server: { extensions: agreed } })
  }
  const large = "large ".repeat(100)
  const messages = ["small", large, "after", large, "last"]

  // The members' keys, and how often a message is encoded for all: as often as there are keys, and once for each without one.
  const rows: ReadonlyArray<readonly [name: string, keys: ReadonlyArray<string | undefined>, times: number]> = [
    ["equal parameters", ["a", "a", "a", "a"], 1],
    ["two kinds of parameters", ["a", "b", "a", "b"], 2],
    ["sessions that keep state", [undefined, undefined, undefined, undefined], 4],
    ["some of each, and one without", ["a", undefined, "a", "plain"], 2]
  ]
  for (const [name, keys, times] of rows) {
    const joined = Effect.gen(function* () {
      const room = yield* Broadcast.make()
      const encoded: Array<string> = []
      const members = yield* Effect.forEach(keys, (key) =>
        key === "plain" ? memberOf() : memberWith(turning(key, encoded))
      )
      for (const { member } of members) yield* room.join(member)
      return { room, members, encoded }
    })

    it.scoped(`${name}: encodes each message ${times} times, and large ones keep their place`, () =>
      Effect.gen(function* () {
        const { encoded, members, room } = yield* joined
        // In one turn, then one a turn
        yield* publishAll(room, messages)
        for (const { peer } of members) assert.deepStrictEqual(yield* take(peer, messages.length), messages)
        assert.strictEqual(encoded.length, times * messages.length)
        for (const message of messages) {
          encoded.length = 0
          yield* room.publish(message)
          for (const { peer } of members) assert.strictEqual(yield* peer.take, message)
          assert.deepStrictEqual(encoded, Array<string>(times).fill(message))
        }
      })
    )

    it.scoped(`${name}: except one`, () =>
      Effect.gen(function* () {
        const { encoded, members, room } = yield* joined
        for (const { member } of members) {
          encoded.length = 0
          yield* room.publish("1")
          yield* room.publish(large, { except: member })
          yield* room.publish("not you", { except: member })
          yield* room.publish("2")
          for (const one of members) {
            const expected = one.member === member ? ["1", "2"] : ["1", large, "not you", "2"]
            assert.deepStrictEqual(yield* take(one.peer, expected.length), expected)
          }
          const others = keys.filter((key, i) => key !== "plain" && members[i]!.member !== member)
          const each = others.filter((key) => key === undefined).length
          const once = new Set(others.filter((key) => key !== undefined)).size
          for (const [message, count] of [
            ["1", times],
            [large, once + each],
            ["not you", once + each]
          ]) {
            assert.strictEqual(encoded.filter((one) => one === message).length, count)
          }
        }
      })
    )
  }

  for (const [name, message] of [
    ["idle", "small"],
    ["at work", large]
  ] as const) {
    it.effect(`what encodes for all is closed with the last member, when it is ${name}`, () =>
      Effect.gen(function* () {
        const room = yield* Broadcast.make()
        const sessions = { opened: 0, closed: 0 }
        const counted = (agreed: Extension.Extension): Extension.Extension => ({
          ...agreed,
          negotiate: (offer) => {
            const negotiated = agreed.negotiate(offer)
            if (negotiated === undefined) return undefined
            const open: Extension.Agreed["open"] = (context) => {
              sessions.opened++
              return { ...negotiated.open(context), close: () => void sessions.closed++ }
            }
            return { ...negotiated, open }
          }
        })
        for (let round = 1; round <= 3; round++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const { member, peer } = yield* memberWith(counted(turning("a", [])))
              yield* Effect.scoped(Effect.zipRight(room.join(member), room.publish(message)))
              assert.strictEqual(yield* peer.take, message)
            })
          )
          // The member's own and that of the room.
          assert.deepStrictEqual(sessions, { opened: 2 * round, closed: 2 * round })
        }
      })
    )
  }

  for (const [name, message] of [
    ["at once", "small"],
    ["later", large]
  ] as const) {
    it.scoped(`an extension that fails ${name} closes its members with 1011, and no other`, () =>
      Effect.gen(function* () {
        const room = yield* Broadcast.make()
        const plain = yield* memberOf()
        const failing = yield* Effect.replicateEffect(memberWith(turning("a", [], { fails: true })), 2)
        for (const { member } of [plain, ...failing]) yield* room.join(member)
        yield* room.publish(message)
        for (const { peer } of failing) {
          yield* Effect.flip(peer.take)
          assert.strictEqual((yield* peer.closed).code, 1011)
        }
        yield* room.publish("goes on")
        assert.deepStrictEqual(yield* take(plain.peer, 2), [message, "goes on"])
      })
    )
  }
})

describe("a member that does not keep up", () => {
  const message = "x".repeat(998)
  const frameBytes = 4 + message.length

  /** A member whose line is stalled, and one that reads. */
  const slowAndFast = (room: Broadcast.Broadcast) =>
    Effect.gen(function* () {
      const [slow, fast] = [yield* memberOf(), yield* memberOf()]
      yield* slow.line.stall
      yield* room.join(slow.member)
      yield* room.join(fast.member)
      // Nobody moves the clock to the end of a closing handshake.
      yield* Effect.addFinalizer(() => Effect.zipRight(slow.line.cut, fast.line.cut))
      return { slow, fast }
    })

  it.scoped("drop: has its allowance, and misses the rest, which is counted", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ slow: "drop", allowanceBytes: 3 * frameBytes })
      const { fast, slow } = yield* slowAndFast(room)
      for (let i = 0; i < 10; i++) {
        yield* room.publish(message)
        assert.strictEqual(yield* fast.peer.take, message)
      }
      assert.strictEqual(yield* slow.member.bufferedBytes, 3 * frameBytes)
      assert.strictEqual(yield* room.dropped, 7)
      yield* slow.line.flow
      assert.deepStrictEqual(yield* take(slow.peer, 3), [message, message, message])
      yield* room.publish("again")
      assert.strictEqual(yield* slow.peer.take, "again")
      assert.strictEqual(yield* room.dropped, 7)
      assert.strictEqual(yield* room.disconnected, 0)
    })
  )

  it.scoped("drop: a small message may still fit, within one turn too", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ slow: "drop", allowanceBytes: frameBytes + 10 })
      const { fast, slow } = yield* slowAndFast(room)
      yield* publishAll(room, [message, message, "small"])
      assert.deepStrictEqual(yield* take(fast.peer, 1), [message])
      yield* slow.line.flow
      assert.deepStrictEqual(yield* take(slow.peer, 2), [message, "small"])
    })
  )

  it.scoped("disconnect: is closed with 1013, which is counted once", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ allowanceBytes: 2 * frameBytes })
      const { fast, slow } = yield* slowAndFast(room)
      for (let i = 0; i < 5; i++) {
        yield* room.publish(message)
        assert.strictEqual(yield* fast.peer.take, message)
      }
      assert.strictEqual(yield* room.disconnected, 1)
      assert.strictEqual(yield* room.dropped, 0)
      assert.isAtMost(yield* slow.member.bufferedBytes, 2 * frameBytes + 32)
      yield* slow.line.flow
      assert.deepStrictEqual(yield* take(slow.peer, 2), [message, message])
      const closed = yield* Effect.flip(slow.peer.take)
      assert.deepInclude(closed, { _tag: "ConnectionClosed" })
      assert.deepInclude(yield* slow.peer.closed, { code: 1013, reason: "too slow" })
    })
  )

  it.scoped("disconnect: the allowance holds inside one turn, however much is published", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ allowanceBytes: 2 * frameBytes })
      const { slow } = yield* slowAndFast(room)
      yield* publishAll(
        room,
        Array.from({ length: 500 }, () => message)
      )
      yield* slow.line.flow
      assert.isAtMost(yield* slow.line.writtenBytes, 2 * frameBytes + 32)
      assert.strictEqual(yield* room.disconnected, 2)
    })
  )

  for (const allowanceBytes of [1, 2 * frameBytes, 200 * frameBytes]) {
    it.scoped(`wait: publish waits for it, and no message is left out (allowance ${allowanceBytes})`, () =>
      Effect.gen(function* () {
        const room = yield* Broadcast.make({ slow: "wait", allowanceBytes })
        const { fast, slow } = yield* slowAndFast(room)
        const draining = yield* Effect.fork(take(fast.peer, 1000))
        const publishing = yield* Effect.fork(
          publishAll(
            room,
            Array.from({ length: 1000 }, () => message)
          )
        )
        for (let i = 0; i < 200; i++) yield* Effect.yieldNow()
        assert.isTrue((yield* Fiber.poll(publishing))._tag === "None")
        assert.isAtMost(yield* slow.member.bufferedBytes, allowanceBytes + 0x10000 + frameBytes)
        yield* slow.line.flow
        assert.strictEqual((yield* take(slow.peer, 1000)).length, 1000)
        yield* Fiber.join(publishing)
        assert.strictEqual((yield* Fiber.join(draining)).length, 1000)
        assert.strictEqual(yield* room.dropped, 0)
      })
    )
  }

  it.scoped("wait: publish goes on when the member is gone", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ slow: "wait", allowanceBytes: frameBytes })
      const { fast, slow } = yield* slowAndFast(room)
      yield* Effect.fork(Stream.runDrain(fast.peer.messages))
      const publishing = yield* Effect.fork(
        publishAll(
          room,
          Array.from({ length: 300 }, () => message)
        )
      )
      for (let i = 0; i < 100; i++) yield* Effect.yieldNow()
      assert.isTrue((yield* Fiber.poll(publishing))._tag === "None")
      yield* slow.line.cut
      yield* Fiber.join(publishing)
    })
  )

  it.scoped("wait: publishing can be interrupted", () =>
    Effect.gen(function* () {
      const room = yield* Broadcast.make({ slow: "wait", allowanceBytes: frameBytes })
      yield* slowAndFast(room)
      const publishing = yield* Effect.fork(
        publishAll(
          room,
          Array.from({ length: 300 }, () => message)
        )
      )
      for (let i = 0; i < 100; i++) yield* Effect.yieldNow()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(publishing)))
    })
  )
})
