/** permessage-deflate with other implementations, both ways. */
import { once } from "node:events"
import * as Http from "node:http"
import { createRequire } from "node:module"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient, PermessageDeflate } from "@effect-ws/node"
import { Chunk, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import { WebSocketServer, WebSocket as Ws } from "ws"
import { noise, prose } from "./deflateSupport.js"
import { clientFrame, open, portOf, serve } from "./support.js"

const mebibyte = 0x100000

const messages: ReadonlyArray<string | Buffer> = [
  "Hello",
  "Hello",
  "",
  Buffer.alloc(0),
  "aé€😀".repeat(200),
  prose(1023),
  prose(1024),
  prose(16_384),
  Buffer.from(prose(40_000)),
  noise(3000),
  noise(3000),
  Buffer.alloc(300_000),
  prose(mebibyte),
  noise(200_000),
  "the end"
]

const require = createRequire(import.meta.url)
interface Driver {
  readonly io: Duplex
  addExtension(extension: unknown): boolean
  start(): boolean
  text(data: string): boolean
  binary(data: Buffer): boolean
  close(reason?: string, code?: number): boolean
  on(event: string, listener: (event: { readonly data: string | Buffer; readonly code: number }) => void): void
}
const Driver = require("websocket-driver") as {
  client(url: string, options?: object): Driver
  http(request: Http.IncomingMessage, options?: object): Driver
}
interface TheirOptions {
  readonly level?: number
  readonly memLevel?: number
  readonly strategy?: number
  readonly noContextTakeover?: boolean
  readonly maxWindowBits?: number
  readonly requestNoContextTakeover?: boolean
  readonly requestMaxWindowBits?: number
}
const Theirs = require("permessage-deflate") as { configure(options: TheirOptions): unknown }

const ours: Readonly<Record<string, PermessageDeflate.Options>> = {
  default: {},
  "every message": { threshold: 0 },
  "no takeover": { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 },
  "the server forgets": { serverNoContextTakeover: true, threshold: 0 },
  "the client forgets": { clientNoContextTakeover: true, threshold: 0 },
  "small windows": { serverMaxWindowBits: 9, clientMaxWindowBits: 10, memLevel: 1, level: 9, threshold: 0 },
  "the smallest window": { serverMaxWindowBits: 8, threshold: 0 },
  "level 1": { level: 1, strategy: "filtered" },
  "no context left": { maxContexts: 0, threshold: 0 }
}

const ofWs: Readonly<Record<string, object>> = {
  default: {},
  "every message": { threshold: 0 },
  "no takeover": { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 },
  "the server forgets": { serverNoContextTakeover: true, threshold: 0 },
  "the client forgets": { clientNoContextTakeover: true, threshold: 0 },
  "small windows": { serverMaxWindowBits: 10, clientMaxWindowBits: 9, threshold: 0 },
  "zlib's own options": { zlibDeflateOptions: { level: 9, memLevel: 1, chunkSize: 100 }, threshold: 0 }
}

const ofDriver: Readonly<Record<string, TheirOptions>> = {
  default: {},
  "no takeover": { noContextTakeover: true, requestNoContextTakeover: true },
  "forgets its own": { noContextTakeover: true },
  "asks us to forget": { requestNoContextTakeover: true },
  "small windows": { maxWindowBits: 9, requestMaxWindowBits: 10 },
  "level 1": { level: 1, memLevel: 3, strategy: 3 }
}

type Take = (message: string | Buffer) => void
/** Sends all messages; completes when as many came back, or fails. */
type Client = (
  url: string,
  take: Take
) => { readonly send: Take; readonly opened: Promise<void>; readonly end: () => void }

const wsClient =
  (perMessageDeflate: object): Client =>
  (url, take) => {
    const socket = new Ws(url, { perMessageDeflate })
    socket.on("message", (data, isBinary) => take(isBinary ? (data as Buffer) : String(data)))
    return {
      send: (message) => socket.send(message),
      opened: once(socket, "open").then(() => assert.include(socket.extensions, "permessage-deflate")),
      end: () => socket.close()
    }
  }

const driverClient =
  (options: TheirOptions): Client =>
  (url, take) => {
    const driver = Driver.client(url)
    driver.addExtension(Theirs.configure(options))
    const tcp = Net.connect({ port: Number(new URL(url).port), host: "127.0.0.1" })
    tcp.pipe(driver.io).pipe(tcp)
    tcp.on("connect", () => driver.start())
    driver.on("message", ({ data }) => take(data))
    driver.on("close", () => tcp.end())
    return {
      send: (message) => (typeof message === "string" ? driver.text(message) : driver.binary(message)),
      opened: new Promise((resolve, reject) => {
        driver.on("open", () => resolve())
        driver.on("error", reject as never)
        tcp.on("error", reject)
      }),
      end: () => driver.close()
    }
  }

describe("our server", () => {
  const rows = [
    ...Object.entries(ofWs).map(([theirs, options]) => ({ peer: "ws", theirs, client: wsClient(options) })),
    ...Object.entries(ofDriver).map(([theirs, options]) => ({
      peer: "websocket-driver",
      theirs,
      client: driverClient(options)
    }))
  ]
  const all = serve(
    Object.entries(ours)
      .map(([_, options], i) =>
        WebSocketRoute.layer(`/${i}`, { extensions: [PermessageDeflate.make(options)] }, (socket) =>
          Effect.zipRight(
            Effect.sync(() => assert.lengthOf(socket.extensions, 1)),
            Stream.run(socket.messages, socket.sink)
          )
        )
      )
      .reduce((left, right) => Layer.merge(left, right) as typeof left)
  )
  for (const { client, peer, theirs } of rows) {
    it.scopedLive(`${peer} (${theirs}) with each of our settings`, () =>
      Effect.gen(function* () {
        const serving = yield* all
        yield* Effect.forEach(
          Object.keys(ours),
          (_, i) =>
            Effect.promise(async () => {
              const received: Array<string | Buffer> = []
              let complete = () => {}
              const completed = new Promise<void>((resolve) => {
                complete = resolve
              })
              const connection = client(`ws://127.0.0.1:${serving.port}/${i}`, (message) => {
                if (received.push(message) === messages.length) complete()
              })
              await connection.opened
              for (const message of messages) connection.send(message)
              await completed
              assertSame(received)
              connection.end()
            }),
          { concurrency: 3, discard: true }
        )
        yield* serving.sockets(0)
        assert.deepStrictEqual(
          serving.logs.filter(({ text }) => text.includes("fail")),
          []
        )
      })
    )
  }
})

const assertSame = (received: ReadonlyArray<string | Uint8Array>) => {
  assert.lengthOf(received, messages.length)
  received.forEach((message, i) => {
    const sent = messages[i]!
    assert.strictEqual(typeof message, typeof sent, `number ${i}`)
    assert.isTrue(Buffer.from(message as string).equals(Buffer.from(sent as string)), `number ${i}`)
  })
}

type Upgrade = (request: Http.IncomingMessage, socket: Duplex, head: Buffer) => void

const wsServer = (perMessageDeflate: object): Upgrade => {
  const server = new WebSocketServer({ noServer: true, perMessageDeflate })
  return (request, socket, head) =>
    server.handleUpgrade(request, socket, head, (peer) =>
      peer.on("message", (data, binary) => peer.send(data, { binary }))
    )
}

const driverServer =
  (options: TheirOptions): Upgrade =>
  (request, socket, head) => {
    const driver = Driver.http(request)
    driver.addExtension(Theirs.configure(options))
    driver.io.write(head)
    socket.pipe(driver.io).pipe(socket)
    driver.on("message", ({ data }) => (typeof data === "string" ? driver.text(data) : driver.binary(data)))
    driver.on("close", () => socket.end())
    driver.start()
  }

const listen = (upgrade: Upgrade): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const server = Http.createServer().on("upgrade", upgrade).listen(0, "127.0.0.1")
        await once(server, "listening")
        return server
      }),
      (server) =>
        Effect.promise(async () => {
          server.close()
          await once(server, "close")
        })
    ),
    portOf
  )

