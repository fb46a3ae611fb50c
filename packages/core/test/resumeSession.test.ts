/** The state of one end of a resumable session, and the frames that ends exchange: tables of values in and out. */
import { assert, describe, it } from "@effect/vitest"
import { type Position, ResumeSession, type StoreLimits } from "../src/internal/resumeSession.js"
import * as Wire from "../src/internal/resumeWire.js"

const limits = (limits: Partial<StoreLimits> = {}): StoreLimits => ({
  maxMessages: 4,
  maxBytes: 1000,
  overflow: "suspend",
  ...limits
})

const bytes = (text: string) => new TextEncoder().encode(text)

/** A session that has sent and received as many messages. */
const session = (sent: number, received: number, given?: Partial<StoreLimits>) => {
  const made = new ResumeSession(limits(given))
  for (let i = 1; i <= sent; i++) made.send(`m${i}`, Number.MAX_SAFE_INTEGER)
  for (let i = 1; i <= received; i++) made.receive(i)
  return made
}

describe("sending", () => {
  it("numbers count from 1, and messages are kept until they are acknowledged", () => {
    const made = session(0, 0)
    assert.deepStrictEqual([made.sent, made.first, made.count, made.bytes], [0, 1, 0, 0])
    assert.strictEqual(made.send("ab", 0), 1)
    assert.strictEqual(made.send(Uint8Array.of(1, 2, 3), 0), 2)
    assert.deepStrictEqual([made.sent, made.first, made.count, made.bytes], [2, 1, 2, 7])
    assert.isTrue(made.acknowledge(1))
    assert.deepStrictEqual([made.sent, made.first, made.count, made.bytes, made.acked], [2, 2, 1, 3, 1])
    assert.strictEqual(made.at(1), undefined)
    assert.deepStrictEqual(made.at(2), Uint8Array.of(1, 2, 3))
    assert.isTrue(made.acknowledge(2))
    assert.deepStrictEqual([made.sent, made.first, made.count, made.bytes], [2, 3, 0, 0])
    assert.strictEqual(made.send("c", 0), 3)
  })

  for (const [name, given, sent, expendable, room] of [
    ["room for as many messages as are kept", {}, 1, 1, 3],
    ["none when all are kept", {}, 4, 4, 0],
    ["none when the bytes are", { maxBytes: 8 }, 2, 2, 0],
    ["one below", { maxBytes: 9 }, 2, 2, 2],
    ["always room where a message may be given up", { overflow: "gap" }, 4, 4, Number.MAX_SAFE_INTEGER],
    ["not where none may", { overflow: "gap" }, 4, 0, 0]
  ] as const) {
    it(`${name}`, () => assert.strictEqual(session(sent, 0, given).room(expendable), room))
  }

  it("overflow: the oldest are given up, but none that may not", () => {
    const made = session(6, 0, { overflow: "gap" })
    assert.deepStrictEqual([made.first, made.sent, made.count], [3, 6, 4])
    made.send("m7", 3)
    made.send("m8", 3)
    assert.deepStrictEqual([made.first, made.sent, made.count], [4, 8, 5])
    const heavy = session(0, 0, { overflow: "gap", maxBytes: 10 })
    heavy.send("12345", 9)
    heavy.send("123456789", 9)
    assert.deepStrictEqual([heavy.first, heavy.count, heavy.bytes], [2, 1, 18])
  })

  it("memory follows what is kept, not what was sent", () => {
    const made = session(0, 0)
    for (let i = 1; i <= 10_000; i++) {
      made.send("x", 0)
      if (i > 2) made.acknowledge(i - 2)
    }
    assert.deepStrictEqual([made.count, made.bytes, made.sent], [2, 4, 10_000])
    assert.isAtMost((made as unknown as { kept: Array<unknown> }).kept.length, 8)
    assert.strictEqual(made.bytesAfter(9_999), 2)
    assert.deepStrictEqual(made.unacknowledged, ["x", "x"])
  })
})

