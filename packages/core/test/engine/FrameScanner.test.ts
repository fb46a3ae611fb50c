import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { makeFrameScanner } from "../../src/engine/FrameScanner.js"
import { applyMask, maskInto, readKey } from "../../src/engine/mask.js"
import { portable } from "../../src/engine/Natives.js"
import { concat, type FrameFields, hex, utf8 } from "../conformance/rawFrames.js"
import { anyBytes, anyKey, everything, peerFrame, scanner, scanning } from "./support.js"

const { input, table } = scanner

describe("FrameScanner", () => {
  it("masks as applyMask does, nothing beside, and tells whether all is ASCII", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.nat(20),
        FastCheck.nat(100),
        anyKey,
        FastCheck.option(FastCheck.nat(99), { nil: undefined }),
        (at, length, key, place) => {
          input.fill(0x41, 0, 200)
          applyMask(input, at, at + length, key)
          if (place !== undefined && length > 0) input[at + (place % length)]! ^= 0x80
          const expected = input.slice(0, 200)
          applyMask(expected, at, at + length, key)
          const isAscii = scanner.mask(at, at + length, key) === 0
          assert.deepStrictEqual(input.slice(0, 200), expected)
          assert.strictEqual(isAscii, place === undefined || length === 0)
        }
      ),
      { numRuns: 2000 }
    )
  })

  const text = (content: string): FrameFields => ({ opcode: 1, payload: utf8(content) })
  const entries = (count: number) =>
    Array.from({ length: count }, (_, i) => {
      const [start, fields] = [table[2 * i]!, table[2 * i + 1]!]
      return [new TextDecoder().decode(input.slice(start, start + (fields >>> 2))), (fields & 2) > 0, (fields & 1) > 0]
    })
  const load = (bytes: Uint8Array, at = 5): readonly [at: number, end: number] => {
    input.fill(0xee)
    input.set(bytes, at)
    return [at, at + bytes.length]
  }

  for (const [role, maskBit] of [
    ["server", 0x80],
    ["client", 0]
  ] as const) {
    const good = concat([text("abc"), { opcode: 2, payload: utf8("de") }, text("é")].map((f) => peerFrame(role, f)))

    it(`${role}: finds whole messages, and says what they are`, () => {
      assert.strictEqual(scanner.scan(...load(good), everything, everything, everything, maskBit), 3)
      assert.deepStrictEqual(entries(3), [
        ["abc", true, true],
        ["de", false, true],
        ["é", true, false]
      ])
    })

    /** What is left to the decoder, and is not touched. */
    const others: ReadonlyArray<readonly [what: string, bytes: Uint8Array]> = [
      ["a frame cut in its payload", peerFrame(role, text("abc")).slice(0, -1)],
      ["a frame cut in its header", peerFrame(role, text("x".repeat(200))).slice(0, 3)],
      ["a single byte", hex("81")],
      ["a first fragment", peerFrame(role, { ...text("abc"), fin: false })],
      ["a continuation", peerFrame(role, { ...text("abc"), opcode: 0 })],
      ["a control frame", peerFrame(role, { ...text("abc"), opcode: 9 })],
      ["a reserved opcode", peerFrame(role, { ...text("abc"), opcode: 3 })],
      ["reserved bits", peerFrame(role, { ...text("abc"), rsv: 4 })],
      ["the mask bit of the other role", peerFrame(role === "server" ? "client" : "server", text("abc"))],
      ["a length that is not minimal", concat([hex(`81 ${(maskBit | 126).toString(16)} 00 03`), new Uint8Array(9)])],
      ["a length in 64 bits", peerFrame(role, text("x".repeat(65_536)))],
      ["a message above the limit", peerFrame(role, text("x".repeat(1001)))]
    ]
    for (const [what, bytes] of others) {
      it(`${role}: stops before ${what}`, () => {
        const [at, end] = load(concat([good, bytes]))
        assert.strictEqual(scanner.scan(at, end, everything, everything, 1000, maskBit), 3)
        assert.deepStrictEqual(input.slice(at + good.length, end), bytes)
        assert.isTrue(input.subarray(end, end + 100).every((byte) => byte === 0xee))
      })
    }

    it(`${role}: stops at the number of frames, and with the frame that reaches the number of bytes`, () => {
      for (const [maxFrames, maxBytes, count] of [
        [0, everything, 0],
        [2, everything, 2],
        [everything, 0, 0],
        [everything, -1, 0],
        [everything, 1, 1],
        [everything, 3, 1],
        [everything, 4, 2]
      ] as const) {
        assert.strictEqual(scanner.scan(...load(good), maxFrames, maxBytes, everything, maskBit), count)
      }
    })
  }

  it("a payload elsewhere is masked in pieces: the same bytes, in place or on the way to another place", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.oneof(
          anyBytes,
          FastCheck.constantFrom(16_384, 16_385, 40_000).map((size) => new Uint8Array(size))
        ),
        anyKey,
        FastCheck.nat(9),
        FastCheck.nat(9),
        (bytes, key, start, offset) => {
          const source = concat([new Uint8Array(start).fill(1), bytes, new Uint8Array(3).fill(1)])
          const end = start + bytes.length
          const target = () => new Uint8Array(offset + bytes.length + 3).fill(2)
          const [expected, elsewhere, inPlace] = [target(), target(), source.slice()]
          const before = source.slice()
          maskInto(portable, source, start, end, expected, offset, key)
          const isAscii = maskInto(scanning, source, start, end, elsewhere, offset, key)
          assert.deepStrictEqual(elsewhere, expected)
          assert.deepStrictEqual(source, before)
          maskInto(scanning, inPlace, start, end, inPlace, start, key)
          assert.deepStrictEqual(inPlace.slice(start, end), expected.slice(offset, offset + bytes.length))
          assert.deepStrictEqual(
            [...inPlace.slice(0, start), ...inPlace.slice(end)],
            [...before.slice(0, start), 1, 1, 1]
          )
          if (isAscii) assert.isTrue(elsewhere.subarray(offset, offset + bytes.length).every((byte) => byte < 0x80))
        }
      ),
      { numRuns: 200 }
    )
  })

  it("a long ASCII text is known as such where it lies elsewhere", () => {
    const bytes = new Uint8Array(20_000).fill(0x61)
    const key = readKey(hex("37fa213d"), 0)
    maskInto(portable, bytes, 0, bytes.length, bytes, 0, key)
    assert.isTrue(maskInto(scanning, bytes, 0, bytes.length, bytes, 0, key))
    assert.isTrue(bytes.every((byte) => byte === 0x61))
  })

  it("there is none without WebAssembly, or where it may not be compiled", () => {
    const global = globalThis as { WebAssembly?: unknown }
    const { WebAssembly: original } = global
    try {
      global.WebAssembly = undefined
      assert.isUndefined(makeFrameScanner())
      global.WebAssembly = {
        Module: class {
          constructor() {
            throw new Error("not allowed")
          }
        }
      }
      assert.isUndefined(makeFrameScanner())
    } finally {
      global.WebAssembly = original
    }
  })
})
