import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Extension from "../../src/engine/Extension.js"
import * as FrameEncoder from "../../src/engine/FrameEncoder.js"
import { portable } from "../../src/engine/Natives.js"
import {
  type Action,
  type CloseInfo,
  type Message,
  type Options,
  Protocol,
  type Role
} from "../../src/engine/Protocol.js"
import { type Rule, rules } from "../../src/engine/Rule.js"
import {
  chop,
  closePayload,
  concat,
  type FrameFields,
  hex,
  type RawFrame,
  readFrames,
  utf8
} from "../conformance/rawFrames.js"
import { anySent, cutAt, everything, framesOf, peerFrame, retainedBytes } from "./support.js"

const roles = ["server", "client"] as const

const make = (role: Role, options: Partial<Options> = {}): Protocol => {
  let key = 0x12345678
  return new Protocol({ role, randomKey: () => (key = Math.imul(key, 0x19660d) + 0x3c6ef35f), ...options })
}

/** What left since the last call, as frames. */
const output = (protocol: Protocol): Array<RawFrame> => readFrames(concat(protocol.output.take()))

const receive = (protocol: Protocol, ...frames: ReadonlyArray<FrameFields>): ReadonlyArray<Action> =>
  protocol.receive(concat(frames.map((fields) => peerFrame(protocol.role, fields))))

/** Actions in short: the messages of each delivery, and the names of the rest. */
const brief = (actions: ReadonlyArray<Action>): ReadonlyArray<string | ReadonlyArray<Message>> =>
  actions.map((action) => (action._tag === "Deliver" ? action.messages : action._tag))

const closedInfo = (actions: ReadonlyArray<Action>): CloseInfo | undefined =>
  actions.flatMap((action) => (action._tag === "Closed" ? [action.info] : []))[0]

const hello: FrameFields = { opcode: 1, payload: utf8("Hello") }
const ping = (payload = ""): FrameFields => ({ opcode: 9, payload: utf8(payload) })
const close = (code?: number, reason: string | Uint8Array = ""): FrameFields =>
  code === undefined ? { opcode: 8 } : { opcode: 8, payload: closePayload(code, reason) }

const closeFrame = (protocol: Protocol, code: number | undefined, reason = "") => {
  const frames = output(protocol)
  assert.strictEqual(frames.length, 1)
  assert.strictEqual(frames[0]!.opcode, 8)
  assert.deepStrictEqual(frames[0]!.payload, code === undefined ? new Uint8Array(0) : closePayload(code, reason))
}

