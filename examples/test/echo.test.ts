import { once } from "node:events"
import * as Net from "node:net"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, type Message, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Effect, Layer, Stream } from "effect"
import { WebSocketServer, WebSocket as Ws } from "ws"
import { run, start } from "./program.js"

const mebibyte = 0x100000

const readyWith = (env: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const program = yield* start("echo.js", [], { PORT: "0", ...env })
    const line = yield* program.firstLine
    assert.match(line, /^READY ws:\/\/127\.0\.0\.1:\d+\/$/)
    return { program, url: line.slice("READY ".length) }
  })

const ready = readyWith({})

describe("echo", () => {
  it.scopedLive("sends every message back with its kind, on every path", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      for (const path of ["", "a", "a/b?c=d"]) {
        const socket = yield* WebSocketClient.connect(`${url}${path}`)
        const messages: ReadonlyArray<Message.Message> = ["text", new Uint8Array([0, 255]), "", new Uint8Array(0)]
        yield* socket.sendAll(messages)
        for (const message of messages) assert.deepStrictEqual(yield* socket.take, message)
      }
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("takes 1 MiB by default and refuses a byte more with 1009", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      const socket = yield* WebSocketClient.connect(url)
      yield* socket.send("x".repeat(mebibyte))
      assert.strictEqual((yield* socket.take).length, mebibyte)
      yield* socket.send("x".repeat(mebibyte + 1))
      assert.strictEqual((yield* socket.closed).code, 1009)
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )
})

describe("DEFLATE=1, with ws", () => {
  const offers = [
    {},
    { serverNoContextTakeover: true, clientNoContextTakeover: true },
    { serverMaxWindowBits: 9, clientMaxWindowBits: 10 },
    { serverMaxWindowBits: 15, clientMaxWindowBits: false as never }
  ]
  /** The first bytes of all frames that came in one piece. */
  const firstBytes = (socket: Ws) => {
    const seen: Array<number> = []
    const { _socket } = socket as unknown as { readonly _socket: Net.Socket }
    _socket.prependListener("data", (chunk: Buffer) => seen.push(chunk[0]!))
    return seen
  }
  const messages: ReadonlyArray<string | Buffer> = ["x", "", Buffer.from([1, 2]), "text ".repeat(20_000)]

  /** Sends all messages and sees them come back, compressed or not. */
  const exchange = async (socket: Ws, on: boolean) => {
    const seen = firstBytes(socket)
    for (const message of messages) {
      socket.send(message)
      const [data, isBinary] = (await once(socket, "message")) as [Buffer, boolean]
      assert.deepStrictEqual(isBinary ? data : String(data), message)
      if (seen.length <= 3) assert.strictEqual((seen[seen.length - 1]! & 0x40) !== 0, on)
    }
  }

  it.scopedLive("the server takes every legal offer and compresses every message; without it, none", () =>
    Effect.gen(function* () {
      const deflating = yield* readyWith({ DEFLATE: "1" })
      const plain = yield* ready
      for (const { on, url } of [
        { on: true, url: deflating.url },
        { on: false, url: plain.url }
      ]) {
        for (const perMessageDeflate of offers) {
          yield* Effect.promise(async () => {
            const socket = new Ws(url, { perMessageDeflate: { threshold: 0, ...perMessageDeflate } })
            await once(socket, "open")
            assert.strictEqual(socket.extensions.includes("permessage-deflate"), on)
            await exchange(socket, on)
            socket.close()
            await once(socket, "close")
          })
        }
      }
    })
  )

  for (const on of [true, false]) {
    it.scopedLive(`the client ${on ? "offers it and compresses every message" : "without it offers nothing"}`, () =>
      Effect.gen(function* () {
        const server = yield* Effect.acquireRelease(
          Effect.promise(async () => {
            const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: { threshold: 0 } })
            await once(server, "listening")
            return server
          }),
          (server) => Effect.sync(() => server.close())
        )
        const talk = (async () => {
          const [socket] = (await once(server, "connection")) as [Ws]
          await exchange(socket, on)
          socket.close(1000)
          return socket.extensions
        })()
        const { port } = server.address() as Net.AddressInfo
        const ended = yield* run("echo-client.js", [`ws://127.0.0.1:${port}/`], on ? { DEFLATE: "1" } : {})
        assert.strictEqual((yield* Effect.promise(() => talk)).includes("permessage-deflate"), on)
        assert.deepStrictEqual([ended.code, ended.stderr], [0, ""])
      })
    )
  }
})

