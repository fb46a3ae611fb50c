import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { HixieDecoder, type Item } from "../../../src/engine/drafts/HixieDecoder.js"
import * as Limits from "../../../src/engine/Limits.js"
import { portable } from "../../../src/engine/Natives.js"
import { concat, hex, utf8 } from "../../conformance/rawFrames.js"
import { anyText, cutAt, everything, retainedBytes } from "../support.js"

const make = (hasClosingFrame = true, limits: Partial<Limits.Limits> = {}) =>
  new HixieDecoder(hasClosingFrame, { ...Limits.defaults, ...limits }, portable)

const decode = (decoder: HixieDecoder, pieces: Iterable<Uint8Array>): Array<Item> => {
  const items: Array<Item> = []
  for (const piece of pieces) {
    decoder.feed(piece)
    decoder.decode(items, everything, everything)
  }
  return items
}

const shown = (items: ReadonlyArray<Item>) =>
  items.map((item) => (typeof item === "string" ? item : item._tag === "Closing" ? item._tag : item.rule))

const text = (payload: string | Uint8Array) =>
  concat([Uint8Array.of(0), typeof payload === "string" ? utf8(payload) : payload, Uint8Array.of(0xff)])

const every = (bytes: Uint8Array) => Array.from(bytes, (byte) => Uint8Array.of(byte))

describe("HixieDecoder", () => {
  // hixie-76 §5.3
  const rows: ReadonlyArray<readonly [string, Uint8Array, ReadonlyArray<unknown>]> = [
    ["a text", text("Hello"), ["Hello"]],
    ["an empty text", text(""), [""]],
    ["texts one behind the other", concat([text("a"), text("é語🎉"), text("")]), ["a", "é語🎉", ""]],
    ["a zero inside a text", text("a\0b"), ["a\0b"]],
    ["a byte order mark", text("\ufeffx"), ["\ufeffx"]],
    ["a type with the high bit off, skipped", concat([hex("01 61 62 ff"), hex("7f ff"), text("x")]), ["x"]],
    ["a length, so many bytes are skipped", concat([hex("80 03 00 61 ff"), text("x")]), ["x"]],
    // websocket-driver ends the skipping at the first FF and delivers a message that is none
    ["FF among the bytes that are skipped", concat([hex("80 05 ff 00 61 ff 61"), text("x")]), ["x"]],
    ["a length of two bytes", concat([hex("81 81 02"), new Uint8Array(0x82).fill(0xff), text("x")]), ["x"]],
    ["a length of zero", concat([hex("80 00"), text("x")]), ["x"]],
    ["a length of zero with leading zeros", concat([hex("80 80 80 80 00"), text("x")]), ["x"]],
    ["the closing frame, and nothing behind it", concat([text("x"), hex("ff 00"), text("y")]), ["x", "Closing"]],
    // websocket-driver takes a later empty frame of another type for the closing frame then
    ["FF with a length is no closing frame", concat([hex("ff 01 61 80 00"), text("x")]), ["x"]],
    ["a byte that is no UTF-8", text(hex("61 80 62")), ["InvalidText"]],
    ["an overlong form", text(hex("c0 af")), ["InvalidText"]],
    ["a surrogate", text(hex("ed a0 80")), ["InvalidText"]],
    ["a code point that is cut off", text(hex("e2 82")), ["InvalidText"]],
    ["nothing behind what is no UTF-8", concat([text("x"), text(hex("80")), text("y")]), ["x", "InvalidText"]]
  ]
  for (const [name, bytes, items] of rows) {
    it(name, () => {
      assert.deepStrictEqual(shown(decode(make(), [bytes])), items)
      assert.deepStrictEqual(shown(decode(make(), every(bytes))), items, "byte by byte")
    })
  }

  it("hixie-75 has no closing frame: FF 00 is a length of zero", () => {
    const bytes = concat([hex("ff 00"), text("x")])
    assert.deepStrictEqual(shown(decode(make(false), [bytes])), ["x"])
  })

  it("a bad byte fails at once, not at the end of the message (RFC 6455 §8.1)", () => {
    assert.deepStrictEqual(shown(decode(make(), [hex("00 61 80")])), ["InvalidText"])
  })

  describe("limits", () => {
    for (const pieces of [(bytes: Uint8Array) => [bytes], every]) {
      it(`the largest text and one byte more, ${pieces === every ? "byte by byte" : "in one chunk"}`, () => {
        const limits = { maxMessageBytes: 6 }
        assert.deepStrictEqual(shown(decode(make(true, limits), pieces(text("é語a")))), ["é語a"])
        assert.deepStrictEqual(shown(decode(make(true, limits), pieces(text("é語ab")))), ["MessageTooBig"])
        assert.deepStrictEqual(shown(decode(make(true, limits), pieces(text(hex("80 62 62 62 62 62 62 62"))))), [
          "InvalidText"
        ])
        assert.deepStrictEqual(shown(decode(make(true, limits), pieces(hex("80 06 61 61 61 61 61 61 00 78 ff")))), [
          "x"
        ])
        assert.deepStrictEqual(shown(decode(make(true, limits), pieces(hex("80 07")))), ["MessageTooBig"])
      })
    }

    it("a length that never ends does not grow without bound (CVE-2026-54466 of websocket-driver)", () => {
      assert.deepStrictEqual(shown(decode(make(), [new Uint8Array(1000).fill(0xff)])), ["MessageTooBig"])
    })

    it("what is skipped takes no memory", () => {
      const decoder = make()
      decode(decoder, [hex("01"), ...Array.from({ length: 100 }, () => new Uint8Array(10_000).fill(0x61))])
      assert.isBelow(retainedBytes(decoder), 100)
    })

    it("stops at its budget and goes on", () => {
      const decoder = make()
      const items: Array<Item> = []
      decoder.feed(concat([text("a"), text("bc"), text("d")]))
      decoder.decode(items, 1, everything)
      assert.deepStrictEqual([items, decoder.paused], [["a"], true])
      decoder.decode(items, everything, 2)
      assert.deepStrictEqual([items, decoder.paused], [["a", "bc"], true])
      decoder.decode(items, everything, everything)
      assert.deepStrictEqual([items, decoder.paused], [["a", "bc", "d"], false])
    })
  })

  const anyFrame = FastCheck.oneof(
    anyText.map((value) => text(value)),
    FastCheck.uint8Array({ maxLength: 100 }).map((bytes) => concat([Uint8Array.of(0x80, bytes.length), bytes])),
    FastCheck.uint8Array({ maxLength: 8 })
  )

  it("any cutting gives the same items, and nothing throws", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(anyFrame, { maxLength: 6 }),
        FastCheck.array(FastCheck.nat()),
        (frames, cuts) => {
          const bytes = concat(frames)
          const limits = { maxMessageBytes: 200 }
          assert.deepStrictEqual(decode(make(true, limits), cutAt(bytes, cuts)), decode(make(true, limits), [bytes]))
        }
      )
    )
  })
})
