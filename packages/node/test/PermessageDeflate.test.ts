import { assert, describe, it } from "@effect/vitest"
import { Broadcast, type Connection } from "@effect-ws/core"
import { Extension } from "@effect-ws/core/engine"
import { PermessageDeflate } from "@effect-ws/node"
import { Chunk, Effect, Fiber, Stream } from "effect"
import * as FastCheck from "effect/FastCheck"
import { closePayload, hex } from "../../core/test/conformance/rawFrames.js"
import { agree, Contexts, compressed, connected, expanded, facing, noise, prose } from "./deflateSupport.js"

const mebibyte = 0x100000
const every = PermessageDeflate.make({ threshold: 0 })
const everyAlone = PermessageDeflate.make({
  threshold: 0,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true
})
const modes = { "with takeover": every, "without takeover": everyAlone }

const text = 1
const binary = 2
/** RSV1 as the fields of frames have it. */
const rsv = 4

const takeMany = (socket: Connection.Connection, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(socket.messages, count)), Chunk.toReadonlyArray)

/** Lets everything happen that needs no thread and no timer. */
const microtasks = Effect.promise(async () => {
  for (let i = 0; i < 100; i++) await Promise.resolve()
})

describe("PermessageDeflate", () => {
  describe("options out of range", () => {
    const rows: ReadonlyArray<PermessageDeflate.Options> = [
      { level: -1 },
      { level: 10 },
      { level: 1.5 },
      { memLevel: 0 },
      { memLevel: 10 },
      { strategy: "best" as never },
      { threshold: -1 },
      { threshold: Number.NaN },
      { maxContexts: -1 },
      { serverMaxWindowBits: 7 as never },
      { serverMaxWindowBits: 16 as never },
      { clientMaxWindowBits: 7 as never },
      { clientMaxWindowBits: "10" as never }
    ]
    for (const options of rows) {
      it(JSON.stringify(options), () => assert.throws(() => PermessageDeflate.make(options), RangeError))
    }
    it.scopedLive("and at its ends", () =>
      Effect.gen(function* () {
        const strategies = ["default", "filtered", "huffman", "rle", "fixed"] as const
        for (const level of [0, 9]) {
          for (const memLevel of [1, 9]) {
            for (const strategy of strategies) {
              const extension = PermessageDeflate.make({ level, memLevel, strategy, threshold: 0 })
              const { client, server } = yield* connected({ server: [extension] })
              yield* server.sendAll([prose(3000), prose(3000)])
              assert.deepStrictEqual(yield* takeMany(client, 2), [prose(3000), prose(3000)])
            }
          }
        }
      })
    )
  })

  describe("all combinations of what both sides want", () => {
    const wishes = [false, true].flatMap((serverNoContextTakeover) =>
      [false, true].flatMap((clientNoContextTakeover) =>
        ([15, 8] as const).flatMap((serverMaxWindowBits) =>
          ([15, 9] as const).map((clientMaxWindowBits) => ({
            serverNoContextTakeover,
            clientNoContextTakeover,
            serverMaxWindowBits,
            clientMaxWindowBits,
            threshold: 0
          }))
        )
      )
    )
    const message = Buffer.from(noise(400))
    for (const wanted of wishes) {
      it.live(`server: ${JSON.stringify(wanted)}`, () =>
        Effect.forEach(
          wishes,
          (offered) =>
            Effect.gen(function* () {
              const { client, clientTransport, server, serverTransport } = yield* connected({
                server: [PermessageDeflate.make(wanted)],
                client: [PermessageDeflate.make(offered)]
              })
              const keeps = {
                server: !wanted.serverNoContextTakeover && !offered.serverNoContextTakeover,
                client: !wanted.clientNoContextTakeover && !offered.clientNoContextTakeover
              }
              for (const [from, to, transport, kept] of [
                [client, server, clientTransport, keeps.client],
                [server, client, serverTransport, keeps.server]
              ] as const) {
                const sizes: Array<number> = []
                for (let i = 0; i < 2; i++) {
                  const before = yield* transport.writtenBytes
                  yield* from.send(message)
                  assert.isTrue(message.equals((yield* to.take) as Uint8Array))
                  sizes.push((yield* transport.writtenBytes) - before)
                }
                const bits = from === client ? "clientMaxWindowBits" : "serverMaxWindowBits"
                // A message is beyond a smaller window when the next one comes.
                if (wanted[bits] === 15 && offered[bits] === 15) {
                  assert.strictEqual(sizes[1]! < 100, kept, JSON.stringify(offered))
                }
                yield* from.send(prose(5000))
                assert.strictEqual(yield* to.take, prose(5000))
              }
            }).pipe(Effect.scoped),
          { discard: true }
        )
      )
    }
  })

  describe("the bytes of RFC 7692 §7.2.3", () => {
    it.scopedLive("are what is sent", () =>
      Effect.gen(function* () {
        const peer = yield* facing([every])
        for (const payload of ["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"]) {
          yield* peer.socket.send("Hello")
          const frame = (yield* peer.frame)!
          assert.deepInclude(frame, { fin: true, rsv, opcode: text })
          assert.deepStrictEqual(Buffer.from(frame.payload), Buffer.from(hex(payload)))
        }
      })
    )

    const rows: Readonly<Record<string, ReadonlyArray<string>>> = {
      "§7.2.3.1, one block": ["f2 48 cd c9 c9 07 00"],
      "§7.2.3.2, the window of the message before": ["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"],
      "§7.2.3.3, a stored block": ["00 05 00 fa ff 48 65 6c 6c 6f 00"],
      "§7.2.3.4, a final block": ["f3 48 cd c9 c9 07 00 00", "f3 48 cd c9 c9 07 00 00"],
      "§7.2.3.4, a final block and nothing after it": ["f3 48 cd c9 c9 07 00", "f2 48 cd c9 c9 07 00"],
      "§7.2.3.5, two blocks": ["f2 48 05 00 00 00 ff ff ca c9 c9 07 00"],
      "a final block in the middle": ["f3 48 05 00 ca c9 c9 07 00"]
    }
    for (const [name, payloads] of Object.entries(rows)) {
      it.scopedLive(`${name}: taken whole, and in two fragments cut at every byte`, () =>
        Effect.gen(function* () {
          const peer = yield* facing([every], { chunking: "every byte" })
          for (const payload of payloads.map(hex)) yield* peer.send({ opcode: text, rsv, payload })
          for (const _ of payloads) assert.strictEqual(yield* peer.socket.take, "Hello")
          for (let cut = 0; cut <= hex(payloads[0]!).length; cut++) {
            const fragmented = yield* facing([every])
            for (const payload of payloads.map(hex)) {
              yield* fragmented.send(
                { opcode: text, rsv, fin: false, payload: payload.subarray(0, cut) },
                { opcode: 9 },
                { opcode: 0, payload: payload.subarray(cut) }
              )
              assert.strictEqual(yield* fragmented.socket.take, "Hello")
              assert.strictEqual((yield* fragmented.frame)!.opcode, 10)
            }
          }
        })
      )
    }

    it.scopedLive("a fragment for every byte, as client and as server", () =>
      Effect.gen(function* () {
        for (const role of ["client", "server"] as const) {
          const peer = yield* facing([every], { role })
          const message = prose(500)
          const payload = compressed(message)
          const frames = Array.from(payload, (_, i) => ({
            opcode: i === 0 ? text : 0,
            rsv: i === 0 ? rsv : 0,
            fin: i === payload.length - 1,
            payload: payload.subarray(i, i + 1)
          }))
          yield* peer.send(...frames)
          assert.strictEqual(yield* peer.socket.take, message)
        }
      })
    )

    it.scopedLive("empty messages, compressed or not, whole or in fragments", () =>
      Effect.gen(function* () {
        const peer = yield* facing([every])
        yield* peer.send(
          { opcode: text, rsv, payload: hex("00") },
          { opcode: text, rsv, payload: hex("02 00") },
          { opcode: text, rsv },
          { opcode: text },
          { opcode: text, rsv, fin: false },
          { opcode: 0, fin: false },
          { opcode: 0, payload: hex("00") },
          { opcode: binary, rsv, payload: hex("00") }
        )
        assert.deepStrictEqual(yield* takeMany(peer.socket, 6), ["", "", "", "", "", new Uint8Array(0)])
      })
    )

    it.scopedLive("messages without the bit between those with it", () =>
      Effect.gen(function* () {
        const peer = yield* facing([every])
        yield* peer.send(
          { opcode: text, rsv, payload: hex("f2 48 cd c9 c9 07 00") },
          { opcode: text, payload: Buffer.from("plain") },
          { opcode: text, fin: false, payload: Buffer.from("pl") },
          { opcode: 0, payload: Buffer.from("ain") },
          { opcode: text, rsv, payload: hex("f2 00 11 00 00") }
        )
        assert.deepStrictEqual(yield* takeMany(peer.socket, 4), ["Hello", "plain", "plain", "Hello"])
      })
    )
  })

  describe("what the peer must not send", () => {
    const hello = hex("f2 48 cd c9 c9 07 00")
    const limit = 200_000
    const notText = Buffer.concat([Buffer.from(prose(100)), Buffer.from([0xc3, 0x28])])
    const notTextLate = Buffer.concat([noise(150_000).map((byte) => byte & 0x7f), Buffer.from([0xff])])
    type Frames = ReadonlyArray<Parameters<typeof compressed>[0] | { readonly opcode: number }>
    const rows: ReadonlyArray<
      readonly [name: string, code: number, frames: Frames, extensions?: ReadonlyArray<Extension.Extension>]
    > = [
      ["RSV1 without the extension", 1002, [{ opcode: text, rsv, payload: hello }] as never, []],
      ["RSV1 on a ping (§6.1)", 1002, [{ opcode: 9, rsv }] as never],
      ["RSV1 on a pong", 1002, [{ opcode: 10, rsv }] as never],
      ["RSV1 on a close frame", 1002, [{ opcode: 8, rsv }] as never],
      [
        "RSV1 on a continuation (§6.1)",
        1002,
        [
          { opcode: text, rsv, fin: false, payload: hello },
          { opcode: 0, rsv }
        ] as never
      ],
      [
        "RSV1 on a continuation only",
        1002,
        [
          { opcode: text, fin: false },
          { opcode: 0, rsv, payload: hello }
        ] as never
      ],
      ["RSV2", 1002, [{ opcode: text, rsv: 2 }] as never],
      ["RSV1 and RSV3", 1002, [{ opcode: text, rsv: 5, payload: hello }] as never],
      ["what is not DEFLATE", 1007, [{ opcode: binary, rsv, payload: hex("07") }] as never],
      [
        "what is not DEFLATE, in the size of the thread pool",
        1007,
        [{ opcode: binary, rsv, payload: Buffer.concat([hex("07"), noise(100_000)]) }] as never
      ],
      [
        "a reference to a window that is not there",
        1007,
        [{ opcode: text, rsv, payload: hex("f2 00 11 00 00") }] as never
      ],
      ["text that is not UTF-8", 1007, [{ opcode: text, rsv, payload: compressed(notText) }] as never],
      [
        "text that is not UTF-8, in the size of the thread pool",
        1007,
        [{ opcode: text, rsv, payload: compressed(notTextLate) }] as never
      ],
      ["a byte too much", 1009, [{ opcode: binary, rsv, payload: compressed(Buffer.alloc(limit + 1)) }] as never],
      [
        "a byte too much, in the size of the thread pool",
        1009,
        [{ opcode: binary, rsv, payload: compressed(noise(limit + 1)) }] as never
      ],
      ["a byte too much, not compressed", 1009, [{ opcode: binary, payload: noise(limit + 1) }] as never],
      [
        "a byte too much in fragments, not compressed",
        1009,
        [
          { opcode: binary, fin: false, payload: noise(limit) },
          { opcode: 0, payload: noise(1) }
        ] as never
      ],
      ["a bomb", 1009, [{ opcode: binary, rsv, payload: compressed(Buffer.alloc(20 * mebibyte)) }] as never],
      [
        "a bomb in the size of the thread pool",
        1009,
        [{ opcode: binary, rsv, payload: compressed(Buffer.alloc(100 * mebibyte), { level: 1 }) }] as never
      ],
      [
        "more compressed bytes than any message can need",
        1009,
        [{ opcode: binary, rsv, fin: false, payload: noise(limit + (limit >>> 8) + 65) }] as never
      ]
    ]
    for (const [name, code, frames, extensions = [every]] of rows) {
      it.scopedLive(`${code} for ${name}; what came before is delivered, and no context is left`, () =>
        Effect.gen(function* () {
          const contexts = yield* Contexts.follow
          const peer = yield* facing(extensions, { maxMessageBytes: limit })
          yield* peer.send({ opcode: text, payload: Buffer.from("before") }, ...(frames as never as []))
          const taken = yield* Effect.fork(Effect.either(Stream.runCollect(peer.socket.messages)))
          assert.strictEqual(yield* peer.closeCode, code)
          const outcome = yield* Fiber.join(taken)
          assert.deepInclude(outcome, { _tag: "Left" })
          assert.deepInclude(yield* peer.socket.closed, { code, initiator: "local" })
          assert.isAtMost(contexts.outputBytes, 2 * limit + 2 * 65_536)
          assert.isAtMost(contexts.open, 0)
        })
      )
    }

    it.scopedLive("messages as large as allowed are taken, however they compress", () =>
      Effect.gen(function* () {
        const peer = yield* facing([every], { maxMessageBytes: limit })
        for (const message of [Buffer.alloc(limit), noise(limit), Buffer.from(prose(limit))]) {
          for (const payload of [compressed(message), compressed(message, { level: 0 })]) {
            yield* peer.send({ opcode: binary, rsv, payload })
            const taken = (yield* peer.socket.take) as Uint8Array
            assert.isTrue(message.equals(taken))
          }
          yield* peer.send({ opcode: binary, payload: message })
          assert.isTrue(message.equals((yield* peer.socket.take) as Uint8Array))
        }
      })
    )

    it.scopedLive("many bombs below the limit are decoded as the consumer takes them", () =>
      Effect.gen(function* () {
        const contexts = yield* Contexts.follow
        const peer = yield* facing([everyAlone], { maxMessageBytes: limit, maxQueuedBytes: limit })
        const payload = compressed(Buffer.alloc(limit))
        const count = 100
        yield* peer.send(...Array.from({ length: count }, () => ({ opcode: binary, rsv, payload })))
        assert.strictEqual(((yield* peer.socket.take) as Uint8Array).length, limit)
        yield* microtasks
        assert.isAtMost(contexts.outputBytes, 3 * limit)
        assert.strictEqual((yield* takeMany(peer.socket, count - 1)).length, count - 1)
      })
    )

    it.scopedLive("and after the end of the transport no more of them than may be queued", () =>
      Effect.gen(function* () {
        const contexts = yield* Contexts.follow
        const peer = yield* facing([everyAlone], { maxMessageBytes: limit, maxQueuedBytes: limit })
        const payload = compressed(Buffer.alloc(limit))
        yield* peer.send(...Array.from({ length: 100 }, () => ({ opcode: binary, rsv, payload })))
        yield* microtasks
        yield* peer.transport.cut
        assert.strictEqual((yield* peer.socket.closed).code, 1006)
        assert.isAtMost(contexts.outputBytes, 3 * limit)
      })
    )

    it.scopedLive("a close frame and the end behind a backlog come after all of it", () =>
      Effect.gen(function* () {
        const peer = yield* facing([everyAlone], { maxMessageBytes: limit, maxQueuedBytes: limit })
        const payload = compressed(Buffer.alloc(limit))
        const count = 20
        yield* peer.send(...Array.from({ length: count }, () => ({ opcode: binary, rsv, payload })), {
          opcode: 8,
          payload: closePayload(1000)
        })
        yield* peer.transport.halfClose
        yield* microtasks
        assert.strictEqual((yield* Stream.runCollect(peer.socket.messages)).length, count)
        assert.strictEqual(yield* peer.closeCode, 1000)
        assert.deepInclude(yield* peer.socket.closed, { code: 1000, clean: true })
      })
    )
  })

  describe("which messages are compressed", () => {
    const ten = PermessageDeflate.make({ threshold: 10 })
    const rows: ReadonlyArray<
      readonly [name: string, message: string | Uint8Array, compress: boolean | undefined, is: boolean]
    > = [
      ["text of fewer bytes than the threshold", "x".repeat(9), undefined, false],
      ["text of as many", "x".repeat(10), undefined, true],
      ["text of fewer code units, but as many bytes", "é".repeat(5), undefined, true],
      ["text of nine bytes in three code units", "€€€", undefined, false],
      ["bytes below it", new Uint8Array(9), undefined, false],
      ["bytes at it", new Uint8Array(10), undefined, true],
      ["short, on request", "x", true, true],
      ["empty, on request", "", true, true],
      ["long, not by request", "x".repeat(5000), false, false],
      ["long bytes, not by request", new Uint8Array(5000), false, false]
    ]
    for (const [name, message, compress, is] of rows) {
      it.scopedLive(`${name}: ${is}`, () =>
        Effect.gen(function* () {
          const peer = yield* facing([ten])
          yield* compress === undefined ? peer.socket.send(message) : peer.socket.sendWith(message, { compress })
          const frame = (yield* peer.frame)!
          assert.strictEqual(frame.rsv === rsv, is)
          const payload = is ? expanded(frame.payload) : Buffer.from(frame.payload)
          assert.deepStrictEqual(payload, Buffer.from(message as string))
        })
      )
    }

    it("1024 bytes is the default", () => {
      const { server } = agree([PermessageDeflate.full], [PermessageDeflate.full])
      const pipeline = Extension.open(server, { role: "server" })!
      assert.deepStrictEqual(
        [1023, 1024].map((size) => pipeline.takes("x".repeat(size), undefined)),
        [false, true]
      )
      pipeline.close()
    })

    const stays: ReadonlyArray<
      readonly [name: string, options: PermessageDeflate.Options, compress: boolean | undefined, is: boolean]
    > = [
      ["without takeover it stays as it is", { serverNoContextTakeover: true }, undefined, false],
      ["unless it shall be compressed", { serverNoContextTakeover: true }, true, true],
      ["or every message shall", { serverNoContextTakeover: true, threshold: 0 }, undefined, true],
      ["with takeover it is part of the window", {}, undefined, true]
    ]
    for (const [name, options, compress, is] of stays) {
      it.scopedLive(`a message that would grow, ${name}`, () =>
        Effect.gen(function* () {
          for (const size of [2000, 100_000]) {
            const peer = yield* facing([PermessageDeflate.make(options)])
            yield* peer.socket.sendWith(noise(size), { compress })
            const frame = (yield* peer.frame)!
            assert.strictEqual(frame.rsv === rsv, is)
            assert.isTrue(noise(size).equals(is ? expanded(frame.payload) : Buffer.from(frame.payload)))
          }
        })
      )
    }
  })

  describe("maxContexts", () => {
    const keeps = (agreed: ReadonlyArray<Extension.Agreed>) =>
      !agreed[0]!.params.some(({ name }) => name.endsWith("_no_context_takeover"))

    it.live("connections beyond it are agreed on without takeover, and one that ends makes room", () =>
      Effect.gen(function* () {
        const extension = PermessageDeflate.make({ maxContexts: 2, threshold: 0 })
        const use = Effect.gen(function* () {
          const agreed = agree([extension], [PermessageDeflate.full])
          const { socket, transport } = yield* facing([extension])
          yield* socket.send("x")
          return { keeps: keeps(agreed.server), socket, transport }
        })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const first = yield* use
            const second = yield* use
            assert.deepStrictEqual([first.keeps, second.keeps], [true, true])
            assert.isFalse((yield* use).keeps)
            yield* first.transport.cut
            yield* first.socket.closed
            assert.isTrue((yield* use).keeps)
            assert.isFalse((yield* use).keeps)
          })
        )
        assert.isTrue(keeps(agree([extension], [PermessageDeflate.full]).server))
        assert.isTrue(keeps(agree([PermessageDeflate.full], [extension]).client))
      })
    )

    it("0 never keeps any, at the client neither", () => {
      const none = PermessageDeflate.make({ maxContexts: 0 })
      const { server } = agree([PermessageDeflate.full], [none])
      assert.sameMembers(
        server[0]!.params.map(({ name }) => name),
        ["server_no_context_takeover", "client_no_context_takeover"]
      )
    })
  })

  describe("order", () => {
    const large = prose(mebibyte)
    for (const [mode, extension] of Object.entries(modes)) {
      it.scopedLive(`${mode}: what follows a message on the thread pool stays behind it`, () =>
        Effect.gen(function* () {
          const { client, server } = yield* connected({ server: [extension] })
          const sending = yield* Effect.fork(
            Effect.gen(function* () {
              yield* server.sendAll([large, "small"])
              yield* server.sendWith("plain", { compress: false })
              yield* server.send(new Uint8Array(noise(500_000)))
              yield* server.sendFragments("text", Stream.make("in ", "pieces"))
              yield* server.sendWith(large, { compress: false })
              yield* server.send("last")
            })
          )
          const taken = yield* takeMany(client, 7)
          yield* Fiber.join(sending)
          assert.isTrue(noise(500_000).equals(taken[3] as Uint8Array))
          assert.deepStrictEqual(
            [...taken.slice(0, 3), ...taken.slice(4)],
            [large, "small", "plain", "in pieces", large, "last"]
          )
        })
      )

      it.scopedLive(`${mode}: publications of a Broadcast stay behind it too`, () =>
        Effect.gen(function* () {
          const room = yield* Broadcast.make({ allowanceBytes: 64 * mebibyte })
          const { client, server } = yield* connected({ server: [extension] })
          yield* room.join(server)
          yield* Effect.fork(server.send(large))
          yield* Effect.yieldNow()
          yield* room.publish("published")
          yield* room.publish(prose(100_000))
          yield* Effect.yieldNow()
          yield* Effect.fork(server.send("after"))
          const taken = yield* takeMany(client, 4)
          assert.strictEqual(taken[0], large)
          assert.deepStrictEqual([...taken.slice(1)].sort(), ["after", "published", prose(100_000)].sort())
          assert.isBelow(taken.indexOf("published"), taken.indexOf(prose(100_000)))
        })
      )

      it.scopedLive(`${mode}: the close frame stays behind it`, () =>
        Effect.gen(function* () {
          const { client, server } = yield* connected({
            server: [extension],
            options: { highWaterMark: 16 * mebibyte }
          })
          yield* Effect.fork(server.sendAll([large, "small"]))
          yield* Effect.yieldNow()
          const closing = yield* Effect.fork(server.close(4000, "done"))
          const taken: Array<unknown> = []
          yield* Effect.flip(client.runForEach((message) => void taken.push(message)))
          assert.deepStrictEqual(taken, [large, "small"])
          assert.deepInclude(yield* client.closed, { code: 4000, reason: "done", clean: true, initiator: "remote" })
          assert.deepInclude(yield* Fiber.join(closing), { code: 4000, clean: true, initiator: "local" })
        })
      )

      it.scopedLive(`${mode}: the peer closes meanwhile: what was sent leaves, then our close frame`, () =>
        Effect.gen(function* () {
          for (const role of ["server", "client"] as const) {
            for (const halfClose of role === "client" ? [false, true] : [false]) {
              const peer = yield* facing([extension], { role, highWaterMark: 16 * mebibyte })
              yield* Effect.fork(peer.socket.sendAll([large, "small"]))
              yield* Effect.yieldNow()
              yield* peer.send({ opcode: 8, payload: closePayload(4001) })
              // A server ends its side at once (RFC 6455 §7.1.1); the client need not wait for its own timer then.
              if (halfClose) yield* peer.transport.halfClose
              for (const message of [large, "small"]) {
                assert.strictEqual((yield* peer.frame)!.payload.length > 1000, message === large)
              }
              assert.strictEqual(yield* peer.closeCode, 4001)
              assert.deepInclude(yield* peer.socket.closed, { code: 4001, clean: true, initiator: "remote" })
              if (role === "server" || halfClose) assert.isUndefined(yield* peer.frame)
              yield* peer.transport.halfClose
            }
          }
        })
      )

      it.scopedLive(`${mode}: both close while one compresses`, () =>
        Effect.gen(function* () {
          const { client, server } = yield* connected({ server: [extension] })
          yield* Effect.fork(server.send(large))
          yield* Effect.yieldNow()
          const both = yield* Effect.fork(
            Effect.all([server.close(4000), client.close(4001)], { concurrency: "unbounded" })
          )
          assert.strictEqual(yield* client.take, large)
          const [atServer, atClient] = yield* Fiber.join(both)
          assert.deepInclude(atServer, { code: 4001, clean: true, initiator: "local" })
          assert.deepInclude(atClient, { code: 4000, clean: true, initiator: "local" })
        })
      )

      it.scopedLive(`${mode}: a pong overtakes the message that is compressed, a message does not`, () =>
        Effect.gen(function* () {
          const peer = yield* facing([extension])
          yield* Effect.fork(peer.socket.sendAll([large, "small"]))
          yield* Effect.yieldNow()
          yield* peer.send({ opcode: 9, payload: Buffer.from("now") })
          const opcodes = [(yield* peer.frame)!, (yield* peer.frame)!, (yield* peer.frame)!].map(({ opcode }) => opcode)
          assert.deepStrictEqual(opcodes, [10, text, text])
        })
      )

      it.scopedLive(`${mode}: what waits counts as buffered, and senders wait for it`, () =>
        Effect.gen(function* () {
          const peer = yield* facing([extension])
          const sending = yield* Effect.fork(peer.socket.send(large))
          yield* Effect.yieldNow()
          assert.isAtLeast(yield* peer.socket.bufferedBytes, large.length)
          assert.isFalse(yield* peer.socket.trySend("more"))
          yield* peer.frame
          yield* Fiber.join(sending)
          assert.strictEqual(yield* peer.socket.bufferedBytes, 0)
          assert.isTrue(yield* peer.socket.trySend("more"))
        })
      )

      it.scopedLive(`${mode}: while a message is inflated nothing is read, then pings behind it are answered`, () =>
        Effect.gen(function* () {
          const contexts = yield* Contexts.follow
          const peer = yield* facing([extension])
          const started = yield* Effect.fork(contexts.started)
          yield* Effect.yieldNow()
          const message = noise(600_000)
          yield* peer.send({ opcode: binary, rsv, payload: compressed(message) })
          yield* Fiber.join(started)
          yield* peer.send({ opcode: 9, payload: Buffer.from("there?") })
          yield* peer.send({ opcode: text, payload: Buffer.from("behind") })
          yield* microtasks
          assert.isAbove(peer.transport.bufferedBytes(), 0)
          assert.deepInclude((yield* peer.frame)!, { opcode: 10, payload: new Uint8Array(Buffer.from("there?")) })
          const [first, second] = yield* takeMany(peer.socket, 2)
          assert.isTrue(message.equals(first as Uint8Array))
          assert.strictEqual(second, "behind")
          assert.strictEqual(peer.transport.bufferedBytes(), 0)
        })
      )
    }
  })

  it.scopedLive("messages are in memory of their own, whatever comes after them", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected({ server: [every] })
      const messages = [1, 2, 3].map((seed) => noise(20_000, seed))
      yield* server.sendAll(messages)
      const taken = (yield* takeMany(client, 3)) as ReadonlyArray<Uint8Array>
      taken.forEach((message, i) => {
        assert.isTrue(messages[i]!.equals(message))
        assert.strictEqual(Object.getPrototypeOf(message), Uint8Array.prototype)
      })
    })
  )

  describe("connections that die at work", () => {
    /** Contexts without takeover that are kept for the next: two of each kind. */
    const idle = 4
    const settled = (contexts: Contexts) =>
      Effect.promise(async () => {
        for (let i = 0; contexts.open > idle && i < 10_000; i++) await new Promise((resolve) => setImmediate(resolve))
      })
    const deaths = {
      cut: ({ clientTransport }: Ends) => clientTransport.cut,
      abort: ({ client }: Ends) => client.abort,
      "end of one side": ({ clientTransport }: Ends) => clientTransport.halfClose
    }
    type Ends = Effect.Effect.Success<ReturnType<typeof connected>>
    for (const [mode, extension] of Object.entries(modes)) {
      for (const [how, die] of Object.entries(deaths)) {
        it.live(`${how} while deflating, ${mode}`, () =>
          Effect.gen(function* () {
            const contexts = yield* Contexts.follow
            for (let i = 0; i < 6; i++) {
              yield* Effect.gen(function* () {
                const ends = yield* connected({ server: [extension], options: { closeTimeout: "1 second" } })
                yield* Effect.fork(Effect.ignore(ends.server.send(prose(900_000))))
                yield* Effect.fork(Effect.ignore(ends.client.send(prose(900_000))))
                yield* Effect.yieldNow()
                yield* die(ends)
                assert.isFalse((yield* ends.server.closed).clean)
                yield* Effect.all([ends.server.close(), ends.server.close()], { concurrency: 2 }).pipe(Effect.fork)
              }).pipe(Effect.scoped)
            }
            yield* settled(contexts)
            yield* works(extension)
            yield* settled(contexts)
          }).pipe(Effect.scoped)
        )

        it.live(`${how} while inflating, ${mode}`, () =>
          Effect.gen(function* () {
            const contexts = yield* Contexts.follow
            const payload = compressed(noise(900_000))
            for (let i = 0; i < 6; i++) {
              yield* Effect.gen(function* () {
                const started = yield* Effect.fork(contexts.started)
                yield* Effect.yieldNow()
                const peer = yield* facing([extension], { closeTimeout: "1 second" })
                yield* peer.send({ opcode: binary, rsv, payload })
                yield* Fiber.join(started)
                yield* die({ client: peer.socket, clientTransport: peer.transport } as Ends)
                if (how !== "abort") {
                  // What was received can still be taken.
                  assert.strictEqual(((yield* peer.socket.take) as Uint8Array).length, 900_000)
                }
                assert.strictEqual((yield* peer.socket.closed).code, 1006)
              }).pipe(Effect.scoped)
            }
            yield* settled(contexts)
            yield* works(extension)
            yield* settled(contexts)
          }).pipe(Effect.scoped)
        )
      }
    }
    const works = (extension: Extension.Extension) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { client, server } = yield* connected({ server: [extension] })
          yield* Effect.fork(server.send(prose(900_000)))
          assert.strictEqual(yield* client.take, prose(900_000))
        })
      )
  })

  describe("random conversations", () => {
    const kinds = {
      noise: (size: number) => new Uint8Array(noise(size, size + 1)),
      JSON: (size: number) => prose(size, size % 97),
      text: (size: number) => "añ€😀".repeat(Math.ceil(size / 10)),
      zeros: (size: number) => new Uint8Array(size)
    }
    const sizes = FastCheck.oneof(
      { arbitrary: FastCheck.integer({ min: 0, max: 2000 }), weight: 4 },
      { arbitrary: FastCheck.integer({ min: 0, max: 200_000 }), weight: 1 }
    )
    const messages = FastCheck.array(
      FastCheck.record({
        size: sizes,
        kind: FastCheck.constantFrom(...(Object.keys(kinds) as Array<keyof typeof kinds>)),
        compress: FastCheck.constantFrom(undefined, true, false)
      }),
      { maxLength: 10 }
    )
    const bits = FastCheck.constantFrom(8, 9, 10, 12, 15) as FastCheck.Arbitrary<PermessageDeflate.WindowBits>
    const options = FastCheck.record({
      level: FastCheck.integer({ min: 0, max: 9 }),
      memLevel: FastCheck.integer({ min: 1, max: 9 }),
      threshold: FastCheck.constantFrom(0, 100, 1024),
      serverNoContextTakeover: FastCheck.boolean(),
      clientNoContextTakeover: FastCheck.boolean(),
      serverMaxWindowBits: bits,
      clientMaxWindowBits: bits
    })
    const chunkings = FastCheck.constantFrom("as written" as const, "together" as const, 1000, 4093, 65_536)

    it("are identical and in order both ways, whatever was agreed on and however the line cuts", () =>
      FastCheck.assert(
        FastCheck.asyncProperty(
          options,
          options,
          chunkings,
          messages,
          messages,
          (wanted, offered, chunking, to, from) =>
            Effect.gen(function* () {
              const { client, server } = yield* connected({
                server: [PermessageDeflate.make(wanted)],
                client: [PermessageDeflate.make(offered)],
                chunking
              })
              yield* Effect.forEach(
                [
                  [client, server, to],
                  [server, client, from]
                ] as const,
                ([sender, receiver, all]) =>
                  Effect.gen(function* () {
                    const expected = all.map(({ kind, size }) => kinds[kind](size))
                    const sending = yield* Effect.fork(
                      Effect.forEach(all, ({ compress }, i) => sender.sendWith(expected[i]!, { compress }))
                    )
                    const taken = yield* takeMany(receiver, all.length)
                    yield* Fiber.join(sending)
                    taken.forEach((message, i) => {
                      const wanted = expected[i]!
                      assert.strictEqual(typeof message, typeof wanted)
                      assert.isTrue(Buffer.from(message as string).equals(Buffer.from(wanted as string)))
                    })
                  }),
                { concurrency: "unbounded" }
              )
            }).pipe(Effect.scoped, Effect.runPromise)
        ),
        { numRuns: 40 }
      ))

    it("in single bytes", () =>
      FastCheck.assert(
        FastCheck.asyncProperty(FastCheck.array(FastCheck.integer({ min: 0, max: 3000 }), { maxLength: 4 }), (all) =>
          Effect.gen(function* () {
            const { client, server } = yield* connected({ server: [every], chunking: "every byte" })
            const expected = all.map((size) => prose(size))
            yield* Effect.fork(server.sendAll(expected))
            assert.deepStrictEqual(yield* takeMany(client, all.length), expected)
          }).pipe(Effect.scoped, Effect.runPromise)
        ),
        { numRuns: 20 }
      ))
  })
})
