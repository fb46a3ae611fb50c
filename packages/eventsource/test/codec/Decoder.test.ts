import { FastCheck as fc } from "effect"
import { assert, describe, it } from "vitest"
import { Decoder, encode, type Item, type Options, type Outgoing } from "../../src/codec/index.js"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** All items of a stream given as chunks. */
const decode = (chunks: ReadonlyArray<Uint8Array>, options?: Options): Array<Item> => {
  const decoder = new Decoder(options)
  return chunks.flatMap((chunk) => decoder.push(chunk.slice()))
}

const event = (data: string, fields: { event?: string; id?: string; lastEventId?: string } = {}): Item => ({
  _tag: "Event",
  event: fields.event ?? "message",
  data,
  id: fields.id,
  lastEventId: fields.lastEventId ?? fields.id ?? ""
})

const retry = (milliseconds: number): Item => ({ _tag: "Retry", milliseconds })
const comment = (text: string): Item => ({ _tag: "Comment", text })

/** Every way to cut into two, and one byte at a time, must give what the whole gives. */
const cuttings = (whole: Uint8Array): Array<Array<Uint8Array>> => [
  [whole],
  Array.from(whole, (_, index) => whole.subarray(index, index + 1)),
  ...Array.from(whole, (_, index) => [whole.subarray(0, index), whole.subarray(index)])
]

const rows: ReadonlyArray<
  readonly [rule: string, stream: string | Uint8Array, items: ReadonlyArray<Item>, options?: Options]
> = [
  ["one data line", "data: hello\n\n", [event("hello")]],
  ["data lines are joined by LF", "data: a\ndata: b\ndata:\ndata: c\n\n", [event("a\nb\n\nc")]],
  ["one space after the colon is dropped, no more", "data:a\n\ndata:  b\n\n", [event("a"), event(" b")]],
  ["a field without colon has an empty value", "data\n\n", [event("")]],
  ["data without colon twice is one line break", "data\ndata\n\n", [event("\n")]],
  ["empty data is an event", "data:\n\ndata: \n\n", [event(""), event("")]],
  ["a block without data is not dispatched", "event: x\n\ndata: a\n\n", [event("a")]],
  ["a block without data resets the event type", "event: x\n\ndata: a\n\n", [event("a")]],
  ["the event type", "event: tick\ndata: a\n\ndata: b\n\n", [event("a", { event: "tick" }), event("b")]],
  ["the last event type wins", "event: a\nevent: b\ndata: x\n\n", [event("x", { event: "b" })]],
  ["an empty event type is message", "event: a\nevent\ndata: x\n\nevent:\ndata: y\n\n", [event("x"), event("y")]],
  ["the event type may follow the data", "data: x\nevent: b\n\n", [event("x", { event: "b" })]],
  ["id is sticky", "id: 1\ndata: a\n\ndata: b\n\n", [event("a", { id: "1" }), event("b", { lastEventId: "1" })]],
  ["id in a block without data is kept", "id: 7\n\ndata: a\n\n", [event("a", { lastEventId: "7" })]],
  [
    "an empty id resets it",
    "id: 1\ndata: a\n\nid\ndata: b\n\n",
    [event("a", { id: "1" }), event("b", { id: "", lastEventId: "" })]
  ],
  ["id with NUL is ignored", "id: 1\n\nid: 2\0\ndata: a\n\n", [event("a", { lastEventId: "1" })]],
  ["retry", "retry: 1500\n\nretry:0\n", [retry(1500), retry(0)]],
  ["retry takes digits only", "retry: 12abc\nretry: -1\nretry: 1.5\nretry:  1\nretry:\nretry\nretry: ١\n", []],
  ["retry needs no blank line, and leaves the block alone", "data: a\nretry: 5\n\n", [retry(5), event("a")]],
  ["a huge retry stays a number", "retry: 99999999999999999999999\n", [retry(Number.MAX_SAFE_INTEGER)]],
  ["comments are ignored", ": hi\n:\ndata: a\n: there\n\n", [event("a")]],
  [
    "comments on request",
    ": hi\n:\n:  two\ndata: a\n\n",
    [comment("hi"), comment(""), comment(" two"), event("a")],
    { comments: true }
  ],
  [
    "unknown fields are ignored",
    "foo: 1\nDATA: x\ndata : y\ndat: z\ndatax: z\nidx: 4\nid2\nevents: x\ndata: a\n\n",
    [event("a")]
  ],
  ["a colon in the value", "data: a: b:\n\n", [event("a: b:")]],
  ["an event cut off by the end is discarded", "data: a\n\ndata: b\n", [event("a")]],
  ["CR", "data: a\rdata: b\r\rdata: c\r\r", [event("a\nb"), event("c")]],
  [
    "CRLF",
    "id: 1\r\nevent: t\r\ndata: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
    [event("a\nb", { id: "1", event: "t" }), event("c", { lastEventId: "1" })]
  ],
  [
    "mixed line ends",
    "data: a\n\r\ndata: b\r\rdata: c\r\n\ndata: d\n\r",
    [event("a"), event("b"), event("c"), event("d")]
  ],
  ["LF CR is two line ends", "data: a\n\rdata: b\n\n", [event("a"), event("b")]],
  ["a leading byte order mark", "\uFEFFdata: a\n\n", [event("a")]],
  ["only one of them", "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", [event("b")]],
  ["a later one is data", "data: \uFEFFa\n\n", [event("\uFEFFa")]],
  ["characters of two, three and four bytes", "data: é✓😀\n\n", [event("é✓😀")]],
  [
    "invalid UTF-8 is replaced",
    new Uint8Array([...bytes("data: "), 0xff, 0xc3, 0x41, 0xe2, 0x9c, 0x0a, 0x0a]),
    [event("\uFFFD\uFFFDA\uFFFD")]
  ],
  [
    "an overlong form is replaced byte by byte",
    new Uint8Array([...bytes("data: "), 0xf0, 0x80, 0x80, 0x80, 0x0a, 0x0a]),
    [event("\uFFFD\uFFFD\uFFFD\uFFFD")]
  ],
  [
    "a surrogate is replaced byte by byte",
    new Uint8Array([...bytes("data: "), 0xed, 0xa0, 0x80, 0x0a, 0x0a]),
    [event("\uFFFD\uFFFD\uFFFD")]
  ],
  ["the resumed last event ID", "data: a\n\n", [event("a", { lastEventId: "41" })], { lastEventId: "41" }]
]

