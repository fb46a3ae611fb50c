import { assert, describe, it } from "@effect/vitest"
import * as Handshake from "../../src/engine/Handshake.js"
import * as ServerHandshake from "../../src/engine/ServerHandshake.js"

const all: ReadonlyArray<Handshake.Draft> = ["8", "hixie-76", "hixie-75"]

type Fields = Record<string, string | undefined>

const common: Fields = {
  host: "example.com",
  upgrade: "WebSocket",
  connection: "Upgrade",
  origin: "http://example.com"
}
const hixie75: Fields = common
const hixie76: Fields = {
  ...common,
  "sec-websocket-key1": "4 @1  46546xW%0l 1 5",
  "sec-websocket-key2": "12998 5 Y3 1  .P00"
}
const version8: Fields = {
  host: "example.com",
  upgrade: "websocket",
  connection: "Upgrade",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  "sec-websocket-version": "8",
  "sec-websocket-origin": "http://example.com"
}
const version13: Fields = { ...version8, "sec-websocket-version": "13", "sec-websocket-origin": undefined }

const check = (headers: Fields, drafts: ReadonlyArray<Handshake.Draft> | undefined = all, method = "GET") =>
  ServerHandshake.checkRequest({ method, httpVersion: "1.1", headers, drafts })

const accepted = (headers: Fields, drafts?: ReadonlyArray<Handshake.Draft>) => {
  const result = check(headers, drafts)
  if (result._tag === "Rejected") throw new Error(result.body)
  return result
}

describe("the version is chosen by the request's headers", () => {
  const rows: ReadonlyArray<readonly [string, Fields, Handshake.Version]> = [
    ["no key, no version", hixie75, "hixie-75"],
    ["Sec-WebSocket-Key1 and 2", hixie76, "hixie-76"],
    ["Sec-WebSocket-Version: 8", version8, "8"],
    ["Sec-WebSocket-Version: 13", version13, "13"],
    ["13 although there are keys of hixie-76 too", { ...hixie76, ...version13 }, "13"]
  ]
  for (const [name, headers, version] of rows) {
    it(name, () => assert.strictEqual(accepted(headers).version, version))
    if (version === "13") it(`${name}, without drafts`, () => assert.strictEqual(accepted(headers, []).version, "13"))
    else {
      it(`${name}: 426 unless it is switched on`, () => {
        for (const drafts of [undefined, [], all.filter((draft) => draft !== version)]) {
          const result = ServerHandshake.checkRequest({ method: "GET", headers, drafts })
          assert.isTrue(result._tag === "Rejected" && result.rule === "Version" && result.status === 426)
        }
      })
    }
  }

  it("426 names version 8 where it is spoken", () => {
    const headers = { ...version13, "sec-websocket-version": "7" }
    for (const [drafts, versions] of [
      [[], "13"],
      [all, "13, 8"]
    ] as const) {
      const result = check(headers, drafts)
      assert.isTrue(result._tag === "Rejected" && result.headers["sec-websocket-version"] === versions)
    }
  })
})

describe("requests of drafts that are refused", () => {
  const key = (key1: string | undefined, key2: string | undefined = "12998 5 Y3 1  .P00"): Fields => ({
    ...common,
    "sec-websocket-key1": key1,
    "sec-websocket-key2": key2
  })
  const rows: ReadonlyArray<readonly [Handshake.RequestRule, string, Fields]> = [
    // hixie-76 §5.2
    ["HixieKeys", "no second key", { ...key("1 2"), "sec-websocket-key2": undefined }],
    ["HixieKeys", "no first key", key(undefined)],
    ["HixieKeys", "no space", key("12")],
    ["HixieKeys", "no digit", key("a b")],
    ["HixieKeys", "no multiple of the spaces", key("1 2 3")],
    ["HixieKeys", "more than 32 bits", key("4 294967296")],
    ["Upgrade", "another protocol", { ...hixie76, upgrade: "h2c" }],
    ["Connection", "no Connection: Upgrade", { ...hixie75, connection: "close" }],
    ["Host", "no host", { ...hixie75, host: undefined }],
    ["OriginDuplicate", "two origins", { ...hixie75, origin: "http://a.example, http://b.example" }],
    ["OriginDuplicate", "two origins in version 8", { ...version8, origin: "http://other.example" }],
    ["Key", "no key in version 8", { ...version8, "sec-websocket-key": undefined }]
  ]
  for (const [rule, name, headers] of rows) {
    it(`${rule}: ${name}`, () => {
      const result = check(headers)
      assert.strictEqual(result._tag === "Rejected" ? result.rule : "Accepted", rule)
    })
  }

  it("another method", () => {
    const result = check(hixie75, all, "POST")
    assert.isTrue(result._tag === "Rejected" && result.status === 405)
  })
})

