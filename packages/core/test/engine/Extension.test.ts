import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Extension from "../../src/engine/Extension.js"
import * as Handshake from "../../src/engine/Handshake.js"
import { formatExtensions, parseExtensions } from "../../src/engine/headerGrammar.js"
import * as Opcode from "../../src/engine/Opcode.js"
import { type Violation, violation } from "../../src/engine/Rule.js"

const { rsv1, rsv2, rsv3 } = Opcode

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (payload: Uint8Array): string => new TextDecoder().decode(payload)

// ---- extensions as users write them ------------------------------------------------------------------------------------

const idle: Extension.Open = () => ({
  encode: ({ payload }) => ({ payload, rsv: 0 }),
  decode: ({ payload }) => payload
})

const extension = (name: string, rsv = 0, rest: Partial<Extension.Extension> = {}): Extension.Extension => ({
  name,
  rsv,
  offer: () => [[]],
  accept: () => idle,
  negotiate: (offers) => ({ params: offers[0]!, open: idle }),
  ...rest
})

/** Says with a byte at the end that it saw the message; without that byte it can't decode. */
const stamp = (name: string, rsv = 0): Extension.Session => ({
  encode: ({ payload }) => ({ payload: bytes(text(payload) + name), rsv }),
  decode: ({ payload }) =>
    text(payload).endsWith(name) ? payload.subarray(0, -name.length) : violation("ExtensionData", `no ${name}`)
})

/** The same, but every result waits for a call. */
class Later {
  readonly waiting: Array<() => void> = []
  wrap(session: Extension.Session): Extension.Session {
    return {
      ...session,
      encode: (message, done) => this.wait(session.encode(message, done)!, done),
      decode: (message, done) => this.wait(session.decode(message, done)!, done)
    }
  }
  private wait<A>(result: A | Violation, done: Extension.Done<A>): undefined {
    this.waiting.push(() => done(result))
  }
  next(): void {
    this.waiting.shift()!()
  }
}

const agreed = (name: string, rsv: number, session: Extension.Session): Extension.Agreed => ({
  name,
  params: [],
  rsv,
  open: () => session
})

const opened = (
  stages: ReadonlyArray<Extension.Agreed>,
  onDefect?: (cause: unknown, name: string) => void
): Extension.Pipeline => Extension.open(stages, { role: "server", onDefect })!

const unexpected = (): never => assert.fail("done was called")

const encode = (pipeline: Extension.Pipeline, message: string, compress?: boolean) => {
  const result = pipeline.encode({ payload: bytes(message), isText: true, compress }, unexpected)
  return result === undefined || "rule" in result ? result : ([text(result.payload), result.rsv] as const)
}

const decode = (pipeline: Extension.Pipeline, payload: string, rsv = 0, maxBytes = 1000) => {
  const result = pipeline.decode({ payload: bytes(payload), isText: true, rsv, maxBytes }, unexpected)
  return result instanceof Uint8Array ? text(result) : result
}

// ---- tests -------------------------------------------------------------------------------------------------------------

