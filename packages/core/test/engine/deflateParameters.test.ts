import * as zlib from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Deflate from "../../src/engine/deflateParameters.js"
import type { Params } from "../../src/engine/Extension.js"
import { formatExtensions, parseExtensions } from "../../src/engine/headerGrammar.js"

/** The parameters as in a header: `"server_max_window_bits=10; client_max_window_bits"`. */
const params = (text: string): Params => parseExtensions(text === "" ? "p" : `p; ${text}`)![0]!.params
const list = (...offers: ReadonlyArray<string>): ReadonlyArray<Params> => offers.map(params)
const shown = (params: Params): string => formatExtensions([{ name: "p", params }])!.slice("p; ".length)

/** `[server_no_context_takeover, client_no_context_takeover, server_max_window_bits, client_max_window_bits]` */
type Short = readonly [boolean, boolean, number, number]
const short = (parameters: Deflate.DeflateParameters): Short => [
  parameters.serverNoContextTakeover,
  parameters.clientNoContextTakeover,
  parameters.serverMaxWindowBits,
  parameters.clientMaxWindowBits
]
const plain: Short = [false, false, 15, 15]

const allBits: ReadonlyArray<Deflate.WindowBits> = [8, 9, 10, 11, 12, 13, 14, 15]

/** Illegal wherever they stand, RFC 7692 §7.1: each makes an offer be declined and an answer fail. */
const illegal: ReadonlyArray<readonly [name: string, text: string, reason: RegExp]> = [
  ["unknown parameter", "mem_level=8", /unknown parameter mem_level/],
  ["unknown parameter without value", "foo", /unknown parameter foo/],
  ["unknown among known ones", "server_no_context_takeover; foo; client_no_context_takeover", /unknown parameter foo/],
  ["case counts", "Server_No_Context_Takeover", /unknown parameter Server_No/],
  ["a name of Object.prototype", "constructor", /unknown parameter constructor/],
  ["another name of it", "__proto__", /unknown parameter __proto__/],
  [
    "server_no_context_takeover with a value",
    "server_no_context_takeover=1",
    /server_no_context_takeover takes no value: 1/
  ],
  [
    "client_no_context_takeover with a value",
    "client_no_context_takeover=true",
    /client_no_context_takeover takes no value/
  ],
  ["server_no_context_takeover twice", "server_no_context_takeover; server_no_context_takeover", /comes twice/],
  ["client_no_context_takeover twice", "client_no_context_takeover; client_no_context_takeover", /comes twice/],
  ["server_max_window_bits twice", "server_max_window_bits=10; server_max_window_bits=10", /server_max_.* comes twice/],
  ["server_max_window_bits twice, differing", "server_max_window_bits=9; server_max_window_bits=10", /comes twice/],
  ["client_max_window_bits twice", "client_max_window_bits=10; client_max_window_bits=10", /client_max_.* comes twice/],
  ["server_max_window_bits without a value", "server_max_window_bits", /server_max_window_bits needs a value/],
  ...["server_max_window_bits", "client_max_window_bits"].flatMap((name) =>
    ["0", "1", "7", "16", "20", "08", "09", "010", "015", "100", "-8", "+8", "8.0", "1e1", "0x9", "a", "8a", "15_"].map(
      (value): readonly [string, string, RegExp] => [
        `${name}=${value}`,
        `${name}=${value}`,
        new RegExp(`${name} is 8 to 15`)
      ]
    )
  )
]

