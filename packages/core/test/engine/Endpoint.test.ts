import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Endpoint from "../../src/engine/Endpoint.js"
import type * as Extension from "../../src/engine/Extension.js"
import type { Draft } from "../../src/engine/Handshake.js"
import { closePayload, concat, encodeFrame, FrameReader, utf8 } from "../conformance/rawFrames.js"
import { cutAt } from "./support.js"

const key = "dGhlIHNhbXBsZSBub25jZQ=="

const makeClient = (request: Partial<Endpoint.ClientOptions["request"]> = {}, options: Endpoint.Options = {}) =>
  Endpoint.client({
    ...options,
    request: { path: "/", host: "example.com", key, subprotocols: [], headers: {}, ...request },
    randomKey: () => 0x12345678
  })

const taken = (endpoint: Endpoint.Endpoint): Uint8Array => concat(endpoint.take().map((piece) => piece.slice()))
const latin1 = (bytes: Uint8Array): string => String.fromCharCode(...bytes)
const tags = (events: ReadonlyArray<Endpoint.Event>) => events.map(({ _tag }) => _tag)
const messagesOf = (events: ReadonlyArray<Endpoint.Event>) =>
  events.flatMap((event) => (event._tag === "Deliver" ? event.messages : []))
const failureOf = (events: ReadonlyArray<Endpoint.Event>): string => {
  const failed = events.find((event) => event._tag === "Failed")
  return failed?._tag === "Failed" ? failed.message : "none"
}

const mask = Uint8Array.of(1, 2, 3, 4)
const clientText = (text: string) => encodeFrame({ opcode: 1, payload: utf8(text) }, mask)
const serverText = (text: string) => encodeFrame({ opcode: 1, payload: utf8(text) })

