/** Chromium's own `EventSource` and `WebSocket` against our servers, and our clients in Chromium. */
import { createServer } from "node:http"
import type { Socket } from "node:net"
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { type Connection, WebSocketRoute } from "@effect-ws/core"
import type { Extension } from "@effect-ws/core/engine"
import { EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { PermessageDeflate } from "@effect-ws/node"
import { Context, Deferred, Effect, Layer, Queue, Stream } from "effect"
import { Talk } from "./page/contract.js"
import { bundle, Chromium, openPage, serve } from "./support.js"

const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script src="/client.js"></script>`
const Pages = Layer.unwrapEffect(
  Effect.map(bundle("page/client.ts"), (script) =>
    Layer.merge(
      HttpLayerRouter.add("GET", "/", HttpServerResponse.text(html, { contentType: "text/html" })),
      HttpLayerRouter.add("GET", "/client.js", HttpServerResponse.text(script, { contentType: "text/javascript" }))
    )
  )
)

// ---- event streams -----------------------------------------------------------------------------------------------------

const event = (data: string, id?: string, type?: string) => ServerSentEvent.make({ data, id, event: type })

/** What a client gets that names the last event it saw: each part ends, the last one is followed by 204. */
const parts: Readonly<Record<string, ReadonlyArray<ServerSentEvent.Outgoing>>> = {
  "": [
    event("one", "1"),
    event("zwölf 🐈"),
    ServerSentEvent.comment("not an event"),
    event("several\nlines\n", "zwölf 🐈", "named"),
    event("")
  ],
  "zwölf 🐈": [event("after the first part", "2")],
  "2": [event(`  ${"x".repeat(0x40000)}`, "3", "named")]
}

/** The same as clients see it. */
const received = [
  { event: "message", data: "one", lastEventId: "1" },
  { event: "message", data: "zwölf 🐈", lastEventId: "1" },
  { event: "named", data: "several\nlines\n", lastEventId: "zwölf 🐈" },
  { event: "message", data: "", lastEventId: "zwölf 🐈" },
  { event: "message", data: "after the first part", lastEventId: "2" },
  { event: "named", data: `  ${"x".repeat(0x40000)}`, lastEventId: "3" }
]

const Parts = EventStreamRoute.layer(
  "/parts",
  {
    retry: "10 millis",
    accept: ({ lastEventId }) =>
      lastEventId in parts ? Effect.void : Effect.succeed(HttpServerResponse.empty({ status: 204 }))
  },
  ({ lastEventId }) => Stream.fromIterable(parts[lastEventId]!)
)

const Ends = Layer.merge(
  EventStreamRoute.layer("/ends-soon", { retry: "10 millis" }, () => Stream.make(event("soon"))),
  EventStreamRoute.layer("/ends", {}, () => Stream.make(event("by default")))
)

// ---- WebSockets --------------------------------------------------------------------------------------------------------

class Server extends Context.Tag("Server")<
  Server,
  {
    readonly url: string
    /** The server's ends of `/echo`. */
    readonly sockets: Queue.Dequeue<Connection.Connection>
  }
>() {}

const ServerLive = Layer.scoped(
  Server,
  Effect.gen(function* () {
    const sockets = yield* Queue.unbounded<Connection.Connection>()
    const Echo = WebSocketRoute.layer("/echo", { subprotocols: ["echo.v1", "other"] }, (socket) =>
      Effect.zipRight(Queue.offer(sockets, socket), Stream.run(socket.messages, socket.sink))
    )
    const Closes = WebSocketRoute.layer("/closes", {}, (socket) => socket.close(4001, "by the server"))
    const Refused = WebSocketRoute.layer(
      "/refused",
      { accept: () => Effect.succeed(HttpServerResponse.text("no", { status: 403 })) },
      () => Effect.void
    )
    const { port } = yield* serve(Layer.mergeAll(Pages, Parts, Ends, Echo, Closes, Refused))
    return { url: `http://127.0.0.1:${port}/`, sockets }
  })
)