describe("deflateParameters", () => {
  describe("formatOffer", () => {
    const rows: ReadonlyArray<readonly [string, Deflate.DeflateOffer, string]> = [
      ["default: a smaller window may be asked for", {}, "client_max_window_bits"],
      ["nothing", { clientMaxWindowBits: false }, ""],
      [
        "undefined is the default",
        { clientMaxWindowBits: undefined, serverMaxWindowBits: undefined },
        "client_max_window_bits"
      ],
      [
        "false is the default",
        { serverNoContextTakeover: false, clientNoContextTakeover: false },
        "client_max_window_bits"
      ],
      [
        "no server takeover",
        { serverNoContextTakeover: true, clientMaxWindowBits: false },
        "server_no_context_takeover"
      ],
      [
        "no client takeover",
        { clientNoContextTakeover: true, clientMaxWindowBits: false },
        "client_no_context_takeover"
      ],
      ["server window", { serverMaxWindowBits: 8, clientMaxWindowBits: false }, "server_max_window_bits=8"],
      ["client window", { clientMaxWindowBits: 15 }, "client_max_window_bits=15"],
      [
        "all",
        {
          serverNoContextTakeover: true,
          clientNoContextTakeover: true,
          serverMaxWindowBits: 10,
          clientMaxWindowBits: 9
        },
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=9"
      ]
    ]
    for (const [name, offer, expected] of rows) {
      it(name, () => assert.strictEqual(shown(Deflate.formatOffer(offer)), expected))
    }
  })

  describe("negotiate, at the server", () => {
    type Row = readonly [
      name: string,
      offers: ReadonlyArray<string>,
      wanted: Deflate.DeflateAnswer,
      answer: string,
      Short
    ]
    const snct = "server_no_context_takeover"
    const cnct = "client_no_context_takeover"
    const good: ReadonlyArray<Row> = [
      ["nothing asked, nothing wanted", [""], {}, "", plain],
      // §7.1.1.1
      ["server takeover declined by the client", [snct], {}, snct, [true, false, 15, 15]],
      [
        "server takeover declined by the server, unasked",
        [""],
        { serverNoContextTakeover: true },
        snct,
        [true, false, 15, 15]
      ],
      ["by both", [snct], { serverNoContextTakeover: true }, snct, [true, false, 15, 15]],
      ["the client's demand beats our false", [snct], { serverNoContextTakeover: false }, snct, [true, false, 15, 15]],
      // §7.1.1.2
      ["client takeover renounced", [cnct], {}, cnct, [false, true, 15, 15]],
      ["client takeover forbidden, unasked", [""], { clientNoContextTakeover: true }, cnct, [false, true, 15, 15]],
      // §7.1.2.1
      ...allBits.map(
        (bits): Row => [
          `server window ${bits}`,
          [`server_max_window_bits=${bits}`],
          {},
          `server_max_window_bits=${bits}`,
          [false, false, bits, 15]
        ]
      ),
      [
        "server window, ours is smaller",
        ["server_max_window_bits=12"],
        { serverMaxWindowBits: 10 },
        "server_max_window_bits=10",
        [false, false, 10, 15]
      ],
      [
        "server window, ours is larger",
        ["server_max_window_bits=9"],
        { serverMaxWindowBits: 10 },
        "server_max_window_bits=9",
        [false, false, 9, 15]
      ],
      ["server window, ours only: no word of it", [""], { serverMaxWindowBits: 10 }, "", [false, false, 10, 15]],
      ["a quoted value", ['server_max_window_bits="10"'], {}, "server_max_window_bits=10", [false, false, 10, 15]],
      // §7.1.2.2
      ["client window, without a value", ["client_max_window_bits"], {}, "", plain],
      ...allBits.map(
        (bits): Row => [
          `client window ${bits}`,
          [`client_max_window_bits=${bits}`],
          {},
          `client_max_window_bits=${bits}`,
          [false, false, 15, bits]
        ]
      ),
      ...allBits.map(
        (bits): Row => [
          `client window limited to ${bits}`,
          ["client_max_window_bits"],
          { clientMaxWindowBits: bits },
          bits === 15 ? "" : `client_max_window_bits=${bits}`,
          [false, false, 15, bits]
        ]
      ),
      [
        "client window, ours is smaller",
        ["client_max_window_bits=12"],
        { clientMaxWindowBits: 10 },
        "client_max_window_bits=10",
        [false, false, 15, 10]
      ],
      [
        "client window, the promise is smaller",
        ["client_max_window_bits=9"],
        { clientMaxWindowBits: 10 },
        "client_max_window_bits=9",
        [false, false, 15, 9]
      ],
      ["client window 15 wanted, which is always so", [""], { clientMaxWindowBits: 15 }, "", plain],
      [
        "everything, in any order",
        [`client_max_window_bits=11; server_max_window_bits=12; ${cnct}; ${snct}`],
        {},
        `${snct}; ${cnct}; server_max_window_bits=12; client_max_window_bits=11`,
        [true, true, 12, 11]
      ],
      // several offers, §5 and §7.1.3
      [
        "the first that can be met",
        ["client_max_window_bits; server_max_window_bits=10", "client_max_window_bits"],
        {},
        "server_max_window_bits=10",
        [false, false, 10, 15]
      ],
      ["falls back from an unknown parameter", ["foo", snct, ""], {}, snct, [true, false, 15, 15]],
      [
        "falls back from an illegal value",
        ["server_max_window_bits=16", "server_max_window_bits=7", ""],
        {},
        "",
        plain
      ],
      [
        "falls back from a window that is too large for us",
        ["", "server_max_window_bits=9", "client_max_window_bits=14"],
        { clientMaxWindowBits: 10 },
        "client_max_window_bits=10",
        [false, false, 15, 10]
      ]
    ]
    for (const [name, offers, wanted, answer, parameters] of good) {
      it(name, () => {
        const result = Deflate.negotiate(list(...offers), wanted)
        if (result === undefined) return assert.fail("declined")
        assert.strictEqual(shown(result.params), answer)
        assert.deepStrictEqual(short(result.parameters), parameters)
      })
    }
    const bad: ReadonlyArray<readonly [string, ReadonlyArray<string>, Deflate.DeflateAnswer]> = [
      ...illegal.map(([name, text]) => [name, [text], {}] as const),
      ["client_max_window_bits twice, once without a value", ["client_max_window_bits; client_max_window_bits=10"], {}],
      ["client_max_window_bits twice without a value", ["client_max_window_bits; client_max_window_bits"], {}],
      ["none of several", ["foo", "server_max_window_bits", "client_max_window_bits=16"], {}],
      ["a client window that can't be limited (§7.1.2.2)", [""], { clientMaxWindowBits: 14 }],
      ["not by the server's window either", ["server_max_window_bits=8", snct], { clientMaxWindowBits: 8 }]
    ]
    for (const [name, offers, wanted] of bad) {
      it(`declines: ${name}`, () => assert.isUndefined(Deflate.negotiate(list(...offers), wanted)))
    }
  })

  describe("accept, at the client", () => {
    const snct = "server_no_context_takeover"
    const cnct = "client_no_context_takeover"
    const good: ReadonlyArray<readonly [string, ReadonlyArray<string>, answer: string, Short]> = [
      ["nothing", [""], "", plain],
      ["what was offered need not be used", ["client_max_window_bits"], "", plain],
      ["server takeover, as demanded", [snct], snct, [true, false, 15, 15]],
      ["server takeover, volunteered (§7.1.1.1)", [""], snct, [true, false, 15, 15]],
      ["client takeover forbidden, unasked (§7.1.1.2)", [""], cnct, [false, true, 15, 15]],
      ["client takeover renounced and repeated", [cnct], cnct, [false, true, 15, 15]],
      ["client takeover renounced and not repeated: the promise holds", [cnct], "", [false, true, 15, 15]],
      ...allBits.map(
        (bits) =>
          [
            `server window ${bits}, volunteered (§7.1.2.1)`,
            [""],
            `server_max_window_bits=${bits}`,
            [false, false, bits, 15]
          ] as const
      ),
      ["server window as demanded", ["server_max_window_bits=10"], "server_max_window_bits=10", [false, false, 10, 15]],
      [
        "server window smaller than demanded",
        ["server_max_window_bits=10"],
        "server_max_window_bits=8",
        [false, false, 8, 15]
      ],
      ...allBits.map(
        (bits) =>
          [
            `client window ${bits}`,
            ["client_max_window_bits"],
            `client_max_window_bits=${bits}`,
            [false, false, 15, bits]
          ] as const
      ),
      [
        "client window below the promise",
        ["client_max_window_bits=12"],
        "client_max_window_bits=9",
        [false, false, 15, 9]
      ],
      [
        "client window above the promise, which holds",
        ["client_max_window_bits=9"],
        "client_max_window_bits=12",
        [false, false, 15, 9]
      ],
      ["client window promised and not repeated", ["client_max_window_bits=9"], "", [false, false, 15, 9]],
      [
        "everything, in another order",
        [`${snct}; ${cnct}; server_max_window_bits=12; client_max_window_bits=11`],
        `client_max_window_bits=10; server_max_window_bits=9; ${cnct}; ${snct}`,
        [true, true, 9, 10]
      ],
      ["the second of two offers", [`${snct}; server_max_window_bits=10`, ""], "", plain],
      ["the first of two offers", ["server_max_window_bits=10", ""], "server_max_window_bits=9", [false, false, 9, 15]],
      [
        "a demand that only another offer made",
        ["server_max_window_bits=10", ""],
        "server_max_window_bits=12",
        [false, false, 12, 15]
      ],
      [
        "right for several offers: all promises are kept",
        ["client_max_window_bits=14", cnct, "client_max_window_bits=10", `${snct}; client_max_window_bits=8`],
        "",
        [false, true, 15, 10]
      ],
      [
        "an illegal offer made by hand does not hide a legal one",
        ["foo", "client_max_window_bits"],
        "client_max_window_bits=10",
        [false, false, 15, 10]
      ]
    ]
    for (const [name, offers, answer, parameters] of good) {
      it(name, () => {
        const result = Deflate.accept(params(answer), list(...offers))
        if ("_tag" in result) return assert.fail(result.reason)
        assert.deepStrictEqual(short(result), parameters)
      })
    }
    const bad: ReadonlyArray<readonly [string, ReadonlyArray<string>, answer: string, RegExp]> = [
      ...illegal.map(([name, text, reason]) => [name, ["client_max_window_bits"], text, reason] as const),
      [
        "client_max_window_bits without a value (§7.1.2.2)",
        ["client_max_window_bits"],
        "client_max_window_bits",
        /client_max_window_bits needs a value/
      ],
      ["client_max_window_bits was not offered", [""], "client_max_window_bits=15", /was not offered/],
      ["nor in any of several", [snct, ""], `${snct}; client_max_window_bits=10`, /was not offered/],
      [
        "server_max_window_bits larger than offered",
        ["server_max_window_bits=10"],
        "server_max_window_bits=11",
        /server_max_window_bits=11 is more than the 10 offered/
      ],
      [
        "larger than in every offer",
        ["server_max_window_bits=10", "server_max_window_bits=12"],
        "server_max_window_bits=13",
        /more than the 10/
      ],
      [
        "server_max_window_bits is dropped",
        ["server_max_window_bits=10"],
        "",
        /server_max_window_bits is demanded but not/
      ],
      ["server_no_context_takeover is dropped", [snct], "", /server_no_context_takeover is demanded but not granted/],
      [
        "halves of two offers",
        [`${snct}; server_max_window_bits=10`, "server_max_window_bits=9"],
        "server_max_window_bits=10",
        /server_no_context_takeover is demanded/
      ],
      ["an illegal offer made by hand", ["server_max_window_bits"], "", /server_max_window_bits needs a value/],
      ["nothing was offered", [], "", /nothing was offered/]
    ]
    for (const [name, offers, answer, reason] of bad) {
      it(`refuses: ${name}`, () => {
        const result = Deflate.accept(params(answer), list(...offers))
        if (!("_tag" in result)) return assert.fail("accepted")
        assert.match(result.reason, reason)
      })
    }
    it("reasons stay short whatever the server sends", () => {
      for (const answer of ["x", "server_max_window_bits=1", "server_no_context_takeover=1"]) {
        const result = Deflate.accept(params(answer + "1".repeat(10_000)), list(""))
        assert.isBelow("_tag" in result ? result.reason.length : Infinity, 120)
      }
    })
  })

  describe("both ends", () => {
    const bits = FastCheck.option(FastCheck.constantFrom(...allBits), { nil: undefined })
    const flag = FastCheck.option(FastCheck.boolean(), { nil: undefined })
    const offer: FastCheck.Arbitrary<Deflate.DeflateOffer> = FastCheck.record({
      serverNoContextTakeover: flag,
      clientNoContextTakeover: flag,
      serverMaxWindowBits: bits,
      clientMaxWindowBits: FastCheck.oneof(bits, FastCheck.boolean())
    })
    const wanted: FastCheck.Arbitrary<Deflate.DeflateAnswer> = FastCheck.record({
      serverNoContextTakeover: flag,
      clientNoContextTakeover: flag,
      serverMaxWindowBits: bits,
      clientMaxWindowBits: bits
    })
    it("whatever a server answers our client accepts, and no end needs more than the other has", () => {
      FastCheck.assert(
        FastCheck.property(FastCheck.array(offer, { minLength: 1, maxLength: 3 }), wanted, (offers, wanted) => {
          const offered = offers.map(Deflate.formatOffer)
          const answer = Deflate.negotiate(offered, wanted)
          if (answer === undefined) {
            assert.isBelow(wanted.clientMaxWindowBits ?? 15, 15)
            assert.isTrue(offers.every(({ clientMaxWindowBits }) => clientMaxWindowBits === false))
            return
          }
          const client = Deflate.accept(answer.params, offered)
          if ("_tag" in client) return assert.fail(client.reason)
          const server = answer.parameters
          // the compressor of each direction against the decompressor at the other end
          assert.isAtMost(server.serverMaxWindowBits, client.serverMaxWindowBits)
          assert.isAtMost(client.clientMaxWindowBits, server.clientMaxWindowBits)
          assert.isTrue(server.serverNoContextTakeover || !client.serverNoContextTakeover)
          assert.isTrue(client.clientNoContextTakeover || !server.clientNoContextTakeover)
          // what each end wanted
          assert.isAtMost(server.serverMaxWindowBits, wanted.serverMaxWindowBits ?? 15)
          assert.isAtMost(server.clientMaxWindowBits, wanted.clientMaxWindowBits ?? 15)
          assert.isTrue(client.clientNoContextTakeover || wanted.clientNoContextTakeover !== true)
          assert.isTrue(server.serverNoContextTakeover || wanted.serverNoContextTakeover !== true)
        }),
        { numRuns: 2000 }
      )
    })
    it("any parameters give an answer or a refusal", () => {
      const param = FastCheck.record({
        name: FastCheck.constantFrom(
          "server_no_context_takeover",
          "client_no_context_takeover",
          "server_max_window_bits",
          "client_max_window_bits",
          "foo"
        ),
        value: FastCheck.oneof(FastCheck.constant(true as const), FastCheck.constantFrom("7", "8", "15", "16", "010"))
      })
      const any = FastCheck.array(param, { maxLength: 4 })
      FastCheck.assert(
        FastCheck.property(any, FastCheck.array(any, { maxLength: 3 }), (answer, offers) => {
          const result = Deflate.accept(answer, offers)
          if ("_tag" in result) assert.isNotEmpty(result.reason)
          const own = Deflate.negotiate(offers, {})
          if (own !== undefined) assert.notProperty(Deflate.accept(own.params, offers), "_tag")
        }),
        { numRuns: 2000 }
      )
    })
    it("directionFrom: each parameter limits the compressor of the role that it names", () => {
      const parameters: Deflate.DeflateParameters = {
        serverNoContextTakeover: true,
        clientNoContextTakeover: false,
        serverMaxWindowBits: 9,
        clientMaxWindowBits: 12
      }
      assert.deepStrictEqual(Deflate.directionFrom("server", parameters), { windowBits: 9, contextTakeover: false })
      assert.deepStrictEqual(Deflate.directionFrom("client", parameters), { windowBits: 12, contextTakeover: true })
    })
  })

  describe("zlibWindowBits", () => {
    it("9 for 8, else the same", () => {
      assert.deepStrictEqual(allBits.map(Deflate.zlibWindowBits), [9, 9, 10, 11, 12, 13, 14, 15])
    })

    /** Repeats itself at this distance, but for noise; from a fixed seed. */
    const repeating = (distance: number): Uint8Array => {
      let state = distance
      const random = () => (state = Math.imul(state, 0x19660d) + 0x3c6ef35f) >>> 16
      const data = new Uint8Array(4000)
      for (let i = 0; i < data.length; i++) {
        data[i] = i < distance || (random() & 0x7f) === 0 ? random() : data[i - distance]!
      }
      return data
    }
    /** Whether a window of 256 bytes is enough: small pieces of output make zlib look into its window. */
    const fitsWindow8 = (data: Uint8Array, options: zlib.ZlibOptions): boolean => {
      const compressed = zlib.deflateRawSync(data, options)
      try {
        return zlib.inflateRawSync(compressed, { windowBits: 8, chunkSize: 64 }).equals(data)
      } catch {
        return false
      }
    }
    const { Z_DEFAULT_STRATEGY, Z_FILTERED, Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE } = zlib.constants
    const distances = [1, 100, 249, 250, 251, 255, 256, 257, 300, 500]
    it("what zlib compresses with it for 8 needs a window of 256 bytes only", () => {
      for (const strategy of [Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED]) {
        for (let level = 0; level <= 9; level++) {
          for (const distance of distances) {
            const fits = fitsWindow8(repeating(distance), { windowBits: Deflate.zlibWindowBits(8), level, strategy })
            assert.isTrue(fits, `strategy ${strategy}, level ${level}, distance ${distance}`)
          }
        }
      }
    })
    it("which this test would see: with 10 it needs more", () => {
      assert.isFalse(fitsWindow8(repeating(300), { windowBits: 10 }))
      assert.isTrue(fitsWindow8(repeating(100), { windowBits: 10, strategy: Z_RLE }))
    })
  })
})
