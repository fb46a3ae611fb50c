import * as Net from "node:net"
import { FileSystem, HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeFileSystem, NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { WebSocketClient } from "@effect-ws/core"
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

/** Where a member's session stands: a client of docs/resume.md by hand, which acknowledges what it takes when it says something. */
interface Session {
  readonly id: string
  sent: number
  received: number
}

/** A member of a room, in a new session or in one that goes on. */
const enter = (url: string, room: string, name: string, before: Session = { id: "-", sent: 0, received: 0 }) =>
  Effect.gen(function* () {
    const { close, closed, send, take } = yield* WebSocketClient.connect(
      `${url}/chat/${room}?name=${encodeURIComponent(name)}`
    )
    const { id, received, sent } = before
    yield* send(`H1 ${id} ${received} ${received} ${sent + 1} ${sent} 256 65536`)
    const welcome = /^W1 (new|resumed) ([\da-f]{32}) (\d+) \d+ \d+ \d+$/.exec(`${yield* take}`)
    assert.deepStrictEqual(welcome?.slice(1), [
      id === "-" ? "new" : "resumed",
      id === "-" ? welcome?.[2] : id,
      `${sent}`
    ])
    const session: Session = { ...before, id: welcome![2]! }
    const payload: Effect.Effect<string, Effect.Effect.Error<typeof take>> = Effect.flatMap(take, (message) => {
      const data = /^(\d+)(?:,\d+)?\n(.*)$/s.exec(`${message}`)
      if (data === null) return payload
      assert.strictEqual(Number(data[1]), ++session.received)
      return Effect.succeed(data[2]!)
    })
    return {
      close,
      closed,
      session,
      take: payload,
      send: (message: string | Uint8Array) =>
        Effect.suspend(() => {
          const header = `${++session.sent},${session.received}\n`
          return send(typeof message === "string" ? header + message : Buffer.concat([Buffer.from(header), message]))
        })
    }
  })
type Member = Effect.Effect.Success<ReturnType<typeof enter>>
const next = (socket: Member) => Effect.flatMap(socket.take, decode)
const expect = <Tag extends ServerMessage["_tag"]>(socket: Member, tag: Tag) =>
  Effect.map(next(socket), (message) => {
    assert.strictEqual(message._tag, tag)
    return message as Extract<ServerMessage, { readonly _tag: Tag }>
  })
const say = (socket: Member, text: string) => socket.send(JSON.stringify({ _tag: "say", text }))

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

  it.scoped("cuts the line when asked; who comes back has missed nothing, and never left", () =>
    Effect.gen(function* () {
      const { url } = yield* Demo
      const ada = yield* enter(url, "cut", "Ada")
      const { you } = yield* expect(ada, "welcome")
      const bob = yield* enter(url, "cut", "Bob")
      yield* expect(bob, "welcome")
      yield* expect(ada, "joined")
      yield* ada.send(`{"_tag":"drop"}`)
      assert.strictEqual((yield* ada.closed).code, 1006)
      yield* say(bob, "are you there?")
      yield* expect(bob, "said")
      const again = yield* enter(url, "cut", "Ada", ada.session)
      assert.strictEqual((yield* expect(again, "said")).line.text, "are you there?")
      yield* say(again, "I am")
      const { line } = yield* expect(bob, "said")
      assert.deepStrictEqual([line.from, line.text], [you, "I am"])
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

describe("members of the demo's chat", () => {
  it.scopedLive("whose line is cut leave after CHAT_RESUME_TTL", () =>
    Effect.gen(function* () {
      const { url } = yield* startDemo({ CHAT_RESUME_TTL: "1 millis" })
      const ada = yield* enter(url, "lobby", "Ada")
      const { you } = yield* expect(ada, "welcome")
      const bob = yield* enter(url, "lobby", "Bob")
      yield* expect(bob, "welcome")
      yield* ada.send(`{"_tag":"drop"}`)
      assert.deepStrictEqual((yield* expect(bob, "left")).member, you)
    }).pipe(Effect.provide(clients))
  )

  it.scopedLive("come back to a server that was restarted; late ones are told what was said", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const first = yield* startDemo({ CHAT_STORE: folder })
      const ada = yield* enter(first.url, "lobby", "Ada")
      yield* expect(ada, "welcome")
      for (const text of ["one", "two"]) {
        yield* say(ada, text)
        yield* expect(ada, "said")
      }
      yield* first.program.signal("SIGINT")
      assert.strictEqual((yield* ada.closed).code, 1001)
      assert.deepInclude(yield* first.program.ended, { code: 0, stderr: "" })

      const { url } = yield* startDemo({ CHAT_STORE: folder })
      const again = yield* enter(url, "lobby", "Ada", ada.session)
      const texts = ({ history }: { readonly history: ReadonlyArray<{ readonly text: string }> }) =>
        history.map(({ text }) => text)
      assert.deepStrictEqual(texts(yield* expect(again, "welcome")), ["one", "two"])
      yield* say(again, "three")
      assert.strictEqual((yield* expect(again, "said")).line.text, "three")
      const bob = yield* enter(url, "lobby", "Bob")
      assert.deepStrictEqual(texts(yield* expect(bob, "welcome")), ["one", "two", "three"])
    }).pipe(Effect.provide(Layer.merge(clients, NodeFileSystem.layer)))
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
