/** The server with other implementations' clients. */
import { createRequire } from "node:module"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, WebSocketRoute } from "@effect-ws/core"
import { Deferred, Effect, Exit, Queue, type Scope, Stream } from "effect"
import * as Undici from "undici"
import * as Ws from "ws"
import { serve } from "./support.js"

/** A client of another implementation. */
interface Peer {
  readonly send: (message: string | Buffer) => void
  readonly messages: Queue.Dequeue<string | Buffer>
  readonly close: (code: number, reason: string) => void
  readonly closed: Effect.Effect<readonly [code: number, reason: string]>
  readonly subprotocol: () => string
  /** Sends a ping and waits for its pong, if it can. */
  readonly ping: Effect.Effect<void> | undefined
}

/** Where a client reports to. */
interface Report {
  readonly opened: () => void
  readonly failed: (error: unknown) => void
  readonly message: (message: string | Buffer) => void
  readonly closed: (code: number, reason: string) => void
}
type Open = (
  url: string,
  subprotocols: Array<string>,
  report: Report
) => Pick<Peer, "send" | "close" | "subprotocol" | "ping"> & { readonly destroy: () => void }

const require = createRequire(import.meta.url)

interface Event {
  readonly data: string | Buffer
  readonly code: number
  readonly reason: string
}
interface Emitter {
  on(event: string, listener: (event: Event) => void): void
}
interface FayeClient extends Emitter {
  readonly protocol: string
  send(data: string | Buffer): void
  close(code: number, reason: string): void
  ping(payload: string, pong: () => void): void
}
const Faye = require("faye-websocket") as { readonly Client: new (url: string, protocols: Array<string>) => FayeClient }

interface DriverClient extends Emitter {
  readonly io: Duplex
  readonly protocol: string
  start(): void
  text(data: string): void
  binary(data: Buffer): void
  close(reason: string, code: number): void
  ping(payload: string, pong: () => void): void
}
const Driver = require("websocket-driver") as {
  client(url: string, options: { readonly protocols: Array<string> }): DriverClient
}

const pongOf = (ping: (pong: () => void) => void) =>
  Effect.async<void>((resume) => {
    ping(() => resume(Effect.void))
  })

const clients: Readonly<Record<string, Open>> = {
  ws: (url, subprotocols, report) => {
    const socket = new Ws.WebSocket(url, subprotocols)
    socket.on("open", report.opened)
    socket.on("error", report.failed)
    socket.on("message", (data, binary) => report.message(binary ? (data as Buffer) : String(data)))
    socket.on("close", (code, reason) => report.closed(code, String(reason)))
    return {
      send: (message) => socket.send(message),
      close: (code, reason) => socket.close(code, reason),
      subprotocol: () => socket.protocol,
      ping: pongOf((pong) => {
        socket.once("pong", pong)
        socket.ping("there?")
      }),
      destroy: () => socket.terminate()
    }
  },
  "faye-websocket": (url, subprotocols, report) => {
    const socket = new Faye.Client(url, subprotocols)
    socket.on("open", report.opened)
    socket.on("error", report.failed)
    socket.on("message", ({ data }) => report.message(data))
    socket.on("close", ({ code, reason }) => report.closed(code, reason))
    return {
      send: (message) => socket.send(message),
      close: (code, reason) => socket.close(code, reason),
      subprotocol: () => socket.protocol,
      ping: pongOf((pong) => socket.ping("there?", pong)),
      destroy: () => socket.close(1000, "")
    }
  },
  "websocket-driver": (url, subprotocols, report) => {
    const driver = Driver.client(url, { protocols: subprotocols })
    const tcp = Net.connect({ port: Number(new URL(url).port), host: "127.0.0.1" })
    tcp.on("error", report.failed)
    tcp.pipe(driver.io).pipe(tcp)
    tcp.on("connect", () => driver.start())
    driver.on("open", report.opened)
    driver.on("error", report.failed)
    driver.on("message", ({ data }) => report.message(data))
    driver.on("close", ({ code, reason }) => report.closed(code, reason))
    return {
      send: (message) => (typeof message === "string" ? driver.text(message) : driver.binary(message)),
      close: (code, reason) => driver.close(reason, code),
      subprotocol: () => driver.protocol,
      ping: pongOf((pong) => driver.ping("there?", pong)),
      destroy: () => tcp.destroy()
    }
  },
  undici: (url, subprotocols, report) => {
    const socket = new Undici.WebSocket(url, subprotocols)
    socket.binaryType = "arraybuffer"
    socket.addEventListener("open", report.opened)
    socket.addEventListener("error", ({ error }) => report.failed(error))
    socket.addEventListener("message", ({ data }) =>
      report.message(typeof data === "string" ? data : Buffer.from(data as ArrayBuffer))
    )
    socket.addEventListener("close", ({ code, reason }) => report.closed(code, reason))
    return {
      send: (message) => socket.send(message),
      close: (code, reason) => socket.close(code, reason),
      subprotocol: () => socket.protocol,
      ping: undefined,
      destroy: () => socket.close()
    }
  }
}

