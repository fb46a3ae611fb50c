import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as base64 from "../../src/engine/base64.js"

const bytes = (text: string) => new TextEncoder().encode(text)

describe("base64", () => {
  const vectors: ReadonlyArray<readonly [string, string]> = [
    ["", ""],
    ["f", "Zg=="],
    ["fo", "Zm8="],
    ["foo", "Zm9v"],
    ["foob", "Zm9vYg=="],
    ["fooba", "Zm9vYmE="],
    ["foobar", "Zm9vYmFy"]
  ]
  for (const [plain, encoded] of vectors) {
    it(`RFC 4648 §10: "${plain}"`, () => {
      assert.strictEqual(base64.encode(bytes(plain)), encoded)
      assert.deepStrictEqual(base64.decode(encoded), bytes(plain))
    })
  }

  it("uses + and / of §4, not the URL alphabet of §5", () => {
    assert.strictEqual(base64.encode(new Uint8Array([0xfb, 0xff, 0xfe])), "+//+")
    assert.isUndefined(base64.decode("-__-"))
  })

  const bad: ReadonlyArray<readonly [string, string]> = [
    ["no padding", "Zg"],
    ["too little padding", "Zg="],
    ["padding alone", "===="],
    ["three of padding", "Z==="],
    ["padding inside", "Zg==Zm9v"],
    ["padding before a character", "Zg=v"],
    ["unused bits set, §3.5, one byte", "Zh=="],
    ["unused bits set, §3.5, two bytes", "Zm9="],
    ["space", "Zm 9"],
    ["line break", "Zm9v\r\n\r\n"],
    ["a code unit beyond the table", "Zm9\u0151"],
    ["a code unit that is a letter modulo 256", "Zm9\u0141"]
  ]
  for (const [name, text] of bad) it(`refuses: ${name}`, () => assert.isUndefined(base64.decode(text)))

  it("agrees with the platform, and decode after encode is the identity", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 100 }), (input) => {
        const text = base64.encode(input)
        assert.strictEqual(text, Buffer.from(input).toString("base64"))
        assert.deepStrictEqual(base64.decode(text), input)
      })
    )
  })

  it("what decodes is canonical: encode gives the text back", () => {
    const text = FastCheck.string({ unit: FastCheck.constantFrom(..."AQgwZz09+/="), maxLength: 12 })
    FastCheck.assert(
      FastCheck.property(text, (input) => {
        const decoded = base64.decode(input)
        if (decoded !== undefined) assert.strictEqual(base64.encode(decoded), input)
      }),
      { numRuns: 2000 }
    )
  })
})
