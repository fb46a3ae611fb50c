import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Utf8 from "../../src/engine/utf8.js"
import { hex } from "../conformance/rawFrames.js"
import { anyText, cutAt } from "./support.js"

const isUtf8 = (bytes: Uint8Array): boolean => {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}

/** Bytes that are nearly text: code points with some bytes replaced, and the bytes around every limit of RFC 3629 §4. */
const nearlyText = FastCheck.oneof(
  FastCheck.tuple(anyText, FastCheck.nat(), FastCheck.nat(255)).map(([text, place, byte]) => {
    const bytes = new TextEncoder().encode(text).slice(0, 200)
    if (bytes.length > 0) bytes[place % bytes.length] = byte
    return bytes
  }),
  FastCheck.array(
    FastCheck.constantFrom(
      ...hex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 f8 fc fe ff")
    ),
    { maxLength: 8 }
  ).map((bytes) => Uint8Array.from(bytes))
)

describe("utf8", () => {
  /** RFC 3629 §3 and §4. */
  const rows: ReadonlyArray<readonly [what: string, digits: string, after: "boundary" | "inside" | "invalid"]> = [
    ["nothing", "", "boundary"],
    ["one byte", "7f", "boundary"],
    ["a continuation without a start", "80", "invalid"],
    ["the shortest start of two bytes", "c2", "inside"],
    ["c0 can only begin an overlong form", "c0", "invalid"],
    ["c1 can only begin an overlong form", "c1", "invalid"],
    ["two bytes", "df bf", "boundary"],
    ["overlong in three bytes shows at the second", "e0 9f", "invalid"],
    ["the first of three bytes", "e0 a0 80", "boundary"],
    ["the last before the surrogates", "ed 9f bf", "boundary"],
    ["a surrogate shows at the second byte", "ed a0", "invalid"],
    ["the first behind the surrogates", "ee 80 80", "boundary"],
    ["overlong in four bytes shows at the second", "f0 8f", "invalid"],
    ["the first of four bytes", "f0 90 80 80", "boundary"],
    ["three of four bytes", "f0 90 80", "inside"],
    ["U+10FFFF", "f4 8f bf bf", "boundary"],
    ["above U+10FFFF shows at the second byte", "f4 90", "invalid"],
    ["f5 is above all code points", "f5", "invalid"],
    ["a start instead of a continuation", "c3 c3", "invalid"],
    ["ASCII instead of a continuation", "e2 82 41", "invalid"],
    ["a byte order mark", "ef bb bf", "boundary"],
    ["a non-character", "ef bf bf", "boundary"]
  ]
  for (const [what, digits, after] of rows) {
    it(`${what} (${digits}): ${after}`, () => {
      const bytes = hex(digits)
      const state = Utf8.advance(Utf8.boundary, bytes, 0, bytes.length)
      assert.strictEqual(state === Utf8.boundary ? "boundary" : state === Utf8.invalid ? "invalid" : "inside", after)
      assert.strictEqual(Utf8.isValid(bytes), after === "boundary")
    })
  }

  it("stays invalid", () => {
    for (let byte = 0; byte < 256; byte++) {
      assert.strictEqual(Utf8.advance(Utf8.invalid, Uint8Array.of(byte), 0, 1), Utf8.invalid)
    }
    assert.strictEqual(Utf8.advance(Utf8.invalid, new Uint8Array(0), 0, 0), Utf8.invalid)
  })

  it("agrees with the Encoding standard", () => {
    FastCheck.assert(
      FastCheck.property(nearlyText, (bytes) => assert.strictEqual(Utf8.isValid(bytes), isUtf8(bytes))),
      { numRuns: 2000 }
    )
  })

  it("agrees with the Encoding standard on every sequence of two bytes, and of three and four at every limit", () => {
    const bytes = new Uint8Array(2)
    for (let both = 0; both < 0x10000; both += 1) {
      bytes[0] = both >> 8
      bytes[1] = both
      const expected =
        bytes[0] < 0x80 ? bytes[1]! < 0x80 : bytes[0] >= 0xc2 && bytes[0] < 0xe0 && (bytes[1]! & 0xc0) === 0x80
      assert.isTrue(Utf8.isValid(bytes) === expected, bytes.join())
    }
    const limits = hex("7f 80 8f 90 9f a0 bf c0")
    for (const start of hex("e0 e1 ec ed ee ef f0 f1 f3 f4 f5")) {
      for (const second of limits) {
        for (const third of limits) {
          for (const tail of [[], [0x7f], [0x80], [0xbf], [0xc0]]) {
            const sequence = Uint8Array.of(start, second, third, ...tail)
            assert.isTrue(Utf8.isValid(sequence) === isUtf8(sequence), sequence.join())
          }
        }
      }
    }
  })

  it("gives the same state however the bytes are cut", () => {
    FastCheck.assert(
      FastCheck.property(nearlyText, FastCheck.array(FastCheck.nat(), { maxLength: 6 }), (bytes, places) => {
        let state = Utf8.boundary
        for (const piece of cutAt(bytes, places)) state = Utf8.advance(state, piece, 0, piece.length)
        assert.strictEqual(state, Utf8.advance(Utf8.boundary, bytes, 0, bytes.length))
      }),
      { numRuns: 500 }
    )
  })

  it("lastBoundary leaves at most three bytes, and never hides a bad one", () => {
    FastCheck.assert(
      FastCheck.property(nearlyText, FastCheck.nat(), (bytes, place) => {
        const start = place % (bytes.length + 1)
        const cut = Utf8.lastBoundary(bytes, start, bytes.length)
        assert.isTrue(cut >= start && cut >= bytes.length - 3 && cut <= bytes.length)
        const whole = Utf8.advance(Utf8.boundary, bytes, start, bytes.length)
        const inParts = Utf8.isValid(bytes, start, cut)
          ? Utf8.advance(Utf8.boundary, bytes, cut, bytes.length)
          : Utf8.invalid
        assert.strictEqual(inParts, whole)
      }),
      { numRuns: 2000 }
    )
  })
})