describe("receiving", () => {
  for (const [name, received, seq, verdict, after] of [
    ["the next one is delivered", 0, 1, "deliver", 1],
    ["also after others", 7, 8, "deliver", 8],
    ["the last one again is a duplicate", 7, 7, "duplicate", 7],
    ["so is an older one", 7, 1, "duplicate", 7],
    ["one that leaves others out is a gap", 7, 9, "gap", 7]
  ] as const) {
    it(name, () => {
      const made = session(0, received)
      assert.strictEqual(made.receive(seq), verdict)
      assert.strictEqual(made.received, after)
    })
  }

  for (const [name, acked, ack, valid, first] of [
    ["an acknowledgement frees what it covers", 0, 2, true, 3],
    ["the same again changes nothing", 2, 2, true, 3],
    ["an older one neither", 2, 1, true, 3],
    ["one of nothing neither", 0, 0, true, 1],
    ["one of what was not sent is refused", 2, 4, false, 3]
  ] as const) {
    it(name, () => {
      const made = session(3, 0)
      made.acknowledge(acked)
      assert.strictEqual(made.acknowledge(ack), valid)
      assert.strictEqual(made.first, first)
    })
  }
})

describe("fitting together", () => {
  // This end sent 10 messages, 1 to 6 were acknowledged, and it received 5.
  const peer = (position: Partial<Position>): Position => ({ received: 8, acked: 6, first: 4, sent: 7, ...position })
  for (const [name, position, fit, first] of [
    ["both continue", {}, "resumed", 7],
    ["what the peer has taken meanwhile is forgotten", { acked: 8 }, "resumed", 9],
    ["all arrived", { received: 10, acked: 10, first: 6, sent: 5 }, "resumed", 11],
    ["the peer gave up what this end needs", { first: 7 }, "overflow", 7],
    ["just not", { first: 6 }, "resumed", 7],
    ["the peer has received what was never sent", { received: 11 }, "unknown", 7],
    ["this end has received what the peer never sent", { first: 1, sent: 4 }, "unknown", 7],
    ["the peer forgot what it had acknowledged", { received: 5, acked: 5 }, "unknown", 7],
    ["more acknowledged than received", { received: 7, acked: 8 }, "unknown", 7]
  ] as const) {
    it(name, () => {
      const made = session(10, 5, { maxMessages: 20 })
      made.acknowledge(6)
      assert.strictEqual(made.fit(peer(position)), fit)
      assert.strictEqual(made.first, first)
    })
  }

  it("this end gave up what the peer needs", () => {
    const made = session(10, 0, { overflow: "gap" })
    assert.strictEqual(made.fit({ received: 5, acked: 0, first: 1, sent: 0 }), "overflow")
    assert.strictEqual(made.fit({ received: 6, acked: 0, first: 1, sent: 0 }), "resumed")
  })

  it("a snapshot goes on", () => {
    const made = new ResumeSession(limits(), { sent: 9, acked: 7, received: 3, messages: ["m8", "m9"] })
    assert.deepStrictEqual([made.first, made.sent, made.bytes, made.at(8), made.received], [8, 9, 8, "m8", 3])
    assert.strictEqual(made.receive(4), "deliver")
    assert.strictEqual(made.send("m10", 0), 10)
  })
})

