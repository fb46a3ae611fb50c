import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { portable, view } from "../../src/engine/Natives.js"
import { hex } from "../conformance/rawFrames.js"
import { anyText } from "./support.js"

const anyUnits = FastCheck.oneof(
  anyText,
  FastCheck.array(FastCheck.nat(0xffff), { maxLength: 100, size: "max" }).map((units) => String.fromCharCode(...units))
)

describe("Natives.portable", () => {
  it("writes text as the Encoding standard does, lone surrogates as U+FFFD, and tells the length before", () => {
    FastCheck.assert(
      FastCheck.property(anyUnits, FastCheck.nat(5), (text, offset) => {
        const expected = new TextEncoder().encode(text)
        assert.strictEqual(portable.textByteLength(text), expected.length)
        const target = new Uint8Array(offset + expected.length + 2).fill(0xaa)
        assert.strictEqual(portable.writeText(text, target, offset), expected.length)
        assert.deepStrictEqual(target.slice(offset, offset + expected.length), expected)
        assert.isTrue(
          [...target.slice(0, offset), ...target.slice(offset + expected.length)].every((byte) => byte === 0xaa)
        )
      }),
      { numRuns: 500 }
    )
  })

  /** RFC 6455 §8.1; a byte order mark is a character like any other. */
  const rows: ReadonlyArray<readonly [digits: string, text: string | undefined]> = [
    ["", ""],
    ["48 69", "Hi"],
    ["ef bb bf 48", "\ufeffH"],
    ["ef bf bd", "\ufffd"],
    ["f0 9f 8e 89", "🎉"],
    ["ff", undefined],
    ["ef bf bd ff", undefined],
    ["ed a0 80", undefined],
    ["48 c3", undefined]
  ]
  for (const [digits, text] of rows) {
    it(`decodes ${digits} to ${JSON.stringify(text)}`, () => {
      const bytes = hex(`41 ${digits} 42`)
      assert.strictEqual(portable.decodeText(bytes, 1, bytes.length - 1), text)
      if (bytes.subarray(1, -1).every((byte) => byte < 0x80)) {
        assert.strictEqual(portable.decodeAscii(bytes, 1, bytes.length - 1), text)
      }
      assert.strictEqual(portable.isText(bytes, 1, bytes.length - 1), text !== undefined)
    })
  }

  it("copies ranges, and a view shows the same memory", () => {
    const source = Uint8Array.of(1, 2, 3, 4, 5).subarray(1)
    const target = portable.allocate(4).fill(9)
    portable.copy(source, 1, 3, target, 1)
    assert.deepStrictEqual(target, Uint8Array.of(9, 3, 4, 9))
    view(source, 1, 2)[0] = 7
    assert.deepStrictEqual(source, Uint8Array.of(2, 7, 4, 5))
  })
})
