import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as HttpHead from "../../src/engine/HttpHead.js"

type Kind = "request" | "response"
type Result = ReturnType<HttpHead.HttpHead<HttpHead.RequestHead | HttpHead.ResponseHead>["push"]>

const bytes = HttpHead.encode
const parser = (
  kind: Kind,
  options?: HttpHead.Options
): HttpHead.HttpHead<HttpHead.RequestHead | HttpHead.ResponseHead> =>
  kind === "request" ? HttpHead.make(kind, options) : HttpHead.make(kind, options)

/** The result of all chunks, `rest` with what comes after. */
const pushAll = (kind: Kind, chunks: ReadonlyArray<Uint8Array>, options?: HttpHead.Options): Result => {
  const self = parser(kind, options)
  let result: Result = { _tag: "Incomplete" }
  const rest: Array<number> = []
  for (const chunk of chunks) {
    result = self.push(chunk)
    if (result._tag === "Head") rest.push(...result.rest)
  }
  return result._tag === "Head" ? { ...result, rest: new Uint8Array(rest) } : result
}

const cut = (input: Uint8Array, positions: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const sorted = [0, ...positions.map((p) => p % (input.length + 1)), input.length].sort((a, b) => a - b)
  return sorted.slice(1).map((end, i) => input.slice(sorted[i], end))
}

const everyByte = (input: Uint8Array) => Array.from(input, (byte) => new Uint8Array([byte]))

/** What a row expects, the same whole, byte by byte and with every single cut. */
const anyCut = (kind: Kind, text: string, options?: HttpHead.Options): Result => {
  const input = bytes(text)
  const whole = pushAll(kind, [input], options)
  assert.deepEqual(pushAll(kind, everyByte(input), options), whole, "byte by byte")
  for (let at = 1; at < input.length; at++) {
    assert.deepEqual(pushAll(kind, [input.slice(0, at), input.slice(at)], options), whole, `cut at ${at}`)
  }
  return whole
}

const head = (result: Result) => (result._tag === "Head" ? result.head : assert.fail(JSON.stringify(result)))