describe("frames", () => {
  const id = "0123456789abcdef0123456789abcdef"
  const wish = { ackMessages: 256, ackBytes: 65536 }
  const max = Number.MAX_SAFE_INTEGER
  for (const [name, message, frame] of [
    ["text", "7\n{}", { _tag: "Data", seq: 7, ack: undefined, payload: "{}" }],
    ["text with an acknowledgement", "7,3\nhi\n", { _tag: "Data", seq: 7, ack: 3, payload: "hi\n" }],
    ["empty text", "1,0\n", { _tag: "Data", seq: 1, ack: 0, payload: "" }],
    ["the largest numbers", `${max},${max}\nx`, { _tag: "Data", seq: max, ack: max, payload: "x" }],
    [
      "bytes",
      Uint8Array.of(0x37, 0x2c, 0x33, 0x0a, 0, 255),
      { _tag: "Data", seq: 7, ack: 3, payload: Uint8Array.of(0, 255) }
    ],
    ["acknowledgement", "A12", { _tag: "Ack", ack: 12 }],
    ["bye", "B4001 see you, ünder the bridge", { _tag: "Bye", code: 4001, reason: "see you, ünder the bridge" }],
    ["bye without a reason", "B1000 ", { _tag: "Bye", code: 1000, reason: "" }],
    [
      "hello of a new session",
      "H1 - 0 0 1 0 256 65536",
      { _tag: "Hello", id: undefined, received: 0, acked: 0, first: 1, sent: 0, ...wish }
    ],
    ["hello", `H1 ${id} 8 6 4 7 256 65536`, { _tag: "Hello", id, received: 8, acked: 6, first: 4, sent: 7, ...wish }],
    [
      "welcome",
      `W1 resumed ${id} 5 4 256 65536`,
      { _tag: "Welcome", status: "resumed", id, received: 5, acked: 4, ...wish }
    ]
  ] as const) {
    it(`${name} is read and written`, () => {
      assert.deepStrictEqual(Wire.parse(message), frame as unknown as Wire.Frame)
      const read = Wire.parse(message)
      const written =
        read._tag === "Data"
          ? Wire.formatData(read.seq, read.ack, read.payload)
          : read._tag === "Ack"
            ? Wire.formatAck(read.ack)
            : read._tag === "Bye"
              ? Wire.formatBye(read.code, read.reason)
              : read._tag === "Hello"
                ? Wire.formatHello(read)
                : read._tag === "Welcome"
                  ? Wire.formatWelcome(read)
                  : ""
      assert.deepStrictEqual(written, message)
    })
  }

  for (const message of [
    "",
    new Uint8Array(0),
    "hello",
    '{"text":"no frame"}',
    "0\nnumbers count from 1",
    "01\nx",
    "1",
    "1,\nx",
    "1,01\nx",
    "1,2,3\nx",
    "-1\nx",
    "1.5\nx",
    "9007199254740992\nx",
    `1${" ".repeat(40)}\nx`,
    bytes("A12"),
    bytes("1 \nx"),
    bytes("123"),
    "A",
    "A-1",
    "A1 ",
    "B",
    "B1005 ",
    "B999 ",
    "B1000",
    `B1000 ${"x".repeat(124)}`,
    "H2 - 0 0 1 0 1 1",
    "H1 - 0 0 1 0 1",
    "H1 - 0 0 1 0 1 1 1",
    "H1 short 0 0 1 0 1 1",
    "H1 ../../../../etc/passwd 0 0 1 0 1 1",
    `H1 ${"a".repeat(65)} 0 0 1 0 1 1`,
    "H1 - 0 1 1 0 1 1",
    "H1 - 0 0 0 0 1 1",
    "H1 - 0 0 2 0 1 1",
    "W2 new 0123456789abcdef 0 0 1 1",
    "W1 other 0123456789abcdef 0 0 1 1",
    "W1 new - 0 0 1 1",
    "W1 new 0123456789abcdef 0 1 1 1",
    "W1 new 0123456789abcdef 0 0 1"
  ]) {
    it(`malformed: ${JSON.stringify(typeof message === "string" ? message.slice(0, 40) : [...message])}`, () =>
      assert.strictEqual(Wire.parse(message)._tag, "Malformed"))
  }

  it("a header has at most 34 bytes", () => {
    const frame = Wire.formatData(max, max, new Uint8Array(0))
    assert.isAtMost(frame.length, Wire.maxHeaderBytes)
    assert.strictEqual(Wire.parse(frame)._tag, "Data")
  })
})