const echoed = (socket: Connection.Connection) =>
  Effect.gen(function* () {
    const sending = yield* Effect.fork(Effect.forEach(messages, (message) => socket.send(message), { discard: true }))
    const received = yield* Stream.runCollect(Stream.take(socket.messages, messages.length))
    yield* Fiber.join(sending)
    assertSame(Chunk.toReadonlyArray(received))
    const { clean } = yield* socket.close()
    assert.isTrue(clean)
  })

describe("our client", () => {
  const rows = [
    ...Object.entries(ofWs).map(([theirs, options]) => ({ peer: "ws", theirs, upgrade: wsServer(options) })),
    ...Object.entries(ofDriver).map(([theirs, options]) => ({
      peer: "websocket-driver",
      theirs,
      upgrade: driverServer(options)
    }))
  ]
  for (const { peer, theirs, upgrade } of rows) {
    it.scopedLive(`${peer} (${theirs}) with each of our settings`, () =>
      Effect.gen(function* () {
        const port = yield* listen(upgrade)
        yield* Effect.forEach(
          Object.values(ours),
          (options) =>
            Effect.gen(function* () {
              const extensions = [PermessageDeflate.make(options)]
              const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, { extensions })
              assert.strictEqual(socket.extensions[0]?.name, "permessage-deflate")
              yield* echoed(socket)
            }).pipe(Effect.scoped),
          { concurrency: 3, discard: true }
        )
      })
    )
  }
})

it.scopedLive("a compressed message without a payload, over a socket, is empty and harms nobody", () =>
  Effect.gen(function* () {
    const serving = yield* serve(
      WebSocketRoute.layer("/echo", { extensions: [PermessageDeflate.make()] }, (socket) =>
        Stream.run(socket.messages, socket.sink)
      )
    )
    const client = yield* open(serving.port, "/echo", { "Sec-WebSocket-Extensions": "permessage-deflate" })
    yield* client.write(clientFrame({ opcode: 1, rsv: 4 }))
    assert.strictEqual(yield* client.text, "")
    yield* client.sendText("alive")
    assert.strictEqual(yield* client.text, "alive")
    yield* client.close()
  })
)