describe("the drafts of echo", () => {
  const headers = "Host: 127.0.0.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: http://a.example\r\n"
  const keys = "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n"

  /** All that the server writes until a text has come back, in Latin-1. */
  const speak = (url: string, request: string) =>
    Effect.acquireUseRelease(
      Effect.sync(() => Net.connect(Number(new URL(url).port), "127.0.0.1")),
      (socket) =>
        Effect.async<string>((resume) => {
          let text = ""
          socket.setEncoding("latin1").on("data", (chunk: string) => {
            text += chunk
            if (text.endsWith("\xff")) resume(Effect.succeed(text))
          })
          socket.on("end", () => resume(Effect.succeed(text)))
          socket.write(`${request}\0hello\xff`, "latin1")
        }),
      (socket) => Effect.sync(() => socket.destroy())
    )

  it.scopedLive("are spoken with DRAFTS=1", () =>
    Effect.gen(function* () {
      const { url } = yield* readyWith({ DRAFTS: "1" })
      const hixie75 = yield* speak(url, `GET / HTTP/1.1\r\n${headers}\r\n`)
      assert.match(hixie75, /^HTTP\/1.1 101 Web Socket Protocol Handshake\r\n[\s\S]*\r\n\r\n\0hello\xff$/)
      const hixie76 = yield* speak(url, `GET / HTTP/1.1\r\n${headers}${keys}\r\n^n:ds[4U`)
      assert.match(
        hixie76,
        /^HTTP\/1.1 101 WebSocket Protocol Handshake\r\n[\s\S]*\r\n\r\n8jKS'y:G\*Co,Wxa-\0hello\xff$/
      )
      const socket = yield* WebSocketClient.connect(url, { version: 8 })
      yield* socket.send("hello")
      assert.strictEqual(yield* socket.take, "hello")
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("are refused without it", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      assert.match(yield* speak(url, `GET / HTTP/1.1\r\n${headers}\r\n`), /^HTTP\/1.1 426 /)
    })
  )
})

describe("echo client", () => {
  /** A server that treats one connection as the row says; `outcome` is what came back. */
  const serve = <A>(handler: (socket: Connection.Connection) => Effect.Effect<A, unknown>) => {
    let received: A | undefined
    const Route = WebSocketRoute.layer("/*", {}, (socket) =>
      Effect.map(handler(socket), (value) => {
        received = value
      })
    )
    const server = HttpLayerRouter.serve(Route, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provideMerge(NodeWebSocketServer.layerTest)
    )
    return (env: Readonly<Record<string, string>> = {}) =>
      HttpServer.addressFormattedWith((address) => run("echo-client.js", [address.replace(/^http/, "ws")], env)).pipe(
        Effect.map((ended) => ({ ended, received })),
        Effect.provide(server)
      )
  }

  const askTwice = (socket: Connection.Connection) =>
    Effect.gen(function* () {
      yield* socket.sendAll(["text", new Uint8Array([1, 2])])
      return [yield* socket.take, yield* socket.take]
    })

  const endings: ReadonlyArray<{
    readonly name: string
    readonly end: (socket: Connection.Connection) => Effect.Effect<unknown>
    readonly code: number
    readonly stderr: RegExp
  }> = [
    { name: "1000", end: (socket) => socket.close(1000), code: 0, stderr: /^$/ },
    { name: "1001", end: (socket) => socket.close(1001), code: 0, stderr: /^$/ },
    { name: "1011", end: (socket) => socket.close(1011, "oh"), code: 0, stderr: /code 1011, "oh"/ },
    { name: "4000", end: (socket) => socket.close(4000), code: 0, stderr: /code 4000/ },
    { name: "no close frame", end: (socket) => socket.abort, code: 1, stderr: /transport was lost.*1006/ }
  ]
  for (const { code, end, name, stderr } of endings) {
    it.live(`echoes with the kind, then ends with ${code} after ${name}`, () =>
      Effect.gen(function* () {
        const { ended, received } = yield* serve((socket) => Effect.zipLeft(askTwice(socket), end(socket)))()
        assert.deepStrictEqual(received, ["text", new Uint8Array([1, 2])])
        assert.strictEqual(ended.code, code)
        assert.match(ended.stderr, stderr)
      })
    )
  }

  it.live("refuses a message larger than MAX_MESSAGE_BYTES with 1009 and ends with 1", () =>
    Effect.gen(function* () {
      const { ended, received } = yield* serve((socket) =>
        Effect.zipRight(
          socket.send("x".repeat(101)),
          Effect.map(Effect.zipRight(Effect.exit(Stream.runDrain(socket.messages)), socket.closed), ({ code }) => code)
        )
      )({ MAX_MESSAGE_BYTES: "100" })
      assert.strictEqual(received, 1009)
      assert.strictEqual(ended.code, 1)
      assert.match(ended.stderr, /message too big/)
    })
  )

  it.scopedLive(
    "echo server and echo client pass a message on between them, and the server's end ends both with 0",
    () =>
      Effect.gen(function* () {
        const server = yield* ready
        const messages: ReadonlyArray<Message.Message> = ["there", new Uint8Array([7]), "and back"]
        const { ended, received } = yield* serve((socket) =>
          Effect.gen(function* () {
            const upstream = yield* WebSocketClient.connect(server.url)
            const seen: Array<Message.Message> = []
            for (const message of messages) {
              yield* upstream.send(message)
              yield* socket.send(yield* upstream.take)
              seen.push(yield* socket.take)
            }
            yield* server.program.signal("SIGINT")
            const { code } = yield* upstream.closed
            yield* socket.close(code)
            return { seen, code }
          }).pipe(Effect.scoped, Effect.provide(NodeWebSocketClient.layer))
        )()
        assert.deepStrictEqual(received, { seen: messages, code: 1001 })
        assert.strictEqual((yield* server.program.ended).code, 0)
        assert.strictEqual(ended.code, 0)
      })
  )

  const failures = [
    { name: "no URL", args: [], stderr: /usage/ },
    { name: "a URL of another scheme", args: ["ftp://127.0.0.1/"], stderr: /scheme/ },
    { name: "a port where nobody listens", args: ["ws://127.0.0.1:1/"], stderr: /ECONNREFUSED/ }
  ]
  for (const { args, name, stderr } of failures) {
    it.live(`ends with 1 for ${name}`, () =>
      Effect.map(run("echo-client.js", args), (ended) => {
        assert.strictEqual(ended.code, 1)
        assert.match(ended.stderr, stderr)
      })
    )
  }
})
