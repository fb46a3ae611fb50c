import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import {
  equalsIgnoreCase,
  formatExtensions,
  hasToken,
  isHeaderValue,
  isToken,
  isUnique,
  parseExtensions,
  parseSubprotocols,
  parseTokenList,
  trimSpace
} from "../../src/engine/headerGrammar.js"

const tokenCharacters = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const token = FastCheck.string({ unit: FastCheck.constantFrom(...tokenCharacters), minLength: 1, maxLength: 8 })

/** Text that is mostly separators, so that it comes near the grammar. */
const almost = FastCheck.string({ unit: FastCheck.constantFrom(...'ab1,;="\\ \t\u00e9\0\r\n'), maxLength: 24 })

describe("headerGrammar", () => {
  describe("isToken, RFC 9110 §5.6.2", () => {
    it("every code unit up to U+017F", () => {
      for (let code = 0; code < 0x180; code++) {
        const character = String.fromCharCode(code)
        assert.strictEqual(isToken(character), tokenCharacters.includes(character), `U+${code.toString(16)}`)
      }
    })
    it("is never empty", () => assert.isFalse(isToken("")))
    it("counts every character", () => {
      assert.isTrue(isToken("chat.v2"))
      assert.isFalse(isToken("chat v2"))
      assert.isFalse(isToken("chat\r\n"))
    })
  })

  describe("isHeaderValue, RFC 9110 §5.5", () => {
    it("every code unit up to U+0200", () => {
      for (let code = 0; code < 0x200; code++) {
        const legal = code === 0x09 || (code >= 0x20 && code <= 0xff && code !== 0x7f)
        assert.strictEqual(isHeaderValue(`a${String.fromCharCode(code)}`), legal, `U+${code.toString(16)}`)
      }
    })
    it("may be empty", () => assert.isTrue(isHeaderValue("")))
  })

  describe("parseTokenList, RFC 9110 §5.6.1", () => {
    const rows: ReadonlyArray<readonly [string, string, ReadonlyArray<string> | undefined]> = [
      ["one", "a", ["a"]],
      ["several, order and case kept", "b, A,c", ["b", "A", "c"]],
      ["repeated", "a, a", ["a", "a"]],
      ["spaces and tabs", " \ta \t,\t b ", ["a", "b"]],
      ["nothing", "", []],
      ["empty elements", ", a,, ,b ,", ["a", "b"]],
      ["only commas", ",,", []],
      ["two tokens without comma", "a b", undefined],
      ["separator inside", "a;b", undefined],
      ["quoted", '"a"', undefined],
      ["control character", "a\0", undefined],
      ["line break", "a,\r\nb", undefined],
      ["beyond ASCII", "a, \u00e9", undefined]
    ]
    for (const [name, text, expected] of rows) {
      it(name, () => assert.deepStrictEqual(parseTokenList(text), expected))
    }
    it("gives back what was joined", () => {
      FastCheck.assert(
        FastCheck.property(FastCheck.array(token), (tokens) => {
          assert.deepStrictEqual(parseTokenList(tokens.join(", ")), tokens)
        })
      )
    })
  })

  describe("hasToken", () => {
    const rows: ReadonlyArray<readonly [string, string, boolean]> = [
      ["alone", "upgrade", true],
      ["any case", "UpGrAdE", true],
      ["first", "Upgrade, keep-alive", true],
      ["last", "keep-alive,Upgrade", true],
      ["spaces around", "keep-alive \t, \tUpgrade \t, x", true],
      ["empty elements", ",,upgrade,,", true],
      ["next to what is no token", "HTTP/2.0, upgrade", true],
      ["absent", "keep-alive", false],
      ["nothing", "", false],
      ["longer", "upgrades", false],
      ["shorter", "upgrad", false],
      ["the end of another", "no-upgrade", false],
      ["with a parameter", "upgrade;q=1", false],
      ["followed by a word", "upgrade x", false],
      ["quoted", '"upgrade"', false],
      ["a letter beyond ASCII that looks alike", "upgra\u0501e", false]
    ]
    for (const [name, text, expected] of rows) {
      it(name, () => assert.strictEqual(hasToken(text, "upgrade"), expected))
    }
    it("agrees with the parsed list", () => {
      FastCheck.assert(
        FastCheck.property(almost, (text) => {
          const list = parseTokenList(text)
          if (list !== undefined) assert.strictEqual(hasToken(text, "a"), list.includes("a"))
        })
      )
    })
    it("equalsIgnoreCase folds ASCII only", () => {
      assert.isTrue(equalsIgnoreCase("WebSocket", "websocket"))
      assert.isFalse(equalsIgnoreCase("WebSoc\u212aet", "websocket"))
      assert.isFalse(equalsIgnoreCase("@", "`"))
      assert.isFalse(equalsIgnoreCase("websockets", "websocket"))
    })
  })

  describe("parseSubprotocols, RFC 6455 §4.1 item 10", () => {
    const rows: ReadonlyArray<readonly [string, string, ReturnType<typeof parseSubprotocols>]> = [
      ["one", "chat", { _tag: "Parsed", subprotocols: ["chat"] }],
      ["several in order", "chat.v2, chat.v1", { _tag: "Parsed", subprotocols: ["chat.v2", "chat.v1"] }],
      ["case tells them apart", "Chat, chat", { _tag: "Parsed", subprotocols: ["Chat", "chat"] }],
      ["nothing", "", { _tag: "Failed", rule: "SubprotocolSyntax" }],
      ["only commas", " , ", { _tag: "Failed", rule: "SubprotocolSyntax" }],
      ["no token", "chat v2", { _tag: "Failed", rule: "SubprotocolSyntax" }],
      ["twice", "a, b, a", { _tag: "Failed", rule: "SubprotocolDuplicate" }]
    ]
    for (const [name, text, expected] of rows) {
      it(name, () => assert.deepStrictEqual(parseSubprotocols(text), expected))
    }
    it("isUnique", () => {
      assert.isTrue(isUnique([]))
      assert.isTrue(isUnique(["a", "b"]))
      assert.isFalse(isUnique(["a", "b", "a"]))
    })
  })

  describe("parseExtensions, RFC 6455 §9.1", () => {
    const rows: ReadonlyArray<readonly [string, string, ReturnType<typeof parseExtensions>]> = [
      ["a name", "foo", [{ name: "foo", params: [] }]],
      [
        "the list of §9.1",
        "deflate-stream, mux; max-channels=4; flow-control, deflate-stream, private-extension",
        [
          { name: "deflate-stream", params: [] },
          {
            name: "mux",
            params: [
              { name: "max-channels", value: "4" },
              { name: "flow-control", value: true }
            ]
          },
          { name: "deflate-stream", params: [] },
          { name: "private-extension", params: [] }
        ]
      ],
      [
        "offers as alternatives, RFC 7692 §7.1.3",
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
        [
          {
            name: "permessage-deflate",
            params: [
              { name: "client_max_window_bits", value: true },
              { name: "server_max_window_bits", value: "10" }
            ]
          },
          { name: "permessage-deflate", params: [] }
        ]
      ],
      ["quoted value", 'a; b="10"', [{ name: "a", params: [{ name: "b", value: "10" }] }]],
      ["quoted value with escapes", 'a; b="\\1\\0"', [{ name: "a", params: [{ name: "b", value: "10" }] }]],
      [
        "repeated parameters are kept",
        "a; b=1; b=2; b",
        [
          {
            name: "a",
            params: [
              { name: "b", value: "1" },
              { name: "b", value: "2" },
              { name: "b", value: true }
            ]
          }
        ]
      ],
      ["case is kept", "A; B=C", [{ name: "A", params: [{ name: "B", value: "C" }] }]],
      [
        "white space around every separator",
        " \ta\t;\tb = 1 ;c ,\td ",
        [
          {
            name: "a",
            params: [
              { name: "b", value: "1" },
              { name: "c", value: true }
            ]
          },
          { name: "d", params: [] }
        ]
      ],
      [
        "empty elements",
        ", a,, b ,",
        [
          { name: "a", params: [] },
          { name: "b", params: [] }
        ]
      ],
      [
        "names of Object.prototype",
        "__proto__; constructor",
        [{ name: "__proto__", params: [{ name: "constructor", value: true }] }]
      ],
      ["nothing", "", undefined],
      ["only commas", ", ,", undefined],
      ["no name", "; a", undefined],
      ["empty parameter", "a; ; b", undefined],
      ["parameter left open", "a;", undefined],
      ["value left open", "a; b=", undefined],
      ["value absent before another", "a; b=, c", undefined],
      ["value without a name", "a; =1", undefined],
      ["value of the name", "a=1", undefined],
      ["two values", "a; b=1=2", undefined],
      ["two names", "a b", undefined],
      ["two values by space", "a; b=1 2", undefined],
      ["quoted value that is no token", 'a; b="1 2"', undefined],
      ["quoted separators", 'a; b="1,c;d"', undefined],
      ["quoted and empty", 'a; b=""', undefined],
      ["quote left open", 'a; b="1', undefined],
      ["quote left open by an escape", 'a; b="1\\"', undefined],
      ["escaped quote", 'a; b="1\\""', undefined],
      ["after a quoted value", 'a; b="1"2', undefined],
      ["quoted name", '"a"', undefined],
      ["quoted parameter", 'a; "b"', undefined],
      ["control character", "a; b=\x01", undefined],
      ["beyond ASCII", "a; b=\u00e9", undefined],
      ["beyond one byte", "a\u0161", undefined]
    ]
    for (const [name, text, expected] of rows) {
      it(name, () => assert.deepStrictEqual(parseExtensions(text), expected))
    }

    const offer = FastCheck.record({
      name: token,
      params: FastCheck.array(
        FastCheck.record({ name: token, value: FastCheck.oneof(token, FastCheck.constant(true as const)) })
      )
    })
    it("parse after format is the identity", () => {
      FastCheck.assert(
        FastCheck.property(FastCheck.array(offer, { minLength: 1 }), (offers) => {
          assert.deepEqual(parseExtensions(formatExtensions(offers) ?? ""), offers)
        })
      )
    })
    it("any text gives offers that can be formatted, or nothing", () => {
      FastCheck.assert(
        FastCheck.property(almost, (text) => {
          const offers = parseExtensions(text)
          if (offers !== undefined) assert.deepStrictEqual(parseExtensions(formatExtensions(offers) ?? ""), offers)
        }),
        { numRuns: 2000 }
      )
    })
  })

  describe("formatExtensions", () => {
    const value = (value: string | true) => [{ name: "a", params: [{ name: "b", value }] }]
    const rows: ReadonlyArray<readonly [string, Parameters<typeof formatExtensions>[0], string | undefined]> = [
      ["flag", value(true), "a; b"],
      ["value", value("10"), "a; b=10"],
      ["several", [...value("1"), { name: "c", params: [] }], "a; b=1, c"],
      ["none", [], undefined],
      ["value that is no token", value("1 2"), undefined],
      ["empty value", value(""), undefined],
      ["line break in a value", value("1\r\nSet-Cookie: a"), undefined],
      ["name that is no token", [{ name: "a b", params: [] }], undefined],
      ["parameter that is no token", [{ name: "a", params: [{ name: "", value: true }] }], undefined]
    ]
    for (const [name, offers, expected] of rows) {
      it(name, () => assert.strictEqual(formatExtensions(offers), expected))
    }
  })

  it("trimSpace takes spaces and tabs, nothing else", () => {
    assert.strictEqual(trimSpace(" \ta b\t "), "a b")
    assert.strictEqual(trimSpace("a"), "a")
    assert.strictEqual(trimSpace(" \t"), "")
    assert.strictEqual(trimSpace("\u00a0a\n"), "\u00a0a\n")
  })
})
