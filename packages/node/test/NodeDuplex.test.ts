/** Node's streams over connections: both modes, backpressure both ways, every way to end. */
import { once } from "node:events"
import { PassThrough, Readable, Writable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { createGunzip, createGzip } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, TestTransport, WebSocketRoute } from "@effect-ws/core"
import { NodeDuplex, NodeTransport, NodeWebSocketClient } from "@effect-ws/node"
import { Deferred, Effect, Exit, Queue, Scope, Stream } from "effect"
import { serve } from "./support.js"

/** A client's connection over TCP and the server's end of it. */
const connected = Effect.gen(function* () {
  const sockets = yield* Queue.unbounded<Connection.Connection>()
  const serving = yield* serve(
    WebSocketRoute.layer("/", { heartbeat: false }, (socket) =>
      Effect.zipRight(Queue.offer(sockets, socket), Effect.never)
    ),
    { drainTimeout: 1 }
  )
  const client = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${serving.port}/`, { heartbeat: false })
  return { client, server: yield* Queue.take(sockets), serving }
})

const turns = Effect.promise(async () => {
  for (let i = 0; i < 50; i++) await new Promise<void>((resume) => setImmediate(resume))
})

/** What a stream gives, up to its end or so many bytes. (`for await` would destroy it.) */
const readAll = (stream: Readable, bytes = Number.POSITIVE_INFINITY) =>
  Effect.async<string>((resume) => {
    let read = Buffer.alloc(0)
    const done = () => {
      stream.off("data", onData)
      resume(Effect.succeed(read.toString()))
    }
    const onData = (chunk: Buffer) => {
      read = Buffer.concat([read, chunk])
      if (read.length >= bytes) done()
    }
    stream.on("data", onData).once("end", done)
  })

const closed = (stream: Readable) =>
  Effect.async<void>((resume) => void stream.once("close", () => resume(Effect.void)))

describe("byte mode", () => {
  it.scopedLive("reads texts and bytes as bytes; each chunk that is written is a binary message", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      yield* server.sendAll(["a", "", "", new Uint8Array([98])])
      yield* server.send("")
      yield* server.send("ü")
      assert.strictEqual(yield* readAll(stream, 4), "abü")
      stream.write("text")
      stream.write(Buffer.from([1, 2]))
      assert.deepStrictEqual(yield* server.take, new Uint8Array(Buffer.from("text")))
      assert.deepStrictEqual(yield* server.take, Uint8Array.of(1, 2))
    })
  )

  it.scopedLive("carries a pipeline to its end, which closes with 1000", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const there = yield* NodeDuplex.fromConnection(client)
      const here = yield* NodeDuplex.fromConnection(server)
      const data = Buffer.alloc(3_000_000, "some text that gzip makes small ")
      const received: Array<Buffer> = []
      yield* Effect.all(
        [
          Effect.promise(() =>
            pipeline(
              Readable.from([data.subarray(0, 1_000_000), data.subarray(1_000_000)]),
              createGzip(),
              there.resume()
            )
          ),
          Effect.promise(() =>
            pipeline(
              here,
              createGunzip(),
              new Writable({
                write: (chunk, _, done) => {
                  received.push(chunk)
                  done()
                }
              })
            )
          )
        ],
        { concurrency: "unbounded" }
      )
      assert.isTrue(Buffer.concat(received).equals(data))
      const { clean, code } = yield* server.closed
      assert.deepStrictEqual([clean, code], [true, 1000])
    })
  )
})

it.scopedLive("one that is made in an uninterruptible region ends with its Scope all the same", () =>
  Effect.gen(function* () {
    const { client } = yield* connected
    const scope = yield* Scope.make()
    const stream = yield* NodeDuplex.fromConnection(client).pipe(Effect.uninterruptible, Scope.extend(scope))
    stream.resume()
    yield* turns
    yield* Scope.close(scope, Exit.void)
    assert.isTrue(stream.destroyed)
  })
)

describe("message mode", () => {
  it.scopedLive("keeps kinds and boundaries both ways, empty messages too", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client, { mode: "messages" })
      const sent = ["a", "", new Uint8Array([1]), new Uint8Array(0), "b"]
      yield* server.sendAll(sent)
      const read: Array<unknown> = []
      for (const message of sent) {
        if (stream.readableLength === 0) yield* Effect.promise(() => once(stream, "readable"))
        read.push(stream.read(1))
        assert.deepStrictEqual(read.at(-1), message)
      }
      stream.cork()
      for (const message of sent) stream.write(message)
      stream.uncork()
      for (const message of sent) assert.deepStrictEqual(yield* server.take, message)
    })
  )

  it.scopedLive("what is no message is an error of the stream", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client, { mode: "messages" })
      stream.write({ not: "a message" })
      const [error] = yield* Effect.promise(() => once(stream, "error"))
      assert.instanceOf(error, TypeError)
      assert.strictEqual((yield* server.closed).code, 1006)
    })
  )
})

describe("backpressure", () => {
  it.scopedLive("who does not read makes the peer wait", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      const chunk = new Uint8Array(0x80000)
      let sent = 0
      yield* Effect.forkScoped(Effect.forever(Effect.tap(server.send(chunk), () => sent++)))
      const stuck = Effect.gen(function* () {
        const before = sent
        yield* turns
        return before > 0 && sent === before
      })
      yield* Effect.repeat(stuck, { until: (still) => still })
      assert.isBelow(sent, 100)
      assert.isBelow(stream.readableLength, 0x200000)
      const before = sent
      stream.resume()
      yield* Effect.repeat(
        Effect.promise(() => new Promise<void>((resume) => setImmediate(resume))),
        {
          until: () => sent > before + 20
        }
      )
    })
  )

  it.scopedLive("a peer that does not read makes the writer wait", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      const chunk = Buffer.alloc(0x80000)
      let drained = 0
      stream.on("drain", () => drained++)
      let written = 0
      const stuck = Effect.gen(function* () {
        while (stream.write(chunk)) written++
        written++
        const before = drained
        yield* turns
        return drained === before
      })
      yield* Effect.repeat(stuck, { until: (still) => still })
      assert.isBelow(written, 100)
      assert.isAbove(stream.writableLength, 0)
      for (let i = 0; i < written; i++) yield* server.take
      assert.strictEqual(stream.writableLength, 0)
    })
  )
})

describe("the end", () => {
  it.scopedLive("end closes with 1000 after what was written; finish follows the closing handshake", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      stream.end("last words")
      assert.deepStrictEqual(yield* server.take, new Uint8Array(Buffer.from("last words")))
      const finished = once(stream, "finish")
      yield* Stream.runDrain(server.messages)
      assert.strictEqual((yield* server.closed).code, 1000)
      yield* Effect.promise(() => finished)
      stream.resume()
      yield* Effect.promise(() => once(stream, "close"))
      assert.isNull(stream.errored)
    })
  )

  it.scopedLive("the peer's clean close ends both sides", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      yield* server.send("x")
      yield* Effect.forkScoped(server.close(1001))
      assert.strictEqual(yield* readAll(stream), "x")
      if (!stream.closed) yield* closed(stream)
      assert.isTrue(stream.writableFinished)
      assert.isNull(stream.errored)
    })
  )

  for (const [name, end, code] of [
    ["another close code", (server: Connection.Connection) => server.close(3001, "go away"), 3001],
    ["a lost connection", (server: Connection.Connection) => server.abort, 1006]
  ] as const) {
    it.scopedLive(`${name} destroys the stream with the connection's error`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const stream = yield* NodeDuplex.fromConnection(client)
        stream.resume()
        yield* Effect.forkScoped(end(server))
        const [error] = yield* Effect.promise(() => once(stream, "error"))
        assert.deepStrictEqual([error._tag, error.code], ["ConnectionClosed", code])
      })
    )
  }

  it.scopedLive("destroy cuts the connection", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const stream = yield* NodeDuplex.fromConnection(client)
      stream.destroy()
      assert.strictEqual((yield* server.closed).code, 1006)
    })
  )

  it.scopedLive("leaving the Scope lets the connection go on", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const scope = yield* Scope.make()
      const stream = yield* Scope.extend(NodeDuplex.fromConnection(client), scope)
      stream.resume()
      yield* turns
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(stream.destroyed)
      assert.isNull(stream.errored)
      yield* server.send("to the connection")
      assert.strictEqual(yield* client.take, "to the connection")
      yield* client.send("still open")
      assert.strictEqual(yield* server.take, "still open")
    })
  )
})

