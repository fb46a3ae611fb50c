import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Extension from "../../src/engine/Extension.js"
import * as Handshake from "../../src/engine/Handshake.js"
import { isHeaderValue } from "../../src/engine/headerGrammar.js"
import * as Opcode from "../../src/engine/Opcode.js"

// RFC 6455 §1.3
const key = "dGhlIHNhbXBsZSBub25jZQ=="
const accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

const open: Extension.Open = () => ({ encode: () => undefined, decode: () => undefined })

/** An extension that is offered twice and takes any parameters but `wrong`. */
const marking = (name: string, rsv: number): Extension.Extension => ({
  name,
  rsv,
  offer: () => [[], [{ name: "b", value: true }]],
  accept: (answer) => (answer.some((param) => param.name === "wrong") ? Extension.refuse("wrong") : open),
  negotiate: ([params]) => ({ params: params!, open })
})

describe("Handshake", () => {
  describe("keys", () => {
    it("RFC 6455 §1.3: the example", () => assert.strictEqual(Handshake.acceptKey(key), accept))
    it("RFC 6455 §4.1: the example key is 16 bytes counting up", () => {
      assert.strictEqual(Handshake.makeKey(new Uint8Array(16).map((_, i) => i + 1)), "AQIDBAUGBwgJCgsMDQ4PEA==")
    })
    it("any 16 bytes are a key, fewer or more are none", () => {
      FastCheck.assert(
        FastCheck.property(FastCheck.uint8Array({ maxLength: 20 }), (bytes) => {
          assert.strictEqual(Handshake.isKey(Handshake.makeKey(bytes)), bytes.length === 16)
        })
      )
    })
  })

  describe("checkRequest, RFC 6455 §4.2.1", () => {
    const request = (headers: Record<string, string | undefined> = {}, rest: Partial<Handshake.Request> = {}) =>
      Handshake.checkRequest({
        method: "GET",
        httpVersion: "1.1",
        ...rest,
        headers: {
          host: "server.example.com",
          upgrade: "websocket",
          connection: "Upgrade",
          "sec-websocket-key": key,
          "sec-websocket-version": "13",
          ...headers
        }
      })

    it("the request of §1.3", () => {
      const headers = { origin: "http://example.com", "sec-websocket-protocol": "chat, superchat" }
      assert.deepStrictEqual(request(headers), {
        _tag: "Accepted",
        key,
        subprotocols: ["chat", "superchat"],
        extensions: [],
        origin: "http://example.com",
        version: "13"
      })
    })
    it("extension offers are given in order", () => {
      const checked = request({ "sec-websocket-extensions": "a; b=1, c, a" })
      assert.deepStrictEqual(checked._tag === "Accepted" && checked.extensions, [
        { name: "a", params: [{ name: "b", value: "1" }] },
        { name: "c", params: [] },
        { name: "a", params: [] }
      ])
    })

    type Row = readonly [name: string, headers: Record<string, string | undefined>, rest?: Partial<Handshake.Request>]
    const good: ReadonlyArray<Row> = [
      ["without version of HTTP", {}, { httpVersion: undefined }],
      ["a later version of HTTP", {}, { httpVersion: "1.2" }],
      ["Upgrade in any case", { upgrade: "WebSocket" }],
      ["Upgrade with others", { upgrade: "h2c, websocket" }],
      ["Connection with others, as Firefox sends it", { connection: "keep-alive, Upgrade" }],
      ["Host with a port", { host: "server.example.com:8080" }],
      ["Host with an address", { host: "[::1]:8080" }],
      ["Host with an empty port", { host: "localhost:" }],
      ["version with spaces", { "sec-websocket-version": " 13\t" }],
      ["key with spaces", { "sec-websocket-key": ` ${key} ` }],
      ["origin null", { origin: "null" }]
    ]
    for (const [name, headers, rest] of good) {
      it(`accepts: ${name}`, () => assert.strictEqual(request(headers, rest)._tag, "Accepted"))
    }

    const bad: ReadonlyArray<readonly [number, Handshake.RequestRule, ...Row]> = [
      [405, "Method", "POST (item 1)", {}, { method: "POST" }],
      [405, "Method", "methods have case", {}, { method: "get" }],
      [400, "HttpVersion", "HTTP/1.0 (item 1)", {}, { httpVersion: "1.0" }],
      [400, "HttpVersion", "HTTP/0.9", {}, { httpVersion: "0.9" }],
      [400, "HttpVersion", "no version", {}, { httpVersion: "" }],
      [400, "HttpVersion", "a word as version", {}, { httpVersion: "abc" }],
      [426, "Upgrade", "an ordinary request (item 3)", { upgrade: undefined, connection: undefined }],
      [426, "Upgrade", "another protocol", { upgrade: "h2c" }],
      [426, "Upgrade", "a version of the protocol", { upgrade: "websocket/13" }],
      [426, "Upgrade", "a longer name", { upgrade: "websockets" }],
      [400, "Connection", "no Connection (item 4)", { connection: undefined }],
      [400, "Connection", "Connection without upgrade", { connection: "keep-alive" }],
      [400, "Host", "no Host (item 2)", { host: undefined }],
      [400, "Host", "empty Host", { host: "" }],
      [400, "Host", "only a port", { host: ":80" }],
      [400, "Host", "two Hosts", { host: "a.example, b.example" }],
      [400, "Host", "a path in Host", { host: "a.example/b" }],
      [400, "Host", "user information in Host", { host: "user@a.example" }],
      [400, "Host", "a port that is none", { host: "a.example:http" }],
      [400, "Host", "a port too large", { host: "a.example:65536" }],
      [400, "Host", "two ports", { host: "a.example:80:80" }],
      [400, "Host", "bracket left open", { host: "[::1" }],
      [400, "Host", "empty brackets", { host: "[]" }],
      [400, "Host", "text in brackets", { host: "[a b]" }],
      [400, "Host", "text after brackets", { host: "[::1]x" }],
      [426, "Version", "no version (item 6)", { "sec-websocket-version": undefined }],
      [426, "Version", "version 8", { "sec-websocket-version": "8" }],
      [426, "Version", "version 013", { "sec-websocket-version": "013" }],
      [426, "Version", "empty version", { "sec-websocket-version": "" }],
      [400, "VersionDuplicate", "two versions", { "sec-websocket-version": "13, 13" }],
      [400, "VersionDuplicate", "several versions", { "sec-websocket-version": "8, 13" }],
      [400, "Key", "no key (item 5)", { "sec-websocket-key": undefined }],
      [400, "Key", "empty key", { "sec-websocket-key": "" }],
      [400, "Key", "15 bytes", { "sec-websocket-key": "AQIDBAUGBwgJCgsMDQ4P" }],
      [400, "Key", "17 bytes", { "sec-websocket-key": "AQIDBAUGBwgJCgsMDQ4PEBE=" }],
      [400, "Key", "18 bytes", { "sec-websocket-key": "AQIDBAUGBwgJCgsMDQ4PEBES" }],
      [400, "Key", "24 characters that are no base64", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25j*Q==" }],
      [400, "Key", "URL alphabet", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25j_Q==" }],
      [400, "Key", "unused bit 0 set", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZR==" }],
      [400, "Key", "unused bit 1 set", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZS==" }],
      [400, "Key", "unused bit 2 set", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZU==" }],
      [400, "Key", "unused bit 3 set", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZY==" }],
      [400, "Key", "last character no base64", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZ?==" }],
      [400, "Key", "no padding", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQAA" }],
      [400, "Key", "beyond ASCII", { "sec-websocket-key": "dGhlIHNhbXBsZSBub25j\u0151Q==" }],
      [400, "KeyDuplicate", "two keys", { "sec-websocket-key": `${key}, ${key}` }],
      [400, "OriginDuplicate", "two origins (RFC 6454 §7.3)", { origin: "http://a.example, http://b.example" }],
      [400, "SubprotocolSyntax", "subprotocols (item 8)", { "sec-websocket-protocol": "chat v2" }],
      [400, "SubprotocolSyntax", "empty list of subprotocols", { "sec-websocket-protocol": "" }],
      [400, "SubprotocolDuplicate", "subprotocol twice", { "sec-websocket-protocol": "chat, chat" }],
      [400, "ExtensionSyntax", "extensions (item 9)", { "sec-websocket-extensions": "a; b=" }],
      [400, "ExtensionSyntax", "empty list of extensions", { "sec-websocket-extensions": "" }]
    ]
    for (const [status, rule, name, headers, rest] of bad) {
      it(`rejects: ${name}`, () => {
        const checked = request(headers, rest)
        if (checked._tag !== "Rejected") return assert.fail("accepted")
        assert.deepStrictEqual([checked.status, checked.rule], [status, rule])
      })
    }

    it("the statuses bring their headers", () => {
      const headersOf = (checked: ReturnType<typeof request>) =>
        checked._tag === "Rejected" ? checked.headers : undefined
      // RFC 9110 §15.5.6
      assert.deepStrictEqual(headersOf(request({}, { method: "PUT" })), { allow: "GET" })
      // RFC 9110 §15.5.22
      assert.deepStrictEqual(headersOf(request({ upgrade: undefined })), {
        upgrade: "websocket",
        connection: "Upgrade"
      })
      // RFC 6455 §4.4
      assert.strictEqual(headersOf(request({ "sec-websocket-version": "7" }))?.["sec-websocket-version"], "13")
    })

    it("limits: at each, and one over", () => {
      const baseBytes = (headers: Record<string, string>) =>
        Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0)
      const headers = {
        host: "h",
        upgrade: "websocket",
        connection: "Upgrade",
        "sec-websocket-key": key,
        "sec-websocket-version": "13"
      }
      const check = (limits: Handshake.RequestLimits | undefined, more: Record<string, string> = {}) => {
        const checked = Handshake.checkRequest({ method: "GET", headers: { ...headers, ...more }, limits })
        return checked._tag === "Rejected" ? `${checked.status} ${checked.rule}` : checked._tag
      }
      assert.strictEqual(check({ maxHeaderBytes: baseBytes(headers) }), "Accepted")
      assert.strictEqual(check({ maxHeaderBytes: baseBytes(headers) - 1 }), "431 HeaderBytes")
      assert.strictEqual(check({ maxHeaderCount: 5 }), "Accepted")
      assert.strictEqual(check({ maxHeaderCount: 4 }), "431 HeaderCount")
      const room = 16384 - baseBytes(headers) - 1 - 4
      assert.strictEqual(check(undefined, { x: "y".repeat(room) }), "Accepted")
      assert.strictEqual(check(undefined, { x: "y".repeat(room + 1) }), "431 HeaderBytes")
      const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`x${i}`, ""]))
      assert.strictEqual(check(undefined, many(95)), "Accepted")
      assert.strictEqual(check(undefined, many(96)), "431 HeaderCount")
    })

    it("any header text gives a value", () => {
      FastCheck.assert(
        FastCheck.property(
          FastCheck.dictionary(
            FastCheck.constantFrom("host", "upgrade", "origin", "sec-websocket-protocol", "sec-websocket-extensions"),
            FastCheck.string()
          ),
          (headers) => assert.oneOf(request(headers)._tag, ["Accepted", "Rejected"])
        )
      )
    })

    it("formatReject: the whole answer", () => {
      const checked = request({ "sec-websocket-version": "8" })
      if (checked._tag !== "Rejected") return assert.fail("accepted")
      assert.strictEqual(
        Handshake.formatReject(checked),
        "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\n" +
          `Content-Type: text/plain\r\nContent-Length: ${checked.body.length}\r\n\r\n${checked.body}`
      )
      const method = request({}, { method: "POST" })
      if (method._tag !== "Rejected") return assert.fail("accepted")
      assert.include(Handshake.formatReject(method), "405 Method Not Allowed\r\nConnection: close\r\nallow: GET\r\n")
    })

    it("bodies are one line of ASCII, so that their length is that of their bytes", () => {
      for (const [, , name, headers, rest] of bad) {
        const checked = request(headers, rest)
        assert.match(checked._tag === "Rejected" ? checked.body : "", /^[ -~]{20,}$/, name)
      }
    })
  })

  describe("selectSubprotocol", () => {
    const rows: ReadonlyArray<
      readonly [string, Array<string>, Parameters<typeof Handshake.selectSubprotocol>[1], string | undefined]
    > = [
      ["the server prefers", ["v1", "v2"], ["v2", "v1"], "v2"],
      ["the server's second", ["v1"], ["v2", "v1"], "v1"],
      ["none in common", ["v1"], ["v2"], undefined],
      ["none offered", [], ["v1"], undefined],
      ["none supported", ["v1"], [], undefined],
      ["case counts", ["V1"], ["v1"], undefined],
      ["a function chooses", ["v1", "v2"], (offered) => offered[1], "v2"],
      ["a function chooses none", ["v1"], () => undefined, undefined],
      ["what was not offered is not agreed, §4.2.2 item 5", ["v1"], () => "v2", undefined],
      ["without an offer the function is not asked", [], () => assert.fail("asked"), undefined]
    ]
    for (const [name, offered, supported, expected] of rows) {
      it(name, () => assert.strictEqual(Handshake.selectSubprotocol(offered, supported), expected))
    }
  })

  describe("checkOrigin, RFC 6455 §10.2", () => {
    const rows: ReadonlyArray<
      readonly [string, string | undefined, string | undefined, Handshake.OriginPolicy, boolean]
    > = [
      ["no origin", undefined, "a.example", "same", true],
      ["no origin, list", undefined, "a.example", [], true],
      ["no origin, predicate", undefined, "a.example", () => false, true],
      ["same", "https://a.example", "a.example", "same", true],
      ["same, TLS ended by a proxy", "https://a.example", "a.example:443", "same", true],
      ["same, default port of http", "http://a.example", "a.example:80", "same", true],
      ["same, port given in the origin", "http://a.example:80", "a.example", "same", true],
      ["same, other port", "http://a.example:8080", "a.example:8080", "same", true],
      ["same, case", "http://A.Example", "a.eXAMPLE", "same", true],
      ["same, scheme in any case", "HTTP://a.example", "a.example", "same", true],
      ["same, address", "http://[::1]:3000", "[::1]:3000", "same", true],
      ["same, empty port in Host", "http://a.example", "a.example:", "same", true],
      ["foreign host", "https://b.example", "a.example", "same", false],
      ["foreign subdomain", "https://x.a.example", "a.example", "same", false],
      ["foreign, begins alike", "https://a.example.evil", "a.example", "same", false],
      ["foreign port", "http://a.example:8080", "a.example", "same", false],
      ["foreign port in Host", "http://a.example", "a.example:8080", "same", false],
      ["https against port 80", "https://a.example", "a.example:80", "same", false],
      ["null is foreign", "null", "a.example", "same", false],
      ["null is foreign to a host of that name", "null", "null", "same", false],
      ["empty origin", "", "a.example", "same", false],
      ["no host", "https://a.example", undefined, "same", false],
      ["bad host", "https://a.example", "a.example, a.example", "same", false],
      ["a scheme that is no web page", "chrome-extension://a.example", "a.example", "same", false],
      ["a path", "https://a.example/x", "a.example", "same", false],
      ["user information", "https://a.example@b.example", "b.example", "same", false],
      ["no scheme", "://a.example", "a.example", "same", false],
      ["any", "https://b.example", "a.example", "any", true],
      ["any, null", "null", undefined, "any", true],
      ["listed", "https://b.example", "a.example", ["https://c.example", "https://b.example"], true],
      ["listed with default port", "https://b.example", "a.example", ["https://b.example:443"], true],
      ["listed with case and slash", "https://b.example", "a.example", ["HTTPS://B.example/"], true],
      ["listed with another scheme", "http://b.example", "a.example", ["https://b.example"], false],
      ["listed with another port", "http://b.example:81", "a.example", ["http://b.example"], false],
      ["host listed, any scheme", "http://b.example", "a.example", ["b.example"], true],
      ["host and port listed", "http://localhost:5173", "a.example", ["localhost:5173"], true],
      ["host listed, other port", "http://localhost:5173", "a.example", ["localhost"], false],
      ["extension listed", "chrome-extension://abc", "a.example", ["chrome-extension://abc"], true],
      ["null listed", "null", "a.example", ["null"], true],
      ["same is not in a list by itself", "https://a.example", "a.example", ["https://b.example"], false],
      ["same listed", "https://a.example", "a.example", ["https://b.example", "same"], true],
      ["empty list", "https://a.example", "a.example", [], false],
      ["bad entry", "https://a.example", "a.example", ["https://"], false],
      ["predicate", "https://b.example", "a.example", (origin) => origin === "https://b.example", true],
      ["predicate, no", "https://c.example", "a.example", (origin) => origin === "https://b.example", false]
    ]
    for (const [name, origin, host, policy, expected] of rows) {
      it(name, () => assert.strictEqual(Handshake.checkOrigin(origin, host, policy), expected))
    }
    it("any text gives an answer", () => {
      const text = FastCheck.string({ unit: FastCheck.constantFrom(..."ht:/[]a.80,@ \0\u00e9") })
      FastCheck.assert(
        FastCheck.property(text, text, (origin, host) => {
          assert.isBoolean(Handshake.checkOrigin(origin, host, "same"))
          assert.isBoolean(Handshake.checkOrigin(origin, host, [host]))
        })
      )
    })
  })

  describe("formatAccept and formatResponse", () => {
    it("the response of §1.3", () => {
      assert.strictEqual(
        Handshake.formatAccept({ key, subprotocol: "chat" }),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n`
      )
    })
    it("extensions, then the headers given, as a record or as entries", () => {
      const agreement = { key, extensions: [{ name: "a", params: [{ name: "b", value: "1" }] }] } as const
      const text =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Extensions: a; b=1\r\nSet-Cookie: a=1\r\n`
      assert.strictEqual(Handshake.formatAccept(agreement, { "Set-Cookie": "a=1", x: undefined }), `${text}\r\n`)
      const cookies = [
        ["Set-Cookie", "a=1"],
        ["Set-Cookie", "b=2"]
      ] as const
      assert.strictEqual(Handshake.formatAccept(agreement, cookies), `${text}Set-Cookie: b=2\r\n\r\n`)
    })
    it("responseHeaders: in order, nothing for what is absent", () => {
      assert.deepStrictEqual(Handshake.responseHeaders({ key, extensions: [] }), [
        ["Upgrade", "websocket"],
        ["Connection", "Upgrade"],
        ["Sec-WebSocket-Accept", accept]
      ])
    })

    const field = (result: unknown) => (typeof result === "string" ? result : (result as Handshake.FormatError).field)
    const rows: ReadonlyArray<readonly [string, () => unknown, string]> = [
      ["subprotocol", () => Handshake.responseHeaders({ key, subprotocol: "a\r\nb" }), "sec-websocket-protocol"],
      [
        "extension",
        () => Handshake.responseHeaders({ key, extensions: [{ name: "a b", params: [] }] }),
        "sec-websocket-extensions"
      ],
      ["LF in a value", () => Handshake.formatResponse(200, "OK", [["X", "a\nb"]]), "x"],
      ["CR in a value", () => Handshake.formatResponse(200, "OK", [["X", "a\rb"]]), "x"],
      ["NUL in a value", () => Handshake.formatResponse(200, "OK", [["X", "a\0"]]), "x"],
      ["beyond Latin-1 in a value", () => Handshake.formatResponse(200, "OK", [["X", "\u010a"]]), "x"],
      ["line break in a name", () => Handshake.formatResponse(200, "OK", [["X: a\r\nY", "b"]]), "x: a\r\ny"],
      ["empty name", () => Handshake.formatResponse(200, "OK", [["", "b"]]), ""],
      ["line break in the reason", () => Handshake.formatResponse(200, "OK\r\nX: y", []), "reason"],
      ["status 99", () => Handshake.formatResponse(99, "", []), "status"],
      ["status 600", () => Handshake.formatResponse(600, "", []), "status"],
      ["status 200.5", () => Handshake.formatResponse(200.5, "", []), "status"],
      ["own header given", () => Handshake.formatAccept({ key }, { UPGRADE: "h2c" }), "upgrade"],
      [
        "own header given, accept",
        () => Handshake.formatAccept({ key }, { "Sec-WebSocket-Accept": "x" }),
        "sec-websocket-accept"
      ],
      ["a body's header given", () => Handshake.formatAccept({ key }, { "Content-Length": "0" }), "content-length"],
      ["bad header given", () => Handshake.formatAccept({ key }, { "X-Y": "\r\n" }), "x-y"]
    ]
    for (const [name, format, expected] of rows) {
      it(`refuses: ${name}`, () => assert.strictEqual(field(format()), expected))
    }
    it("an empty reason keeps its space (RFC 9112 §4)", () => {
      assert.strictEqual(Handshake.formatResponse(200, "", []), "HTTP/1.1 200 \r\n\r\n")
    })
    it("whatever is given, each entry is one line", () => {
      const text = FastCheck.string({ unit: FastCheck.constantFrom(..."abcdefgh \t\u00e9\r\n\0\u0100"), maxLength: 6 })
      FastCheck.assert(
        FastCheck.property(
          FastCheck.array(FastCheck.tuple(FastCheck.constantFrom("a", "a", "a", "b:", ""), text)),
          (entries) => {
            const result = Handshake.formatResponse(400, "Bad Request", entries)
            if (typeof result === "string")
              assert.strictEqual(result.split(/\r|\n/).length, 2 * (entries.length + 2) + 1)
            else assert.isTrue(entries.some(([name, value]) => name !== "a" || !isHeaderValue(value)))
          }
        )
      )
    })
  })

  describe("formatRequest, RFC 6455 §4.1", () => {
    const request = (rest: Partial<Handshake.ClientRequest> = {}) =>
      Handshake.formatRequest({
        path: "/chat",
        host: "server.example.com",
        key,
        subprotocols: [],
        headers: {},
        ...rest
      })

    it("the request of §1.3", () => {
      assert.strictEqual(
        request({ subprotocols: ["chat", "superchat"], origin: "http://example.com" }),
        "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, superchat\r\n` +
          "Origin: http://example.com\r\n\r\n"
      )
    })
    it("extensions, headers of the caller in order, Host replaced", () => {
      assert.strictEqual(
        request({
          path: "/?a=%20b",
          extensions: [
            { name: "a", params: [{ name: "b", value: true }] },
            { name: "a", params: [] }
          ],
          headers: [
            ["Cookie", "a=1"],
            ["host", "[::1]:80"],
            ["Cookie", "\u00e9"]
          ]
        }),
        "GET /?a=%20b HTTP/1.1\r\nHost: [::1]:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: a; b, a\r\n` +
          "Cookie: a=1\r\nCookie: \u00e9\r\n\r\n"
      )
    })
    it("what it formats, checkRequest accepts", () => {
      const text = request({ subprotocols: ["a"], origin: "null" })
      const lines = typeof text === "string" ? text.trimEnd().split("\r\n").slice(1) : []
      const headers = Object.fromEntries(
        lines.map((line) => [line.split(": ")[0]!.toLowerCase(), line.split(": ")[1]!])
      )
      const checked = Handshake.checkRequest({ method: "GET", headers })
      assert.strictEqual(checked._tag, "Accepted")
    })

    const bad: ReadonlyArray<readonly [string, string, Partial<Handshake.ClientRequest>]> = [
      ["path", "empty path", { path: "" }],
      ["path", "path without slash", { path: "chat" }],
      ["path", "space in the path", { path: "/a b" }],
      ["path", "line break in the path", { path: "/ HTTP/1.1\r\nX: y" }],
      ["path", "fragment (§3)", { path: "/#a" }],
      ["path", "beyond ASCII", { path: "/\u00e9" }],
      ["host", "empty host", { host: "" }],
      ["host", "line break in the host", { host: "a\r\nX: y" }],
      ["host", "space before the host", { host: " a" }],
      ["host", "bad Host given", { headers: { Host: "a b" } }],
      ["host", "two Hosts given", { headers: { Host: "a", host: "b" } }],
      ["sec-websocket-key", "key of 15 bytes", { key: Handshake.makeKey(new Uint8Array(15)) }],
      ["sec-websocket-protocol", "subprotocol that is no token", { subprotocols: ["a b"] }],
      ["sec-websocket-protocol", "subprotocol twice", { subprotocols: ["a", "a"] }],
      ["sec-websocket-extensions", "extension that is no token", { extensions: [{ name: "", params: [] }] }],
      ["origin", "line break in the origin", { origin: "a\r\nb" }],
      ["origin", "two origins", { origin: "http://a.example", headers: { Origin: "http://b.example" } }],
      ["upgrade", "Upgrade given", { headers: { Upgrade: "websocket" } }],
      ["connection", "Connection given", { headers: { connection: "close" } }],
      ["sec-websocket-key", "key given", { headers: { "SEC-WEBSOCKET-KEY": key } }],
      ["sec-websocket-other", "any of the handshake's names given", { headers: { "Sec-WebSocket-Other": "" } }],
      ["transfer-encoding", "a body's header given", { headers: { "Transfer-Encoding": "chunked" } }],
      ["x", "line break in a value given", { headers: { x: "a\r\nb" } }],
      ["x y", "bad name given", { headers: { "X Y": "" } }]
    ]
    for (const [expected, name, rest] of bad) {
      it(`refuses: ${name}`, () => {
        const result = request(rest)
        assert.strictEqual(typeof result === "string" ? result : result.field, expected)
      })
    }
  })

  describe("checkResponse, RFC 6455 §4.1", () => {
    const response = (headers: Record<string, string | undefined> = {}, rest: Partial<Handshake.Response> = {}) =>
      Handshake.checkResponse({
        status: 101,
        httpVersion: "1.1",
        key,
        offeredSubprotocols: ["chat", "superchat"],
        offeredExtensions: Extension.offer([marking("a", Opcode.rsv1), marking("b", 0), marking("d", Opcode.rsv1)]),
        ...rest,
        headers: { upgrade: "websocket", connection: "Upgrade", "sec-websocket-accept": accept, ...headers }
      })

    it("the response of §1.3", () => {
      assert.deepStrictEqual(response({ "sec-websocket-protocol": "chat" }), {
        _tag: "Accepted",
        subprotocol: "chat",
        extensions: []
      })
    })
    it("extensions in the server's order", () => {
      assert.deepStrictEqual(response({ "sec-websocket-extensions": "b, a; c=1" }), {
        _tag: "Accepted",
        subprotocol: undefined,
        extensions: [
          { name: "b", params: [], rsv: 0, open },
          { name: "a", params: [{ name: "c", value: "1" }], rsv: Opcode.rsv1, open }
        ]
      })
    })
    type Row = readonly [name: string, headers: Record<string, string | undefined>, rest?: Partial<Handshake.Response>]
    const good: ReadonlyArray<Row> = [
      ["names in any case", { upgrade: "WebSocket", connection: "UPGRADE" }],
      ["Connection with others", { connection: "keep-alive, Upgrade" }],
      ["spaces around the accept value", { "sec-websocket-accept": ` ${accept}\t` }],
      ["no subprotocol chosen", {}],
      ["version of HTTP not known", {}, { httpVersion: undefined }]
    ]
    for (const [name, headers, rest] of good) {
      it(`accepts: ${name}`, () => assert.strictEqual(response(headers, rest)._tag, "Accepted"))
    }
    const bad: ReadonlyArray<readonly [Handshake.ResponseRule, ...Row]> = [
      ["Status", "200 (check 1)", {}, { status: 200 }],
      ["Status", "401", {}, { status: 401 }],
      ["HttpVersion", "HTTP/1.0", {}, { httpVersion: "1.0" }],
      ["Upgrade", "no Upgrade (check 2)", { upgrade: undefined }],
      ["Upgrade", "another protocol", { upgrade: "h2c" }],
      ["Upgrade", "a list", { upgrade: "websocket, h2c" }],
      ["Connection", "no Connection (check 3)", { connection: undefined }],
      ["Connection", "Connection without upgrade", { connection: "close" }],
      ["Accept", "no accept value (check 4)", { "sec-websocket-accept": undefined }],
      ["Accept", "of another key", { "sec-websocket-accept": Handshake.acceptKey("AQIDBAUGBwgJCgsMDQ4PEA==") }],
      ["Accept", "case counts", { "sec-websocket-accept": accept.toLowerCase() }],
      ["AcceptDuplicate", "twice", { "sec-websocket-accept": `${accept}, ${accept}` }],
      ["ExtensionNotOffered", "an extension that was not offered (check 5)", { "sec-websocket-extensions": "c" }],
      ["ExtensionNotOffered", "case counts in names", { "sec-websocket-extensions": "A" }],
      ["ExtensionNotOffered", "none offered", { "sec-websocket-extensions": "a" }, { offeredExtensions: [] }],
      ["ExtensionDuplicate", "an extension twice", { "sec-websocket-extensions": "a, b, a" }],
      ["ExtensionReservedBits", "two that use RSV1", { "sec-websocket-extensions": "a, b, d" }],
      ["ExtensionRefused", "parameters that are refused", { "sec-websocket-extensions": "a; wrong" }],
      ["ExtensionSyntax", "extension syntax", { "sec-websocket-extensions": "a;" }],
      ["ExtensionSyntax", "empty list of extensions", { "sec-websocket-extensions": "" }],
      ["SubprotocolNotOffered", "a subprotocol that was not offered (check 6)", { "sec-websocket-protocol": "other" }],
      ["SubprotocolNotOffered", "none offered", { "sec-websocket-protocol": "chat" }, { offeredSubprotocols: [] }],
      ["SubprotocolNotOffered", "case counts", { "sec-websocket-protocol": "Chat" }],
      ["SubprotocolDuplicate", "two subprotocols", { "sec-websocket-protocol": "chat, superchat" }],
      ["SubprotocolDuplicate", "one subprotocol twice", { "sec-websocket-protocol": "chat, chat" }],
      ["SubprotocolSyntax", "empty subprotocol", { "sec-websocket-protocol": "" }],
      ["SubprotocolSyntax", "no token", { "sec-websocket-protocol": "chat v2" }]
    ]
    for (const [rule, name, headers, rest] of bad) {
      it(`rejects: ${name}`, () => {
        const checked = response(headers, rest)
        if (checked._tag !== "Rejected") return assert.fail("accepted")
        assert.deepStrictEqual([checked.rule, checked.status], [rule, rest?.status ?? 101])
        assert.isNotEmpty(checked.message)
      })
    }
    it("messages stay short whatever the server sends", () => {
      const checked = response({ "sec-websocket-protocol": "x".repeat(10_000) })
      assert.isBelow(checked._tag === "Rejected" ? checked.message.length : Infinity, 200)
    })
  })
})