describe("the rules of the event stream (WHATWG HTML §9.2.6), cut anywhere", () => {
  for (const [rule, stream, items, options] of rows) {
    it(rule, () => {
      const whole = typeof stream === "string" ? bytes(stream) : stream
      for (const chunks of cuttings(whole)) assert.deepStrictEqual(decode(chunks, options), items)
    })
  }
})

const line = (length: number): string => "x".repeat(length)

const limitRows: ReadonlyArray<readonly [string, string, ReadonlyArray<Item>, Options]> = [
  ["a line at its limit", `data: ${line(94)}\n\n`, [event(line(94))], { maxLineBytes: 100 }],
  [
    "a line past it",
    `data: a\n\ndata: ${line(95)}\n\ndata: b\n\n`,
    [event("a"), { _tag: "LimitExceeded", limit: "maxLineBytes", bytes: 100 }],
    { maxLineBytes: 100 }
  ],
  [
    "a line past it that never ends",
    `:${line(100)}`,
    [{ _tag: "LimitExceeded", limit: "maxLineBytes", bytes: 100 }],
    { maxLineBytes: 100 }
  ],
  ["a line at its limit, in bytes", `data: ${"é".repeat(47)}\n\n`, [event("é".repeat(47))], { maxLineBytes: 100 }],
  [
    "a line past it, in bytes",
    `data: ${"é".repeat(47)}x\n\n`,
    [{ _tag: "LimitExceeded", limit: "maxLineBytes", bytes: 100 }],
    { maxLineBytes: 100 }
  ],
  [
    "an event at its limit",
    `data: ${line(49)}\ndata: ${line(50)}\n\n`,
    [event(`${line(49)}\n${line(50)}`)],
    { maxEventBytes: 100 }
  ],
  [
    "an event past it",
    `data: ${line(49)}\ndata: ${line(51)}\n\n`,
    [{ _tag: "LimitExceeded", limit: "maxEventBytes", bytes: 100 }],
    { maxEventBytes: 100 }
  ],
  [
    "an event of one line past it",
    `data: ${line(101)}\n\n`,
    [{ _tag: "LimitExceeded", limit: "maxEventBytes", bytes: 100 }],
    { maxEventBytes: 100 }
  ],
  [
    "an event past it, in bytes",
    `data: ${"✓".repeat(33)}\ndata\ndata\n\n`,
    [{ _tag: "LimitExceeded", limit: "maxEventBytes", bytes: 100 }],
    { maxEventBytes: 100 }
  ],
  [
    "an event at it, in bytes",
    `data: ${"✓".repeat(33)}\ndata\n\n`,
    [event(`${"✓".repeat(33)}\n`)],
    { maxEventBytes: 100 }
  ],
  [
    "many empty data lines",
    `${"data\n".repeat(102)}\n`,
    [{ _tag: "LimitExceeded", limit: "maxEventBytes", bytes: 100 }],
    { maxEventBytes: 100 }
  ],
  [
    "many events are no matter",
    `data: ${line(90)}\n\n`.repeat(3),
    [event(line(90)), event(line(90)), event(line(90))],
    { maxEventBytes: 100 }
  ]
]