describe("a connection from a Duplex", () => {
  it.scopedLive("over a Duplex of another connection: WebSocket in WebSocket", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connected
      const outer = yield* NodeDuplex.fromConnection(client)
      const inner = yield* NodeDuplex.fromConnection(server)
      const answered = yield* Deferred.make<unknown>()
      yield* Effect.forkScoped(
        Effect.gen(function* () {
          const socket = yield* NodeWebSocketClient.connectDuplex(outer, { url: "ws://inner/", heartbeat: false })
          yield* socket.send("through both")
          yield* Deferred.succeed(answered, yield* socket.take)
        }).pipe(Effect.scoped)
      )
      const [request] = yield* Effect.promise(() => once(inner, "data"))
      const key = /Sec-WebSocket-Key: (.*)\r\n/i.exec(String(request))![1]!
      const { createHash } = yield* Effect.promise(() => import("node:crypto"))
      const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
      inner.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`
      )
      inner.write(Buffer.from([0x81, 2, 0x6f, 0x6b]))
      assert.strictEqual(yield* Deferred.await(answered), "ok")
      inner.destroy()
    })
  )
})

describe("fromTransport", () => {
  const pair = Effect.map(TestTransport.pair(), ([left, right]) => ({
    left,
    right,
    a: NodeDuplex.fromTransport(left),
    b: NodeDuplex.fromTransport(right)
  }))

  it.live("bytes, and the end of each direction", () =>
    Effect.gen(function* () {
      const { a, b } = yield* pair
      a.end("to b")
      assert.strictEqual(yield* readAll(b), "to b")
      a.resume()
      b.end()
      yield* Effect.promise(() => once(a, "close"))
      assert.isNull(a.errored)
    })
  )

  it.live("a line that is cut destroys both with the error", () =>
    Effect.gen(function* () {
      const { a, b, left } = yield* pair
      const errors = Promise.all([once(a, "error"), once(b, "error")])
      yield* left.cut
      for (const [error] of yield* Effect.promise(() => errors)) assert.strictEqual(error._tag, "TransportError")
    })
  )

  it.live("destroy cuts the transport", () =>
    Effect.gen(function* () {
      const { a, b, left } = yield* pair
      b.on("error", () => {})
      a.destroy()
      yield* closed(b)
      assert.isTrue(yield* left.isClosed)
    })
  )

  it.live("a stalled line makes the writer wait, and one that nobody reads the peer", () =>
    Effect.gen(function* () {
      const { a, b, left, right } = yield* pair
      yield* left.stall
      assert.isFalse(a.write(Buffer.alloc(0x100000)))
      yield* turns
      assert.isAbove(a.writableLength, 0)
      const drained = once(a, "drain")
      yield* left.flow
      b.resume()
      yield* Effect.promise(() => drained)
      b.pause()
      a.pause()
      for (let i = 0; i < 10; i++) b.write(Buffer.alloc(0x10000))
      yield* turns
      assert.isAbove(yield* right.writtenBytes, 0)
      assert.isBelow(a.readableLength, 0x80000)
    })
  )

  it.scopedLive("is what NodeTransport.fromDuplex is the inverse of", () =>
    Effect.gen(function* () {
      const through = new PassThrough()
      const duplex = NodeDuplex.fromTransport(NodeTransport.fromDuplex(through, Buffer.from("head ")))
      duplex.end("and tail")
      assert.strictEqual(yield* readAll(duplex), "head and tail")
    })
  )
})
