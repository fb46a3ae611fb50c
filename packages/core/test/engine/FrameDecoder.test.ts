import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { ByteWriter, makeSlab } from "../../src/engine/byteWriter.js"
import type { Item } from "../../src/engine/FrameDecoder.js"
import { writeFrame } from "../../src/engine/FrameEncoder.js"
import { portable } from "../../src/engine/Natives.js"
import type { Role } from "../../src/engine/Protocol.js"
import { type Rule, violation } from "../../src/engine/Rule.js"
import { chop, concat, hex, utf8 } from "../conformance/rawFrames.js"
import {
  anyKey,
  anySent,
  cutAt,
  decodePieces,
  everything,
  framesOf,
  itemsOf,
  makeDecoder,
  peerFrame,
  retainedBytes,
  scanning,
  scanPieces
} from "./support.js"

const roles = ["server", "client"] as const
const anyRole = FastCheck.constantFrom<Role>(...roles)
const places = FastCheck.array(FastCheck.nat(), { maxLength: 8 })

const control = (opcode: number, payload: Uint8Array): Item => ({ _tag: "Control", opcode, payload })

const withoutDetail = (items: ReadonlyArray<Item>): ReadonlyArray<Item> =>
  items.map((item) => (typeof item === "object" && "rule" in item ? violation(item.rule) : item))

