import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as HttpBody from "../../src/engine/HttpBody.js"
import * as HttpHead from "../../src/engine/HttpHead.js"

const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0))

const make = (status: number, headers: Record<string, string>, maxBytes: number) =>
  HttpBody.make({ status, reason: "", httpVersion: "1.1", headers, rawHeaders: [] }, maxBytes)

/** Whether the body is complete, and its text. */
const read = (body: HttpBody.HttpBody, chunks: ReadonlyArray<Uint8Array>) => {
  let done = body.push(new Uint8Array(0))
  for (const chunk of chunks) done = body.push(chunk)
  return [done, body.text()] as const
}

const chunked = { "transfer-encoding": "chunked" }

describe("HttpBody", () => {
  type Row = readonly [
    rule: string,
    status: number,
    headers: Record<string, string>,
    sent: string,
    done: boolean,
    text: string
  ]
  // The limit is 8 bytes.
  const rows: ReadonlyArray<Row> = [
    ["RFC 9112 §6.3 item 1: 204 has none", 204, { "content-length": "3" }, "abc", true, ""],
    ["RFC 9112 §6.3 item 1: 304 has none", 304, chunked, "abc", true, ""],
    ["§6.3 item 6: a length", 400, { "content-length": "3" }, "abcdef", true, "abc"],
    ["a length that is not reached", 400, { "content-length": "3" }, "ab", false, "ab"],
    ["length 0", 400, { "content-length": "0" }, "abc", true, ""],
    ["a length of the limit", 400, { "content-length": "8" }, "12345678", true, "12345678"],
    ["a length beyond the limit", 400, { "content-length": "9" }, "123456789", true, "12345678"],
    ["§6.3 item 8: until the end", 400, {}, "abc", false, "abc"],
    ["until the end, at the limit", 400, {}, "12345678", true, "12345678"],
    [
      "§6.3 item 4: an encoding that does not end with chunked: until the end",
      400,
      { "transfer-encoding": "chunked, gzip" },
      "1\r\na",
      false,
      "1\r\na"
    ],
    ["§7.1: chunks", 400, chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", true, "abcde"],
    [
      "chunked after another encoding, any case",
      400,
      { "transfer-encoding": "gzip, Chunked" },
      "1\r\na\r\n0\r\n\r\n",
      true,
      "a"
    ],
    [
      "Transfer-Encoding counts more than the length",
      400,
      { ...chunked, "content-length": "1" },
      "2\r\nab\r\n0\r\n\r\n",
      true,
      "ab"
    ],
    ["sizes are hexadecimal, either case, with leading zeros", 400, chunked, "0A\r\n1234567890", true, "12345678"],
    ["§7.1.1: extensions are skipped", 400, chunked, '2 ;a="b"\r\nab\r\n0\r\n\r\n', true, "ab"],
    ["the last chunk is missing", 400, chunked, "2\r\nab\r\n", false, "ab"],
    ["chunks up to the limit", 400, chunked, "4\r\n1234\r\n4\r\n5678", true, "12345678"],
    ["chunks beyond the limit", 400, chunked, "4\r\n1234\r\n5\r\n56789", true, "12345678"],
    ["no size", 400, chunked, ";\r\nabc", true, ""],
    ["a size that is no number", 400, chunked, "-1\r\nabc", true, ""],
    ["a size of nine digits", 400, chunked, "100000000\r\nabc", true, ""],
    ["an endless line", 400, chunked, `1;${"a".repeat(2000)}`, true, ""],
    ["malformed UTF-8 becomes U+FFFD", 400, {}, "a\xff", false, "a\ufffd"],
    ["text cut at the limit", 400, {}, "1234567\xc3\xa9", true, "1234567\ufffd"]
  ]
  it.each(rows)("%s", (_, status, headers, sent, done, text) => {
    assert.deepStrictEqual(read(make(status, headers, 8), [bytes(sent)]), [done, text])
    // Cut into single bytes the result is the same.
    assert.deepStrictEqual(
      read(
        make(status, headers, 8),
        [...bytes(sent)].map((byte) => Uint8Array.of(byte))
      ),
      [done, text]
    )
  })

  it("random bytes never throw, and never give more than the limit", () => {
    const piece = FastCheck.oneof(
      FastCheck.uint8Array({ maxLength: 20 }),
      FastCheck.constantFrom("5\r\n", "\r\n", "0\r\n\r\n", "hello", ";").map(bytes)
    )
    FastCheck.assert(
      FastCheck.property(FastCheck.array(piece), FastCheck.boolean(), (chunks, isChunked) => {
        const body = make(500, isChunked ? chunked : {}, 16)
        for (const chunk of chunks) body.push(chunk)
        assert.isAtMost(body.text().length, 16)
      })
    )
  })

  it("follows a head as HttpHead gives it", () => {
    const result = HttpHead.make("response").push(bytes("HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nnope"))
    assert.strictEqual(result._tag, "Head")
    if (result._tag !== "Head") return
    const body = HttpBody.make(result.head, 100)
    assert.isTrue(body.push(result.rest))
    assert.strictEqual(body.text(), "nope")
  })
})
