import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as HixieHandshake from "../../../src/engine/drafts/HixieHandshake.js"
import { HixieProtocol, type Options } from "../../../src/engine/drafts/HixieProtocol.js"
import type { Action, CloseInfo } from "../../../src/engine/Protocol.js"
import { concat, hex, utf8 } from "../../conformance/rawFrames.js"
import { cutAt } from "../support.js"

const keysOf = (key1: string, key2: string): Uint8Array => {
  const headers = {
    host: "example.com",
    upgrade: "WebSocket",
    connection: "Upgrade",
    "sec-websocket-key1": key1,
    "sec-websocket-key2": key2
  }
  const result = HixieHandshake.checkRequest({ method: "GET", headers }, "hixie-76")
  if (result._tag === "Rejected") throw new Error(result.body)
  return result.keys!
}

/** draft-hixie-thewebsocketprotocol-76 §1.2: keys, the last 8 bytes of the request, and the answer. */
const keys = keysOf("4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00")
const body = utf8("^n:ds[4U")
const answer = "8jKS'y:G*Co,Wxa-"

const written = (protocol: HixieProtocol): Uint8Array => concat(protocol.output.take().map((piece) => piece.slice()))
const latin1 = (bytes: Uint8Array): string => String.fromCharCode(...bytes)

const text = (payload: string) => concat([Uint8Array.of(0), utf8(payload), Uint8Array.of(0xff)])
const closing = hex("ff 00")

const make75 = (options: Partial<Options> = {}) => new HixieProtocol({ ...options, version: "hixie-75" })
/** hixie-76 whose challenge is answered, unless `opening`. */
const make76 = (options: Partial<Options> = {}, opening = false) => {
  const protocol = new HixieProtocol({ keys, ...options, version: "hixie-76" })
  if (!opening) {
    protocol.receive(body)
    protocol.output.take()
  }
  return protocol
}

const tags = (actions: ReadonlyArray<Action>) => actions.map(({ _tag }) => _tag)
const infoOf = (actions: ReadonlyArray<Action>): CloseInfo => {
  const closed = actions.find((action) => action._tag === "Closed")
  if (closed?._tag !== "Closed") throw new Error("not closed")
  return closed.info
}
const messagesOf = (actions: ReadonlyArray<Action>) =>
  actions.flatMap((action) => (action._tag === "Deliver" ? action.messages : []))

const noCode = { code: undefined, reason: "" }

describe("the challenge of hixie-76", () => {
  const examples: ReadonlyArray<readonly [string, string, string, string]> = [
    ["4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", "^n:ds[4U", "8jKS'y:G*Co,Wxa-"],
    ["18x 6]8vM;54 *(5:  {   U1]8  z [  8", "1_ tx7X d  <  nw  334J702) 7]o}` 0", "Tm[K T2u", "fQJ,fN/4F4!~K~MH"]
  ]
  for (const [key1, key2, bytes, expected] of examples) {
    it(`the draft's example: ${expected}`, () => {
      const protocol = new HixieProtocol({ version: "hixie-76", keys: keysOf(key1, key2) })
      protocol.receive(utf8(bytes))
      assert.strictEqual(latin1(written(protocol)), expected)
    })
  }

  it("is answered when its bytes are there, however they and the frames behind them are cut", () => {
    const input = concat([body, text("one"), text("two"), closing])
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.nat(), { maxLength: 6 }), (cuts) => {
        const protocol = make76({}, true)
        const actions = cutAt(input, cuts).flatMap((piece) => [...protocol.receive(piece)])
        assert.deepStrictEqual(messagesOf(actions), ["one", "two"])
        assert.strictEqual(latin1(written(protocol)), `${answer}\xff\0`)
        assert.isTrue(infoOf(actions).clean)
      })
    )
  })

  it("what is sent before waits behind the answer, in order, and counts as output", () => {
    const protocol = make76({}, true)
    assert.isTrue(protocol.opening)
    assert.isTrue(protocol.send("one"))
    assert.isTrue(protocol.send("two"))
    assert.deepStrictEqual(protocol.receive(body.subarray(0, 7)), [])
    assert.deepStrictEqual(protocol.output.take(), [])
    assert.strictEqual(protocol.output.size, 16 + 2 * 5)
    assert.deepStrictEqual(protocol.receive(body.subarray(7)), [])
    assert.isFalse(protocol.opening)
    assert.deepStrictEqual(written(protocol), concat([utf8(answer), text("one"), text("two")]))
    assert.strictEqual(protocol.output.size, 0)
  })

  it("cuts the transport when its bytes do not come in time, or when it is to be closed before", () => {
    for (const give of [(protocol: HixieProtocol) => protocol.closeTimerFired(), (p: HixieProtocol) => p.close()]) {
      const protocol = make76({}, true)
      protocol.receive(body.subarray(0, 3))
      const actions = give(protocol)
      assert.deepStrictEqual(tags(actions), ["Closed", "AbortTransport"])
      assert.deepStrictEqual([infoOf(actions).code, infoOf(actions).clean], [1006, false])
      assert.deepStrictEqual(written(protocol), new Uint8Array(0))
    }
  })
})

