import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { MessageAssembler } from "../../src/engine/MessageAssembler.js"
import { portable } from "../../src/engine/Natives.js"
import { hex, utf8 } from "../conformance/rawFrames.js"
import { anyBytes, anyText, cutAt, retainedBytes } from "./support.js"

const begun = (kind: "text" | "binary"): MessageAssembler => {
  const assembler = new MessageAssembler(portable)
  assembler.begin(kind === "text" ? 1 : 2, 0)
  return assembler
}

/** Appends a piece as one that other frames may follow. */
const append = (assembler: MessageAssembler, piece: Uint8Array, isText = false): boolean =>
  assembler.append(piece, 0, piece.length, 0, isText)

const places = FastCheck.array(FastCheck.nat(), { maxLength: 8 })

describe("MessageAssembler", () => {
  it("gives bytes as they came, and is idle again (§5.4)", () => {
    FastCheck.assert(
      FastCheck.property(anyBytes, places, (bytes, cuts) => {
        const assembler = begun("binary")
        for (const piece of cutAt(bytes, cuts)) assert.isTrue(append(assembler, piece))
        assert.strictEqual(assembler.length, bytes.length)
        assert.deepStrictEqual(assembler.takeBytes(), bytes)
        assert.strictEqual(assembler.opcode, 0)
        assert.strictEqual(retainedBytes(assembler), 0)
      })
    )
  })

  it("gives text wherever its code points are cut (§8.1)", () => {
    FastCheck.assert(
      FastCheck.property(anyText, places, (text, cuts) => {
        const assembler = begun("text")
        for (const piece of cutAt(utf8(text), cuts)) assert.isTrue(append(assembler, piece, true))
        assert.isTrue(assembler.atBoundary)
        assert.strictEqual(assembler.takeText(), new TextDecoder("utf-8", { ignoreBOM: true }).decode(utf8(text)))
      })
    )
  })

  /** §8.1, RFC 3629: each row's last piece is the first that can't be part of any text. */
  const bad: ReadonlyArray<ReadonlyArray<string>> = [
    ["ff"],
    ["c3", "28"],
    ["ce ba", "f4", "90"],
    ["f0 9f", "8e", "41"],
    ["e2", "82", "ac", "80"],
    ["41 42 43 ed", "a0"],
    ["41 e0 80"]
  ]
  for (const pieces of bad) {
    it(`refuses ${pieces.join(" | ")} at its last piece`, () => {
      const assembler = begun("text")
      const results = pieces.map((digits) => append(assembler, hex(digits), true))
      assert.deepStrictEqual(results, [...pieces.slice(1).map(() => true), false])
    })
  }

  it("knows when a text ends inside a code point", () => {
    const assembler = begun("text")
    append(assembler, hex("41 e2 82"), true)
    assert.isFalse(assembler.atBoundary)
    append(assembler, hex("ac"), true)
    assert.isTrue(assembler.atBoundary)
  })

  it("begins each message anew", () => {
    const assembler = begun("text")
    append(assembler, hex("e2"), true)
    assembler.reset()
    assembler.begin(1, 0)
    assert.isTrue(append(assembler, utf8("new"), true) && assembler.atBoundary)
    assert.strictEqual(assembler.takeText(), "new")
  })

  it("empty pieces take no memory", () => {
    const assembler = begun("binary")
    for (let i = 0; i < 10_000; i++) append(assembler, new Uint8Array(0))
    assert.strictEqual(retainedBytes(assembler), 0)
  })

  it("holds at most twice what came when the end is open, sixteen times when it is announced, and never more than announced", () => {
    const piece = new Uint8Array(777)
    for (const announced of [0, 100_000, 50_000_000]) {
      const assembler = begun("binary")
      for (let received = 0; received < 100_000 - piece.length; ) {
        assembler.append(piece, 0, piece.length, announced === 0 ? 0 : announced - received, false)
        received += piece.length
        const factor = announced === 0 ? 2 : 16
        assert.isAtMost(retainedBytes(assembler), Math.max(1024, factor * received))
        if (announced > 0) assert.isAtMost(retainedBytes(assembler), announced)
      }
    }
  })

  it("a message pins at most a quarter more than its own bytes", () => {
    for (const size of [1, 700, 1000, 1025, 5000, 70_000]) {
      const assembler = begun("binary")
      for (let i = 0; i < size; i++) append(assembler, Uint8Array.of(i))
      assert.isAtMost(assembler.takeBytes().buffer.byteLength, size * 1.25 + 1)
    }
  })
})
