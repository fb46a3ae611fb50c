import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { ByteWriter, makeSlab } from "../../src/engine/byteWriter.js"
import * as FrameEncoder from "../../src/engine/FrameEncoder.js"
import { readKey } from "../../src/engine/mask.js"
import { portable } from "../../src/engine/Natives.js"
import { concat, hex, type RawFrame, readFrames, utf8 } from "../conformance/rawFrames.js"
import { anyBytes, anyKey, anyText, scanning } from "./support.js"

/** The bytes of a frame, which are the same with a scanner. */
const written = (firstByte: number, payload: string | Uint8Array, key?: number): Uint8Array => {
  const [bytes, scanned] = [portable, scanning].map((natives) => {
    const out = new ByteWriter(makeSlab(natives))
    FrameEncoder.writeFrame(out, firstByte, payload, key)
    return concat(out.take())
  })
  assert.deepStrictEqual(scanned, bytes)
  return bytes!
}

const key = readKey(hex("37fa213d"), 0)

describe("FrameEncoder", () => {
  /** The examples of RFC 6455 §5.7. */
  const golden: ReadonlyArray<readonly [what: string, bytes: () => Uint8Array, digits: string]> = [
    ["an unmasked text message", () => written(0x81, "Hello"), "81 05 48 65 6c 6c 6f"],
    ["a masked text message", () => written(0x81, "Hello", key), "81 85 37 fa 21 3d 7f 9f 4d 51 58"],
    ["the first fragment of a text message", () => written(0x01, "Hel"), "01 03 48 65 6c"],
    ["the last fragment of it", () => written(0x80, "lo"), "80 02 6c 6f"],
    ["an unmasked ping", () => written(0x89, utf8("Hello")), "89 05 48 65 6c 6c 6f"],
    ["a masked pong", () => written(0x8a, utf8("Hello"), key), "8a 85 37 fa 21 3d 7f 9f 4d 51 58"],
    ["256 bytes of binary: the header", () => written(0x82, new Uint8Array(256)).slice(0, 4), "82 7e 01 00"],
    [
      "64 KiB of binary: the header",
      () => written(0x82, new Uint8Array(65536)).slice(0, 10),
      "82 7f 00 00 00 00 00 01 00 00"
    ]
  ]
  for (const [what, bytes, digits] of golden) {
    it(`§5.7: ${what}`, () => assert.deepStrictEqual(bytes(), hex(digits)))
  }

  /** §5.2: "the minimal number of bytes MUST be used to encode the length". */
  for (const size of [0, 1, 125, 126, 127, 2047, 2048, 2730, 2731, 8192, 8193, 32_760, 32_761, 65535, 65536, 100_000]) {
    for (const mask of [undefined, key]) {
      it(`${size} bytes, ${mask === undefined ? "not masked" : "masked"}`, () => {
        const payload = new Uint8Array(size).fill(0x61)
        const expected: RawFrame = {
          fin: true,
          rsv: 0,
          opcode: 2,
          masked: mask !== undefined,
          lengthBits: size < 126 ? 7 : size < 65536 ? 16 : 64,
          payload
        }
        assert.deepStrictEqual(readFrames(written(0x82, payload, mask)), [expected])
        assert.deepStrictEqual(readFrames(written(0x81, "a".repeat(size), mask)), [{ ...expected, opcode: 1 }])
        assert.strictEqual(
          FrameEncoder.headerBytes(size, mask !== undefined),
          written(0x82, payload, mask).length - size
        )
        assert.strictEqual(payload[0] ?? 0x61, 0x61, "the caller's bytes do not change")
      })
    }
  }

  it("everything that is written can be read, one frame behind the other in one output", () => {
    const anyFrame = FastCheck.tuple(
      FastCheck.oneof(anyText, anyBytes),
      FastCheck.constantFrom(0x80, 0x81, 0x82, 0x01, 0x02, 0xc1, 0x00),
      FastCheck.option(anyKey, { nil: undefined })
    )
    FastCheck.assert(
      FastCheck.property(FastCheck.array(anyFrame, { maxLength: 8 }), (frames) => {
        const out = new ByteWriter(makeSlab(portable))
        for (const [payload, firstByte, mask] of frames) FrameEncoder.writeFrame(out, firstByte, payload, mask)
        const total = out.size
        const bytes = concat(out.take())
        assert.strictEqual(bytes.length, total)
        const expected = frames.map(([payload, firstByte, mask]): RawFrame => {
          const content = typeof payload === "string" ? utf8(payload) : payload
          return {
            fin: firstByte >= 0x80,
            rsv: (firstByte >> 4) & 7,
            opcode: firstByte & 15,
            masked: mask !== undefined,
            lengthBits: content.length < 126 ? 7 : content.length < 65536 ? 16 : 64,
            payload: content
          }
        })
        assert.deepStrictEqual(readFrames(bytes), expected)
      }),
      { numRuns: 200 }
    )
  })

  it("lone surrogates leave as U+FFFD, so that no bad text is ever sent (§8.1)", () => {
    for (const text of ["\ud800", "a\udc00b", `${"x".repeat(70)}\ud83d`, "\udc00\ud800".repeat(2000)]) {
      assert.deepStrictEqual(readFrames(written(0x81, text))[0]!.payload, utf8(text))
    }
  })

  it("one frame for many is the same as one that is written", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.oneof(anyText, anyBytes), (payload) => {
        const opcode = typeof payload === "string" ? 1 : 2
        assert.deepStrictEqual(FrameEncoder.frame(portable, opcode, payload), written(0x80 | opcode, payload))
      })
    )
    assert.strictEqual(FrameEncoder.frame(portable, 1, "Hello", 0x40)[0], 0xc1)
  })

  it("small frames share a piece, a large unmasked payload is a piece of its own without a copy", () => {
    const out = new ByteWriter(makeSlab(portable))
    const large = new Uint8Array(10_000)
    FrameEncoder.writeFrame(out, 0x81, "one", undefined)
    FrameEncoder.writeFrame(out, 0x81, "two", undefined)
    FrameEncoder.writeFrame(out, 0x82, large, undefined)
    const pieces = out.take()
    assert.strictEqual(pieces.length, 2)
    assert.strictEqual(pieces[1], large)
  })
})
