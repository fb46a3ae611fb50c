import * as Zlib from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as FastCheck from "effect/FastCheck"
import { hex } from "../../../core/test/conformance/rawFrames.js"
import {
  type Compressor,
  type Decompressor,
  Deflater,
  type DeflateSettings,
  type Failure,
  Inflater,
  OneShotDeflater,
  OneShotInflater,
  persistent,
  syncBytes
} from "../../src/internal/zlib.js"
import { Contexts, compressed, expanded, noise, prose } from "../deflateSupport.js"

const mebibyte = 0x100000
const settings: DeflateSettings = { level: 6, memLevel: 8, strategy: 0, windowBits: 15 }

const compressors: Readonly<Record<string, (settings?: Partial<DeflateSettings>) => Compressor>> = {
  "with takeover": (more) => new Deflater({ ...settings, ...more }, true),
  "without takeover": (more) => new Deflater({ ...settings, ...more }, false),
  "one-shot": (more) => new OneShotDeflater({ ...settings, ...more })
}
const decompressors: Readonly<Record<string, (windowBits?: number) => Decompressor>> = {
  "with takeover": (windowBits = 15) => new Inflater(windowBits, true),
  "without takeover": (windowBits = 15) => new Inflater(windowBits, false),
  "one-shot": (windowBits = 15) => new OneShotInflater(windowBits)
}

/** The result, in memory of its own, and whether it came at once. */
const result = <A extends Uint8Array | Failure>(run: (done: (result: A) => void) => A | undefined) =>
  new Promise<{ readonly result: A; readonly atOnce: boolean }>((resolve) => {
    const own = (result: A): A => (typeof result === "string" ? result : (Buffer.from(result) as Uint8Array as A))
    const now = run((result) => resolve({ result: own(result), atOnce: false }))
    if (now !== undefined) resolve({ result: own(now), atOnce: true })
  })
const deflate = async (compressor: Compressor, message: Uint8Array) =>
  (await result<Uint8Array>((done) => compressor.deflate(message, done))).result
const inflate = async (decompressor: Decompressor, payload: Uint8Array, maxBytes = mebibyte) =>
  (await result<Uint8Array | Failure>((done) => decompressor.inflate(payload, maxBytes, done))).result

const failing = () => assert.fail("the result came later")

/** RFC 7692 §7.2.3: payloads of the text "Hello". */
const hello: ReadonlyArray<readonly [section: string, name: string, ...payloads: ReadonlyArray<string>]> = [
  ["§7.2.3.1", "one block", "f2 48 cd c9 c9 07 00"],
  ["§7.2.3.2", "a window that is kept", "f2 48 cd c9 c9 07 00", "f2 00 11 00 00"],
  ["§7.2.3.2", "a window that is not", "f2 48 cd c9 c9 07 00", "f2 48 cd c9 c9 07 00"],
  ["§7.2.3.3", "a stored block", "00 05 00 fa ff 48 65 6c 6c 6f 00"],
  ["§7.2.3.4", "a final block", "f3 48 cd c9 c9 07 00 00", "f3 48 cd c9 c9 07 00 00"],
  ["§7.2.3.5", "two blocks", "f2 48 05 00 00 00 ff ff ca c9 c9 07 00"]
]