describe("limits", () => {
  for (const [rule, stream, items, options] of limitRows) {
    it(rule, () => {
      for (const chunks of cuttings(bytes(stream))) assert.deepStrictEqual(decode(chunks, options), items)
    })
  }

  it("gives nothing more after a limit was passed", () => {
    const decoder = new Decoder({ maxLineBytes: 8 })
    assert.deepStrictEqual(decoder.push(bytes("123456789")), [
      { _tag: "LimitExceeded", limit: "maxLineBytes", bytes: 8 }
    ])
    assert.deepStrictEqual(decoder.push(bytes("\n\ndata: a\n\n")), [])
  })

  it("takes a long line of one-byte chunks", () => {
    const decoder = new Decoder()
    const chunk = bytes("x")
    decoder.push(bytes("data:"))
    for (let index = 0; index < 200_000; index++) decoder.push(chunk)
    assert.deepStrictEqual(decoder.push(bytes("\n\n")), [event(line(200_000))])
  })
})

/** Text that the format can carry: no CR, which would come back as LF, and no half of a surrogate pair. */
const text = fc.fullUnicodeString({ maxLength: 40 }).map((text) => text.replace(/\r/g, "\n"))
const oneLine = text.map((text) => text.replace(/[\n\0]/g, ""))

const outgoing: fc.Arbitrary<Outgoing> = fc.oneof(
  fc.record({
    _tag: fc.constant("Event" as const),
    event: oneLine.map((name) => (name === "" ? "message" : name)),
    data: fc.oneof(
      text,
      fc.array(text).map((lines) => lines.join("\n"))
    ),
    id: fc.option(oneLine, { nil: undefined })
  }),
  oneLine.map((text) => ({ _tag: "Comment" as const, text })),
  fc.nat().map((milliseconds) => ({ _tag: "Retry" as const, milliseconds }))
)

/** Cuts bytes at the given fractions. */
const cut = (whole: Uint8Array, at: ReadonlyArray<number>): Array<Uint8Array> => {
  const points = [0, ...at.map((fraction) => Math.floor(fraction * whole.length)).sort((a, b) => a - b), whole.length]
  return points.slice(1).map((point, index) => whole.subarray(points[index]!, point))
}

const fractions = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 })

describe("properties", () => {
  const lineBreaks = fc.oneof(
    fc.constantFrom("\n", "\r\n", "\r").map((one) => [one]),
    fc.array(fc.constantFrom("\n", "\r\n", "\r"), { minLength: 2, maxLength: 7 })
  )

  it("decode after encode is the identity, whatever the line breaks", () => {
    fc.assert(
      fc.property(fc.array(outgoing), lineBreaks, fractions, (items, breaks, at) => {
        let line = 0
        // A CR and a LF that end two lines are one CRLF: where line breaks differ, a blank line follows none that is a CR.
        const stream = items
          .map((item) => encode(item) as string)
          .join("")
          .replace(/\n/g, (_, index: number, text: string) => {
            const one = breaks[line++ % breaks.length]!
            return one === "\r" && breaks.length > 1 && text[index + 1] === "\n" ? "\r\n" : one
          })
        let lastEventId = ""
        const expected = items.map((item) => {
          if (item._tag !== "Event") return item
          lastEventId = item.id ?? lastEventId
          return { ...item, lastEventId }
        })
        assert.deepStrictEqual(decode(cut(bytes(stream), at), { comments: true }), expected)
      })
    )
  })

  it("every cutting of any bytes gives the same items", () => {
    const fragment = fc.oneof(
      fc
        .constantFrom(
          "data",
          "id",
          "event",
          "retry",
          ":",
          " ",
          "\n",
          "\n\n",
          "\r",
          "\r\n",
          "\0",
          "1",
          "é",
          "😀",
          "\uFEFF"
        )
        .map(bytes),
      fc.uint8Array({ maxLength: 6 })
    )
    fc.assert(
      fc.property(fc.array(fragment, { maxLength: 60 }), fractions, (fragments, at) => {
        const whole = Uint8Array.from(fragments.flatMap((part) => [...part]))
        const options = { comments: true, maxLineBytes: 24, maxEventBytes: 40 }
        const expected = decode([whole], options)
        assert.deepStrictEqual(decode(cut(whole, at), options), expected)
        assert.deepStrictEqual(
          decode(
            Array.from(whole, (byte) => Uint8Array.of(byte)),
            options
          ),
          expected
        )
      }),
      { numRuns: 500 }
    )
  })
})
