import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { md5 } from "../../src/engine/md5.js"
import { utf8 } from "../conformance/rawFrames.js"

describe("md5", () => {
  // RFC 1321 appendix A.5
  const vectors: ReadonlyArray<readonly [string, string]> = [
    ["", "d41d8cd98f00b204e9800998ecf8427e"],
    ["a", "0cc175b9c0f1b6a831c399e269772661"],
    ["abc", "900150983cd24fb0d6963f7d28e17f72"],
    ["message digest", "f96b697d7cb7938d525a2f31aaf161d0"],
    ["abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"],
    ["ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"],
    [
      "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
      "57edf4a22be3c955ac49da2e2107b67a"
    ]
  ]
  for (const [input, digest] of vectors) {
    it(`RFC 1321 A.5: ${input}`, () => assert.strictEqual(Buffer.from(md5(utf8(input))).toString("hex"), digest))
  }

  it("agrees with the platform at every length around the block size, and does not write over its input", () => {
    for (let length = 0; length <= 200; length++) {
      const input = new Uint8Array(length).map((_, i) => i * 37 + length)
      const copy = input.slice()
      assert.strictEqual(Buffer.from(md5(input)).toString("hex"), createHash("md5").update(input).digest("hex"))
      assert.deepStrictEqual(input, copy)
    }
  })
})
