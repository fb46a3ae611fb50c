import * as Net from "node:net"
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { type Connection, WebSocketClient } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { ServerMessage, Tick } from "../src/demo/protocol.js"
import { start } from "./program.js"

const startDemo = (env: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const program = yield* start("demo/main.js", [], { PORT: "0", FEED_INTERVAL: "20 millis", ...env })
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(yield* program.firstLine)![0]
    return { program, url }
  })

class Demo extends Context.Tag("Demo")<Demo, { readonly url: string }>() {}

const DemoLive = Layer.scoped(Demo, startDemo({ CHAT_ROOM_LINGER: "0 millis", CHAT_HISTORY_LINES: "2" }))
const clients = Layer.merge(NodeWebSocketClient.layer, NodeHttpClient.layerWithoutAgent).pipe(
  Layer.provideMerge(NodeHttpClient.makeAgentLayer({ keepAlive: false }))
)

const decode = Schema.decodeUnknown(Schema.parseJson(ServerMessage))

const enter = (url: string, room: string, name: string) =>
  WebSocketClient.connect(`${url}/chat/${room}?name=${encodeURIComponent(name)}`)
const next = (socket: Connection.Connection) => Effect.flatMap(socket.take, decode)
const expect = <Tag extends ServerMessage["_tag"]>(socket: Connection.Connection, tag: Tag) =>
  Effect.map(next(socket), (message) => {
    assert.strictEqual(message._tag, tag)
    return message as Extract<ServerMessage, { readonly _tag: Tag }>
  })
const say = (socket: Connection.Connection, text: string) => socket.send(JSON.stringify({ _tag: "say", text }))

layer(Layer.merge(DemoLive, clients), { excludeTestServices: true })("demo", (it) => {
  it.scoped("serves the page with what it loads, and nothing from elsewhere", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const page = yield* HttpClient.get(url)
      assert.strictEqual(page.status, 200)
      assert.match(page.headers["content-type"]!, /^text\/html/)
      assert.match(page.headers["content-security-policy"]!, /default-src 'none'/)
      const text = yield* page.text
      assert.match(text, /<title>effect-ws demo<\/title>/)
      for (const [, path] of text.matchAll(/(?:src|href)="(\/[^"]*)"/g)) {
        const part = yield* HttpClient.get(`${url}${path}`)
        assert.strictEqual(part.status, 200, path)
        assert.isNotEmpty(yield* part.text)
      }
      assert.notMatch(text, /(?:src|href)="(?!\/|data:)/)
    })
  )

  it.scoped("says that it is well", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const health = yield* Effect.flatMap(HttpClient.get(`${url}/health`), (response) => response.json)
      assert.propertyVal(health as object, "status", "ok")
    })
  )

  it.scoped("two people talk: welcome, presence, lines in one order for both, history, a room that goes away", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const rooms = Effect.flatMap(HttpClient.get(`${url}/api/rooms`), (response) => response.json)
      const ada = yield* enter(url, "talk", "Ada")
      const { you } = yield* expect(ada, "welcome")
      assert.strictEqual(you.name, "Ada")

      const leaving = Effect.gen(function* () {
        const bob = yield* enter(url, "talk", "Ada")
        const welcome = yield* expect(bob, "welcome")
        assert.deepStrictEqual(
          welcome.members.map(({ name }) => name),
          ["Ada", "Ada 2"]
        )
        assert.strictEqual((yield* expect(ada, "joined")).member.name, "Ada 2")
        assert.deepStrictEqual(yield* rooms, [{ room: "talk", members: ["Ada", "Ada 2"] }])
        yield* say(ada, "  one ")
        for (const socket of [ada, bob]) {
          const { line } = yield* expect(socket, "said")
          assert.deepStrictEqual([line.from.name, line.text], ["Ada", "one"])
        }
        for (const text of ["two", "three"]) {
          yield* say(bob, text)
          for (const socket of [ada, bob]) assert.strictEqual((yield* expect(socket, "said")).line.text, text)
        }
        return welcome.you
      })
      const gone = yield* Effect.scoped(leaving)
      assert.deepStrictEqual((yield* expect(ada, "left")).member, gone)

      const cyd = yield* enter(url, "talk", "Cyd")
      const { history } = yield* expect(cyd, "welcome")
      assert.deepStrictEqual(
        history.map(({ text }) => text),
        ["two", "three"]
      )
      yield* ada.close()
      yield* expect(cyd, "left")
      yield* cyd.close()
      // The room goes when the server has seen the last connection's end: soon, but after the client has.
      const visit = Effect.scoped(Effect.flatMap(enter(url, "talk", "Dan"), (socket) => expect(socket, "welcome")))
      const later = yield* Effect.repeat(visit, { until: ({ history }) => history.length === 0 })
      assert.strictEqual(later.room, "talk")
    })
  )

  it.scoped("what is said in one room is not heard in another", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const here = yield* enter(url, "here", "Ada")
      const there = yield* enter(url, "there", "Bob")
      for (const socket of [here, there]) yield* expect(socket, "welcome")
      yield* say(here, "from here")
      yield* expect(here, "said")
      yield* say(there, "from there")
      assert.strictEqual((yield* expect(there, "said")).line.text, "from there")
    })
  )

  const refusals: ReadonlyArray<readonly [name: string, message: string | Uint8Array, reason: RegExp]> = [
    ["text that is not JSON", "hello", /JSON/],
    ["a message of no known kind", `{"_tag":"shout","text":"x"}`, /_tag: /],
    ["a text of another type", `{"_tag":"say","text":1}`, /text: Expected string/],
    ["an empty text", `{"_tag":"say","text":"  "}`, /text: the text is empty/],
    ["a binary message", new Uint8Array([1]), /only text/]
  ]
  for (const [name, message, reason] of refusals) {
    it.scoped(`refuses ${name} with a reason, and goes on`, () =>
      Effect.gen(function* () {
        const { url } = yield* Demo
        const socket = yield* enter(url, "refusals", "Ada")
        yield* expect(socket, "welcome")
        yield* socket.send(message)
        assert.match((yield* expect(socket, "refused")).reason, reason)
        yield* say(socket, "still here")
        assert.strictEqual((yield* expect(socket, "said")).line.text, "still here")
        yield* socket.close()
      })
    )
  }

  it.scoped("closes with 1009 after a message larger than 4096 bytes", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const socket = yield* enter(url, "big", "Ada")
      yield* say(socket, "x".repeat(4096))
      assert.strictEqual((yield* socket.closed).code, 1009)
    })
  )

  it.scoped("cuts the line when asked, and the others learn that the member left", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const ada = yield* enter(url, "cut", "Ada")
      const { you } = yield* expect(ada, "welcome")
      const bob = yield* enter(url, "cut", "Bob")
      yield* expect(bob, "welcome")
      yield* ada.send(`{"_tag":"drop"}`)
      assert.strictEqual((yield* ada.closed).code, 1006)
      assert.deepStrictEqual((yield* expect(bob, "left")).member, you)
    })
  )

  const rejections: ReadonlyArray<
    readonly [name: string, path: string, headers: Record<string, string>, status: number]
  > = [
    ["a room's name with a space", "/chat/a%20b?name=Ada", {}, 400],
    ["no name", "/chat/lobby", {}, 400],
    ["a page of elsewhere", "/chat/lobby?name=Ada", { origin: "https://elsewhere.example" }, 403],
    ["a path without a route", "/nowhere", {}, 404]
  ]
  for (const [name, path, headers, status] of rejections) {
    it.scoped(`answers ${status} to ${name}`, () =>
      Effect.gen(function* () {
        const { url } = yield* Demo
        const error = yield* Effect.flip(WebSocketClient.connect(`${url}${path}`, { headers }))
        assert.strictEqual(error.status, status)
      })
    )
  }

  it.scoped("tells who does not ask for a WebSocket to upgrade", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const response = yield* HttpClient.get(`${url}/chat/lobby?name=Ada`)
      assert.strictEqual(response.status, 426)
    })
  )

  it.scoped("ticks over a WebSocket", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const socket = yield* WebSocketClient.connect(`${url}/feed`)
      const ticks = yield* Effect.forEach([1, 2, 3], () =>
        Effect.flatMap(socket.take, Schema.decodeUnknown(Schema.parseJson(Tick)))
      )
      assert.deepStrictEqual(
        ticks.map(({ n }) => n - ticks[0]!.n),
        [0, 1, 2]
      )
    })
  )

  it.scoped("ticks as Server-Sent Events, and goes on after the last one seen", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const firstId = (headers: Record<string, string>) =>
        HttpClient.execute(HttpClientRequest.get(`${url}/events`, { headers })).pipe(
          Effect.map((response) => response.stream),
          Stream.unwrap,
          Stream.decodeText(),
          Stream.splitLines,
          Stream.filter((line) => line.startsWith("id: ")),
          Stream.map((line) => line.slice("id: ".length)),
          Stream.runHead,
          Effect.flatten,
          Effect.scoped
        )
      const first = yield* firstId({})
      const second = yield* firstId({ "last-event-id": first })
      assert.strictEqual(
        second,
        first.replace(/\d+$/, (n) => `${Number(n) + 1}`)
      )
      assert.strictEqual(yield* firstId({ "last-event-id": "of-an-earlier-server-99999" }), first)
    })
  )
})