layer(Layer.merge(Chromium.layer, ServerLive), { excludeTestServices: true })("Chromium", (it) => {
  it.scoped("its EventSource: named events, UTF-8, lines, last event IDs over reconnections, 204", () =>
    Effect.gen(function* () {
      const page = yield* openPage((yield* Server).url)
      const result = yield* Effect.promise(() =>
        page.evaluate(
          () =>
            new Promise<{ readonly events: ReadonlyArray<object>; readonly opened: number }>((resolve) => {
              const source = new EventSource("/parts")
              const events: Array<object> = []
              let opened = 0
              const push = ({ data, lastEventId, type }: MessageEvent<string>) =>
                events.push({ event: type, data, lastEventId })
              source.onmessage = push
              source.addEventListener("named", push)
              source.onopen = () => opened++
              source.onerror = () => source.readyState === EventSource.CLOSED && resolve({ events, opened })
            })
        )
      )
      assert.deepStrictEqual(result, { events: received, opened: 3 })
    })
  )

  it.scoped("its EventSource comes back after `retry`: five times before one that waits as long as it likes", () =>
    Effect.gen(function* () {
      const page = yield* openPage((yield* Server).url)
      const order = yield* Effect.promise(() =>
        page.evaluate(
          () =>
            new Promise<ReadonlyArray<string>>((resolve) => {
              const order: Array<string> = []
              const sources = ["/ends", "/ends-soon"].map((url) => new EventSource(url))
              for (const source of sources) {
                source.onmessage = ({ data }) => {
                  order.push(data)
                  if (order.length < 7) return
                  for (const source of sources) source.close()
                  resolve(order)
                }
              }
            })
        )
      )
      assert.deepStrictEqual([...order].sort(), ["by default", "soon", "soon", "soon", "soon", "soon", "soon"])
    })
  )

  it.scoped("our EventSource over its fetch sees the same", () =>
    Effect.gen(function* () {
      const page = yield* openPage((yield* Server).url)
      const events = yield* Effect.promise(() => page.evaluate(() => window.clients.events("/parts")))
      assert.deepStrictEqual(events, received)
    })
  )

  it.scoped("its WebSocket: text, bytes, 1 MiB, the subprotocol, and the page's close", () =>
    Effect.gen(function* () {
      const { sockets, url } = yield* Server
      const page = yield* openPage(url)
      const result = yield* Effect.promise(() =>
        page.evaluate(
          () =>
            new Promise<{ readonly protocol: string; readonly echoes: ReadonlyArray<string>; readonly end: object }>(
              (resolve) => {
                const socket = new WebSocket("/echo", ["unknown", "other", "echo.v1"])
                socket.binaryType = "arraybuffer"
                const bytes = Uint8Array.from({ length: 0x100000 }, (_, at) => at)
                const messages = ["zwölf 🐈", "", "x".repeat(0x100000), new Uint8Array(0), bytes, new Blob(["blob"])]
                const echoes: Array<string> = []
                socket.onopen = () => {
                  for (const message of messages) socket.send(message)
                }
                socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
                  const sent = messages[echoes.length]
                  if (typeof data === "string") echoes.push(data === sent ? `text ${data.length}` : "other text")
                  else {
                    const view = new Uint8Array(data)
                    const same = !(sent instanceof Uint8Array) || view.every((byte, at) => byte === sent[at])
                    echoes.push(same ? `bytes ${view.length}` : "other bytes")
                  }
                  if (echoes.length === messages.length) socket.close(4000, "enough")
                }
                socket.onclose = ({ code, reason, wasClean }) =>
                  resolve({ protocol: socket.protocol, echoes, end: { code, reason, wasClean } })
              }
            )
        )
      )
      assert.deepStrictEqual(result, {
        protocol: "echo.v1",
        echoes: ["text 8", "text 0", "text 1048576", "bytes 0", "bytes 1048576", "bytes 4"],
        end: { code: 4000, reason: "enough", wasClean: true }
      })
      const closed = yield* Effect.flatMap(Queue.take(sockets), (socket) => socket.closed)
      assert.deepInclude(closed, { code: 4000, reason: "enough", initiator: "remote", clean: true })
    })
  )

  // Chromium offers `permessage-deflate; client_max_window_bits`: the server is not asked to limit its window, and need not say that it does.
  // RFC 7692 §7.1.2
  const agreed: ReadonlyArray<
    readonly [name: string, extensions: ReadonlyArray<Extension.Extension>, agreed: string, compresses: boolean]
  > = [
    ["none", [], "", false],
    ["full", [PermessageDeflate.full], "permessage-deflate", true],
    ["small", [PermessageDeflate.small], "permessage-deflate; client_max_window_bits=10", true],
    [
      "no context takeover, every message",
      [PermessageDeflate.make({ serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 })],
      "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
      true
    ]
  ]
  for (const [name, extensions, expected, compresses] of agreed) {
    it.scoped(`its WebSocket and PermessageDeflate, ${name}: what is agreed, text and bytes up to 1 MiB`, () =>
      Effect.gen(function* () {
        const opened: Array<Socket> = []
        const agreedHere = yield* Deferred.make<ReadonlyArray<string>>()
        const Echo = WebSocketRoute.layer("/echo", { extensions }, (socket) =>
          Effect.zipRight(
            Deferred.succeed(
              agreedHere,
              socket.extensions.map(({ name }) => name)
            ),
            Stream.run(socket.messages, socket.sink)
          )
        )
        const { port } = yield* serve(Layer.merge(Pages, Echo), {
          server: () => createServer().on("connection", (socket) => opened.push(socket))
        })
        const page = yield* openPage(`http://127.0.0.1:${port}/`)
        // Of which the page was loaded
        const before = opened.map((socket) => socket.bytesWritten).reduce((sum, bytes) => sum + bytes, 0)
        const result = yield* Effect.promise(() =>
          page.evaluate(
            () =>
              new Promise<{
                readonly extensions: string
                readonly wrong: ReadonlyArray<number>
                readonly code: number
              }>((resolve) => {
                const socket = new WebSocket("/echo")
                socket.binaryType = "arraybuffer"
                const noise = new Uint8Array(0x100000)
                for (let at = 0; at < noise.length; at += 0x10000) {
                  crypto.getRandomValues(noise.subarray(at, at + 0x10000))
                }
                const json = JSON.stringify(Array.from({ length: 500 }, (_, id) => ({ id, name: `zwölf ${id} 🐈` })))
                const messages: ReadonlyArray<string | Uint8Array<ArrayBuffer>> = [
                  "",
                  "a",
                  "zwölf 🐈",
                  new Uint8Array(0),
                  new Uint8Array(1),
                  ...[1023, 1024, 1025].flatMap((size) => ["x".repeat(size), new Uint8Array(size)]),
                  json,
                  json,
                  "x".repeat(0x100000),
                  noise.slice(0, 3000),
                  noise,
                  new Uint8Array(0x100000),
                  json,
                  "after all"
                ]
                const wrong: Array<number> = []
                let count = 0
                socket.onopen = () => {
                  for (const message of messages) socket.send(message)
                }
                socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
                  const sent = messages[count]
                  const bytes = typeof data === "string" ? undefined : new Uint8Array(data)
                  const same =
                    bytes === undefined || typeof sent === "string"
                      ? data === sent
                      : bytes.length === sent?.length && bytes.every((byte, at) => byte === sent[at])
                  if (!same) wrong.push(count)
                  if (++count === messages.length) socket.close(4000)
                }
                socket.onclose = ({ code }) => resolve({ extensions: socket.extensions, wrong, code })
              })
          )
        )
        assert.deepStrictEqual(result, { extensions: expected, wrong: [], code: 4000 })
        assert.deepStrictEqual(yield* Deferred.await(agreedHere), compresses ? ["permessage-deflate"] : [])
        // 2 MiB can be compressed, 1 MiB of noise can't.
        const written = opened.map((socket) => socket.bytesWritten).reduce((sum, bytes) => sum + bytes, 0) - before
        const read = opened.map((socket) => socket.bytesRead).reduce((sum, bytes) => sum + bytes, 0)
        for (const bytes of [written, read]) {
          assert.isAbove(bytes, 0x100000)
          if (compresses) assert.isBelow(bytes, 0x120000)
          else assert.isAbove(bytes, 0x300000)
        }
      })
    )
  }

  it.scoped("its WebSocket sees our close codes, failed handshakes and a cut line", () =>
    Effect.gen(function* () {
      const { sockets, url } = yield* Server
      const page = yield* openPage(url)
      const closed = (path: string, protocols: Array<string> = []) =>
        Effect.promise(() =>
          page.evaluate(
            ({ path, protocols }) =>
              new Promise<readonly [code: number, reason: string, clean: boolean]>((resolve) => {
                const socket = new WebSocket(path, protocols)
                socket.onclose = ({ code, reason, wasClean }) => resolve([code, reason, wasClean])
              }),
            { path, protocols }
          )
        )
      assert.deepStrictEqual(yield* closed("/closes"), [4001, "by the server", true])
      assert.deepStrictEqual(yield* closed("/refused"), [1006, "", false])
      // RFC 6455 §4.2.2: the server agrees to none; the WebSocket standard makes the client fail then
      assert.deepStrictEqual(yield* closed("/echo", ["unknown"]), [1006, "", false])
      yield* Queue.takeAll(sockets)
      const ends: ReadonlyArray<
        readonly [
          end: (socket: Connection.Connection) => Effect.Effect<unknown>,
          seen: readonly [number, string, boolean]
        ]
      > = [
        [(socket) => socket.close(1001, "wir gehen, tschüß"), [1001, "wir gehen, tschüß", true]],
        [(socket) => socket.close(1011), [1011, "", true]],
        [(socket) => socket.close(4999, "x".repeat(123)), [4999, "x".repeat(123), true]],
        [(socket) => socket.abort, [1006, "", false]]
      ]
      for (const [end, seen] of ends) {
        const [result] = yield* Effect.all([closed("/echo"), Effect.flatMap(Queue.take(sockets), end)], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(result, seen)
      }
    })
  )

  it.scoped("our client over its WebSocket: echo, close, typed failures", () =>
    Effect.gen(function* () {
      const page = yield* openPage((yield* Server).url)
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => window.clients.echo())), {
        subprotocol: "echo.v1",
        echoes: ["hello", "zwölf 🐈", "", "1048576 bytes"],
        end: { clean: true, code: 4000, initiator: "local" }
      })
      assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => window.clients.failures())), {
        refused: { tag: "HandshakeError", phase: "Response", reason: "Failed" },
        closed: { tag: "ConnectionClosed", code: 4001 }
      })
    })
  )

  it.scoped("our reconnecting client: a server that is restarted, and what was said meanwhile", () =>
    Effect.gen(function* () {
      const TalkLive = WebSocketRoute.implement(Talk, {}).toLayer((socket) =>
        socket.runForEach(({ say }) => socket.send({ said: say }))
      )
      const routes = Layer.merge(Pages, TalkLive)
      const first = yield* serve(routes)
      const page = yield* openPage(`http://127.0.0.1:${first.port}/`)
      const say = (text: string) => Effect.promise(() => page.evaluate((text) => window.talking.say(text), text))
      const heard = (...all: Array<string>) =>
        Effect.promise(() => page.waitForFunction((all) => `${window.talking.heard}` === all, `${all}`))
      yield* Effect.promise(() =>
        page.evaluate(async () => {
          window.talking = await window.clients.talk()
        })
      )
      yield* say("one")
      yield* heard("one")
      yield* first.stop
      yield* Effect.promise(() => page.waitForFunction(() => window.talking.failures > 1))
      yield* say("two")
      yield* say("three")
      yield* serve(routes, { port: first.port })
      yield* heard("one", "two", "three")
      assert.strictEqual(yield* Effect.promise(() => page.evaluate(() => window.talking.connections)), 2)
    })
  )
})
