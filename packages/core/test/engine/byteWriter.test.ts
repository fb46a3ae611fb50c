import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { ByteWriter, makeSlab, maxReserveBytes, type Slab } from "../../src/engine/byteWriter.js"
import { portable } from "../../src/engine/Natives.js"
import { concat } from "../conformance/rawFrames.js"

const write = (writer: ByteWriter, bytes: Uint8Array): void => {
  const at = writer.reserve(bytes.length)
  writer.target.set(bytes, at)
  writer.advance(bytes.length)
}

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

interface Taken {
  readonly pieces: ReadonlyArray<Uint8Array>
  readonly bytes: Uint8Array
}

/** A writer beside what it must hold: bytes not yet taken, and all that was taken and is not released. */
class Modelled {
  readonly writer: ByteWriter
  private untaken: Array<Uint8Array> = []
  private taken: Array<Taken> = []
  private lastTaken: Taken | undefined

  constructor(slab: Slab) {
    this.writer = new ByteWriter(slab)
  }

  write(bytes: Uint8Array): void {
    write(this.writer, bytes)
    this.untaken.push(bytes)
  }

  push(bytes: Uint8Array): void {
    this.writer.push(bytes.slice())
    this.untaken.push(bytes)
  }

  take(): void {
    const pieces = this.writer.take()
    const bytes = concat(this.untaken)
    this.untaken = []
    this.lastTaken = { pieces, bytes }
    this.taken.push(this.lastTaken)
  }

  release(): void {
    this.writer.release()
    this.taken = this.taken.filter((taken) => taken !== this.lastTaken)
  }

  check(): void {
    assert.strictEqual(this.writer.size, concat(this.untaken).length)
    for (const { bytes, pieces } of this.taken) assert.isTrue(Buffer.compare(concat(pieces), bytes) === 0)
  }
}

describe("ByteWriter", () => {
  it("gives what was written as one piece", () => {
    const writer = new ByteWriter(makeSlab(portable))
    write(writer, filled(3, 1))
    write(writer, filled(2, 2))
    assert.strictEqual(writer.size, 5)
    assert.deepStrictEqual(writer.take(), [Uint8Array.of(1, 1, 1, 2, 2)])
    assert.strictEqual(writer.size, 0)
    assert.deepStrictEqual(writer.take(), [])
  })

  it("puts pushed bytes in their place, as they are", () => {
    const writer = new ByteWriter(makeSlab(portable))
    const pushed = filled(4, 7)
    write(writer, filled(1, 1))
    writer.push(pushed)
    write(writer, filled(1, 2))
    const pieces = writer.take()
    assert.deepStrictEqual(pieces, [Uint8Array.of(1), pushed, Uint8Array.of(2)])
    assert.strictEqual(pieces[1], pushed)
  })

  it("goes on in a new slab when one is full, each piece within one", () => {
    const writer = new ByteWriter(makeSlab(portable))
    for (let i = 0; i < 5; i++) write(writer, filled(maxReserveBytes - 100, i))
    const pieces = writer.take()
    assert.deepStrictEqual(concat(pieces), concat([0, 1, 2, 3, 4].map((i) => filled(maxReserveBytes - 100, i))))
    assert.strictEqual(new Set(pieces.map((piece) => piece.buffer)).size, 3)
  })

  it("writes to the same memory again when it is released at once", () => {
    const slab = makeSlab(portable)
    const [first, second] = [new ByteWriter(slab), new ByteWriter(slab)]
    write(first, filled(10, 1))
    const [piece] = first.take()
    first.release()
    write(second, filled(10, 2))
    assert.strictEqual(second.take()[0]!.byteOffset, piece!.byteOffset)
  })

  it("does not release what another writer took since", () => {
    const slab = makeSlab(portable)
    const [first, second, third] = [new ByteWriter(slab), new ByteWriter(slab), new ByteWriter(slab)]
    write(first, filled(10, 1))
    first.take()
    write(second, filled(10, 2))
    const taken = second.take()
    first.release()
    write(third, filled(10, 3))
    assert.deepStrictEqual(taken, [filled(10, 2)])
  })

  it("does not release below what another writer wrote since", () => {
    const slab = makeSlab(portable)
    const [first, second, third] = [new ByteWriter(slab), new ByteWriter(slab), new ByteWriter(slab)]
    write(first, filled(10, 1))
    first.take()
    write(second, filled(10, 2))
    first.release()
    write(third, filled(20, 3))
    assert.deepStrictEqual(second.take(), [filled(10, 2)])
  })

  it("refers to no slab while it has no output", () => {
    const writer = new ByteWriter(makeSlab(portable))
    writer.reserve(10)
    writer.take()
    assert.strictEqual(writer.target.length, 0)
    write(writer, filled(10, 1))
    writer.take()
    assert.strictEqual(writer.target.length, 0)
  })

  it("never writes over bytes of any writer that are not taken or not released", () => {
    const length = FastCheck.oneof(
      { weight: 8, arbitrary: FastCheck.integer({ min: 0, max: 200 }) },
      { weight: 2, arbitrary: FastCheck.integer({ min: 0, max: maxReserveBytes }) }
    )
    const command = FastCheck.tuple(
      FastCheck.nat(2),
      FastCheck.constantFrom("write", "write", "push", "take", "release", "take and release"),
      length
    )
    FastCheck.assert(
      FastCheck.property(FastCheck.array(command, { maxLength: 60, size: "max" }), (commands) => {
        const slab = makeSlab(portable)
        const writers = [new Modelled(slab), new Modelled(slab), new Modelled(slab)]
        let value = 0
        for (const [index, name, size] of commands) {
          const writer = writers[index]!
          if (name === "write") writer.write(filled(size, ++value & 0xff))
          else if (name === "push") writer.push(filled(size, ++value & 0xff))
          else {
            if (name !== "release") writer.take()
            if (name !== "take") writer.release()
          }
          for (const each of writers) each.check()
        }
        for (const each of writers) {
          each.take()
          each.check()
        }
      }),
      { numRuns: 300 }
    )
  })
})