for (const make of [make75, make76]) {
  const version = make === make75 ? "hixie-75" : "hixie-76"
  describe(`messages of ${version}`, () => {
    it("go both ways as 00, UTF-8, FF", () => {
      const protocol = make()
      assert.deepStrictEqual(protocol.receive(concat([text("é"), text("")])), [
        { _tag: "Deliver", messages: ["é", ""] }
      ])
      assert.isTrue(protocol.send("語"))
      assert.isTrue(protocol.send(""))
      assert.deepStrictEqual(written(protocol), hex("00 e8 aa 9e ff 00 ff"))
    })

    it("are text: bytes, pings and frames of RFC 6455 are not sent", () => {
      const protocol = make()
      assert.isFalse(protocol.send(Uint8Array.of(1)))
      assert.isFalse(protocol.sendFragment("binary", Uint8Array.of(1), true))
      assert.isFalse(protocol.ping())
      assert.isFalse(protocol.sendEncoded())
      assert.deepStrictEqual(protocol.output.take(), [])
    })

    it("in parts are one frame", () => {
      const protocol = make()
      protocol.sendFragment("text", "a", false)
      protocol.sendFragment("continuation", "", false)
      protocol.sendFragment("continuation", "b", true)
      assert.deepStrictEqual(written(protocol), text("ab"))
    })

    it("in parts: closing in the middle cuts, so that the peer does not take a part for the whole", () => {
      const protocol = make()
      protocol.sendFragment("text", "a", false)
      protocol.output.take()
      const actions = protocol.close()
      assert.deepStrictEqual(tags(actions), ["Closed", "AbortTransport"])
      assert.deepStrictEqual(protocol.output.take(), [])
    })

    it("too big or no UTF-8: the connection fails with the rule", () => {
      const rows = [
        [text("12345"), "MessageTooBig", 1009],
        [hex("00 80"), "InvalidText", 1007]
      ] as const
      for (const [bytes, rule, code] of rows) {
        const protocol = make({ limits: { maxMessageBytes: 4 } })
        const actions = protocol.receive(concat([text("x"), bytes]))
        assert.deepStrictEqual(tags(actions), ["Deliver", "Closed", "EndTransport", "StartCloseTimer"])
        assert.deepStrictEqual([infoOf(actions).violation?.rule, infoOf(actions).code], [rule, code])
        assert.deepStrictEqual(written(protocol), version === "hixie-76" ? closing : new Uint8Array(0))
        assert.deepStrictEqual(protocol.receive(text("y")), [])
        assert.isFalse(protocol.send("z"))
      }
    })

    it("are held back at the budget", () => {
      const protocol = make()
      assert.deepStrictEqual(messagesOf(protocol.receive(concat([text("a"), text("b"), text("c")]), 1)), ["a"])
      assert.isTrue(protocol.paused)
      assert.deepStrictEqual(messagesOf(protocol.resume(1)), ["b"])
      assert.deepStrictEqual(messagesOf(protocol.resume()), ["c"])
      assert.deepStrictEqual(protocol.resume(), [])
    })

    it("a lost transport is told from a close", () => {
      const protocol = make()
      const info = infoOf(protocol.transportClosed())
      assert.deepStrictEqual([info.code, info.clean, info.initiator], [1006, false, "transport"])
      assert.deepStrictEqual(protocol.transportClosed(), [])
    })

    it("an end inside a frame is a loss", () => {
      const protocol = make()
      protocol.receive(hex("00 61"))
      const actions = protocol.transportEnded()
      assert.deepStrictEqual(tags(actions), ["Closed", "EndTransport", "StartCloseTimer"])
      assert.strictEqual(infoOf(actions).code, 1006)
    })
  })
}