const connectPeer = (
  open: Open,
  url: string,
  subprotocols: Array<string> = []
): Effect.Effect<Peer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const messages = yield* Queue.unbounded<string | Buffer>()
    const opened = yield* Deferred.make<void>()
    const closed = yield* Deferred.make<readonly [number, string]>()
    const client = yield* Effect.acquireRelease(
      Effect.sync(() =>
        open(url, subprotocols, {
          opened: () => Deferred.unsafeDone(opened, Exit.void),
          failed: (error) => Deferred.unsafeDone(opened, Exit.die(error)),
          message: (message) => messages.unsafeOffer(message),
          closed: (code, reason) => Deferred.unsafeDone(closed, Exit.succeed([code, reason] as const))
        })
      ),
      ({ destroy }) => Effect.sync(destroy)
    )
    yield* Deferred.await(opened)
    return { ...client, messages, closed: Deferred.await(closed) }
  })

const text = (length: number) => "aé€😀".repeat(length / 5).slice(0, length)
const bytes = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8)) & 0xff))
const messages: ReadonlyArray<string | Buffer> = [
  "",
  "text",
  text(125),
  text(126),
  text(65_530),
  text(1000_000 / 4),
  Buffer.alloc(0),
  bytes(1),
  bytes(126),
  bytes(65_536),
  bytes(1024 * 1024)
]

/** A route whose connections the test holds, and messages that they got. */
const held = (subprotocols: ReadonlyArray<string> = []) =>
  Effect.gen(function* () {
    const accepted = yield* Deferred.make<Connection.Connection>()
    const serving = yield* serve(
      WebSocketRoute.layer("/", { subprotocols }, (socket) =>
        Effect.zipRight(Deferred.succeed(accepted, socket), socket.closed)
      ),
      { drainTimeout: "1 second" }
    )
    return { url: `ws://127.0.0.1:${serving.port}/`, connection: Deferred.await(accepted), serving }
  })