for (const role of roles) {
  describe(`Protocol, ${role}`, () => {
    describe("messages", () => {
      it("delivers all messages of a chunk in one array, in order", () => {
        const protocol = make(role)
        const actions = receive(protocol, hello, { opcode: 2, payload: hex("01") }, { opcode: 1 })
        assert.deepStrictEqual(brief(actions), [["Hello", hex("01"), ""]])
        assert.strictEqual(protocol.output.size, 0)
      })

      it("keeps the order of messages and control frames", () => {
        const actions = receive(make(role), hello, ping("1"), { opcode: 10 }, hello, hello)
        assert.deepStrictEqual(brief(actions), [["Hello"], "PingReceived", "PongReceived", ["Hello", "Hello"]])
      })

      it("sends text and binary in one frame, masked by a client with a new key each (§5.3)", () => {
        const keys = [1, 2]
        const protocol = make(role, { randomKey: () => keys.shift()! })
        assert.isTrue(protocol.send("Hello"))
        assert.isTrue(protocol.send(hex("0102")))
        const frames = output(protocol)
        assert.deepStrictEqual(
          frames.map(({ fin, masked, opcode, payload }) => ({ fin, masked, opcode, payload })),
          [
            { fin: true, masked: role === "client", opcode: 1, payload: utf8("Hello") },
            { fin: true, masked: role === "client", opcode: 2, payload: hex("0102") }
          ]
        )
        assert.strictEqual(keys.length, role === "client" ? 0 : 2)
      })

      it("sends a message in fragments, control frames may pass between (§5.4)", () => {
        const protocol = make(role)
        protocol.sendFragment("text", "Hel", false)
        protocol.ping(hex("2a"))
        protocol.sendFragment("continuation", utf8("l"), false)
        protocol.sendFragment("continuation", "o", true)
        const frames = output(protocol)
        assert.deepStrictEqual(
          frames.map(({ fin, opcode }) => [fin, opcode]),
          [
            [false, 1],
            [true, 9],
            [false, 0],
            [true, 0]
          ]
        )
        protocol.sendFragment("binary", hex("01"), true)
        assert.strictEqual(output(protocol)[0]!.opcode, 2)
      })

      it("round trip to the other role, whatever is sent", () => {
        FastCheck.assert(
          FastCheck.property(FastCheck.array(anySent, { maxLength: 5 }), (sent) => {
            const messages = sent.map(({ kind, payload }) =>
              kind === "text" ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload) : payload
            )
            const sender = make(role)
            for (const message of messages) sender.send(message)
            const other = make(role === "client" ? "server" : "client")
            const actions = other.receive(concat(sender.output.take()))
            assert.deepStrictEqual(brief(actions), messages.length === 0 ? [] : [messages])
          }),
          { numRuns: 50 }
        )
      })
    })

    describe("pings (§5.5.2, §5.5.3)", () => {
      it("answers with the same bytes", () => {
        const protocol = make(role)
        assert.deepStrictEqual(brief(receive(protocol, ping("a"), ping())), ["PingReceived", "PingReceived"])
        assert.deepStrictEqual(
          output(protocol).map(({ opcode, payload }) => [opcode, payload]),
          [
            [10, utf8("a")],
            [10, new Uint8Array(0)]
          ]
        )
      })

      it("sends pings and unasked pongs, not after the close frame", () => {
        const protocol = make(role)
        assert.isTrue(protocol.ping(hex("01")) && protocol.pong(hex("02")))
        assert.deepStrictEqual(
          output(protocol).map(({ opcode, payload }) => [opcode, payload]),
          [
            [9, hex("01")],
            [10, hex("02")]
          ]
        )
        protocol.close(1000)
        output(protocol)
        assert.isFalse(protocol.ping(hex("01")) || protocol.pong(hex("02")))
        receive(protocol, ping())
        assert.deepStrictEqual(output(protocol), [])
      })

      it("as many pongs as the limit wait for a blocked transport, one more fails with 1008", () => {
        for (const blockedFirst of [true, false]) {
          const protocol = make(role, { limits: { maxPendingPongs: 3 } })
          if (blockedFirst) protocol.blocked()
          receive(protocol, ping("1"), ping("2"), ping("3"))
          assert.strictEqual(output(protocol).length, 3)
          if (!blockedFirst) protocol.blocked()
          const actions = receive(protocol, hello, ping("4"), ping("5"))
          assert.deepStrictEqual(brief(actions), [["Hello"], "Closed", "EndTransport", "StartCloseTimer"])
          assert.strictEqual(closedInfo(actions)!.violation!.rule, "TooManyPings")
          assert.strictEqual(output(protocol)[0]!.payload[1], 1008 & 0xff)
        }
      })

      it("the count begins anew when the transport drained, and counts nothing before it blocks", () => {
        const protocol = make(role, { limits: { maxPendingPongs: 3 } })
        for (let i = 0; i < 5; i++) {
          receive(protocol, ping(), ping(), ping())
          protocol.blocked()
          protocol.drained()
        }
        receive(protocol, ...Array.from({ length: 100 }, () => ping()))
        assert.strictEqual(protocol.state._tag, "Open")
      })
    })

    describe("closing handshake (§5.5.1, §7.1)", () => {
      const answers: ReadonlyArray<readonly [what: string, code: number | undefined, reason: string]> = [
        ["without a code", undefined, ""],
        ["with a code", 1001, ""],
        ["with the longest reason", 4999, "é".repeat(61)]
      ]
      for (const [what, code, reason] of answers) {
        it(`answers a close frame ${what} with the same; the server ends the transport`, () => {
          const protocol = make(role)
          const actions = receive(protocol, hello, close(code, reason), hello)
          const expected = [["Hello"], "Closed", ...(role === "server" ? ["EndTransport"] : []), "StartCloseTimer"]
          assert.deepStrictEqual(brief(actions), expected)
          closeFrame(protocol, code, reason)
          const frame = { code, reason }
          assert.deepStrictEqual(closedInfo(actions), {
            code: code ?? 1005,
            reason,
            clean: true,
            initiator: "remote",
            sent: frame,
            received: frame,
            violation: undefined
          })
          assert.deepStrictEqual(receive(protocol, hello, ping()), [])
          assert.isFalse(protocol.send("late") || protocol.sendFragment("text", "", true))
          assert.isFalse(protocol.sendEncoded(hex("8100")))
          assert.deepStrictEqual(protocol.close(1000), [])
          assert.strictEqual(protocol.output.size, 0)
        })
      }

      it("begins it, still delivers, and is done with the peer's close frame", () => {
        const protocol = make(role)
        assert.deepStrictEqual(brief(protocol.close(1001, "bye")), ["StartCloseTimer"])
        closeFrame(protocol, 1001, "bye")
        assert.deepStrictEqual(protocol.close(1000), [], "only one close frame")
        assert.isFalse(protocol.send("late"))
        const actions = receive(protocol, hello, close(1000, "ok"))
        assert.deepStrictEqual(brief(actions), [["Hello"], "Closed", ...(role === "server" ? ["EndTransport"] : [])])
        assert.deepStrictEqual(closedInfo(actions), {
          code: 1000,
          reason: "ok",
          clean: true,
          initiator: "local",
          sent: { code: 1001, reason: "bye" },
          received: { code: 1000, reason: "ok" },
          violation: undefined
        })
        assert.strictEqual(protocol.output.size, 0)
      })

      it("an empty close frame may be sent", () => {
        const protocol = make(role)
        protocol.close()
        closeFrame(protocol, undefined)
      })

      it("the close timer cuts: 1006 before the peer's close frame, nothing to tell after it", () => {
        const protocol = make(role)
        protocol.close(1000)
        const actions = protocol.closeTimerFired()
        assert.deepStrictEqual(brief(actions), ["Closed", "AbortTransport"])
        const info = closedInfo(actions)!
        assert.deepStrictEqual([info.code, info.clean, info.initiator], [1006, false, "local"])
        assert.deepStrictEqual(brief(protocol.closeTimerFired()), ["AbortTransport"])
      })

      it("the end of the transport without a close frame is 1006", () => {
        for (const lost of [
          (protocol: Protocol) => protocol.transportEnded(),
          (protocol: Protocol) => protocol.transportClosed()
        ]) {
          const info = closedInfo(lost(make(role)))!
          assert.deepStrictEqual(
            [info.code, info.clean, info.initiator, info.sent, info.received],
            [1006, false, "transport", undefined, undefined]
          )
        }
        assert.include(brief(make(role).transportEnded()), "EndTransport")
      })

      it("the end of the transport after the closing handshake tells nothing new", () => {
        const protocol = make(role)
        receive(protocol, close(1000))
        assert.deepStrictEqual(brief(protocol.transportEnded()), ["EndTransport"])
        assert.deepStrictEqual(protocol.transportClosed(), [])
      })
    })

    describe("failing (§7.1.7)", () => {
      const rows: ReadonlyArray<readonly [rule: Rule, what: string, frame: FrameFields]> = [
        ["ReservedBits", "a frame with RSV1", { ...hello, rsv: 4 }],
        ["InvalidText", "a text that is none", { opcode: 1, payload: hex("ff") }],
        ["MessageTooBig", "a message that is too big", { opcode: 2, announced: 0x100001n }],
        ["ClosePayload", "a close frame of one byte", { opcode: 8, payload: hex("03") }],
        ["InvalidCloseCode", "a close code that nobody may send", close(1005)],
        ["InvalidCloseReason", "a close reason that is no text", close(1000, hex("c328"))]
      ]
      for (const [rule, what, frame] of rows) {
        it(`${what}: what came before is delivered, one close frame with ${rules[rule].code} leaves, then the transport ends`, () => {
          const protocol = make(role)
          const actions = receive(protocol, hello, ping(), frame, hello)
          assert.deepStrictEqual(brief(actions), [
            ["Hello"],
            "PingReceived",
            "Closed",
            "EndTransport",
            "StartCloseTimer"
          ])
          const info = closedInfo(actions)!
          assert.deepStrictEqual(
            [info.violation!.rule, info.code, info.clean, info.received],
            [rule, rules[rule].code, false, undefined]
          )
          const [pong, last, ...rest] = output(protocol)
          assert.strictEqual(pong!.opcode, 10)
          assert.deepStrictEqual(last!.payload, closePayload(rules[rule].code, info.sent!.reason))
          assert.isAtMost(last!.payload.length, 125)
          assert.deepStrictEqual(rest, [])
          assert.deepStrictEqual(receive(protocol, hello, close(1000)), [])
        })
      }

      it("while we wait for the peer's close frame: no second one leaves", () => {
        const protocol = make(role)
        protocol.close(1000)
        output(protocol)
        const actions = receive(protocol, { ...hello, rsv: 1 })
        assert.deepStrictEqual(brief(actions), ["Closed", "EndTransport"])
        assert.deepStrictEqual(closedInfo(actions)!.sent, { code: 1000, reason: "" })
        assert.strictEqual(protocol.output.size, 0)
      })

      it("by the I/O layer, with a long detail cut to a close reason that is text", () => {
        const protocol = make(role)
        const actions = protocol.fail("ExtensionData", "é".repeat(200))
        assert.strictEqual(closedInfo(actions)!.code, 1007)
        const [frame] = output(protocol)
        assert.isAtMost(frame!.payload.length, 125)
        new TextDecoder("utf-8", { fatal: true }).decode(frame!.payload.subarray(2))
        assert.deepStrictEqual(protocol.fail("ExtensionData"), [])
      })
    })

    describe("deferEnd", () => {
      it("a close frame waits until the messages before it are answered", () => {
        const protocol = make(role, { deferEnd: true })
        assert.deepStrictEqual(brief(receive(protocol, hello, close(1001, "bye"), hello)), [
          ["Hello"],
          "EndPending",
          "StartCloseTimer"
        ])
        assert.isTrue(protocol.send("answer"))
        assert.deepStrictEqual(receive(protocol, hello), [])
        const actions = protocol.proceed()
        assert.isTrue(closedInfo(actions)!.clean)
        assert.strictEqual(closedInfo(actions)!.initiator, "remote")
        assert.deepStrictEqual(
          output(protocol).map(({ opcode }) => opcode),
          [1, 8]
        )
        assert.deepStrictEqual(protocol.proceed(), [])
      })

      it("so does a violation", () => {
        const protocol = make(role, { deferEnd: true })
        assert.deepStrictEqual(brief(receive(protocol, hello, { ...hello, rsv: 2 })), [
          ["Hello"],
          "EndPending",
          "StartCloseTimer"
        ])
        assert.isTrue(protocol.send("answer"))
        const actions = protocol.proceed()
        assert.deepStrictEqual(brief(actions), ["Closed", "EndTransport", "StartCloseTimer"])
        assert.strictEqual(closedInfo(actions)!.violation!.rule, "ReservedBits")
        assert.deepStrictEqual(
          output(protocol).map(({ opcode }) => opcode),
          [1, 8]
        )
      })

      const ways: ReadonlyArray<readonly [string, (protocol: Protocol) => ReadonlyArray<Action>]> = [
        ["the close timer", (protocol) => protocol.closeTimerFired()],
        ["the end of the transport", (protocol) => protocol.transportEnded()],
        ["close", (protocol) => protocol.close(1000)]
      ]
      for (const [what, way] of ways) {
        it(`${what} goes on with it too`, () => {
          const protocol = make(role, { deferEnd: true })
          receive(protocol, close(4000))
          assert.isTrue(closedInfo(way(protocol))!.clean)
          closeFrame(protocol, 4000)
        })
      }

      it("a lost transport tells what was received", () => {
        const closing = make(role, { deferEnd: true })
        receive(closing, close(4000, "why"))
        const { clean, code, received, sent } = closedInfo(closing.transportClosed())!
        assert.deepStrictEqual([clean, code, received, sent], [false, 4000, { code: 4000, reason: "why" }, undefined])
        const failing = make(role, { deferEnd: true })
        receive(failing, { ...hello, rsv: 1 })
        assert.strictEqual(closedInfo(failing.transportClosed())!.violation!.rule, "ReservedBits")
      })

      it("changes nothing when we began the closing handshake", () => {
        const protocol = make(role, { deferEnd: true })
        protocol.close(1000)
        assert.include(brief(receive(protocol, close(1000))), "Closed")
      })
    })

    describe("budget of receive and resume", () => {
      const rows: ReadonlyArray<
        readonly [what: string, messages: number, bytes: number, rounds: ReadonlyArray<number>]
      > = [
        ["exactly the number of messages", 4, everything, [4]],
        ["one message more", 3, everything, [3, 1]],
        ["exactly the number of bytes", everything, 20, [4]],
        ["one byte less than all", everything, 15, [3, 1]],
        ["a message that is larger than the budget", everything, 1, [1, 1, 1, 1]]
      ]
      for (const [what, messages, bytes, rounds] of rows) {
        it(what, () => {
          const protocol = make(role)
          const chunk = concat([hello, hello, hello, hello].map((fields) => peerFrame(role, fields)))
          const seen = [protocol.receive(chunk, messages, bytes)]
          while (protocol.paused) seen.push(protocol.resume(messages, bytes))
          assert.deepStrictEqual(
            seen.map(
              (actions) => actions.flatMap((action) => (action._tag === "Deliver" ? action.messages : [])).length
            ),
            rounds
          )
          assert.deepStrictEqual(protocol.resume(), [])
        })
      }

      it("what waits behind the budget, a close frame too, comes with resume", () => {
        const protocol = make(role)
        const chunk = concat([hello, hello, ping(), close(1000)].map((fields) => peerFrame(role, fields)))
        assert.deepStrictEqual(brief(protocol.receive(chunk, 1)), [["Hello"]])
        assert.isTrue(protocol.paused)
        assert.deepStrictEqual(brief(protocol.resume()).slice(0, 3), [["Hello"], "PingReceived", "Closed"])
        assert.isFalse(protocol.paused)
      })

      it("the end of the connection drops what waits", () => {
        const protocol = make(role)
        protocol.receive(concat([hello, hello].map((fields) => peerFrame(role, fields))), 1)
        protocol.transportClosed()
        assert.isFalse(protocol.paused)
        assert.deepStrictEqual(protocol.resume(), [])
      })
    })

    /** Everything a connection did with these pieces: actions with deliveries joined, then all output. */
    const trace = (pieces: Iterable<Uint8Array>, options: Partial<Options> = {}, lent?: Uint8Array) => {
      const protocol = make(role, options)
      const done: Array<unknown> = []
      const out: Array<Uint8Array> = []
      const see = (actions: ReadonlyArray<Action>) => {
        for (const action of actions) {
          if (action._tag === "Deliver") for (const message of action.messages) done.push(message)
          else done.push(action)
        }
      }
      for (const piece of pieces) {
        if (lent === undefined) see(protocol.receive(piece.slice()))
        else {
          lent.set(piece)
          see(protocol.receive(lent.subarray(0, piece.length), 1, everything, true))
          lent.fill(0xee)
          while (protocol.paused) see(protocol.resume(2))
        }
        out.push(...protocol.output.take().map((bytes) => bytes.slice()))
      }
      return { done, out: concat(out), state: protocol.state }
    }

    const ending = FastCheck.constantFrom<FrameFields>(
      ping("last"),
      close(1000),
      close(),
      close(1005),
      { ...hello, rsv: 2 },
      {
        opcode: 1,
        payload: hex("41 ff 41")
      }
    )

    it("the same bytes cut anywhere: the same actions, the same output, the same state", () => {
      FastCheck.assert(
        FastCheck.property(
          FastCheck.array(anySent, { maxLength: 3 }),
          ending,
          FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.nat(255)), { maxLength: 2 }),
          FastCheck.array(FastCheck.nat(), { maxLength: 8 }),
          (messages, last, changes, cuts) => {
            const bytes = concat([...messages.flatMap(framesOf), last, hello].map((fields) => peerFrame(role, fields)))
            for (const [place, byte] of changes) bytes[place % bytes.length] = byte
            const expected = trace([bytes])
            assert.deepStrictEqual(trace(cutAt(bytes, cuts)), expected)
            if (bytes.length < 2000) assert.deepStrictEqual(trace(chop(bytes, 1)), expected)
            assert.deepStrictEqual(trace(cutAt(bytes, cuts), {}, new Uint8Array(bytes.length)), expected)
          }
        ),
        { numRuns: 200 }
      )
    })

    it("what was lent may be written over while an extension works on it", () => {
      let finish = () => {}
      const session: Extension.Session = {
        encode: ({ payload }) => ({ payload, rsv: 0 }),
        decode: ({ payload }, done) => {
          finish = () => done(payload)
          return undefined
        }
      }
      const pipeline = Extension.open([{ name: "x", params: [], rsv: 0, open: () => session }], { role })
      const delivered: Array<unknown> = []
      const deliver = (actions: ReadonlyArray<Action>) => delivered.push(...brief(actions))
      const protocol = make(role, { pipeline, onProgress: deliver })
      // Both more and less than the share of its memory above which a payload is not copied
      const long = "x".repeat(100)
      const lent = concat([long, "b", "c"].map((text) => peerFrame(role, { opcode: 1, payload: utf8(text) })))
      deliver(protocol.receive(lent, everything, everything, true))
      lent.fill(0xee)
      for (let i = 0; i < 3; i++) {
        assert.isTrue(protocol.busy)
        finish()
        deliver(protocol.resume())
      }
      assert.deepStrictEqual(delivered, [[long], ["b"], ["c"]])
    })

    it("random bytes never throw, and leave at most one close frame, as the last frame", () => {
      FastCheck.assert(
        FastCheck.property(
          FastCheck.array(FastCheck.uint8Array({ maxLength: 60, size: "max" }), { maxLength: 5 }),
          (pieces) => {
            const { out, state } = trace(pieces)
            const closes = readFrames(out).flatMap(({ opcode }, i) => (opcode === 8 ? [i] : []))
            assert.isAtMost(closes.length, 1)
            if (state._tag === "Closed") assert.deepStrictEqual(closes, [readFrames(out).length - 1])
          }
        ),
        { numRuns: 500 }
      )
    })

    describe("a broken rule while an extension delays what was sent", () => {
      /** Finishes a message when asked to. */
      const delayed = () => {
        let finish = () => {}
        const session: Extension.Session = {
          encode: ({ payload }, done) => {
            finish = () => done({ payload, rsv: 0 })
            return undefined
          },
          decode: ({ payload }) => payload
        }
        const pipeline = Extension.open([{ name: "x", params: [], rsv: 0x40, open: () => session }], { role })
        return { protocol: make(role, { pipeline }), finish: () => finish() }
      }
      const broken: FrameFields = { opcode: 3 }

      it("our close frame overtakes what waits", () => {
        const { finish, protocol } = delayed()
        protocol.send("waits")
        protocol.close(4000, "bye")
        assert.strictEqual(protocol.output.size, 0)
        const info = closedInfo(receive(protocol, broken))!
        assert.strictEqual(info.violation?.rule, "ReservedOpcode")
        assert.deepStrictEqual(info.sent, { code: 4000, reason: "bye" })
        closeFrame(protocol, 4000, "bye")
        finish()
        assert.strictEqual(protocol.output.size, 0)
      })

      it("our close frame is not sent again when it left behind it", () => {
        const { finish, protocol } = delayed()
        protocol.send("waits")
        protocol.close(4000, "bye")
        finish()
        assert.deepStrictEqual(
          output(protocol).map(({ opcode }) => opcode),
          [1, 8]
        )
        assert.strictEqual(closedInfo(receive(protocol, broken))!.violation?.rule, "ReservedOpcode")
        assert.strictEqual(protocol.output.size, 0)
      })
    })

    it("holds little when idle, and gives back what it held when it closes", () => {
      const protocol = make(role)
      const own = () => retainedBytes({ ...protocol, output: undefined })
      assert.strictEqual(own(), 0)
      receive(protocol, { opcode: 2, payload: new Uint8Array(10_000), fin: false })
      assert.isAtLeast(own(), 10_000)
      receive(protocol, close(1000))
      assert.isAtMost(own(), 100)
    })
  })
}

describe("Protocol", () => {
  it("a client without a source of keys is a defect", () => {
    assert.throws(() => new Protocol({ role: "client" }), TypeError)
    assert.doesNotThrow(() => new Protocol({ role: "server" }))
  })

  it("sends frames that were encoded before, of any size", () => {
    for (const size of [5, 32 * 1024, 40_000, 200_000]) {
      const protocol = make("server")
      const payload = new Uint8Array(size).fill(7)
      protocol.send("before")
      assert.isTrue(protocol.sendEncoded(FrameEncoder.frame(portable, 2, payload)))
      protocol.send("after")
      assert.deepStrictEqual(
        output(protocol).map((frame) => frame.payload),
        [utf8("before"), payload, utf8("after")]
      )
    }
  })

  it("limits that are not said are the defaults", () => {
    assert.deepStrictEqual(make("server", { limits: { maxMessageBytes: 5 } }).limits, {
      ...make("server").limits,
      maxMessageBytes: 5
    })
  })
})
