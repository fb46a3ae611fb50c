/** Transports over Node's streams: what comes from the stream, and what the stream is told. */
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { Duplex, PassThrough } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Connection, type Transport, type WebSocketError } from "@effect-ws/core"
import { NodeTransport } from "@effect-ws/node"
import { Effect, Fiber, Queue, type Scope, Stream } from "effect"
import { portOf } from "./support.js"

type Heard =
  | { readonly _tag: "Data"; readonly text: string }
  | { readonly _tag: "Drain" | "End" }
  | { readonly _tag: "Close"; readonly error: WebSocketError.TransportError | undefined }

/** Opens a transport and hears what it says. */
const listen = (transport: Transport.Transport): Effect.Effect<Queue.Dequeue<Heard>> =>
  Effect.map(Queue.unbounded<Heard>(), (heard) => {
    transport.open({
      onData: (chunk) => heard.unsafeOffer({ _tag: "Data", text: Buffer.from(chunk).toString() }),
      onDrain: () => heard.unsafeOffer({ _tag: "Drain" }),
      onEnd: () => heard.unsafeOffer({ _tag: "End" }),
      onClose: (error) => heard.unsafeOffer({ _tag: "Close", error })
    })
    return heard
  })

/** Two ends of a socket. */
const sockets = (path?: string): Effect.Effect<readonly [Net.Socket, Net.Socket], never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = Net.createServer({ allowHalfOpen: true })
      if (path === undefined) server.listen(0, "127.0.0.1")
      else server.listen(path)
      await once(server, "listening")
      const client =
        path === undefined
          ? Net.connect({ port: portOf(server), host: "127.0.0.1", allowHalfOpen: true })
          : Net.connect({ path, allowHalfOpen: true })
      const [[accepted]] = (await Promise.all([once(server, "connection"), once(client, "connect")])) as [
        [Net.Socket],
        unknown
      ]
      server.close()
      client.on("error", () => {})
      return [client, accepted] as const
    }),
    (both) =>
      Effect.sync(() => {
        for (const socket of both) socket.destroy()
      })
  )

const bytesOf = (text: string) => Buffer.from(text)
/** Puts data together up to an expected text. */
const read = (heard: Queue.Dequeue<Heard>, expected: string) =>
  Effect.gen(function* () {
    let text = ""
    while (text.length < expected.length) {
      const next = yield* Queue.take(heard)
      assert.strictEqual(next._tag, "Data")
      if (next._tag === "Data") text += next.text
    }
    assert.strictEqual(text, expected)
  })

describe("a TCP socket", () => {
  it.scopedLive("reads, writes, and ends one direction after the other", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport)
      const other = NodeTransport.fromDuplex(far)
      const heardFar = yield* listen(other)
      transport.write([bytesOf("a"), bytesOf("b"), bytesOf("c")])
      yield* read(heardFar, "abc")
      transport.end()
      transport.end()
      transport.write([bytesOf("after the end")])
      assert.deepStrictEqual(yield* Queue.take(heardFar), { _tag: "End" })
      other.write([bytesOf("still there")])
      yield* read(heard, "still there")
      other.end()
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "End" })
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Close", error: undefined })
      assert.deepStrictEqual(yield* Queue.take(heardFar), { _tag: "Close", error: undefined })
    })
  )

  it.scopedLive("gives the bytes that were read before first", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      far.write("rest")
      const heard = yield* listen(NodeTransport.fromDuplex(near, bytesOf("head ")))
      yield* read(heard, "head rest")
    })
  )

  it.scopedLive("gives them, and the end, also when that came before", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      near.resume()
      far.end()
      yield* Effect.promise(() => once(near, "end"))
      const heard = yield* listen(NodeTransport.fromDuplex(near, bytesOf("head")))
      yield* read(heard, "head")
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "End" })
    })
  )

  it.scopedLive("a stream that is paused flows, and pause and resume hold", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      near.pause()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport)
      far.write("1")
      yield* read(heard, "1")
      transport.pause()
      far.write("2")
      const both = yield* sockets()
      both[0].end("barrier")
      yield* Effect.promise(() => once(both[1].resume(), "end"))
      assert.strictEqual(yield* Queue.size(heard), 0)
      transport.resume()
      yield* read(heard, "2")
    })
  )

  it.scopedLive("tells when what waits has left", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      far.pause()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport)
      const chunk = new Uint8Array(1 << 20)
      assert.strictEqual(transport.bufferedBytes(), 0)
      for (let i = 0; transport.bufferedBytes() === 0 && i < 64; i++) transport.write([chunk])
      assert.isAbove(transport.bufferedBytes(), 0)
      // The memory is still referred to.
      assert.isFalse(transport.write([chunk]))
      far.resume()
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Drain" })
      assert.strictEqual(transport.bufferedBytes(), 0)
    })
  )

  it.scopedLive("abort cuts at once, once", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport)
      far.resume()
      transport.abort()
      transport.abort()
      transport.end()
      transport.write([bytesOf("x")])
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Close", error: undefined })
      assert.strictEqual(yield* Queue.size(heard), 0)
    })
  )

  it.scopedLive("a reset is an error with its cause", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const heard = yield* listen(NodeTransport.fromDuplex(near))
      far.resetAndDestroy()
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") {
        assert.strictEqual(last.error?.reason, "Reset")
        assert.include(String(last.error?.cause), "ECONNRESET")
      }
    })
  )

  it.scopedLive("that broke before it is opened closes when it is", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const transport = NodeTransport.fromDuplex(near)
      near.resume()
      far.resetAndDestroy()
      yield* Effect.promise(() => new Promise((resume) => near.once("close", resume)))
      const heard = yield* listen(transport)
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") assert.strictEqual(last.error?.reason, "Reset")
    })
  )
})

/** An echo over two ends. */
const echoes = (clientEnd: Duplex, serverEnd: Duplex) =>
  Effect.gen(function* () {
    const client = yield* Connection.make(NodeTransport.fromDuplex(clientEnd), { role: "client" })
    const server = yield* Connection.make(NodeTransport.fromDuplex(serverEnd), { role: "server" })
    const echo = yield* Effect.fork(Stream.run(server.messages, server.sink))
    const big = "x".repeat(300_000)
    yield* client.sendAll(["a", big])
    assert.strictEqual(yield* client.take, "a")
    assert.strictEqual(yield* client.take, big)
    assert.isTrue((yield* client.close()).clean)
    yield* Fiber.join(echo)
  }).pipe(Effect.scoped)

describe("other streams", () => {
  it.scopedLive("a Unix socket", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "effect-ws-"))),
        (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
      )
      const [client, server] = yield* sockets(Path.join(directory, "socket"))
      yield* echoes(client, server)
    })
  )

  it.scopedLive("a pair of pipes in memory", () =>
    Effect.gen(function* () {
      const [up, down] = [new PassThrough(), new PassThrough()]
      yield* echoes(Duplex.from({ readable: down, writable: up }), Duplex.from({ readable: up, writable: down }))
    })
  )

  it.effect("an error that a stream makes up", () =>
    Effect.gen(function* () {
      const duplex = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(new Error("disk full")) })
      const transport = NodeTransport.fromDuplex(duplex)
      const heard = yield* listen(transport)
      transport.write([bytesOf("x")])
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") assert.include(String(last.error?.cause), "disk full")
    })
  )
})
