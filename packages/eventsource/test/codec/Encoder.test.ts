import { assert, describe, it } from "vitest"
import { encode, type Outgoing } from "../../src/codec/index.js"

const event = (data: string, event = "message", id?: string): Outgoing => ({ _tag: "Event", event, data, id })

const rows: ReadonlyArray<readonly [rule: string, value: Outgoing, text: ReturnType<typeof encode>]> = [
  ["data", event("hello"), "data: hello\n\n"],
  ["data with a leading space keeps it", event(" a"), "data:  a\n\n"],
  ["empty data is an event", event(""), "data: \n\n"],
  ["LF, CR and CRLF end data lines", event("a\nb\rc\r\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n"],
  ["a line break at the end is kept", event("a\n"), "data: a\ndata: \n\n"],
  ["CRLF is one line break, LF CR two", event("a\n\rb"), "data: a\ndata: \ndata: b\n\n"],
  ["event and id before the data", event("x", "tick", "7"), "event: tick\nid: 7\ndata: x\n\n"],
  ["an empty id resets", event("x", "message", ""), "id: \ndata: x\n\n"],
  [
    "no injection by event",
    event("x", "a\ndata: y"),
    { _tag: "Unrepresentable", field: "event", rule: "line break", value: "a\ndata: y" }
  ],
  ["nor with CR", event("x", "a\rb"), { _tag: "Unrepresentable", field: "event", rule: "line break", value: "a\rb" }],
  [
    "no injection by id",
    event("x", "message", "1\nretry: 0"),
    { _tag: "Unrepresentable", field: "id", rule: "line break", value: "1\nretry: 0" }
  ],
  [
    "an id with NUL would be ignored",
    event("x", "message", "1\0"),
    { _tag: "Unrepresentable", field: "id", rule: "NUL", value: "1\0" }
  ],
  ["a comment", { _tag: "Comment", text: "hi" }, ": hi\n\n"],
  ["an empty comment", { _tag: "Comment", text: "" }, ":\n\n"],
  ["a comment of two lines stays a comment", { _tag: "Comment", text: "a\r\ndata: b" }, ": a\n: data: b\n\n"],
  ["retry", { _tag: "Retry", milliseconds: 1500 }, "retry: 1500\n\n"],
  [
    "retry is whole",
    { _tag: "Retry", milliseconds: 1.5 },
    { _tag: "Unrepresentable", field: "retry", rule: "not a whole number", value: "1.5" }
  ],
  [
    "retry is not negative",
    { _tag: "Retry", milliseconds: -1 },
    { _tag: "Unrepresentable", field: "retry", rule: "not a whole number", value: "-1" }
  ]
]

describe("the text of values (WHATWG HTML §9.2.5)", () => {
  it.each(rows)("%s", (_, value, text) => {
    assert.deepStrictEqual(encode(value), text)
  })
})