describe("the keys of hixie-76", () => {
  // draft-hixie-thewebsocketprotocol-76 §1.2, §1.3
  const rows: ReadonlyArray<readonly [string, string, number, number]> = [
    ["4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", 829309203, 259970620],
    ["18x 6]8vM;54 *(5:  {   U1]8  z [  8", "1_ tx7X d  <  nw  334J702) 7]o}` 0", 155712099, 173347027],
    ["4294967295 ", "0 0", 4294967295, 0]
  ]
  for (const [key1, key2, number1, number2] of rows) {
    it(`${key1} is ${number1}`, () => {
      const result = accepted({ ...common, "sec-websocket-key1": key1, "sec-websocket-key2": key2 })
      assert.isTrue("keys" in result && result.keys !== undefined)
      const view = new DataView((result as { keys: Uint8Array }).keys.buffer)
      assert.deepStrictEqual([view.getUint32(0), view.getUint32(4)], [number1, number2])
    })
  }
})

describe("the origin", () => {
  it("is Sec-WebSocket-Origin in drafts 08 to 10, Origin in 11 and 12", () => {
    assert.strictEqual(accepted(version8).origin, "http://example.com")
    const later = { ...version8, "sec-websocket-origin": undefined, origin: "http://later.example" }
    assert.strictEqual(accepted(later).origin, "http://later.example")
    assert.strictEqual(accepted({ ...version8, origin: "http://example.com" }).origin, "http://example.com")
  })

  it("of version 13 is never Sec-WebSocket-Origin", () => {
    assert.strictEqual(accepted({ ...version13, "sec-websocket-origin": "http://a.example" }).origin, undefined)
  })
})

describe("the 101", () => {
  // draft-hixie-thewebsocketprotocol-76 §1.2; -75 §1.2
  it("of hixie-76, as in the draft", () => {
    const request = accepted({ ...hixie76, "sec-websocket-protocol": "sample" })
    assert.deepStrictEqual(request.subprotocols, ["sample"])
    assert.strictEqual(
      ServerHandshake.formatAccept(request, { target: "/demo", subprotocol: "sample" }),
      "HTTP/1.1 101 WebSocket Protocol Handshake\r\n" +
        "Upgrade: WebSocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Origin: http://example.com\r\nSec-WebSocket-Location: ws://example.com/demo\r\n" +
        "Sec-WebSocket-Protocol: sample\r\n\r\n"
    )
  })

  it("of hixie-75, as in the draft, with others behind the handshake's own headers", () => {
    const request = accepted({ ...hixie75, "websocket-protocol": "sample" })
    const expected =
      "HTTP/1.1 101 Web Socket Protocol Handshake\r\n" +
      "Upgrade: WebSocket\r\nConnection: Upgrade\r\n" +
      "WebSocket-Origin: http://example.com\r\nWebSocket-Location: wss://example.com/demo?a=b\r\n" +
      "WebSocket-Protocol: sample\r\nx-more: yes\r\n\r\n"
    const agreement = { target: "/demo?a=b", secure: true, subprotocol: "sample" }
    assert.strictEqual(ServerHandshake.formatAccept(request, agreement, { "x-more": "yes" }), expected)
  })

  it("without an origin has none, and an absolute target's path is the location's", () => {
    const request = accepted({ ...hixie75, origin: undefined })
    const text = ServerHandshake.formatAccept(request, { target: "http://other.example?x" })
    assert.include(text, "\r\nWebSocket-Location: ws://example.com/?x\r\n\r\n")
    assert.notInclude(text, "WebSocket-Origin")
  })

  it("of version 8 is that of RFC 6455", () => {
    assert.strictEqual(
      ServerHandshake.formatAccept(accepted(version8), { target: "/" }),
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
  })

  const refused: ReadonlyArray<readonly [string, Fields, ServerHandshake.Agreement, Fields]> = [
    ["a line break in a header", hixie76, { target: "/" }, { "x-a": "1\r\nx-b: 2" }],
    ["a header of its own", hixie76, { target: "/" }, { "sec-websocket-location": "ws://other.example/" }],
    ["a header of hixie-75's own", hixie75, { target: "/" }, { "websocket-origin": "http://other.example" }],
    ["a line break in the subprotocol", hixie75, { target: "/", subprotocol: "a\r\nx-b: 2" }, {}],
    ["a subprotocol that is no token", version8, { target: "/", subprotocol: "a b" }, {}]
  ]
  for (const [name, headers, agreement, more] of refused) {
    it(`can't be formatted with ${name}`, () =>
      assert.isObject(ServerHandshake.formatAccept(accepted(headers), agreement, more)))
  }
})

describe("a client's request of version 8", () => {
  it("has its version and the origin under its name, and is accepted by it", () => {
    const text = Handshake.formatRequest({
      path: "/",
      host: "example.com",
      key: "dGhlIHNhbXBsZSBub25jZQ==",
      subprotocols: [],
      origin: "http://example.com",
      version: 8,
      headers: {}
    })
    assert.strictEqual(
      text,
      "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n" +
        "Sec-WebSocket-Origin: http://example.com\r\n\r\n"
    )
  })
})