describe("shutdown of the demo", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.scopedLive(`${signal} ends it with exit code 0; chat and feed get 1001, readers of events an end`, () =>
      Effect.gen(function* () {
        const { program, url } = yield* startDemo()
        const chat = yield* enter(url, "lobby", "Ada")
        yield* expect(chat, "welcome")
        const feed = yield* WebSocketClient.connect(`${url}/feed`)
        yield* feed.take
        const events = yield* HttpClient.get(`${url}/events`)
        const reading = yield* Effect.fork(Effect.exit(Stream.runDrain(events.stream)))
        // One that neither reads nor answers: it is cut after the drain timeout.
        yield* stubborn(url)

        yield* program.signal(signal)
        assert.strictEqual((yield* chat.closed).code, 1001)
        assert.strictEqual((yield* feed.closed).code, 1001)
        const { code, stderr } = yield* program.ended
        assert.deepStrictEqual([code, stderr], [0, ""])
        yield* reading
      }).pipe(Effect.provide(clients))
    )
  }

  it.scopedLive("a port that is taken is said, with exit code 1", () =>
    Effect.gen(function* () {
      const { url } = yield* startDemo()
      const second = yield* start("demo/main.js", [], { PORT: new URL(url).port })
      const { code, stderr, stdout } = yield* second.ended
      assert.strictEqual(code, 1)
      assert.match(stdout.join("\n") + stderr, /can't listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/)
    })
  )
})

/** A client by hand that is open and then does nothing. RFC 6455 §1.3. */
const stubborn = (url: string) =>
  Effect.acquireRelease(
    Effect.async<Net.Socket>((resume) => {
      const { hostname, port } = new URL(url)
      const socket = Net.connect(Number(port), hostname)
      socket.on("error", () => {})
      socket.once("data", () => resume(Effect.succeed(socket.pause())))
      socket.write(
        "GET /chat/lobby?name=Mule HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
      )
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
