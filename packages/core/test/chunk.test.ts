import { assert, describe, it } from "@effect/vitest"
import { Chunk, Equal } from "effect"
import { chunkOf } from "../src/internal/chunk.js"

describe("a chunk of messages", () => {
  for (const array of [[], ["a"], ["a", "b", "c"]]) {
    it(`of ${array.length} is what Effect makes of the array`, () => {
      const chunk = chunkOf(array)
      const same = Chunk.unsafeFromArray(array)
      assert.isTrue(Chunk.isChunk(chunk))
      assert.isTrue(Equal.equals(chunk, same))
      assert.strictEqual(chunk.length, array.length)
      assert.deepStrictEqual([...chunk], array)
      assert.deepStrictEqual(Chunk.toReadonlyArray(chunk), array)
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(Chunk.map(chunk, (one) => `${one}!`)),
        array.map((one) => `${one}!`)
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(Chunk.drop(Chunk.append(chunk, "z"), 1)), [...array, "z"].slice(1))
      assert.deepStrictEqual(Chunk.toReadonlyArray(Chunk.reverse(Chunk.appendAll(chunk, same))), [
        ...[...array].reverse(),
        ...[...array].reverse()
      ])
      assert.deepStrictEqual(Chunk.head(chunk), Chunk.head(same))
      assert.deepStrictEqual(Chunk.get(chunk, 2), Chunk.get(same, 2))
    })
  }

  it("is kept by an instance of a class, not by Effect's literal", () => {
    for (const array of [["a"], ["a", "b"]]) {
      const { backing } = chunkOf(array) as unknown as { readonly backing: object }
      assert.strictEqual(backing.constructor.name, "ArrayBacking")
    }
  })
})
