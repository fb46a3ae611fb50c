import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Mask from "../../src/engine/mask.js"
import { hex } from "../conformance/rawFrames.js"
import { anyKey } from "./support.js"

/** RFC 6455 §5.3 word for word: octet i is XORed with octet i modulo 4 of the key. */
const byTheText = (bytes: Uint8Array, start: number, end: number, key: Uint8Array): Uint8Array =>
  bytes.map((byte, i) => (i < start || i >= end ? byte : byte ^ key[(i - start) % 4]!))

const keyBytes = (key: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  Mask.writeKey(bytes, 0, key)
  return bytes
}

describe("mask", () => {
  it("§5.7: Hello with the key 37 fa 21 3d", () => {
    const bytes = hex("48656c6c6f")
    Mask.applyMask(bytes, 0, 5, Mask.readKey(hex("37fa213d"), 0))
    assert.deepStrictEqual(bytes, hex("7f9f4d5158"))
  })

  it("a key is written as it was read", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ minLength: 7, maxLength: 7 }), FastCheck.nat(3), (bytes, at) => {
        assert.deepStrictEqual(keyBytes(Mask.readKey(bytes, at)), bytes.slice(at, at + 4))
      })
    )
  })

  it("does what the text says, for any range, alignment and view", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.nat(9),
        FastCheck.nat(300),
        FastCheck.nat(9),
        FastCheck.nat(9),
        anyKey,
        FastCheck.boolean(),
        (offset, length, before, after, key, withWords) => {
          const bytes = new Uint8Array(
            new ArrayBuffer(offset + before + length + after + 3),
            offset,
            before + length + after
          )
          for (let i = 0; i < bytes.length; i++) bytes[i] = i * 7
          const expected = byTheText(bytes, before, before + length, keyBytes(key))
          Mask.applyMask(bytes, before, before + length, key, withWords ? Mask.wordsOf(bytes) : undefined)
          assert.deepStrictEqual(bytes, expected)
        }
      ),
      { numRuns: 500 }
    )
  })

  it("goes on in the middle of a payload with a rotated key", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.uint8Array({ maxLength: 200, size: "max" }),
        FastCheck.nat(),
        anyKey,
        (bytes, place, key) => {
          const cut = place % (bytes.length + 1)
          const expected = byTheText(bytes, 0, bytes.length, keyBytes(key))
          Mask.applyMask(bytes, 0, cut, key)
          Mask.applyMask(bytes, cut, bytes.length, Mask.rotateKey(key, cut))
          assert.deepStrictEqual(bytes, expected)
        }
      )
    )
  })

  it("tells whether all bytes are ASCII afterwards, unless the key is 0", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.uint8Array({ minLength: 1, maxLength: 200, max: 0x7f, size: "max" }),
        FastCheck.nat(3),
        FastCheck.option(FastCheck.tuple(FastCheck.nat(), FastCheck.integer({ min: 0x80, max: 0xff }))),
        FastCheck.oneof(anyKey, FastCheck.constant(0)),
        (text, before, other, key) => {
          const bytes = new Uint8Array(before + text.length).fill(0xff)
          bytes.set(text, before)
          if (other !== null) bytes[before + (other[0] % text.length)] = other[1]
          const masked = byTheText(bytes, before, bytes.length, keyBytes(key))
          assert.strictEqual(Mask.applyMask(masked, before, masked.length, key), other === null && key !== 0)
        }
      ),
      { numRuns: 1000 }
    )
  })

  it("twice is the identity", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 500, size: "max" }), anyKey, (bytes, key) => {
        const before = bytes.slice()
        Mask.applyMask(bytes, 0, bytes.length, key)
        Mask.applyMask(bytes, 0, bytes.length, key)
        assert.deepStrictEqual(bytes, before)
      })
    )
  })
})