for (const [name, open] of Object.entries(clients)) {
  describe(`${name} as the client`, () => {
    it.scopedLive("messages of all kinds and sizes, echoed by the Stream", () =>
      Effect.gen(function* () {
        const serving = yield* serve(
          WebSocketRoute.layer("/", {}, (socket) => Stream.run(socket.messages, socket.sink))
        )
        const peer = yield* connectPeer(open, `ws://127.0.0.1:${serving.port}/`)
        for (const message of messages) peer.send(message)
        for (const message of messages) assert.deepStrictEqual(yield* Queue.take(peer.messages), message)
        peer.close(1000, "done")
        assert.deepStrictEqual(yield* peer.closed, [1000, "done"])
        yield* serving.sockets(0)
      })
    )

    it.scopedLive("fragments that the server sends", () =>
      Effect.gen(function* () {
        const { connection, url } = yield* held()
        const peer = yield* connectPeer(open, url)
        const socket = yield* connection
        yield* socket.sendFragments("text", Stream.make("a", "\ud83d", "\ude00", "", text(70_000)))
        assert.strictEqual(yield* Queue.take(peer.messages), `a😀${text(70_000)}`)
        yield* socket.sendFragments("binary", Stream.make(bytes(10), bytes(0), bytes(70_000)))
        assert.deepStrictEqual(yield* Queue.take(peer.messages), Buffer.concat([bytes(10), bytes(70_000)]))
        yield* socket.sendFragments("text", Stream.empty)
        assert.strictEqual(yield* Queue.take(peer.messages), "")
      })
    )

    it.scopedLive("pings both ways", () =>
      Effect.gen(function* () {
        const { connection, url } = yield* held()
        const peer = yield* connectPeer(open, url)
        const socket = yield* connection
        yield* Effect.all([socket.ping(), socket.ping(bytes(125)), socket.ping(new Uint8Array(0))], {
          concurrency: "unbounded"
        })
        if (peer.ping !== undefined) yield* peer.ping
      })
    )

    for (const [code, reason] of [
      [1000, ""],
      [3000, "reason é"],
      [4999, "r".repeat(123)]
    ] as const) {
      it.scopedLive(`closes with ${code}, and is closed with it`, () =>
        Effect.gen(function* () {
          const one = yield* held()
          const closing = yield* connectPeer(open, one.url)
          const socket = yield* one.connection
          closing.close(code, reason)
          assert.deepInclude(yield* socket.closed, { code, reason, clean: true, initiator: "remote" })
          assert.deepStrictEqual(yield* closing.closed, [code, reason])
          yield* one.serving.sockets(0)

          const other = yield* held()
          const closed = yield* connectPeer(open, other.url)
          const info = yield* (yield* other.connection).close(code, reason)
          // The code is enough of an echo (undici leaves the reason out).
          assert.deepInclude(info, { code, sent: { code, reason }, clean: true, initiator: "local" })
          assert.deepStrictEqual(yield* closed.closed, [code, reason])
          yield* other.serving.sockets(0)
        })
      )
    }

    it.scopedLive("agrees on a subprotocol", () =>
      Effect.gen(function* () {
        const { connection, url } = yield* held(["v2", "v1"])
        const peer = yield* connectPeer(open, url, ["v1", "v2"])
        assert.strictEqual(peer.subprotocol(), "v2")
        assert.strictEqual((yield* connection).subprotocol, "v2")
      })
    )

    it.scopedLive("sees 1001 when the server shuts down", () =>
      Effect.gen(function* () {
        const { serving, url } = yield* held()
        const peer = yield* connectPeer(open, url)
        yield* serving.stop
        assert.strictEqual((yield* peer.closed)[0], 1001)
      })
    )
  })
}

describe("ws as the client", () => {
  it.scopedLive("sends fragments with pings between them", () =>
    Effect.gen(function* () {
      const { connection, url } = yield* held()
      const socket = yield* Effect.acquireRelease(
        Effect.async<Ws.WebSocket>((resume) => {
          const socket = new Ws.WebSocket(url)
          socket.on("open", () => resume(Effect.succeed(socket)))
        }),
        (socket) => Effect.sync(() => socket.terminate())
      )
      const server = yield* connection
      socket.send("one ", { fin: false })
      socket.ping()
      socket.send("two ", { fin: false })
      socket.send("three", { fin: true })
      assert.strictEqual(yield* server.take, "one two three")
      socket.send(bytes(70_000), { fin: false })
      socket.send(bytes(5), { fin: true })
      const message = (yield* server.take) as Uint8Array
      assert.deepStrictEqual(Buffer.from(message), Buffer.concat([bytes(70_000), bytes(5)]))
    })
  )

  it.scopedLive("offers permessage-deflate, which is declined", () =>
    Effect.gen(function* () {
      const { connection, url } = yield* held()
      const socket = yield* Effect.acquireRelease(
        Effect.async<Ws.WebSocket>((resume) => {
          const socket = new Ws.WebSocket(url, { perMessageDeflate: true })
          socket.on("open", () => resume(Effect.succeed(socket)))
        }),
        (socket) => Effect.sync(() => socket.terminate())
      )
      assert.strictEqual(socket.extensions, "")
      socket.send(text(5000))
      assert.strictEqual(yield* (yield* connection).take, text(5000))
    })
  )
})