describe("zlib", () => {
  it("contexts can be kept on this Node", () => assert.isTrue(persistent))

  describe("known answers of RFC 7692", () => {
    for (const [kind, open] of Object.entries(decompressors)) {
      for (const [section, name, ...payloads] of hello) {
        if (name === "a window that is kept" && kind !== "with takeover") continue
        it(`inflating ${kind}, ${section}: ${name}`, () => {
          const decompressor = open()
          for (const payload of payloads) {
            const text = decompressor.inflate(hex(payload), 5, failing)
            assert.strictEqual(Buffer.from(text as Uint8Array).toString(), "Hello")
          }
          decompressor.close()
        })
      }
    }
    for (const [kind, open] of Object.entries(compressors)) {
      it(`deflating ${kind}, §7.2.3.1 and §7.2.3.2`, () => {
        const compressor = open()
        const twice = [1, 2].map(() => Buffer.from(compressor.deflate(Buffer.from("Hello"), failing)!))
        const second = kind === "with takeover" ? "f2 00 11 00 00" : "f2 48 cd c9 c9 07 00"
        assert.deepStrictEqual(twice, [Buffer.from(hex("f2 48 cd c9 c9 07 00")), Buffer.from(hex(second))])
        compressor.close()
      })
      it(`deflating ${kind}, §7.2.3.6: an empty message is one byte, however many there are`, () => {
        const compressor = open()
        for (const message of ["", "", "a", "", ""]) {
          const payload = Buffer.from(compressor.deflate(Buffer.from(message), failing)!)
          if (message === "") assert.deepStrictEqual(payload, Buffer.from([0]))
        }
        compressor.close()
      })
    }
  })

  const sizes = [0, 1, 100, syncBytes - 1, syncBytes, syncBytes + 1, 65_536, 200_000, mebibyte]
  const kinds: Readonly<Record<string, (size: number) => Buffer>> = {
    zeros: (size) => Buffer.alloc(size),
    JSON: (size) => Buffer.from(prose(size)),
    noise: (size) => noise(size)
  }

  describe("what Node's own functions read, and write", () => {
    for (const [kind, open] of Object.entries(compressors)) {
      for (const [name, make] of Object.entries(kinds)) {
        it(`deflating ${kind}: ${name}`, async () => {
          for (const size of sizes) {
            const compressor = open()
            const message = make(size)
            const { atOnce, result: payload } = await result<Uint8Array>((done) => compressor.deflate(message, done))
            assert.isTrue(message.equals(expanded(payload)), `${size} bytes`)
            assert.strictEqual(atOnce, size <= syncBytes)
            compressor.close()
          }
        })
      }
    }
    for (const [kind, open] of Object.entries(decompressors)) {
      for (const [name, make] of Object.entries(kinds)) {
        it(`inflating ${kind}: ${name}`, async () => {
          const decompressor = open()
          for (const size of sizes) {
            const message = make(size)
            // Exactly at the limit
            const output = await inflate(decompressor, compressed(message), size)
            assert.isTrue(message.equals(output as Uint8Array), `${size} bytes`)
          }
          decompressor.close()
        })
      }
    }
  })

  it("messages of any sizes in a row, kept windows of every size", async () => {
    for (const windowBits of [9, 10, 12, 15]) {
      const compressor = new Deflater({ ...settings, windowBits }, true)
      const decompressor = new Inflater(windowBits, true)
      for (const size of [10, 70_000, 0, 1000, 40_000, 10, 500_000, 0, 0, 32_768, 5]) {
        const message = Buffer.from(prose(size, size))
        assert.isTrue(message.equals((await inflate(decompressor, await deflate(compressor, message))) as Uint8Array))
      }
      compressor.close()
      decompressor.close()
    }
  })

  describe("the limit", () => {
    const bombs = [
      { name: "small input, small limit", size: 20_000, maxBytes: 19_999 },
      { name: "small input", size: 16 * mebibyte, maxBytes: mebibyte },
      { name: "input for the thread pool", size: 100 * mebibyte, maxBytes: mebibyte },
      { name: "a byte too much", size: mebibyte + 1, maxBytes: mebibyte },
      { name: "a byte too much, without compression", size: 200_001, maxBytes: 200_000, level: 0 },
      { name: "no byte allowed", size: 1, maxBytes: 0 }
    ]
    for (const { level = 6, maxBytes, name, size } of bombs) {
      for (const [kind, open] of Object.entries(decompressors)) {
        it.scopedLive(`${name}, ${kind}: stops within one step (64 KiB) of it`, () =>
          Effect.gen(function* () {
            const payload = compressed(Buffer.alloc(size), { level })
            const contexts = yield* Contexts.follow
            const decompressor = open()
            const outcome = yield* Effect.promise(() => inflate(decompressor, payload, maxBytes))
            assert.strictEqual(outcome, "too big")
            assert.isAtMost(contexts.outputBytes, maxBytes + 65_536)
            decompressor.close()
            assert.isAtMost(contexts.open, 0)
          })
        )
      }
    }
  })

  describe("what is not DEFLATE", () => {
    /** RFC 1951 §3.2.4, the complement of the length right or not. */
    const stored = (data: Uint8Array, right = true) => {
      const header = Buffer.alloc(5)
      header.writeUInt16LE(data.length, 1)
      header.writeUInt16LE(right ? data.length ^ 0xffff : data.length, 3)
      return Buffer.concat([header, data])
    }
    const spoiled = Buffer.concat([stored(noise(60_000)), stored(noise(60_000)), stored(noise(100), false)])
    const rows: ReadonlyArray<readonly [name: string, payload: Uint8Array]> = [
      ["block type 3", hex("07")],
      ["a stored block whose lengths differ", hex("00 05 00 00 00 48 65 6c 6c 6f 00")],
      ["a distance beyond the beginning", hex("f2 00 11 00 00")],
      [
        "a distance beyond the beginning, in the size of the thread pool",
        Buffer.concat([hex("f2 00 11 00 00"), noise(syncBytes)])
      ],
      ["a block that is broken late", spoiled]
    ]
    for (const [name, payload] of rows) {
      for (const [kind, open] of Object.entries(decompressors)) {
        it.scopedLive(`${name}, ${kind}`, () =>
          Effect.gen(function* () {
            const contexts = yield* Contexts.follow
            const decompressor = open()
            assert.strictEqual(yield* Effect.promise(() => inflate(decompressor, payload)), "invalid")
            decompressor.close()
            assert.isAtMost(contexts.open, 0)
          })
        )
      }
    }
  })

  describe("final blocks (RFC 7692 §7.2.3.4)", () => {
    /** A whole DEFLATE stream: its last block is final. */
    const wholeStream = (message: Uint8Array) => Zlib.deflateRawSync(message)
    const streams = (count: number, message: Uint8Array) =>
      Buffer.concat(Array.from({ length: count }, () => wholeStream(message)))
    for (const [kind, open] of Object.entries(decompressors)) {
      for (const [count, message] of [
        [2, Buffer.from("Hello")],
        [16, Buffer.from("Hello")],
        [3, Buffer.from(prose(300_000))],
        [2, noise(50_000)]
      ] as const) {
        it(`${count} of ${message.length} bytes in the middle of a message, ${kind}`, async () => {
          const decompressor = open()
          const payload = Buffer.concat([streams(count, message), compressed("the end")])
          const expected = Buffer.concat([...Array.from({ length: count }, () => message), Buffer.from("the end")])
          assert.isTrue(expected.equals((await inflate(decompressor, payload)) as Uint8Array))
          decompressor.close()
        })
      }
      it(`17 are too many, ${kind}`, async () => {
        for (const message of [Buffer.from("Hello"), noise(3000)]) {
          const decompressor = open()
          const payload = Buffer.concat([streams(17, message), compressed("the end")])
          assert.strictEqual(await inflate(decompressor, payload), "invalid")
          decompressor.close()
        }
      })
      it(`the limit holds for all of them together, ${kind}`, async () => {
        for (const size of [1000, 40_000]) {
          const decompressor = open()
          const payload = streams(3, noise(size))
          assert.strictEqual(await inflate(decompressor, payload, 3 * size - 1), "too big")
          decompressor.close()
        }
      })
    }

    it("what follows may refer to the message before it", () => {
      const decompressor = new Inflater(15, true)
      const message = Buffer.from(prose(1000))
      const first = Buffer.concat([wholeStream(message), Buffer.from([0])])
      assert.isTrue(message.equals(decompressor.inflate(first, mebibyte, failing) as Uint8Array))
      const second = compressed(message, { dictionary: message })
      assert.isBelow(second.length, 20)
      assert.isTrue(message.equals(decompressor.inflate(second, mebibyte, failing) as Uint8Array))
      decompressor.close()
    })

    it("without takeover no other message may refer to it, whoever sends that", () => {
      const message = Buffer.from(prose(1000))
      const payload = Buffer.concat([wholeStream(message), compressed("the end")])
      const expected = Buffer.concat([message, Buffer.from("the end")])
      assert.isTrue(expected.equals(new Inflater(15, false).inflate(payload, mebibyte, failing) as Uint8Array))
      const referring = compressed(message, { dictionary: message })
      assert.strictEqual(new Inflater(15, false).inflate(referring, mebibyte, failing), "invalid")
    })
  })

  describe("the thread pool", () => {
    const large = (seed: number) => Buffer.from(prose(300_000, seed))

    for (const [kind, open] of Object.entries(compressors)) {
      it(`ten deflate at once, ${kind}`, async () => {
        const all = Array.from({ length: 10 }, (_, i) => ({ compressor: open({ memLevel: 5 }), message: large(i) }))
        const payloads = await Promise.all(all.map(({ compressor, message }) => deflate(compressor, message)))
        payloads.forEach((payload, i) => assert.isTrue(all[i]!.message.equals(expanded(payload))))
        for (const { compressor } of all) compressor.close()
      })
    }

    for (const [kind, open] of Object.entries(decompressors)) {
      it(`ten inflate at once, others in between, ${kind}`, async () => {
        const all = Array.from({ length: 10 }, (_, i) => ({ decompressor: open(14), message: noise(300_000, i + 1) }))
        // Small input, so that it begins synchronously and has to wait for the pool in the middle.
        const growing = Array.from({ length: 6 }, (_, i) => ({
          decompressor: open(14),
          message: Buffer.alloc(900_000, `${i} a page of text which repeats itself; `)
        }))
        const results = Promise.all(
          [...all, ...growing].map(({ decompressor, message }) =>
            inflate(decompressor, compressed(message, { windowBits: 14 }))
          )
        )
        const between = open(14)
        assert.strictEqual(
          Buffer.from(
            between.inflate(compressed("x".repeat(60_000), { windowBits: 14 }), mebibyte, failing) as Uint8Array
          ).toString(),
          "x".repeat(60_000)
        )
        const outputs = await results
        ;[...all, ...growing].forEach(({ decompressor, message }, i) => {
          assert.isTrue(message.equals(outputs[i] as Uint8Array), `number ${i}`)
          decompressor.close()
        })
        between.close()
      })
    }

    it.scopedLive("all that are closed while they work or wait free their place and their context", () =>
      Effect.gen(function* () {
        const contexts = yield* Contexts.follow
        const payload = compressed(noise(400_000), { windowBits: 13 })
        const growing = compressed(Buffer.alloc(900_000), { windowBits: 13 })
        for (const [kind, open] of Object.entries(compressors)) {
          for (const wait of [false, true]) {
            const all = Array.from({ length: 9 }, () => open({ memLevel: 4 }))
            for (const compressor of all) {
              assert.isUndefined(compressor.deflate(large(1), () => assert.fail("it was closed")))
            }
            if (wait && kind !== "one-shot") yield* contexts.started.pipe(Effect.race(Effect.void))
            for (const compressor of all) {
              compressor.close()
              compressor.close()
            }
            const another = open({ memLevel: 4 })
            const message = large(2)
            assert.isTrue(message.equals(expanded(yield* Effect.promise(() => deflate(another, message)))))
            another.close()
          }
        }
        for (const open of Object.values(decompressors)) {
          for (const input of [payload, growing]) {
            const all = Array.from({ length: 9 }, () => open(13))
            for (const decompressor of all) decompressor.inflate(input, mebibyte, () => assert.fail("it was closed"))
            for (const decompressor of all) {
              decompressor.close()
              decompressor.close()
            }
            const another = open(13)
            assert.instanceOf(yield* Effect.promise(() => inflate(another, payload)), Uint8Array)
            another.close()
          }
        }
        // What was borrowed comes back when its step is done; of each kind two are kept for the next.
        yield* Effect.promise(async () => {
          for (let i = 0; contexts.open > 4 && i < 10_000; i++) await new Promise((resolve) => setImmediate(resolve))
        })
        assert.isAbove(contexts.made, 9)
      })
    )
  })

  it.scopedLive("without takeover connections hold no context between messages", () =>
    Effect.gen(function* () {
      const contexts = yield* Contexts.follow
      const all = Array.from({ length: 50 }, () => ({
        compressor: new Deflater({ ...settings, memLevel: 2 }, false),
        decompressor: new Inflater(11, false)
      }))
      const message = Buffer.from(prose(2000))
      for (const { compressor, decompressor } of all) {
        const payload = Buffer.from(compressor.deflate(message, failing)!)
        decompressor.inflate(payload, mebibyte, failing)
      }
      assert.isAtMost(contexts.made, 2)
    })
  )

  it("random messages through random pairs give themselves", async () => {
    const sizes = FastCheck.oneof(
      FastCheck.integer({ min: 0, max: 300 }),
      FastCheck.integer({ min: syncBytes - 300, max: syncBytes + 300 }),
      FastCheck.integer({ min: 0, max: 200_000 })
    )
    await FastCheck.assert(
      FastCheck.asyncProperty(
        FastCheck.array(FastCheck.tuple(sizes, FastCheck.constantFrom(...Object.keys(kinds))), { maxLength: 6 }),
        FastCheck.boolean(),
        FastCheck.boolean(),
        FastCheck.integer({ min: 9, max: 15 }),
        FastCheck.integer({ min: 0, max: 9 }),
        async (messages, keeps, keepsThere, windowBits, level) => {
          const compressor = new Deflater({ ...settings, windowBits, level }, keeps)
          // Who keeps its window reads what was made without, not the other way round.
          const decompressor = new Inflater(windowBits, keeps || keepsThere)
          for (const [size, kind] of messages) {
            const message = kinds[kind]!(size)
            const output = await inflate(decompressor, await deflate(compressor, message))
            assert.isTrue(message.equals(output as Uint8Array))
          }
          compressor.close()
          decompressor.close()
        }
      ),
      { numRuns: 25 }
    )
  })
})
