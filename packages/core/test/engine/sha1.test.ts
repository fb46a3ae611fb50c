import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { sha1 } from "../../src/engine/sha1.js"

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
const bytes = (text: string) => new TextEncoder().encode(text)

describe("sha1", () => {
  // The examples for FIPS 180 that NIST publishes
  const vectors: ReadonlyArray<readonly [string, Uint8Array, string]> = [
    ["nothing", bytes(""), "da39a3ee5e6b4b0d3255bfef95601890afd80709"],
    ["abc", bytes("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d"],
    [
      "two blocks",
      bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
      "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
    ],
    ["a million a", new Uint8Array(1_000_000).fill(0x61), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"]
  ]
  for (const [name, input, digest] of vectors) {
    it(`FIPS 180: ${name}`, () => assert.strictEqual(hex(sha1(input)), digest))
  }

  const reference = (input: Uint8Array) => createHash("sha1").update(input).digest("hex")

  it("agrees with the platform at every length around the block size", () => {
    for (let length = 0; length <= 200; length++) {
      const input = new Uint8Array(length).map((_, i) => i * 37 + length)
      assert.strictEqual(hex(sha1(input)), reference(input), `length ${length}`)
    }
  })

  it("agrees with the platform on any bytes, and does not write over them", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 300 }), (input) => {
        const copy = input.slice()
        assert.strictEqual(hex(sha1(input)), reference(input))
        assert.deepStrictEqual(input, copy)
      })
    )
  })
})