describe("HttpHead", () => {
  describe("heads", () => {
    it("the request of RFC 6455 §1.3", () => {
      const result = anyCut(
        "request",
        "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n"
      )
      assert.deepEqual(result, {
        _tag: "Head",
        head: {
          httpVersion: "1.1",
          method: "GET",
          target: "/chat",
          headers: { host: "server.example.com", upgrade: "websocket", "sec-websocket-protocol": "chat, superchat" },
          rawHeaders: [
            ["Host", "server.example.com"],
            ["Upgrade", "websocket"],
            ["Sec-WebSocket-Protocol", "chat, superchat"]
          ]
        },
        rest: new Uint8Array(0)
      })
    })
    it("a response with frames behind it", () => {
      const result = anyCut("response", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02Hi\r\n")
      assert.deepEqual(result, {
        _tag: "Head",
        head: {
          httpVersion: "1.1",
          status: 101,
          reason: "Switching Protocols",
          headers: { upgrade: "websocket" },
          rawHeaders: [["Upgrade", "websocket"]]
        },
        rest: bytes("\x81\x02Hi\r\n")
      })
    })
    it("rest is a view of the chunk, later chunks come back whole", () => {
      const self = HttpHead.make("response")
      const chunk = bytes("HTTP/1.1 200 OK\r\n\r\nabc")
      const first = self.push(chunk)
      const later = bytes("def")
      const second = self.push(later)
      if (first._tag !== "Head" || second._tag !== "Head") return assert.fail("no head")
      assert.strictEqual(first.rest.buffer, chunk.buffer)
      assert.deepStrictEqual([...first.rest], [...bytes("abc")])
      assert.strictEqual(second.rest, later)
      assert.strictEqual(second.head, first.head)
    })
    it("chunks are not kept: the caller may write over them", () => {
      const self = HttpHead.make("response")
      const chunk = bytes("HTTP/1.1 200 OK\r\nName: val")
      self.push(chunk)
      chunk.fill(0x78)
      const result = self.push(bytes("ue\r\n\r\n"))
      assert.deepEqual(head(result).headers, { name: "value" })
    })

    type Row = readonly [name: string, kind: Kind, text: string, fields: Record<string, unknown>]
    const request = (lines: string) => `GET / HTTP/1.1\r\nHost: h\r\n${lines}\r\n`
    const response = (lines: string) => `HTTP/1.1 200 OK\r\n${lines}\r\n`
    const rows: ReadonlyArray<Row> = [
      ["no reason (RFC 9112 §4)", "response", "HTTP/1.1 200 \r\n\r\n", { status: 200, reason: "" }],
      ["no space after the status, as some proxies", "response", "HTTP/1.1 200\r\n\r\n", { status: 200, reason: "" }],
      [
        "HTTP/1.0 proxy",
        "response",
        "HTTP/1.0 200 Connection established\r\n\r\n",
        { httpVersion: "1.0", status: 200 }
      ],
      ["reason beyond ASCII", "response", "HTTP/1.1 404 N\xe9ant\r\n\r\n", { reason: "N\xe9ant" }],
      ["interim response", "response", "HTTP/1.1 103 Early Hints\r\n\r\n", { status: 103 }],
      ["empty line before a request (§2.2)", "request", `\r\n${request("")}`, { method: "GET" }],
      ["HTTP/1.0 without Host", "request", "GET / HTTP/1.0\r\n\r\n", { httpVersion: "1.0", headers: {} }],
      [
        "authority form (§3.2.3)",
        "request",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        { method: "CONNECT", target: "a:443" }
      ],
      ["asterisk form (§3.2.4)", "request", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", { target: "*" }],
      ["an unknown method is a token", "request", "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", { method: "M-SEARCH" }],
      ["no space after the colon", "response", response("a:b\r\n"), { headers: { a: "b" } }],
      ["spaces and tabs around the value", "response", response("a: \t b c\t \r\n"), { headers: { a: "b c" } }],
      ["empty value", "response", response("a:\r\nb: \t\r\n"), { headers: { a: "", b: "" } }],
      ["colons in the value", "response", response("a: b: c\r\n"), { headers: { a: "b: c" } }],
      ["tab in the value", "response", response("a: b\tc\r\n"), { headers: { a: "b\tc" } }],
      ["Latin-1 in the value", "response", response("a: \x80\xff\r\n"), { headers: { a: "\x80\xff" } }],
      [
        "names of one header are joined",
        "response",
        response("A: 1\r\nb: 2\r\na: 3\r\n"),
        { headers: { a: "1, 3", b: "2" } }
      ],
      [
        "Set-Cookie is apart in rawHeaders",
        "response",
        response("Set-Cookie: a=1\r\nset-cookie: b=2\r\n"),
        {
          rawHeaders: [
            ["Set-Cookie", "a=1"],
            ["set-cookie", "b=2"]
          ]
        }
      ],
      [
        "cookies are joined as one (RFC 6265 §4.2.1)",
        "request",
        request("Cookie: a=1\r\nCookie: b=2\r\n"),
        { headers: { host: "h", cookie: "a=1; b=2" } }
      ],
      [
        "equal Content-Length are one",
        "response",
        response("Content-Length: 5\r\ncontent-length: 5\r\n"),
        { headers: { "content-length": "5" } }
      ],
      ["chunked last", "request", request("Transfer-Encoding: gzip, Chunked\r\n"), { method: "GET" }]
    ]
    for (const [name, kind, text, fields] of rows) {
      it(name, () => {
        const found = head(anyCut(kind, text)) as unknown as Record<string, unknown>
        for (const field of Object.keys(fields)) assert.deepEqual(found[field], fields[field])
      })
    }
    it("names of Object.prototype are names", () => {
      const { headers } = head(pushAll("response", [bytes(response("__proto__: a\r\nconstructor: b\r\n"))]))
      assert.deepStrictEqual(Object.entries(headers), [
        ["__proto__", "a"],
        ["constructor", "b"]
      ])
      assert.isUndefined(headers.toString)
    })
  })

  describe("refused", () => {
    type Row = readonly [rule: HttpHead.Rule, status: number, name: string, text: string]
    const request = (lines: string) => `GET / HTTP/1.1\r\nHost: h\r\n${lines}\r\n`
    const requests: ReadonlyArray<Row> = [
      ["BareLineFeed", 400, "LF alone ends the request line (§2.2)", "GET / HTTP/1.1\nHost: h\n\n"],
      ["BareLineFeed", 400, "LF alone ends a header", request("a: b\nc: d\r\n")],
      ["BareLineFeed", 400, "LF alone ends the head", "GET / HTTP/1.1\r\nHost: h\r\n\n"],
      ["BareCarriageReturn", 400, "CR alone in a value", request("a: b\rc\r\n")],
      ["BareCarriageReturn", 400, "two CR", request("a: b\r\r\n")],
      ["BareCarriageReturn", 400, "CR alone ends the head", "GET / HTTP/1.1\r\nHost: h\r\n\rx"],
      ["ControlCharacter", 400, "NUL in a value (RFC 9110 §5.5)", request("a: \0\r\n")],
      ["ControlCharacter", 400, "DEL in a name", request("a\x7f: b\r\n")],
      ["ControlCharacter", 400, "TLS spoken to a plain port", "\x16\x03\x01\x02\x00"],
      ["StartLine", 400, "two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"],
      ["StartLine", 400, "no target", "GET HTTP/1.1\r\n"],
      ["StartLine", 400, "HTTP/0.9", "GET /\r\n"],
      ["StartLine", 400, "empty target", "GET  HTTP/1.1\r\n"],
      ["StartLine", 400, "space in the target", "GET /a b HTTP/1.1\r\n"],
      ["StartLine", 400, "tab as separator", "GET\t/\tHTTP/1.1\r\n"],
      ["StartLine", 400, "beyond ASCII in the target", "GET /\xe9 HTTP/1.1\r\n"],
      ["StartLine", 400, "no method", " / HTTP/1.1\r\n"],
      ["StartLine", 400, "method that is no token", "G(T / HTTP/1.1\r\n"],
      ["StartLine", 400, "space at the end", "GET / HTTP/1.1 \r\n"],
      ["StartLine", 400, "http in small letters (§2.3)", "GET / http/1.1\r\n"],
      ["StartLine", 400, "version of two digits", "GET / HTTP/1.10\r\n"],
      ["HttpVersion", 505, "HTTP/2.0", "PRI * HTTP/2.0\r\n"],
      ["HttpVersion", 505, "HTTP/1.2", "GET / HTTP/1.2\r\n"],
      ["ObsoleteFold", 400, "folded line (§5.2)", request("a: b\r\n c\r\n")],
      ["ObsoleteFold", 400, "space before the first header (§2.2)", "GET / HTTP/1.1\r\n Host: h\r\n\r\n"],
      ["ObsoleteFold", 400, "a line of spaces", request(" \r\n")],
      ["SpaceBeforeColon", 400, "space before the colon (§5.1)", request("a : b\r\n")],
      ["SpaceBeforeColon", 400, "tab before the colon", request("a\t: b\r\n")],
      ["HeaderName", 400, "no name", request(": b\r\n")],
      ["HeaderName", 400, "no colon", request("ab\r\n")],
      ["HeaderName", 400, "name that is no token", request("a(b: c\r\n")],
      ["HeaderName", 400, "name beyond ASCII", request("\xe9: c\r\n")],
      ["ContentLength", 400, "two lengths (§6.3)", request("Content-Length: 5\r\nContent-Length: 6\r\n")],
      ["ContentLength", 400, "one length twice", request("Content-Length: 5\r\ncontent-length: 5\r\n")],
      ["ContentLength", 400, "two forms of one length", request("Content-Length: 5\r\nContent-Length: 05\r\n")],
      ["ContentLength", 400, "a list of lengths", request("Content-Length: 5, 5\r\n")],
      ["ContentLength", 400, "signed length", request("Content-Length: +5\r\n")],
      ["ContentLength", 400, "empty length", request("Content-Length:\r\n")],
      [
        "TransferEncoding",
        400,
        "both kinds of length (§6.1)",
        request("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")
      ],
      ["TransferEncoding", 400, "not chunked at last (§6.3)", request("Transfer-Encoding: chunked, gzip\r\n")],
      ["TransferEncoding", 400, "in HTTP/1.0 (§6.1)", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"],
      ["Host", 400, "two Hosts (§3.2)", request("host: h\r\n")],
      ["Host", 400, "no Host (§3.2)", "GET / HTTP/1.1\r\n\r\n"]
    ]
    const responses: ReadonlyArray<Row> = [
      ["StartLine", 0, "empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n"],
      ["StartLine", 0, "another protocol", "SSH-2.0-OpenSSH\r\n"],
      ["StartLine", 0, "no status", "HTTP/1.1 \r\n"],
      ["StartLine", 0, "only the version", "HTTP/1.1\r\n"],
      ["StartLine", 0, "status of two digits", "HTTP/1.1 20 OK\r\n"],
      ["StartLine", 0, "status of four digits", "HTTP/1.1 2000 OK\r\n"],
      ["StartLine", 0, "status 099", "HTTP/1.1 099 OK\r\n"],
      ["StartLine", 0, "status 600", "HTTP/1.1 600 OK\r\n"],
      ["StartLine", 0, "status that is no number", "HTTP/1.1 1e1 OK\r\n"],
      ["StartLine", 0, "two spaces", "HTTP/1.1  200 OK\r\n"],
      ["HttpVersion", 0, "HTTP/2.0", "HTTP/2.0 200 OK\r\n"],
      ["BareLineFeed", 0, "LF alone ends the status line", "HTTP/1.1 200 OK\n"],
      ["BareLineFeed", 200, "LF alone ends a header", "HTTP/1.1 200 OK\r\na: b\n"],
      ["ContentLength", 502, "two lengths", "HTTP/1.1 502 Oh\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"]
    ]
    for (const [kind, rows] of [
      ["request", requests],
      ["response", responses]
    ] as const) {
      for (const [rule, status, name, text] of rows) {
        it(`${kind}: ${name}`, () => {
          const result = anyCut(kind, text)
          if (result._tag !== "Failed") return assert.fail(JSON.stringify(result))
          assert.deepStrictEqual([result.rule, result.status], [rule, status])
          assert.isNotEmpty(result.message)
        })
      }
    }
    it("a failure stays", () => {
      const self = HttpHead.make("response")
      const failed = self.push(bytes("x\n"))
      assert.strictEqual(failed._tag, "Failed")
      assert.strictEqual(self.push(bytes("HTTP/1.1 200 OK\r\n\r\n")), failed)
    })
  })

  describe("limits", () => {
    const outcome = (result: Result) => (result._tag === "Failed" ? `${result.status} ${result.rule}` : result._tag)
    const ofLength = (length: number) => `GET / HTTP/1.1\r\nHost: ${"h".repeat(length - 26)}\r\n\r\n`

    it("bytes: at the limit, and one over", () => {
      assert.strictEqual(ofLength(64).length, 64)
      assert.strictEqual(outcome(anyCut("request", ofLength(64), { maxHeaderBytes: 64 })), "Head")
      assert.strictEqual(outcome(anyCut("request", ofLength(65), { maxHeaderBytes: 64 })), "431 HeaderBytes")
    })
    it("bytes: what comes after the head does not count", () => {
      assert.strictEqual(
        outcome(anyCut("request", `${ofLength(64)}${"x".repeat(100)}`, { maxHeaderBytes: 64 })),
        "Head"
      )
    })
    it("bytes: a request line that is too long", () => {
      assert.strictEqual(
        outcome(anyCut("request", `GET /${"a".repeat(100)}`, { maxHeaderBytes: 64 })),
        "414 HeaderBytes"
      )
    })
    it("bytes: of a response, with the status that was read", () => {
      const text = `HTTP/1.1 403 No\r\na: ${"b".repeat(100)}`
      assert.strictEqual(outcome(anyCut("response", text, { maxHeaderBytes: 64 })), "403 HeaderBytes")
    })
    it("bytes: 16384 by default", () => {
      assert.strictEqual(outcome(pushAll("request", [bytes(ofLength(16384))])), "Head")
      assert.strictEqual(outcome(pushAll("request", [bytes(ofLength(16385))])), "431 HeaderBytes")
      assert.strictEqual(outcome(pushAll("request", everyByte(bytes(ofLength(16384))))), "Head")
      assert.strictEqual(outcome(pushAll("request", everyByte(bytes(ofLength(16385))))), "431 HeaderBytes")
    })
    it("bytes: the first one too many fails, and not earlier", () => {
      const self = HttpHead.make("response", { maxHeaderBytes: 20 })
      assert.strictEqual(self.push(bytes("HTTP/1.1 200 OK\r\na: ").subarray(0, 20))._tag, "Incomplete")
      assert.strictEqual(self.push(new Uint8Array(0))._tag, "Incomplete")
      assert.strictEqual(self.push(bytes("x"))._tag, "Failed")
    })
    it("count: at the limit, and one over", () => {
      const text = `GET / HTTP/1.1\r\nHost: h\r\n${"a:\r\n".repeat(2)}\r\n`
      assert.strictEqual(outcome(anyCut("request", text, { maxHeaderCount: 3 })), "Head")
      assert.strictEqual(outcome(anyCut("request", text, { maxHeaderCount: 2 })), "431 HeaderCount")
    })
    it("count: 100 by default, equal names counted each", () => {
      const text = (count: number) => bytes(`HTTP/1.1 200 OK\r\n${"a:\r\n".repeat(count)}\r\n`)
      assert.strictEqual(outcome(pushAll("response", [text(100)])), "Head")
      assert.strictEqual(outcome(pushAll("response", [text(101)])), "200 HeaderCount")
    })
    it("a long line is read whole, beyond what one call takes as arguments", () => {
      const value = "v".repeat(300_000)
      const result = pushAll("response", [bytes(`HTTP/1.1 200 OK\r\na: ${value}\r\n\r\n`)], { maxHeaderBytes: 400_000 })
      assert.strictEqual(head(result).headers.a, value)
    })
  })

  describe("properties", () => {
    /** Pieces of heads, good and bad, so that random texts reach every state. */
    const piece = FastCheck.constantFrom(
      "GET / HTTP/1.1\r\n",
      "HTTP/1.1 200 OK\r\n",
      "Host: h\r\n",
      "Content-Length: 5\r\n",
      "Content-Length: 6\r\n",
      "Transfer-Encoding: chunked\r\n",
      "\r\n",
      "\r",
      "\n",
      " ",
      ":",
      "a",
      "\xff",
      "\0"
    )
    const nearly = FastCheck.tuple(
      FastCheck.constantFrom("", "GET / HTTP/1.1\r\nHost: h\r\n", "HTTP/1.1 200 OK\r\n"),
      FastCheck.array(FastCheck.oneof({ weight: 3, arbitrary: FastCheck.constant("a: b\r\n") }, piece), {
        maxLength: 12
      })
    ).map(([start, pieces]) => bytes(start + pieces.join("")))
    const input = FastCheck.oneof(nearly, FastCheck.uint8Array({ maxLength: 64 }))
    const kind = FastCheck.constantFrom<Kind>("request", "response")
    const options = FastCheck.record({
      maxHeaderBytes: FastCheck.integer({ min: 0, max: 100 }),
      maxHeaderCount: FastCheck.integer({ min: 0, max: 6 })
    })
    const cuts = FastCheck.array(FastCheck.nat(), { maxLength: 8 })

    it("any cutting of any bytes gives one result, under any limits", () => {
      FastCheck.assert(
        FastCheck.property(kind, input, cuts, options, (kind, input, cuts, options) => {
          const whole = pushAll(kind, [input], options)
          assert.deepEqual(pushAll(kind, cut(input, cuts), options), whole)
          assert.deepEqual(pushAll(kind, everyByte(input), options), whole)
        }),
        { numRuns: 1500 }
      )
    })
    it("random bytes never throw", () => {
      FastCheck.assert(
        FastCheck.property(kind, FastCheck.array(FastCheck.uint8Array()), (kind, chunks) => {
          assert.oneOf(pushAll(kind, chunks)._tag, ["Incomplete", "Head", "Failed"])
        })
      )
    })
    it("every head has legal text only", () => {
      FastCheck.assert(
        FastCheck.property(kind, nearly, (kind, input) => {
          const result = pushAll(kind, [input])
          if (result._tag !== "Head") return
          for (const [name, value] of result.head.rawHeaders) assert.notMatch(name + value, /[\0\r\n]/)
        })
      )
    })
    it("an endless line ends at the limit", () => {
      const self = HttpHead.make("response", { maxHeaderBytes: 1000 })
      const one = bytes("x")
      let pushed = 0
      while (pushed < 2000 && self.push(one)._tag === "Incomplete") pushed++
      assert.strictEqual(pushed, 1000)
    })
  })
})
