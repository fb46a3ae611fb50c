import { assert, describe, it } from "@effect/vitest"
import { Connection, TestTransport, WebSocketError } from "@effect-ws/core"
import { type Extension, Handshake } from "@effect-ws/core/engine"
import { Effect } from "effect"
import { Deadline, HandshakeTransport, type Request } from "../src/internal/clientHandshake.js"
import * as ClientTarget from "../src/internal/clientTarget.js"
import { concat, encodeFrame, utf8 } from "./conformance/rawFrames.js"
import { lending, Recorder } from "./recorder.js"

const open: Extension.Open = () => ({
  encode: ({ payload }) => ({ payload, rsv: 0 }),
  decode: ({ payload }) => payload
})

const marker: Extension.Extension = {
  name: "x-marker",
  rsv: 0x40,
  offer: () => [[{ name: "level", value: "9" }], []],
  accept: (answer) => (answer.length === 0 ? open : { _tag: "Refusal", reason: "no level that we know" }),
  negotiate: () => undefined
}

const millis = { Dial: 1000, Tls: 1000, Proxy: 1000, Response: 1000 }

const requestWith = (extensions: ReadonlyArray<Extension.Extension> | undefined) =>
  Effect.gen(function* () {
    const place = ClientTarget.place("ws://a.example/", {})
    if (place instanceof WebSocketError.HandshakeError) return yield* place
    const request = ClientTarget.request(place, { extensions }, false)
    return request instanceof WebSocketError.HandshakeError ? yield* request : request
  })

const responseTo = ({ key }: Request, extensions?: string): Uint8Array =>
  utf8(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${Handshake.acceptKey(key)}\r\n` +
      `${extensions === undefined ? "" : `Sec-WebSocket-Extensions: ${extensions}\r\n`}\r\n`
  )

/** The client's opening handshake with a server whose 101 has these extensions. */
const exchange = (extensions: ReadonlyArray<Extension.Extension> | undefined, answer: string | undefined) =>
  Effect.gen(function* () {
    const request = yield* requestWith(extensions)
    const [client, server] = yield* TestTransport.pair()
    server.write([responseTo(request, answer)])
    const deadline = new Deadline(yield* Effect.clock, millis)
    const result = yield* new HandshakeTransport(client).exchange(request, deadline)
    // The response itself is tested over sockets.
    const { response: _, ...agreed } = { response: undefined, ...result }
    return { text: request.text, result: agreed }
  })

describe("clientHandshake: a transport that lends what it reads", () => {
  const frames = ["early", "early too", "later"].map((text) => encodeFrame({ opcode: 1, payload: utf8(text) }))

  // One read ends in the head, between frames, in one of them, or behind all.
  for (const bytes of [1, 7, 140, 0x10000]) {
    it.scoped(`${bytes} bytes a read: what follows the response is neither lost nor written over`, () =>
      Effect.gen(function* () {
        const request = yield* requestWith(undefined)
        for (const keeps of [false, true]) {
          const [client, server] = yield* TestTransport.pair()
          server.write([concat([responseTo(request), frames[0]!, frames[1]!])])
          const transport = new HandshakeTransport(lending(client, bytes))
          yield* transport.exchange(request, new Deadline(yield* Effect.clock, millis))
          if (keeps) {
            const recorder = new Recorder()
            transport.open(recorder)
            server.write([frames[2]!])
            server.end()
            while (!recorder.events.includes("end")) yield* Effect.yieldNow()
            assert.deepStrictEqual(concat(recorder.chunks), concat(frames))
          } else {
            const connection = yield* Connection.make(transport, { role: "client" })
            server.write([frames[2]!])
            for (const text of ["early", "early too", "later"]) assert.strictEqual(yield* connection.take, text)
            yield* server.cut
          }
        }
      })
    )
  }
})

describe("clientHandshake: extensions", () => {
  it.effect("offered in the request, and agreed on by the response", () =>
    Effect.gen(function* () {
      const { result, text } = yield* exchange([marker], "x-marker")
      assert.match(text, /^Sec-WebSocket-Extensions: x-marker; level=9, x-marker\r$/m)
      assert.deepStrictEqual(result, {
        _tag: "Accepted",
        subprotocol: undefined,
        extensions: [{ name: "x-marker", params: [], rsv: 0x40, open }]
      })
    })
  )
  it.effect("none: no header, nothing agreed on", () =>
    Effect.gen(function* () {
      const { result, text } = yield* exchange(undefined, undefined)
      assert.notInclude(text, "Extensions")
      assert.deepStrictEqual(result, { _tag: "Accepted", subprotocol: undefined, extensions: [] })
    })
  )
  const wrong: ReadonlyArray<readonly [answer: string, extensions: ReadonlyArray<Extension.Extension>, RegExp]> = [
    ["x-marker", [], /not offered: x-marker/],
    ["x-other", [marker], /not offered: x-other/],
    ["x-marker, x-marker", [marker], /twice: x-marker/],
    ["x-marker; level=9", [marker], /answer for x-marker is refused: no level that we know/]
  ]
  for (const [answer, extensions, detail] of wrong) {
    it.effect(`the answer ${answer} to ${extensions.length} extensions fails the handshake`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(exchange(extensions, answer))
        assert.deepStrictEqual([error.phase, error.reason, error.status], ["Response", "Invalid", 101])
        assert.match(error.detail, detail)
      })
    )
  }
})