const request = utf8(
  `GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v2, v1\r\n\r\n"
)
const accepting = (headers = "") =>
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  `Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n${headers}\r\n`

/** Both ends, each byte that one writes in pieces of `size` at the other, until nobody writes any more. */
const converse = (
  client: Endpoint.ClientEndpoint,
  server: Endpoint.ServerEndpoint,
  size: number,
  onServer: (event: Endpoint.Event) => ReadonlyArray<Endpoint.Event>
) => {
  const seen = { client: [] as Array<Endpoint.Event>, server: [] as Array<Endpoint.Event> }
  const pieces = (bytes: Uint8Array) =>
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size))
  for (;;) {
    const up = pieces(taken(client))
    for (const piece of up) {
      for (const event of server.receive(piece)) seen.server.push(event, ...onServer(event))
    }
    const down = pieces(taken(server))
    for (const piece of down) seen.client.push(...client.receive(piece))
    if (up.length + down.length === 0) return seen
  }
}

describe("both roles", () => {
  for (const size of [1, 7, 100_000]) {
    it(`what is sent before the handshake is done goes after it, in order, in pieces of ${size}`, () => {
      const client = makeClient({ subprotocols: ["v1"] })
      const server = Endpoint.server()
      assert.isTrue(client.send("1"))
      assert.isTrue(client.ping(Uint8Array.of(2)))
      assert.isTrue(client.sendFragment("binary", Uint8Array.of(3), false))
      assert.isTrue(client.pong())
      assert.isTrue(client.sendFragment("continuation", Uint8Array.of(4), true))
      assert.isTrue(server.send("a"))
      assert.isTrue(server.ping(Uint8Array.of(5)))
      assert.deepStrictEqual([client.state._tag, server.state._tag], ["Opening", "Opening"])
      const { client: atClient, server: atServer } = converse(client, server, size, (event) =>
        event._tag === "Request" ? server.accept({ subprotocol: "v1" }) : []
      )
      // websocket-driver: an `open` that came before anyone listened was lost, and its server stayed "connecting"
      assert.deepStrictEqual([client.state._tag, server.state._tag], ["Open", "Open"])
      assert.deepStrictEqual(
        tags(atServer).filter((tag) => tag !== "Deliver"),
        ["Request", "Open", "PingReceived", "PongReceived", "PongReceived"]
      )
      assert.deepStrictEqual(
        tags(atClient).filter((tag) => tag !== "Deliver"),
        ["Open", "PingReceived", "PongReceived"]
      )
      assert.deepInclude(
        atClient.find(({ _tag }) => _tag === "Open"),
        { subprotocol: "v1", version: "13" }
      )
      assert.deepStrictEqual(messagesOf(atServer), ["1", Uint8Array.of(3, 4)])
      assert.deepStrictEqual(messagesOf(atClient), ["a"])
    })
  }

  it("close, by either", () => {
    for (const closer of ["client", "server"] as const) {
      const client = makeClient()
      const server = Endpoint.server()
      converse(client, server, 100, (event) => (event._tag === "Request" ? server.accept() : []))
      const closing = { client, server }[closer].close(4000, "enough")
      assert.deepStrictEqual(tags(closing), ["StartCloseTimer"])
      const seen = converse(client, server, 100, () => [])
      for (const events of [seen.client, seen.server]) {
        const closed = events.find((event) => event._tag === "Closed")
        assert.deepInclude(closed?._tag === "Closed" ? closed.info : {}, { code: 4000, reason: "enough", clean: true })
      }
      assert.isTrue(tags(seen.server).includes("EndTransport"))
      assert.isFalse(client.send("late"))
    }
  })

  it("an end without a closing handshake is told (websocket-driver says nothing)", () => {
    for (const end of ["transportEnded", "transportClosed"] as const) {
      const client = makeClient()
      const server = Endpoint.server()
      converse(client, server, 100, (event) => (event._tag === "Request" ? server.accept() : []))
      for (const endpoint of [client, server]) {
        const closed = endpoint[end]().find((event) => event._tag === "Closed")
        assert.strictEqual(closed?._tag === "Closed" ? closed.info.code : 0, 1006)
        assert.deepStrictEqual(endpoint.transportClosed(), [])
        assert.strictEqual(endpoint.state._tag, "Closed")
      }
    }
  })

  it("an end before the connection is open is a failure, once", () => {
    for (const make of [makeClient, () => Endpoint.server()]) {
      for (const [give, then] of [
        [(e: Endpoint.Endpoint) => e.transportEnded(), ["Failed", "EndTransport"]],
        [(e: Endpoint.Endpoint) => e.transportClosed(), ["Failed"]],
        [(e: Endpoint.Endpoint) => e.close(), ["Failed", "AbortTransport"]]
      ] as const) {
        const endpoint = make()
        endpoint.send("never")
        assert.deepStrictEqual(tags(give(endpoint)), [...then])
        assert.deepStrictEqual(give(endpoint), [])
        assert.strictEqual(endpoint.state._tag, "Failed")
        assert.isFalse(endpoint.send("x"))
        assert.deepStrictEqual(endpoint.receive(utf8("HTTP/1.1 200 OK\r\n\r\n")), [])
        assert.deepStrictEqual(endpoint.closeTimerFired(), [])
      }
    }
  })

  it("mistakes of the caller throw before a byte is written (websocket-driver sends illegal frames)", () => {
    const client = makeClient()
    client.take()
    const long = new Uint8Array(126)
    assert.throws(() => client.ping(long), RangeError)
    assert.throws(() => client.pong(long), RangeError)
    assert.throws(() => client.close(1000, "x".repeat(124)), RangeError)
    assert.throws(() => client.close(1000, "é".repeat(62)), RangeError)
    for (const code of [999, 1004, 1005, 1006, 1015, 2999, 5000]) assert.throws(() => client.close(code), RangeError)
    assert.throws(() => client.close(undefined, "no code, but a reason"), RangeError)
    assert.throws(() => makeClient({ headers: { "x-a": "b\r\nc: d" } }), TypeError)
    assert.throws(() => makeClient({ path: "no-slash" }), TypeError)
    assert.deepStrictEqual([client.state._tag, taken(client).length], ["Opening", 0])
    client.receive(utf8(accepting()))
    client.close(1000, "x".repeat(123))
    assert.strictEqual(taken(client).length, 2 + 4 + 125)
  })

  it("options stay the caller's (websocket-driver writes into them)", () => {
    const options = Object.freeze({ limits: Object.freeze({ maxMessageBytes: 3 }) })
    const server = Endpoint.server(options)
    server.receive(request.slice())
    server.accept(Object.freeze({}))
    server.take()
    assert.deepStrictEqual(messagesOf(server.receive(clientText("abc"))), ["abc"])
    assert.isTrue(tags(server.receive(clientText("abcd"))).includes("Closed"))
  })
})

describe("extensions", () => {
  /** Turns all bits; with `later` its results wait there for a call. */
  const invert = (later?: Array<() => void>): Extension.Extension => {
    const turn = (payload: Uint8Array) => payload.map((byte) => byte ^ 0xff)
    const open = (): Extension.Session => ({
      encode: ({ payload }, done) => {
        if (later === undefined) return { payload: turn(payload), rsv: 0x40 }
        later.push(() => done({ payload: turn(payload), rsv: 0x40 }))
        return undefined
      },
      decode: ({ payload }, done) => {
        if (later === undefined) return turn(payload)
        later.push(() => done(turn(payload)))
        return undefined
      }
    })
    return {
      name: "x-invert",
      rsv: 0x40,
      offer: () => [[]],
      accept: () => open,
      negotiate: (offers) => ({ params: offers[0]!, open })
    }
  }
  const connect = (client: Endpoint.ClientEndpoint, server: Endpoint.ServerEndpoint) =>
    converse(client, server, 100_000, (event) => (event._tag === "Request" ? server.accept() : []))

  it("are offered, agreed on, and transform what waited", () => {
    const client = makeClient({}, { extensions: [invert()] })
    const server = Endpoint.server({ extensions: [invert()] })
    client.send("one")
    server.send(Uint8Array.of(2))
    const seen = connect(client, server)
    assert.deepStrictEqual([messagesOf(seen.server), messagesOf(seen.client)], [["one"], [Uint8Array.of(2)]])
    server.send("A")
    assert.deepStrictEqual(taken(server), Uint8Array.of(0xc1, 1, 0x41 ^ 0xff))
    assert.throws(() => Endpoint.server({ extensions: [invert(), invert()] }), TypeError)
  })

  it("that take their time tell when they are done", () => {
    const later: Array<() => void> = []
    const progress: Array<Endpoint.Event> = []
    const onProgress = (events: ReadonlyArray<Endpoint.Event>) => progress.push(...events)
    const client = makeClient({}, { extensions: [invert(later)], onProgress })
    const server = Endpoint.server({ extensions: [invert(later)], onProgress })
    client.send("one")
    connect(client, server)
    assert.deepStrictEqual([later.length, taken(client).length], [1, 0])
    later.pop()!()
    assert.deepStrictEqual(server.receive(taken(client)), [])
    assert.isTrue(server.busy)
    later.pop()!()
    assert.isFalse(server.busy)
    assert.deepStrictEqual(messagesOf(progress), ["one"])
  })
})

describe("a server", () => {
  it("shows the request before anything behind it is decoded (websocket-driver parses it at once)", () => {
    const input = concat([request, clientText("one"), clientText("two")])
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.nat(), { maxLength: 5 }), (cuts) => {
        const server = Endpoint.server()
        const events = cutAt(input.slice(), cuts).flatMap((piece) => [...server.receive(piece)])
        assert.deepStrictEqual(tags(events), ["Request"])
        const [shown] = events
        assert.isTrue(shown?._tag === "Request" && shown.head.target === "/chat" && shown.handshake._tag === "Accepted")
        const opened = server.accept({ subprotocol: "v1", headers: { "X-A": "1" } })
        assert.strictEqual(opened[0]?._tag, "Open")
        assert.deepStrictEqual(messagesOf(opened), ["one", "two"])
        assert.strictEqual(latin1(taken(server)), accepting("Sec-WebSocket-Protocol: v1\r\nX-A: 1\r\n"))
      })
    )
  })

  it("refuses: what is wrong, 403, or any response", () => {
    const plain = utf8("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    const rows: ReadonlyArray<readonly [Uint8Array, Parameters<Endpoint.ServerEndpoint["refuse"]>[0], RegExp]> = [
      [plain, undefined, /^HTTP\/1.1 426 /],
      [request, undefined, /^HTTP\/1.1 403 Forbidden\r\n/],
      [plain, { status: 200, body: "hello" }, /^HTTP\/1.1 200 OK\r\n[\s\S]*\r\n\r\nhello$/]
    ]
    for (const [bytes, response, expected] of rows) {
      const server = Endpoint.server()
      server.receive(bytes.slice())
      assert.deepStrictEqual(tags(server.refuse(response)), ["Failed", "EndTransport"])
      assert.match(latin1(taken(server)), expected)
      assert.throws(() => server.accept(), TypeError)
      assert.strictEqual(server.state._tag, "Failed")
    }
  })

  it("can't answer before there is a request, nor accept what is no handshake, nor twice, nor with bad headers", () => {
    const server = Endpoint.server()
    assert.throws(() => server.accept(), TypeError)
    server.receive(request.slice())
    assert.throws(() => server.accept({ headers: { "x-a": "b\nc: d" } }), TypeError)
    assert.throws(() => server.refuse({ status: 101 }), TypeError)
    assert.deepStrictEqual(server.take(), [])
    server.accept()
    assert.throws(() => server.accept(), TypeError)
    assert.throws(() => server.refuse(), TypeError)
    const other = Endpoint.server()
    other.receive(utf8("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert.throws(() => other.accept(), TypeError)
  })

  it("answers a bad head itself, whatever it is cut into", () => {
    for (const [text, status] of [
      ["GET / HTTP/1.1\nHost: a\n\n", 400],
      [`GET / HTTP/1.1\r\nA: ${"x".repeat(20_000)}`, 431]
    ] as const) {
      for (const size of [1, 100_000]) {
        const server = Endpoint.server()
        const events: Array<Endpoint.Event> = []
        for (let at = 0; at < text.length; at += size) events.push(...server.receive(utf8(text.slice(at, at + size))))
        assert.deepStrictEqual(tags(events), ["Failed", "EndTransport"])
        assert.match(latin1(taken(server)), new RegExp(`^HTTP/1.1 ${status} `))
      }
    }
  })

  it("keeps a bounded amount of what comes before its answer", () => {
    const server = Endpoint.server({ limits: { maxQueuedBytes: 10 } })
    server.receive(request.slice())
    assert.deepStrictEqual(server.receive(new Uint8Array(10)), [])
    assert.deepStrictEqual(tags(server.receive(new Uint8Array(1))), ["Failed", "AbortTransport"])
  })

  it("takes the close codes 1012 to 1014 of the IANA registry (websocket-driver answers 1002)", () => {
    for (const code of [1012, 1013, 1014]) {
      const server = Endpoint.server()
      server.receive(request.slice())
      server.accept()
      server.take()
      const events = server.receive(encodeFrame({ opcode: 8, payload: closePayload(code, "later") }, mask))
      const closed = events.find((event) => event._tag === "Closed")
      assert.deepInclude(closed?._tag === "Closed" ? closed.info : {}, { code, clean: true })
      const reader = new FrameReader()
      reader.push(taken(server))
      assert.deepStrictEqual(reader.next()?.payload, closePayload(code, "later"))
    }
  })

  it("speaks drafts that are switched on, the challenge of hixie-76 with a deadline", () => {
    const hixie = utf8(
      "GET /demo HTTP/1.1\r\nHost: example.com\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: http://example.com\r\n" +
        "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n"
    )
    const make = (drafts: ReadonlyArray<Draft>) => {
      const server = Endpoint.server({ drafts })
      server.receive(hixie.slice())
      return server
    }
    assert.throws(() => make([]).accept(), TypeError)
    const server = make(["hixie-76"])
    assert.isTrue(server.send("early"))
    const opened = server.accept({ secure: true })
    assert.deepStrictEqual(tags(opened), ["Open", "StartCloseTimer"])
    assert.include(latin1(taken(server)), "Sec-WebSocket-Location: wss://example.com/demo\r\n")
    assert.deepStrictEqual(server.receive(utf8("^n:ds")), [])
    assert.deepStrictEqual(messagesOf(server.receive(utf8("[4U\0x"))), [])
    assert.strictEqual(latin1(taken(server)), "8jKS'y:G*Co,Wxa-\0early\xff")
    assert.deepStrictEqual(server.closeTimerFired(), [])
    assert.deepStrictEqual(messagesOf(server.receive(Uint8Array.of(0xff))), ["x"])

    const late = make(["hixie-76"])
    late.accept()
    assert.deepStrictEqual(tags(late.closeTimerFired()), ["Closed", "AbortTransport"])
  })
})

describe("a client", () => {
  const refused: ReadonlyArray<readonly [string, string, RegExp]> = [
    ["another status", "HTTP/1.1 404 Not Found\r\n\r\n", /404/],
    ["another key's answer", accepting().replace("s3pP", "AAAA"), /Accept/],
    ["no HTTP", "SSH-2.0-x\r\n", /HTTP/],
    ["a subprotocol that was not offered", accepting("Sec-WebSocket-Protocol: v9\r\n"), /v9/],
    ["an extension that was not offered", accepting("Sec-WebSocket-Extensions: permessage-deflate\r\n"), /deflate/],
    ["interim responses without end", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(11), /interim/]
  ]
  for (const [name, text, message] of refused) {
    it(`fails for ${name}`, () => {
      const client = makeClient()
      client.send("never")
      client.take()
      const events = client.receive(utf8(text))
      assert.deepStrictEqual(tags(events), ["Failed", "AbortTransport"])
      assert.match(failureOf(events), message)
      assert.deepStrictEqual(client.take(), [])
    })
  }

  it("takes a list in Connection (websocket-driver wants the one value), interim responses, and frames behind the head", () => {
    const input = concat([
      utf8(
        `HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n${accepting().replace("Connection: Upgrade", "Connection: keep-alive, Upgrade")}`
      ),
      serverText("one"),
      serverText("two")
    ])
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.nat(), { maxLength: 5 }), (cuts) => {
        const client = makeClient()
        const events = cutAt(input.slice(), cuts).flatMap((piece) => [...client.receive(piece)])
        assert.strictEqual(events[0]?._tag, "Open")
        assert.deepStrictEqual(messagesOf(events), ["one", "two"])
      })
    )
  })

  it("is held back by a budget", () => {
    const client = makeClient()
    client.receive(utf8(accepting()))
    assert.deepStrictEqual(messagesOf(client.receive(concat([serverText("a"), serverText("b")]), 1)), ["a"])
    assert.isTrue(client.paused)
    assert.deepStrictEqual(messagesOf(client.resume()), ["b"])
    assert.isFalse(client.paused)
  })

  it("asks for version 8", () => {
    const client = makeClient({ version: 8, origin: "http://a.example" })
    assert.include(latin1(taken(client)), "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Origin: http://a.example\r\n")
    assert.deepInclude(client.receive(utf8(accepting()))[0], { _tag: "Open", version: "8" })
  })
})

it("random bytes never throw", () => {
  FastCheck.assert(
    FastCheck.property(
      FastCheck.array(FastCheck.uint8Array({ maxLength: 60 })),
      FastCheck.boolean(),
      (chunks, opened) => {
        for (const endpoint of [makeClient(), Endpoint.server({ drafts: ["8", "hixie-76", "hixie-75"] })]) {
          if (opened) {
            const events = endpoint.receive(
              endpoint instanceof Endpoint.ServerEndpoint ? request.slice() : utf8(accepting())
            )
            if (events[0]?._tag === "Request") (endpoint as Endpoint.ServerEndpoint).accept()
          }
          for (const chunk of chunks) endpoint.receive(chunk.slice())
          endpoint.transportEnded()
          endpoint.transportClosed()
          endpoint.take()
        }
      }
    )
  )
})