describe("Extension", () => {
  describe("misuse", () => {
    const rows: ReadonlyArray<readonly [string, ReadonlyArray<Extension.Extension>, RegExp | undefined]> = [
      ["none", [], undefined],
      ["several", [extension("a", rsv1), extension("b", rsv2 | rsv3), extension("c")], undefined],
      ["two for one bit, for the peer to choose", [extension("a", rsv1), extension("b", rsv1)], undefined],
      ["names that differ by case", [extension("a"), extension("A")], undefined],
      ["a name twice", [extension("a"), extension("b"), extension("a")], /a is registered twice/],
      ["no name", [extension("")], /token/],
      ["name that is no token", [extension("a b")], /token/],
      ["opcode bits", [extension("a", 0x41)], /a uses bits/],
      ["FIN", [extension("a", 0x80)], /a uses bits/],
      ["no byte", [extension("a", 0x100)], /a uses bits/],
      ["negative", [extension("a", -1)], /a uses bits/],
      ["fraction", [extension("a", 0.5)], /a uses bits/]
    ]
    for (const [name, extensions, expected] of rows) {
      it(name, () => {
        const actual = Extension.misuse(extensions)
        if (expected === undefined) assert.isUndefined(actual)
        else assert.match(actual ?? "", expected)
      })
    }
  })

  describe("offer: order of registration, then of preference", () => {
    const level = (value: string) => [{ name: "level", value }]
    const rows: ReadonlyArray<readonly [string, ReadonlyArray<Extension.Extension>, string | undefined]> = [
      ["none", [], undefined],
      ["one", [extension("a")], "a"],
      ["several", [extension("b"), extension("a")], "b, a"],
      ["alternatives", [extension("a", 0, { offer: () => [level("1"), [], level("0")] })], "a; level=1, a, a; level=0"],
      ["nothing to offer", [extension("a", 0, { offer: () => [] }), extension("b")], "b"],
      [
        "a parameter that is repeated",
        [extension("a", 0, { offer: () => [[...level("1"), { name: "level", value: true }]] })],
        "a; level=1; level"
      ]
    ]
    for (const [name, extensions, expected] of rows) {
      it(name, () => assert.strictEqual(formatExtensions(Extension.offer(extensions)), expected))
    }
  })

  describe("negotiate, at the server", () => {
    const only = (value: string): Partial<Extension.Extension> => ({
      negotiate: (offers) => {
        const params = offers.find((offer) => offer.some((param) => param.value === value))
        return params === undefined ? undefined : { params, open: idle }
      }
    })
    const never: Partial<Extension.Extension> = { negotiate: () => undefined }
    const rows: ReadonlyArray<
      readonly [string, ReadonlyArray<Extension.Extension>, offers: string, answer: string | undefined]
    > = [
      [
        "registration decides the order, and RSV1 is given once, as websocket-extensions does",
        [extension("a", rsv1), extension("b"), extension("c", rsv1)],
        "b, a, c, a",
        "a, b"
      ],
      ["order of the offers has no say", [extension("a"), extension("b")], "b, a", "a, b"],
      ["unknown ones are passed over", [extension("a")], "x, a, y", "a"],
      ["case counts in names", [extension("a")], "A", undefined],
      ["none is known", [extension("a")], "x", undefined],
      ["none is registered", [], "a", undefined],
      ["parameters of the answer", [extension("a")], "a; b=1; b; c", "a; b=1; b; c"],
      ["falls back to a later offer of the name", [extension("a", 0, only("2"))], "a; x=1, b, a; x=2", "a; x=2"],
      ["no offer can be met", [extension("a", 0, only("3"))], "a; x=1, a; x=2", undefined],
      ["declining frees the bit", [extension("a", rsv1, never), extension("b", rsv1)], "a, b", "b"],
      ["not being offered does too", [extension("a", rsv1), extension("b", rsv1)], "b", "b"],
      ["different bits are no clash", [extension("a", rsv1), extension("b", rsv2)], "b, a", "a, b"],
      [
        "one of two bits is",
        [extension("a", rsv1), extension("b", rsv1 | rsv2), extension("c", rsv2)],
        "c, b, a",
        "a, c"
      ],
      ["no bits never clash", [extension("a"), extension("b"), extension("c")], "a, b, c", "a, b, c"]
    ]
    for (const [name, extensions, offers, answer] of rows) {
      it(name, () => {
        const result = Extension.negotiate(extensions, parseExtensions(offers)!)
        assert.strictEqual(formatExtensions(result), answer)
        assert.deepStrictEqual(
          result.map(({ name, rsv }) => [name, rsv]),
          result.map(({ name }) => [name, extensions.find((one) => one.name === name)!.rsv])
        )
      })
    }
    it("all offers of the name are seen, in order, repeated parameters too", () => {
      let seen: unknown
      const curious = extension("a", 0, {
        negotiate: (offers) => {
          seen = offers
          return undefined
        }
      })
      Extension.negotiate([curious], parseExtensions("a; x=1; x=2, b, a")!)
      assert.deepStrictEqual(seen, [
        [
          { name: "x", value: "1" },
          { name: "x", value: "2" }
        ],
        []
      ])
    })
    it("one that is not offered, or that clashes, is not asked", () => {
      const silent = (name: string) => extension(name, rsv1, { negotiate: () => assert.fail(`${name} was asked`) })
      Extension.negotiate([extension("a", rsv1), silent("b"), silent("c")], parseExtensions("b, a")!)
    })
    it("without offers or extensions the result is one and the same list", () => {
      assert.strictEqual(Extension.negotiate([], parseExtensions("a")!), Extension.negotiate([extension("a")], []))
    })
  })

  describe("accept, at the client", () => {
    const registered = [
      extension("a", rsv1, {
        offer: () => [[{ name: "x", value: "1" }], []],
        accept: (answer, offers) =>
          answer.some((param) => param.name === "y")
            ? Extension.refuse(`y is not among ${offers.map((params) => params.map((param) => param.name).join("+"))}`)
            : idle
      }),
      extension("b"),
      extension("c", rsv1 | rsv3),
      extension("d", rsv2),
      extension("broken", 0, {
        accept: () => {
          throw new Error("oops")
        }
      })
    ]
    const offered = Extension.offer(registered)
    const good: ReadonlyArray<readonly [string, string, ReadonlyArray<readonly [string, number]>]> = [
      ["one", "a", [["a", rsv1]]],
      [
        "the server's order is kept",
        "d, b; z=1, a; x=1; x",
        [
          ["d", rsv2],
          ["b", 0],
          ["a", rsv1]
        ]
      ],
      [
        "others may use the same bit when they are not chosen together",
        "c, b",
        [
          ["c", rsv1 | rsv3],
          ["b", 0]
        ]
      ]
    ]
    for (const [name, answer, expected] of good) {
      it(name, () => {
        const answers = parseExtensions(answer)!
        const result = Extension.accept(offered, answers)
        if ("_tag" in result) return assert.fail(result.message)
        assert.deepStrictEqual(
          result.map((one) => [one.name, one.rsv] as const),
          expected
        )
        assert.strictEqual(formatExtensions(result), formatExtensions(answers))
      })
    }
    it("no answer is a good answer", () => assert.deepStrictEqual(Extension.accept(offered, []), []))

    const bad: ReadonlyArray<readonly [Extension.Unacceptable["rule"], string, RegExp]> = [
      ["ExtensionNotOffered", "x", /not offered: x/],
      ["ExtensionNotOffered", "A", /not offered: A/],
      ["ExtensionNotOffered", "a, b, x", /not offered: x/],
      ["ExtensionNotOffered", "constructor", /not offered: constructor/],
      ["ExtensionDuplicate", "a, b, a", /twice: a/],
      ["ExtensionDuplicate", "a; x=1, a", /twice: a/],
      ["ExtensionReservedBits", "a, b, c", /use RSV1: a, c/],
      ["ExtensionReservedBits", "c, a", /use RSV1: c, a/],
      ["ExtensionRefused", "b, a; y", /answer for a is refused: y is not among x,/],
      ["ExtensionRefused", "broken", /answer for broken is refused: the extension threw Error: oops/]
    ]
    for (const [rule, answer, message] of bad) {
      it(`${rule}: ${answer}`, () => {
        const result = Extension.accept(offered, parseExtensions(answer)!)
        if (!("_tag" in result)) return assert.fail("accepted")
        assert.strictEqual(result.rule, rule)
        assert.match(result.message, message)
      })
    }
    it("names all bits that clash", () => {
      const both = Extension.offer([extension("p", 0x70), extension("q", rsv2 | rsv3)])
      const result = Extension.accept(both, parseExtensions("p, q")!)
      assert.include("_tag" in result ? result.message : "", "RSV2 and RSV3")
    })
    it("an extension that offers nothing can't be chosen", () => {
      const result = Extension.accept(Extension.offer([extension("a", 0, { offer: () => [] })]), parseExtensions("a")!)
      assert.strictEqual("_tag" in result && result.rule, "ExtensionNotOffered")
    })
  })

  it("both roles of one extension, through the texts of the opening handshake", () => {
    const secret = (key: number): Extension.Session => {
      const turn = (payload: Uint8Array) => payload.map((byte) => byte ^ key)
      return { encode: ({ payload }) => ({ payload: turn(payload), rsv: 0 }), decode: ({ payload }) => turn(payload) }
    }
    const keyOf = (params: Extension.Params) => Number(params.find((param) => param.name === "key")?.value)
    const xor: Extension.Extension = {
      name: "x-xor",
      rsv: 0,
      offer: () => [[{ name: "key", value: "300" }], [{ name: "key", value: "90" }]],
      accept: (answer) => () => secret(keyOf(answer)),
      negotiate: (offers) => {
        const params = offers.find((offer) => keyOf(offer) < 256)
        return params && { params, open: () => secret(keyOf(params)) }
      }
    }
    const offered = Extension.offer([extension("other", rsv1), xor])
    const key = "dGhlIHNhbXBsZSBub25jZQ=="
    const asked = Handshake.checkRequest({
      method: "GET",
      headers: {
        host: "a.example",
        upgrade: "websocket",
        connection: "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": key,
        "sec-websocket-extensions": formatExtensions(offered)
      }
    })
    if (asked._tag === "Rejected") return assert.fail(asked.body)
    const atServer = Extension.negotiate([xor], asked.extensions)
    const head = Handshake.responseHeaders({ key, extensions: atServer })
    if ("_tag" in head) return assert.fail(head.message)
    const headers = Object.fromEntries(head.map(([name, value]) => [name.toLowerCase(), value]))
    assert.strictEqual(headers["sec-websocket-extensions"], "x-xor; key=90")
    const answered = Handshake.checkResponse({
      status: 101,
      headers,
      key,
      offeredSubprotocols: [],
      offeredExtensions: offered
    })
    if (answered._tag === "Rejected") return assert.fail(answered.message)
    const server = Extension.open(atServer, { role: "server" })!
    const client = Extension.open(answered.extensions, { role: "client" })!
    assert.isTrue(server.decodesAll)
    const sent = server.encode({ payload: bytes("hello"), isText: true }, unexpected)
    if (sent === undefined || "rule" in sent) return assert.fail("not encoded")
    assert.deepStrictEqual(
      sent.payload,
      bytes("hello").map((byte) => byte ^ 90)
    )
    assert.strictEqual(decode(client, text(sent.payload)), "hello")
  })

  describe("open", () => {
    it("nothing for no extensions", () => assert.isUndefined(Extension.open([], { role: "client" })))
    it("every extension is told the role", () => {
      const roles: Array<string> = []
      const open: Extension.Open = ({ role }) => {
        roles.push(role)
        return stamp("x")
      }
      Extension.open(
        [
          { name: "a", params: [], rsv: 0, open },
          { name: "b", params: [], rsv: 0, open }
        ],
        { role: "client" }
      )
      assert.deepStrictEqual(roles, ["client", "client"])
    })
    it("what one throws is thrown, and those before it are closed", () => {
      const closed: Array<string> = []
      const opening = (name: string): Extension.Agreed =>
        agreed(name, 0, { ...stamp(name), close: () => closed.push(name) })
      const broken: Extension.Agreed = {
        ...opening("c"),
        open: () => {
          throw new Error("no memory")
        }
      }
      assert.throws(() => opened([opening("a"), opening("b"), broken, opening("d")]), "no memory")
      assert.deepStrictEqual(closed, ["a", "b"])
    })
    const summaries: ReadonlyArray<
      readonly [string, ReadonlyArray<readonly [string, number, string?]>, number, boolean, string | undefined]
    > = [
      ["marks and key of one", [["a", rsv1, "15"]], rsv1, false, "a=15"],
      ["an empty key is a key", [["a", rsv1, ""]], rsv1, false, "a="],
      ["no key", [["a", rsv1]], rsv1, false, undefined],
      [
        "of several",
        [
          ["a", rsv1, "1"],
          ["b", rsv2 | rsv3, "2"]
        ],
        0x70,
        false,
        "a=1, b=2"
      ],
      [
        "one without a key",
        [
          ["a", rsv1, "1"],
          ["b", rsv2]
        ],
        rsv1 | rsv2,
        false,
        undefined
      ],
      [
        "one without a bit",
        [
          ["a", rsv1, "1"],
          ["b", 0, "2"]
        ],
        rsv1,
        true,
        "a=1, b=2"
      ]
    ]
    for (const [name, stages, reservedBits, decodesAll, key] of summaries) {
      it(name, () => {
        const pipeline = opened(
          stages.map(([name, rsv, encodeKey]) => agreed(name, rsv, { ...stamp(name, rsv), encodeKey }))
        )
        assert.deepStrictEqual(
          [pipeline.reservedBits, pipeline.decodesAll, pipeline.encodeKey],
          [reservedBits, decodesAll, key]
        )
      })
    }
  })

  describe("composition", () => {
    const three = [agreed("a", rsv1, stamp("a", rsv1)), agreed("b", 0, stamp("b")), agreed("c", rsv3, stamp("c", rsv3))]
    it("sending in the order agreed on (RFC 6455 §9.1), bits together", () => {
      assert.deepStrictEqual(encode(opened(three), "-"), ["-abc", rsv1 | rsv3])
    })
    it("receiving in its reverse", () => assert.strictEqual(decode(opened(three), "-abc", rsv1 | rsv3), "-"))
    it("receiving, in another order: the first that fails is named", () => {
      assert.deepStrictEqual(decode(opened(three), "-acb", rsv1 | rsv3), violation("ExtensionData", "c: no c"))
      assert.deepStrictEqual(decode(opened(three), "-ac", rsv1 | rsv3), violation("ExtensionData", "b: no b"))
    })
    const received: ReadonlyArray<readonly [string, number, string]> = [
      ["-b", 0, "-"],
      ["-bc", rsv3, "-"],
      ["-ab", rsv1, "-"],
      ["-cab", rsv1, "-c"]
    ]
    for (const [payload, rsv, expected] of received) {
      it(`receiving ${payload} with bits 0x${rsv.toString(16)}: only those marked, and those without a mark`, () => {
        assert.strictEqual(decode(opened(three), payload, rsv), expected)
      })
    }
    it("one of two bits is enough of a mark, and both are seen", () => {
      const seen: Array<number> = []
      const session: Extension.Session = {
        encode: ({ payload }) => ({ payload, rsv: rsv2 }),
        decode: ({ payload, rsv }) => {
          seen.push(rsv)
          return payload
        }
      }
      const pipeline = opened([agreed("a", rsv2 | rsv3, session), agreed("b", rsv1, stamp("b", rsv1))])
      assert.deepStrictEqual(encode(pipeline, "-"), ["-b", rsv1 | rsv2])
      assert.strictEqual(decode(pipeline, "-b", rsv1 | rsv2), "-")
      assert.strictEqual(decode(pipeline, "-b", rsv1), "-")
      assert.strictEqual(decode(pipeline, "-", rsv3), "-")
      assert.deepStrictEqual(seen, [rsv1 | rsv2, rsv3])
    })

    const order = FastCheck.shuffledSubarray(["a", "b", "c", "d", "e"], { minLength: 1 })
    it("decoding what was encoded gives it back, in any order, synchronous or not", () => {
      FastCheck.assert(
        FastCheck.property(order, FastCheck.string(), FastCheck.array(FastCheck.boolean()), (names, message, late) => {
          const later = new Later()
          const pipeline = opened(
            names.map((name, i) => agreed(name, 0, late[i] === true ? later.wrap(stamp(name)) : stamp(name)))
          )
          const results: Array<unknown> = []
          const sent = pipeline.encode({ payload: bytes(message), isText: true }, (result) => results.push(result))
          while (later.waiting.length > 0) later.next()
          const encoded = (sent ?? results.pop()) as Extension.Encoded
          assert.strictEqual(text(encoded.payload), text(bytes(message)) + names.join(""))
          const received = pipeline.decode(
            { payload: encoded.payload, isText: true, rsv: encoded.rsv, maxBytes: 1000 },
            (result) => results.push(result)
          )
          while (later.waiting.length > 0) later.next()
          assert.deepEqual(received ?? results.pop(), bytes(message))
          assert.isEmpty(results)
        })
      )
    })
  })

  describe("a message may be left alone", () => {
    const asked: Array<unknown> = []
    const choosy = (name: string, rsv: number, least: number): Extension.Agreed =>
      agreed(name, rsv, {
        ...stamp(name, rsv),
        takes: (payload, isText, compress) => {
          asked.push([name, typeof payload === "string" ? payload : text(payload), isText, compress])
          return compress ?? payload.length >= least
        }
      })
    const pipeline = opened([choosy("a", rsv1, 4), choosy("b", rsv2, 2)])
    const rows: ReadonlyArray<readonly [string, boolean | undefined, boolean, string, number]> = [
      ["x", undefined, false, "x", 0],
      ["xx", undefined, true, "xxb", rsv2],
      ["xxxx", undefined, true, "xxxxab", rsv1 | rsv2],
      ["xxxx", false, false, "xxxx", 0],
      ["x", true, true, "xab", rsv1 | rsv2]
    ]
    for (const [message, compress, takes, payload, rsv] of rows) {
      it(`${message}, compress ${compress}`, () => {
        assert.strictEqual(pipeline.takes(message, compress), takes)
        assert.deepStrictEqual(encode(pipeline, message, compress), [payload, rsv])
        assert.strictEqual(decode(pipeline, payload, rsv), message)
      })
    }
    it("a text is asked about as a string, behind another extension as bytes", () => {
      asked.length = 0
      pipeline.takes("xx", undefined)
      encode(pipeline, "xxxx")
      pipeline.takes(bytes("yyyy"), true)
      assert.deepStrictEqual(asked, [
        ["a", "xx", true, undefined],
        ["b", "xx", true, undefined],
        ["a", "xxxx", true, undefined],
        ["b", "xxxxa", true, undefined],
        ["a", "yyyy", false, true]
      ])
    })
    it("by a result without marks", () => {
      const session: Extension.Session = { ...stamp("a"), encode: ({ payload }) => ({ payload, rsv: 0 }) }
      assert.deepStrictEqual(encode(opened([agreed("a", rsv1, session)]), "-"), ["-", 0])
    })
    it("without `takes` every message is taken", () => {
      assert.isTrue(opened([choosy("a", rsv1, 9), agreed("b", rsv2, stamp("b"))]).takes("x", false))
    })
  })

  describe("results that come later", () => {
    const waiting = () => {
      const later = new Later()
      const results: Array<unknown> = []
      const pipeline = opened([
        agreed("a", rsv1, later.wrap(stamp("a", rsv1))),
        agreed("b", rsv2, later.wrap(stamp("b", rsv2)))
      ])
      const done = (result: unknown) => results.push(result)
      return { later, results, pipeline, done }
    }
    it("one after the other, in order", () => {
      const { done, later, pipeline, results } = waiting()
      assert.isUndefined(pipeline.encode({ payload: bytes("-"), isText: true }, done))
      assert.strictEqual(later.waiting.length, 1)
      later.next()
      assert.isEmpty(results)
      later.next()
      assert.deepEqual(results, [{ payload: bytes("-ab"), rsv: rsv1 | rsv2 }])
    })
    it("a violation ends it at once", () => {
      const { done, later, pipeline, results } = waiting()
      assert.isUndefined(pipeline.decode({ payload: bytes("-"), isText: false, rsv: rsv1 | rsv2, maxBytes: 9 }, done))
      later.next()
      assert.deepEqual(results, [violation("ExtensionData", "b: no b")])
      assert.isEmpty(later.waiting)
    })
    it("the limit holds for them too", () => {
      const { done, later, pipeline, results } = waiting()
      pipeline.decode({ payload: bytes("xxxxb"), isText: false, rsv: rsv2, maxBytes: 3 }, done)
      later.next()
      assert.deepEqual(results, [violation("MessageTooBig", "b: 4 bytes, limit 3")])
    })
    it("both directions wait for themselves", () => {
      const { done, later, pipeline, results } = waiting()
      pipeline.encode({ payload: bytes("-"), isText: true }, done)
      pipeline.decode({ payload: bytes("+a"), isText: true, rsv: rsv1, maxBytes: 9 }, done)
      later.waiting.reverse()
      later.next()
      assert.deepEqual(results, [bytes("+")])
    })
    it("only the first result counts", () => {
      const results: Array<unknown> = []
      let finish: (result: Extension.Encoded) => void = () => assert.fail()
      const pipeline = opened([
        agreed("a", 0, {
          ...stamp("a"),
          encode: (_, done) => {
            finish = done
            return undefined
          }
        })
      ])
      pipeline.encode({ payload: bytes("-"), isText: true }, (result) => results.push(result))
      finish({ payload: bytes("1"), rsv: 0 })
      finish({ payload: bytes("2"), rsv: 0 })
      assert.deepEqual(results, [{ payload: bytes("1"), rsv: 0 }])
    })
    it("`done` called before the call returns is the call's result, and what is returned besides has no say", () => {
      const eager = (besides: Extension.Result<Extension.Encoded>) =>
        opened([
          agreed("a", rsv1, {
            ...stamp("a"),
            encode: ({ payload }, done) => {
              done({ payload, rsv: rsv1 })
              done({ payload, rsv: 0 })
              return besides
            }
          }),
          agreed("b", 0, stamp("b"))
        ])
      assert.deepStrictEqual(encode(eager(undefined), "-"), ["-b", rsv1])
      assert.deepStrictEqual(encode(eager({ payload: bytes("?"), rsv: 0 }), "-"), ["-b", rsv1])
    })
    it("`done` called again after the call gave its result is not heard", () => {
      let again: Extension.Done<Uint8Array> = () => assert.fail()
      const pipeline = opened([
        agreed("a", 0, {
          ...stamp("a"),
          decode: ({ payload }, done) => {
            again = done
            return payload
          }
        })
      ])
      assert.strictEqual(decode(pipeline, "-"), "-")
      again(bytes("?"))
    })
    it("what comes after `close` is dropped, and no other session sees it", () => {
      const later = new Later()
      const pipeline = opened([
        agreed("a", 0, later.wrap(stamp("a"))),
        agreed("b", 0, { ...stamp("b"), encode: () => assert.fail("b was called") })
      ])
      pipeline.encode({ payload: bytes("-"), isText: true }, unexpected)
      pipeline.close()
      later.next()
    })
  })

  describe("what a session does wrong", () => {
    const boom = () => {
      throw new Error("secret")
    }
    const failure = (detail: string) => violation("ExtensionFailure", detail)
    const broken: ReadonlyArray<readonly [string, Partial<Extension.Session>, Violation]> = [
      ["encode throws", { encode: boom }, failure("x")],
      ["takes throws", { takes: boom }, failure("x")],
      [
        "encode throws after done",
        {
          encode: ({ payload }, done) => {
            done({ payload, rsv: 0 })
            return boom()
          }
        },
        failure("x")
      ],
      [
        "a reserved bit of another",
        { encode: ({ payload }) => ({ payload, rsv: rsv2 | rsv1 }) },
        failure("x set a reserved bit that is not its own")
      ],
      [
        "FIN or opcode",
        { encode: ({ payload }) => ({ payload, rsv: 0x81 }) },
        failure("x set a reserved bit that is not its own")
      ],
      ["a violation", { encode: () => violation("MessageTooBig", "1 byte") }, violation("MessageTooBig", "x: 1 byte")],
      ["a violation without detail", { encode: () => violation("ExtensionFailure") }, failure("x")]
    ]
    for (const [name, session, expected] of broken) {
      it(`sending: ${name}`, () => {
        const stages = [
          agreed("x", rsv2, { ...stamp("x", rsv2), ...session }),
          agreed("y", 0, { ...stamp("y"), encode: () => assert.fail("y was called") })
        ]
        const pipeline = opened(stages)
        assert.isTrue(pipeline.takes("-", undefined))
        assert.deepStrictEqual(encode(pipeline, "-"), expected)
      })
    }
    it("receiving: decode throws", () => {
      assert.deepStrictEqual(decode(opened([agreed("x", 0, { ...stamp("x"), decode: boom })]), "-"), failure("x"))
    })
    for (const [length, maxBytes, fits] of [
      [5, 5, true],
      [6, 5, false],
      [0, 0, true],
      [1, 0, false]
    ] as const) {
      it(`receiving: ${length} bytes where ${maxBytes} may be`, () => {
        const session: Extension.Session = { ...stamp("x"), decode: () => new Uint8Array(length) }
        assert.deepEqual(
          decode(opened([agreed("x", 0, session)]), "-", 0, maxBytes),
          fits ? "\0".repeat(length) : violation("MessageTooBig", `x: ${length} bytes, limit ${maxBytes}`)
        )
      })
    }
    it("receiving: what lies between two sessions is limited too", () => {
      const stages = [
        agreed("a", 0, { ...stamp("a"), decode: () => assert.fail("a was called") }),
        agreed("b", 0, { ...stamp("b"), decode: () => new Uint8Array(6) })
      ]
      assert.deepStrictEqual(decode(opened(stages), "-", 0, 5), violation("MessageTooBig", "b: 6 bytes, limit 5"))
    })
    it("the log is told what was thrown and by whom", () => {
      const defects: Array<unknown> = []
      const pipeline = opened([agreed("x", 0, { encode: boom, decode: boom, close: boom })], (cause, name) =>
        defects.push([name, cause instanceof Error && cause.message])
      )
      encode(pipeline, "-")
      decode(pipeline, "-")
      pipeline.close()
      assert.deepStrictEqual(defects, [
        ["x", "secret"],
        ["x", "secret"],
        ["x", "secret"]
      ])
    })
  })

  it("close releases every session once, whatever one of them throws", () => {
    const closed: Array<string> = []
    const closing = (name: string, close: () => void = () => {}): Extension.Agreed =>
      agreed(name, 0, {
        ...stamp(name),
        close: () => {
          closed.push(name)
          close()
        }
      })
    const pipeline = opened([
      closing("a"),
      closing("b", () => {
        throw new Error("oops")
      }),
      agreed("without", 0, stamp("w")),
      closing("c")
    ])
    pipeline.close()
    pipeline.close()
    assert.deepStrictEqual(closed, ["a", "b", "c"])
  })
})