/** The same stream whole, byte by byte, and cut at some places. */
const cuttings = (bytes: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<ReadonlyArray<Uint8Array>> => [
  [bytes],
  [...chop(bytes, 1)],
  cutAt(bytes, cuts)
]

describe("FrameDecoder", () => {
  /** Bytes a server sends, so without masks. */
  const good: ReadonlyArray<readonly [what: string, digits: string, items: ReadonlyArray<Item>]> = [
    ["§5.7: text", "81 05 48 65 6c 6c 6f", ["Hello"]],
    ["§5.7: text in two fragments", "01 03 48 65 6c 80 02 6c 6f", ["Hello"]],
    ["§5.7: ping", "89 05 48 65 6c 6c 6f", [control(9, utf8("Hello"))]],
    ["§5.7: 256 bytes of binary", `82 7e 01 00 ${"2a".repeat(256)}`, [new Uint8Array(256).fill(0x2a)]],
    [
      "§5.7: 64 KiB of binary",
      `82 7f 00 00 00 00 00 01 00 00 ${"2a".repeat(65536)}`,
      [new Uint8Array(65536).fill(0x2a)]
    ],
    ["§5.6: empty text and empty binary", "81 00 82 00", ["", new Uint8Array(0)]],
    ["§5.4: all fragments empty", "01 00 00 00 80 00", [""]],
    [
      "§5.4: control frames between fragments",
      "02 01 01 89 00 00 01 02 8a 01 2a 80 01 03",
      [control(9, new Uint8Array(0)), control(10, hex("2a")), hex("010203")]
    ],
    ["§5.4: a code point cut by fragments", "01 01 c3 80 01 a9", ["é"]],
    ["§5.5.1: nothing behind a close frame is looked at", "88 02 03 e8 81 01 41 ff ff", [control(8, hex("03e8"))]]
  ]
  for (const [what, digits, items] of good) {
    it(what, () => {
      const bytes = hex(digits)
      for (const pieces of cuttings(bytes, [3, 7]))
        assert.deepStrictEqual(decodePieces(makeDecoder("client"), pieces), items)
    })
  }

  /** §5.7 and masks: what a client sends. */
  const masked: ReadonlyArray<readonly [what: string, digits: string, items: ReadonlyArray<Item>]> = [
    ["§5.7: masked text", "81 85 37 fa 21 3d 7f 9f 4d 51 58", ["Hello"]],
    ["§5.7: masked pong", "8a 85 37 fa 21 3d 7f 9f 4d 51 58", [control(10, utf8("Hello"))]],
    ["§5.3: a key of zeros", "82 82 00 00 00 00 01 02", [hex("0102")]],
    [
      "§5.2: the key is there without a payload too",
      "81 80 01 02 03 04 89 80 01 02 03 04",
      ["", control(9, new Uint8Array(0))]
    ]
  ]
  for (const [what, digits, items] of masked) {
    it(what, () => {
      for (const pieces of cuttings(hex(digits), [3, 7])) {
        assert.deepStrictEqual(decodePieces(makeDecoder("server"), pieces), items)
      }
    })
  }

  /** The first item is there to see that nothing decoded before is lost. */
  const bad: ReadonlyArray<readonly [rule: Rule, what: string, role: Role, digits: string]> = [
    ["ReservedBits", "§5.2: RSV1", "client", "c1 00"],
    ["ReservedBits", "§5.2: RSV2", "client", "a1 00"],
    ["ReservedBits", "§5.2: RSV3, shown by one byte", "client", "91"],
    ["ReservedBits", "§5.2: on a control frame", "client", "c9 00"],
    ["ReservedOpcode", "§5.2: 3, shown by one byte", "client", "83"],
    ["ReservedOpcode", "§5.2: 7", "client", "07 00"],
    ["ReservedOpcode", "§5.2: 11", "client", "8b 00"],
    ["ReservedOpcode", "§5.2: 15", "client", "8f 00"],
    ["FragmentedControl", "§5.5: ping", "client", "09 00"],
    ["FragmentedControl", "§5.5: close", "client", "08 00"],
    ["ControlTooLong", "§5.5: ping with 126 bytes", "client", "89 7e 00 7e"],
    ["ControlTooLong", "§5.5: shown by two bytes", "client", "8a 7f"],
    ["MaskRequired", "§5.1: a server gets no mask", "server", "81 05"],
    ["MaskForbidden", "§5.1: a client gets a mask", "client", "81 85"],
    ["LengthNotMinimal", "§5.2: 125 in 16 bits", "client", "82 7e 00 7d"],
    ["LengthNotMinimal", "§5.2: 0 in 16 bits", "server", "82 fe 00 00"],
    ["LengthNotMinimal", "§5.2: 65535 in 64 bits", "client", "82 7f 00 00 00 00 00 00 ff ff"],
    ["LengthHighBit", "§5.2: shown by the third byte", "client", "82 7f 80"],
    ["LengthHighBit", "§5.2: all bits", "server", "82 ff ff ff ff ff ff ff ff ff"],
    ["UnexpectedContinuation", "§5.4: the last of nothing", "client", "80 00"],
    ["UnexpectedContinuation", "§5.4: one of nothing", "client", "00 00"],
    ["UnexpectedContinuation", "§5.4: after the last fragment", "client", "01 00 80 00 80 00"],
    ["ExpectedContinuation", "§5.4: text", "client", "01 00 81"],
    ["ExpectedContinuation", "§5.4: binary, with a control frame between", "client", "01 01 41 89 00 02 00"],
    ["InvalidText", "§8.1: in a whole frame", "client", "81 02 c3 28"],
    ["InvalidText", "§8.1: ends inside a code point", "client", "81 01 c3"],
    ["InvalidText", "§8.1: the last fragment ends inside a code point", "client", "01 00 80 01 c3"],
    ["InvalidText", "§8.1: before the frame is complete", "client", "81 7e 01 00 41 ff"],
    ["InvalidText", "§8.1: in a first fragment", "client", "01 01 ff"],
    ["MessageTooBig", "§10.4: the length alone", "client", "82 7f 00 00 00 00 00 10 00 01"],
    ["MessageTooBig", "§10.4: the largest length", "client", "81 7f 7f ff ff ff ff ff ff ff"]
  ]
  for (const [rule, what, role, digits] of bad) {
    it(`${rule}: ${what}`, () => {
      const first = peerFrame(role, { opcode: 1, payload: utf8("before") })
      const bytes = concat([first, hex(digits)])
      for (const pieces of cuttings(bytes, [first.length, first.length + 1])) {
        assert.deepStrictEqual(
          scanPieces(makeDecoder(role, {}, 0, scanning), pieces),
          decodePieces(makeDecoder(role), pieces)
        )
        const decoder = makeDecoder(role)
        const items = decodePieces(decoder, pieces)
        assert.strictEqual(items[0], "before")
        assert.deepStrictEqual(withoutDetail(items.slice(-1)), [violation(rule)])
        assert.deepStrictEqual(decodePieces(decoder, [first]), [], "nothing is decoded after a violation")
        assert.isAtMost(retainedBytes(decoder), 14, "memory is given back")
      }
    })
  }

  it("reserved bits of an extension mark whole messages, and nothing else (RFC 7692 §6)", () => {
    const extended = (digits: string) => withoutDetail(decodePieces(makeDecoder("client", {}, 0x40), [hex(digits)]))
    assert.deepStrictEqual(extended("c1 01 ff"), [{ _tag: "Extended", opcode: 1, reserved: 0x40, payload: hex("ff") }])
    assert.deepStrictEqual(extended("42 01 01 80 01 02"), [
      { _tag: "Extended", opcode: 2, reserved: 0x40, payload: hex("0102") }
    ])
    assert.deepStrictEqual(extended("81 01 41"), ["A"])
    for (const digits of ["c9 00", "01 00 c0 00", "e1 00", "a1 00"]) {
      assert.deepStrictEqual(extended(digits), [violation("ReservedBits")])
    }
  })

  it("a message of an extension may be empty, in lent memory too", () => {
    for (const opcode of [1, 2]) {
      const expected: Array<Item> = [{ _tag: "Extended", opcode, reserved: 0x40, payload: new Uint8Array(0) }, "A"]
      const bytes = concat([Uint8Array.of(0xc0 | opcode, 0), hex("81 01 41")])
      assert.deepStrictEqual(decodePieces(makeDecoder("client", {}, 0x40), [bytes]), expected)
      assert.deepStrictEqual(scanPieces(makeDecoder("client", {}, 0x40, scanning), [bytes]), expected)
    }
  })

  it("gives the same items however the bytes are cut: valid streams, both roles", () => {
    FastCheck.assert(
      FastCheck.property(anyRole, FastCheck.array(anySent, { maxLength: 4 }), places, (role, messages, cuts) => {
        const bytes = concat(messages.flatMap(framesOf).map((fields) => peerFrame(role, fields)))
        const expected = messages.flatMap(itemsOf)
        assert.deepStrictEqual(decodePieces(makeDecoder(role), [bytes]), expected)
        assert.deepStrictEqual(decodePieces(makeDecoder(role), cutAt(bytes, cuts)), expected)
        if (bytes.length < 3000) assert.deepStrictEqual(decodePieces(makeDecoder(role), chop(bytes, 1)), expected)
        const scan = (pieces: Iterable<Uint8Array>, ...budget: ReadonlyArray<number>) =>
          scanPieces(makeDecoder(role, {}, 0, scanning), pieces, ...budget)
        assert.deepStrictEqual(scan([bytes]), expected)
        assert.deepStrictEqual(scan(cutAt(bytes, cuts)), expected)
        assert.deepStrictEqual(scan(cutAt(bytes, cuts), 2), expected)
        assert.deepStrictEqual(scan([bytes], everything, 100), expected)
      }),
      { numRuns: 200 }
    )
  })

  it("many messages of a chunk: the same items by the scanner, in groups or alone, up to any limit", () => {
    const anyMessage = FastCheck.tuple(
      FastCheck.constantFrom(1, 2),
      FastCheck.oneof(FastCheck.nat(200), FastCheck.constantFrom(1023, 1024, 1025, 2047, 2048, 2049, 16_384, 16_385)),
      FastCheck.boolean()
    )
    FastCheck.assert(
      FastCheck.property(anyRole, FastCheck.array(anyMessage, { maxLength: 60, size: "max" }), (role, messages) => {
        const payloads = messages.map(([opcode, size, isAscii], i) =>
          opcode === 1 ? utf8((isAscii ? "a" : "é").repeat(size)) : new Uint8Array(size).fill(i)
        )
        const bytes = concat(messages.map(([opcode], i) => peerFrame(role, { opcode, payload: payloads[i]! })))
        for (const maxMessageBytes of [40_000, 2048, 100]) {
          const limits = { maxMessageBytes }
          const expected = decodePieces(makeDecoder(role, limits), [bytes])
          assert.deepStrictEqual(scanPieces(makeDecoder(role, limits, 0, scanning), [bytes]), expected)
        }
      }),
      { numRuns: 100 }
    )
  })

  it("more messages than the scanner's table has room for", () => {
    const count = 20_000
    const bytes = concat(Array.from({ length: count }, () => peerFrame("server", { opcode: 1, payload: utf8("") })))
    const items = scanPieces(makeDecoder("server", {}, 0, scanning), [bytes])
    assert.strictEqual(items.length, count)
    assert.isTrue(items.every((item) => item === ""))
  })

  /** Valid frames with some bytes replaced, or no frames at all. */
  const hostile = FastCheck.tuple(
    anyRole,
    FastCheck.array(anySent, { maxLength: 3 }),
    FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.nat(255)), { maxLength: 3 }),
    FastCheck.uint8Array({ maxLength: 40, size: "max" })
  ).map(([role, messages, changes, noise]) => {
    const small = messages.filter(({ payload }) => payload.length < 1000)
    const bytes = concat([...small.flatMap(framesOf).map((fields) => peerFrame(role, fields)), noise])
    for (const [place, byte] of changes) if (bytes.length > 0) bytes[place % bytes.length] = byte
    return { role, bytes }
  })

  it("random bytes never throw, give the same items however they are cut, and a violation or close frame is the last", () => {
    FastCheck.assert(
      FastCheck.property(hostile, places, FastCheck.constantFrom(0, 0x40, 0x70), ({ bytes, role }, cuts, reserved) => {
        const expected = decodePieces(makeDecoder(role, {}, reserved), [bytes])
        assert.deepStrictEqual(decodePieces(makeDecoder(role, {}, reserved), cutAt(bytes, cuts)), expected)
        assert.deepStrictEqual(decodePieces(makeDecoder(role, {}, reserved), chop(bytes, 1)), expected)
        assert.deepStrictEqual(scanPieces(makeDecoder(role, {}, reserved, scanning), [bytes]), expected)
        assert.deepStrictEqual(scanPieces(makeDecoder(role, {}, reserved, scanning), cutAt(bytes, cuts), 1), expected)
        const last = expected.findIndex(
          (item) => typeof item === "object" && ("rule" in item || ("opcode" in item && item.opcode === 8))
        )
        if (last >= 0) assert.strictEqual(last, expected.length - 1)
      }),
      { numRuns: 1000 }
    )
  })

  it("takes back what the encoder wrote, masked and not", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(anySent, { maxLength: 4 }),
        FastCheck.option(anyKey, { nil: undefined }),
        (messages, key) => {
          const out = new ByteWriter(makeSlab(portable))
          for (const { fin, opcode, payload } of messages.flatMap(framesOf)) {
            writeFrame(out, ((fin ?? true) ? 0x80 : 0) | opcode, payload!, key)
          }
          const items = decodePieces(makeDecoder(key === undefined ? "client" : "server"), out.take())
          assert.deepStrictEqual(items, messages.flatMap(itemsOf))
        }
      ),
      { numRuns: 200 }
    )
  })

  describe("budget", () => {
    const stream = (count: number, payload: Uint8Array) =>
      concat(Array.from({ length: count }, () => peerFrame("client", { opcode: 2, payload })))

    const decodeWith = (bytes: Uint8Array, maxMessages: number, maxBytes: number) => {
      const decoder = makeDecoder("client")
      decoder.feed(bytes)
      const rounds: Array<number> = []
      do {
        const items: Array<Item> = []
        decoder.decode(items, maxMessages, maxBytes)
        rounds.push(items.length)
      } while (decoder.paused)
      return rounds
    }

    const rows: ReadonlyArray<readonly [what: string, messages: number, bytes: number, rounds: ReadonlyArray<number>]> =
      [
        ["exactly at the number of messages it does not pause", 6, everything, [6]],
        ["one message more waits", 5, everything, [5, 1]],
        ["one message at a time", 1, everything, [1, 1, 1, 1, 1, 1]],
        ["exactly at the number of bytes it does not pause", everything, 60, [6]],
        ["the message that reaches the bytes is the last", everything, 21, [3, 3]],
        ["a budget below one message lets one through", everything, 1, [1, 1, 1, 1, 1, 1]]
      ]
    for (const [what, messages, bytes, rounds] of rows) {
      it(what, () => assert.deepStrictEqual(decodeWith(stream(6, new Uint8Array(10)), messages, bytes), rounds))
    }

    it("no budget decodes nothing, and keeps everything", () => {
      const decoder = makeDecoder("client")
      const items: Array<Item> = []
      decoder.feed(hex("81 01 41"))
      decoder.decode(items, 0, everything)
      assert.isTrue(decoder.paused)
      assert.deepStrictEqual(items, [])
      decoder.decode(items, everything, everything)
      assert.deepStrictEqual(items, ["A"])
      assert.isFalse(decoder.paused)
    })

    it("counts bytes of text, not code units, in fragments too", () => {
      for (const [whole, parts] of [["81 02 c3 a9", "01 01 c3 80 01 a9"]] as const) {
        for (const digits of [whole, parts]) {
          const decoder = makeDecoder("client")
          const items: Array<Item> = []
          decoder.feed(hex(`${digits} 81 01 41`))
          decoder.decode(items, everything, 2)
          assert.isTrue(decoder.paused)
        }
      }
    })

    it("a chunk that is fed while another waits is a defect, not lost bytes", () => {
      const decoder = makeDecoder("client")
      decoder.feed(hex("81 01 41"))
      decoder.decode([], 0, everything)
      assert.throws(() => decoder.feed(hex("81 01 42")))
    })
  })

  describe("limits and memory", () => {
    for (const role of roles) {
      it(`${role}: a message at the limit passes, one byte more does not, in one frame or in fragments`, () => {
        for (const size of [0, 100, 70_000]) {
          const limits = { maxMessageBytes: size }
          const whole = (length: number) => [peerFrame(role, { opcode: 2, payload: new Uint8Array(length) })]
          const parts = (length: number) => [
            peerFrame(role, { opcode: 2, payload: new Uint8Array(Math.max(0, length - 1)), fin: false }),
            peerFrame(role, { opcode: 0, payload: new Uint8Array(Math.min(1, length)) })
          ]
          for (const frames of [whole, parts]) {
            assert.deepStrictEqual(decodePieces(makeDecoder(role, limits), frames(size)), [new Uint8Array(size)])
            assert.deepStrictEqual(withoutDetail(decodePieces(makeDecoder(role, limits), frames(size + 1))), [
              violation("MessageTooBig")
            ])
          }
        }
      })

      it(`${role}: an announced length alone takes no memory`, () => {
        const decoder = makeDecoder(role, { maxMessageBytes: Number.MAX_SAFE_INTEGER })
        decodePieces(decoder, [peerFrame(role, { opcode: 2, announced: 1n << 40n })])
        assert.isAtMost(retainedBytes(decoder), 14)
        decodePieces(decoder, [new Uint8Array(10)])
        assert.isAtMost(retainedBytes(decoder), 14 + 1024)
      })
    }

    it("what is retained follows the bytes received, in any pieces", () => {
      const decoder = makeDecoder("server", { maxMessageBytes: 1 << 24 })
      const bytes = peerFrame("server", { opcode: 2, payload: new Uint8Array(300_000), fin: false })
      let received = 0
      for (const piece of chop(bytes, 997)) {
        decodePieces(decoder, [piece])
        received += piece.length
        assert.isAtMost(retainedBytes(decoder), 14 + Math.max(1024, 16 * received))
      }
      assert.isAtLeast(retainedBytes(decoder), 300_000)
      decodePieces(decoder, [peerFrame("server", { opcode: 0 })])
      assert.isAtMost(retainedBytes(decoder), 14, "nothing is retained between messages")
    })

    it("a flood of empty fragments takes no memory", () => {
      const decoder = makeDecoder("client")
      const empties = concat(Array.from({ length: 10_000 }, () => hex("00 00")))
      decodePieces(decoder, [hex("02 00"), ...Array.from({ length: 10 }, () => empties)])
      assert.strictEqual(retainedBytes(decoder), 0)
    })

    it("a flood of fragments of one byte takes at most twice their bytes", () => {
      const decoder = makeDecoder("client")
      const ones = concat(Array.from({ length: 10_000 }, () => hex("00 01 2a")))
      decodePieces(decoder, [hex("02 00"), ...Array.from({ length: 10 }, () => ones)])
      assert.isAtMost(retainedBytes(decoder), 2 * 100_000)
    })

    it("a small message of a large chunk does not keep the chunk alive, and messages share no byte", () => {
      const small = peerFrame("client", { opcode: 2, payload: new Uint8Array(100).fill(1) })
      const larger = [2048, 2049, 4096, 4097, 8192, 8193, 16384, 16385].flatMap((size) =>
        Array.from({ length: 5 }, () => peerFrame("client", { opcode: 2, payload: new Uint8Array(size) }))
      )
      const bytes = concat([...Array.from({ length: 200 }, () => small), ...larger, small])
      for (const items of [
        decodePieces(makeDecoder("client"), [bytes]),
        scanPieces(makeDecoder("client", {}, 0, scanning), [bytes])
      ]) {
        const messages = items as Array<Uint8Array>
        assert.strictEqual(messages.length, 241)
        messages.forEach((message, i) => message.fill(i))
        messages.forEach((message, i) => {
          assert.isAtMost(message.buffer.byteLength, Math.max(8 * 1024, message.length * 8))
          assert.isTrue(message.every((byte) => byte === (i & 0xff)))
        })
      }
    })

    it("a message that is most of its chunk is the chunk's own memory", () => {
      const decoder = makeDecoder("client")
      const chunk = peerFrame("client", { opcode: 2, payload: new Uint8Array(5000) })
      const items: Array<Item> = []
      decoder.feed(chunk)
      decoder.decode(items, everything, everything)
      assert.strictEqual((items[0] as Uint8Array).buffer, chunk.buffer)
    })

    it("stop gives memory back", () => {
      const decoder = makeDecoder("client")
      decodePieces(decoder, [hex("02 03 01 02")])
      assert.isAbove(retainedBytes(decoder), 0)
      decoder.stop()
      assert.strictEqual(retainedBytes(decoder), 0)
      assert.deepStrictEqual(decodePieces(decoder, [hex("03 81 00")]), [])
    })
  })
})