describe("closing hixie-76", () => {
  it("by the peer: its frame is answered by ours, then the transport ends", () => {
    const protocol = make76()
    const actions = protocol.receive(closing)
    assert.deepStrictEqual(tags(actions), ["Closed", "EndTransport", "StartCloseTimer"])
    assert.deepStrictEqual(infoOf(actions), {
      code: 1005,
      reason: "",
      clean: true,
      initiator: "remote",
      sent: noCode,
      received: noCode,
      violation: undefined
    })
    assert.deepStrictEqual(written(protocol), closing)
  })

  it("by us: messages are delivered up to the peer's frame (websocket-driver drops them)", () => {
    const protocol = make76()
    assert.deepStrictEqual(tags(protocol.close()), ["StartCloseTimer"])
    assert.deepStrictEqual(written(protocol), closing)
    assert.isFalse(protocol.send("late"))
    const actions = protocol.receive(concat([text("x"), closing]))
    assert.deepStrictEqual(tags(actions), ["Deliver", "Closed", "EndTransport"])
    assert.deepStrictEqual([infoOf(actions).clean, infoOf(actions).initiator], [true, "local"])
    assert.deepStrictEqual(protocol.output.take(), [])
    assert.deepStrictEqual(protocol.close(), [])
  })

  it("by us, without an answer in time", () => {
    const protocol = make76()
    protocol.close()
    const actions = protocol.closeTimerFired()
    assert.deepStrictEqual(tags(actions), ["Closed", "AbortTransport"])
    assert.deepStrictEqual([infoOf(actions).code, infoOf(actions).sent], [1006, noCode])
  })

  it("the end of the transport without a closing frame is a loss", () => {
    const protocol = make76()
    assert.strictEqual(infoOf(protocol.transportEnded()).code, 1006)
    assert.deepStrictEqual(tags(protocol.transportEnded()), ["EndTransport"])
  })
})

describe("closing hixie-75", () => {
  it("by the peer: the end of its direction", () => {
    const protocol = make75()
    const actions = protocol.transportEnded()
    assert.deepStrictEqual(tags(actions), ["Closed", "EndTransport", "StartCloseTimer"])
    assert.deepStrictEqual(
      [infoOf(actions).code, infoOf(actions).clean, infoOf(actions).initiator],
      [1005, true, "remote"]
    )
    assert.deepStrictEqual(protocol.output.take(), [])
  })

  it("by us: the end of ours, and messages are delivered up to the peer's", () => {
    const protocol = make75()
    assert.deepStrictEqual(tags(protocol.close()), ["EndTransport", "StartCloseTimer"])
    assert.deepStrictEqual(messagesOf(protocol.receive(text("x"))), ["x"])
    const actions = protocol.transportEnded()
    assert.deepStrictEqual([infoOf(actions).clean, infoOf(actions).initiator], [true, "local"])
  })
})

describe("with deferEnd", () => {
  it("the closing frame is answered when the I/O layer proceeds; messages may be sent until then", () => {
    const protocol = make76({ deferEnd: true })
    assert.deepStrictEqual(tags(protocol.receive(concat([text("x"), closing]))), [
      "Deliver",
      "EndPending",
      "StartCloseTimer"
    ])
    assert.isTrue(protocol.send("answer"))
    assert.deepStrictEqual(tags(protocol.proceed()), ["Closed", "EndTransport", "StartCloseTimer"])
    assert.deepStrictEqual(written(protocol), concat([text("answer"), closing]))
    assert.deepStrictEqual(protocol.proceed(), [])
  })

  it("the end of the transport of hixie-75 too", () => {
    const protocol = make75({ deferEnd: true })
    assert.deepStrictEqual(tags(protocol.transportEnded()), ["EndPending", "StartCloseTimer"])
    assert.isTrue(protocol.send("answer"))
    assert.isTrue(infoOf(protocol.closeTimerFired()).clean)
  })

  it("a violation too; a lost transport tells it", () => {
    const protocol = make76({ deferEnd: true })
    protocol.receive(hex("00 80"))
    const info = infoOf(protocol.transportClosed())
    assert.deepStrictEqual([info.code, info.violation?.rule], [1007, "InvalidText"])
  })
})

it("random bytes never throw", () => {
  FastCheck.assert(
    FastCheck.property(
      FastCheck.array(FastCheck.uint8Array({ maxLength: 40 })),
      FastCheck.boolean(),
      (chunks, is76) => {
        const protocol = is76 ? make76() : make75()
        for (const chunk of chunks) protocol.receive(chunk)
        protocol.transportEnded()
        protocol.transportClosed()
        assert.strictEqual(protocol.state._tag, "Closed")
      }
    )
  )
})
