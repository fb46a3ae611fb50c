/** Transports over Node's streams: what comes from the stream, and what the stream is told. */
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { Duplex, PassThrough } from "node:stream"
import { Worker } from "node:worker_threads"
import { assert, describe, it } from "@effect/vitest"
import { Connection, type Transport, type WebSocketError } from "@effect-ws/core"
import { NodeTransport } from "@effect-ws/node"
import { Effect, Fiber, Queue, type Scope, Stream } from "effect"
import { portOf } from "./support.js"

type Heard =
  | { readonly _tag: "Data"; readonly text: string }
  | { readonly _tag: "Drain" | "End" }
  | { readonly _tag: "Close"; readonly error: WebSocketError.TransportError | undefined }

type Listens = (listener: Transport.Listener) => Transport.Listener

const keeps: Listens = (listener) => listener

/** Takes a copy of what is lent, and writes over the rest of it. */
const borrows: Listens = (listener) => ({
  ...listener,
  onLent: (chunk) => {
    const copy = new Uint8Array(chunk)
    chunk.fill(0xee)
    listener.onData(copy)
  }
})

/** Opens a transport and hears what it says. */
const listen = (transport: Transport.Transport, listens = keeps): Effect.Effect<Queue.Dequeue<Heard>> =>
  Effect.map(Queue.unbounded<Heard>(), (heard) => {
    transport.open(
      listens({
        onData: (chunk) => heard.unsafeOffer({ _tag: "Data", text: Buffer.from(chunk).toString() }),
        onDrain: () => heard.unsafeOffer({ _tag: "Drain" }),
        onEnd: () => heard.unsafeOffer({ _tag: "End" }),
        onClose: (error) => heard.unsafeOffer({ _tag: "Close", error })
      })
    )
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
const readAll = (heard: Queue.Dequeue<Heard>, expected: string) =>
  Effect.gen(function* () {
    let text = ""
    while (text.length < expected.length) {
      const next = yield* Queue.take(heard)
      assert.strictEqual(next._tag, "Data")
      if (next._tag === "Data") text += next.text
    }
    assert.strictEqual(text, expected)
  })

/** Sockets of a subclass are left to Node's own streams. */
class OwnSocket extends Net.Socket {}
const own = (socket: Net.Socket): Net.Socket => Object.setPrototypeOf(socket, OwnSocket.prototype)
const ways: ReadonlyArray<readonly [name: string, prepare: (socket: Net.Socket) => Net.Socket, listens: Listens]> = [
  ["a TCP socket", (socket) => socket, keeps],
  ["a TCP socket that lends what it reads", (socket) => socket, borrows],
  ["a TCP socket through its streams", own, borrows]
]

describe.each(ways)("%s", (_, prepare, listens) => {
  const prepared = Effect.map(sockets(), ([far, near]) => [far, prepare(near)] as const)

  it.scopedLive("reads, writes, and ends one direction after the other", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
      const other = NodeTransport.fromDuplex(far)
      const heardFar = yield* listen(other, listens)
      transport.write([bytesOf("a"), bytesOf("b"), bytesOf("c")])
      yield* readAll(heardFar, "abc")
      transport.end()
      transport.end()
      transport.write([bytesOf("after the end")])
      assert.deepStrictEqual(yield* Queue.take(heardFar), { _tag: "End" })
      other.write([bytesOf("still there")])
      yield* readAll(heard, "still there")
      other.end()
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "End" })
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Close", error: undefined })
      assert.deepStrictEqual(yield* Queue.take(heardFar), { _tag: "Close", error: undefined })
    })
  )

  it.scopedLive("gives the bytes that were read before first", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      far.write("rest")
      const heard = yield* listen(NodeTransport.fromDuplex(near, bytesOf("head ")), listens)
      yield* readAll(heard, "head rest")
    })
  )

  it.scopedLive("gives them, and the end, also when that came before", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      near.resume()
      far.end()
      yield* Effect.promise(() => once(near, "end"))
      const heard = yield* listen(NodeTransport.fromDuplex(near, bytesOf("head")), listens)
      yield* readAll(heard, "head")
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "End" })
    })
  )

  it.scopedLive("a stream that is paused flows, and pause and resume hold", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      near.pause()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
      far.write("1")
      yield* readAll(heard, "1")
      transport.pause()
      far.write("2")
      const both = yield* sockets()
      both[0].end("barrier")
      yield* Effect.promise(() => once(both[1].resume(), "end"))
      assert.strictEqual(yield* Queue.size(heard), 0)
      transport.resume()
      yield* readAll(heard, "2")
    })
  )

  it.scopedLive("tells when what waits has left", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      far.pause()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
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
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
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
      const [far, near] = yield* prepared
      const heard = yield* listen(NodeTransport.fromDuplex(near), listens)
      far.resetAndDestroy()
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") {
        assert.strictEqual(last.error?.reason, "Reset")
        assert.include(String(last.error?.cause), "ECONNRESET")
      }
    })
  )

  it.scopedLive("that was destroyed before it is opened tells so once", () =>
    Effect.gen(function* () {
      const [, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      near.destroy()
      const heard = yield* listen(transport, listens)
      yield* Effect.promise(() => once(near, "close"))
      assert.deepStrictEqual([...(yield* Queue.takeAll(heard))], [{ _tag: "Close", error: undefined }])
    })
  )

  it.scopedLive("that broke before it is opened closes when it is", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      near.resume()
      far.resetAndDestroy()
      yield* Effect.promise(() => new Promise((resume) => near.once("close", resume)))
      const heard = yield* listen(transport, listens)
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") assert.strictEqual(last.error?.reason, "Reset")
    })
  )

  it.scopedLive("keeps the order of what comes while it is paused and resumed all the time", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      const sent = Buffer.from(Array.from({ length: 1 << 19 }, (_, i) => (i * 31 + (i >> 8)) & 255))
      const received: Array<Buffer> = []
      let paused = false
      let wrong = 0
      yield* Effect.async<void>((resume) => {
        transport.open(
          listens({
            onData: (chunk) => {
              if (paused) wrong++
              received.push(Buffer.from(chunk))
              if (received.length % 2 === 0) return
              paused = true
              transport.pause()
              setImmediate(() => {
                paused = false
                transport.resume()
              })
            },
            onDrain: () => {},
            onEnd: () => resume(Effect.void),
            onClose: () => {}
          })
        )
        // Pieces of all sizes, some of them in turns of their own
        for (let at = 0, size = 1; at < sent.length; at += size, size = ((size * 7) % 4001) + 1) {
          far.write(sent.subarray(at, at + size))
        }
        far.end()
      })
      assert.strictEqual(wrong, 0)
      assert.isTrue(Buffer.concat(received).equals(sent))
    })
  )

  it.scopedLive("writes whatever is queued in order", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      yield* listen(transport, listens)
      const sent: Array<Buffer> = []
      const send = (size: number) => {
        const chunk = Buffer.alloc(size, sent.length)
        sent.push(chunk)
        return chunk
      }
      far.pause()
      // One piece, several, none, and far more than the kernel takes
      for (let i = 0; i < 50; i++) {
        transport.write([send(10)])
        transport.write([send(1000), send(0), send(300_000)])
        assert.isTrue(transport.write([]))
      }
      assert.isAbove(transport.bufferedBytes(), 0)
      transport.end()
      const received: Array<Buffer> = []
      far.on("data", (chunk: Buffer) => received.push(chunk)).resume()
      yield* Effect.promise(() => once(far, "end"))
      assert.isTrue(Buffer.concat(received).equals(Buffer.concat(sent)))
    })
  )

  it.scopedLive("a write that fails is an error with its cause", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
      transport.write([bytesOf("first")])
      transport.pause()
      far.resetAndDestroy()
      yield* Effect.promise(() => once(far, "close"))
      while ((yield* Queue.size(heard)) === 0) {
        transport.write([bytesOf("into the void"), bytesOf("in two pieces")])
        yield* Effect.promise(() => new Promise(setImmediate))
      }
      const last = yield* Queue.take(heard)
      assert.strictEqual(last._tag, "Close")
      if (last._tag === "Close") assert.match(String(last.error?.cause), /EPIPE|ECONNRESET/)
    })
  )

  it.scopedLive("of a socket that ends with its peer: what is written after it is dropped", () =>
    Effect.gen(function* () {
      const [far, near] = yield* prepared
      near.allowHalfOpen = false
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport, listens)
      transport.write([bytesOf("before")])
      far.end()
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "End" })
      while (!near.writableEnded) yield* Effect.promise(() => new Promise(setImmediate))
      assert.isTrue(transport.write([bytesOf("after")]))
      far.resume()
      assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Close", error: undefined })
    })
  )
})

/** Tells its port, then how many bytes came. */
const countingPeer = `
  const { parentPort } = require("node:worker_threads")
  let count = 0
  const server = require("node:net").createServer((socket) => {
    socket.on("data", (chunk) => { count += chunk.length })
    socket.on("end", () => { parentPort.postMessage(count) })
  })
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port))
`

describe("what lies under a socket", () => {
  it.scopedLive("is used for all but the first bytes", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const transport = NodeTransport.fromDuplex(near)
      const heard = yield* listen(transport)
      const heardFar = yield* listen(NodeTransport.fromDuplex(far))
      let written = 0
      let read = 0
      const write = near.write.bind(near)
      near.write = ((chunk: Uint8Array) => {
        written++
        return write(chunk)
      }) as typeof near.write
      near.on("data", () => read++)
      for (let i = 0; i < 10; i++) {
        assert.isTrue(transport.write([bytesOf(`there ${i}`)]))
        yield* readAll(heardFar, `there ${i}`)
        far.write(`back ${i}`)
        yield* readAll(heard, `back ${i}`)
      }
      assert.isAtMost(written, 1)
      assert.strictEqual(read, 0)
      assert.strictEqual(near.bytesWritten, 70)
      assert.strictEqual(near.bytesRead, 60)
    })
  )

  it.scopedLive("is read into one memory for all that borrow it, and into new memory for others", () =>
    Effect.gen(function* () {
      /** The memory of all that a socket reads. */
      const memories = (borrows: boolean) =>
        Effect.gen(function* () {
          const [far, near] = yield* sockets()
          const seen: Array<ArrayBufferLike> = []
          const hear = (chunk: Uint8Array) => void seen.push(chunk.buffer)
          yield* Effect.async<void>((resume) => {
            NodeTransport.fromDuplex(near).open({
              onData: hear,
              ...(borrows ? { onLent: hear } : {}),
              onDrain: () => {},
              onEnd: () => resume(Effect.void),
              onClose: () => {}
            })
            far.end(new Uint8Array(1 << 20))
          })
          return seen
        })
      const lent = [...(yield* memories(true)), ...(yield* memories(true))]
      assert.strictEqual(new Set(lent).size, 1)
      const own = yield* memories(false)
      assert.isAbove(own.length, 1)
      assert.strictEqual(new Set([...own, ...lent]).size, own.length + 1)
    })
  )

  it.scopedLive("is written to while another thread reads", () =>
    Effect.gen(function* () {
      const peer = yield* Effect.acquireRelease(
        Effect.sync(() => new Worker(countingPeer, { eval: true })),
        (peer) => Effect.promise(() => peer.terminate())
      )
      const [port] = yield* Effect.promise(() => once(peer, "message") as Promise<[number]>)
      const socket = Net.connect(port, "127.0.0.1")
      yield* Effect.promise(() => once(socket, "connect"))
      const transport = NodeTransport.fromDuplex(socket)
      const heard = yield* listen(transport)
      // Sizes around what a socket takes at once, so that all, nothing, or a part of them is taken
      let total = 0
      for (let i = 0; i < 300; i++) {
        const size = 1 + ((i * 65_537) % 4_000_037)
        total += size
        transport.write(i % 2 === 0 ? [new Uint8Array(size)] : [new Uint8Array(1), new Uint8Array(size - 1)])
        transport.write([new Uint8Array(0)])
        if (transport.bufferedBytes() > 1 << 23) assert.deepStrictEqual(yield* Queue.take(heard), { _tag: "Drain" })
      }
      transport.end()
      const [counted] = yield* Effect.promise(() => once(peer, "message") as Promise<[number]>)
      assert.strictEqual(counted, total)
    })
  )

  it.scopedLive("takes bytes only", () =>
    Effect.gen(function* () {
      const [far, near] = yield* sockets()
      const transport = NodeTransport.fromDuplex(near)
      const heardFar = yield* listen(NodeTransport.fromDuplex(far))
      transport.write([bytesOf("1")])
      transport.write([bytesOf("2")])
      for (const wrong of [new ArrayBuffer(4), "text", undefined, 7]) {
        for (const chunks of [[wrong], [bytesOf("x"), wrong]] as Array<any>) {
          assert.throws(() => transport.write(chunks), TypeError)
        }
      }
      transport.write([bytesOf("3")])
      yield* readAll(heardFar, "123")
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

/** Not among the types. */
const { fromAnswered } = NodeTransport as unknown as {
  readonly fromAnswered: (duplex: Duplex, head: Uint8Array, answer: Uint8Array) => Transport.Transport
}
const answered = (duplex: Duplex) => fromAnswered(duplex, new Uint8Array(0), bytesOf("101"))

describe("the answer to a handshake, written soon", () => {
  const recorded = () => {
    const written: Array<string> = []
    const duplex = new Duplex({
      read: () => {},
      write: (chunk, _, done) => {
        written.push(String(chunk))
        done()
      },
      final: (done) => {
        written.push("end")
        done()
      }
    })
    return { transport: answered(duplex), written }
  }
  const polled = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))

  it.effect("leaves when the event loop has polled", () =>
    Effect.gen(function* () {
      const { written } = recorded()
      assert.deepStrictEqual(written, [])
      yield* polled
      assert.deepStrictEqual(written, ["101"])
    })
  )

  it.effect("leaves in front of what is written before that, once", () =>
    Effect.gen(function* () {
      const { transport, written } = recorded()
      transport.write([bytesOf("a"), bytesOf("b")])
      transport.write([bytesOf("c")])
      assert.deepStrictEqual(written, ["101", "a", "b", "c"])
      yield* polled
      assert.deepStrictEqual(written, ["101", "a", "b", "c"])
    })
  )

  it.effect("leaves before the end, and not after a cut", () =>
    Effect.gen(function* () {
      const ended = recorded()
      ended.transport.end()
      const cut = recorded()
      cut.transport.abort()
      yield* polled
      assert.deepStrictEqual(ended.written, ["101", "end"])
      assert.deepStrictEqual(cut.written, [])
    })
  )

  it.scopedLive("leaves a socket as one piece with what follows", () =>
    Effect.gen(function* () {
      const [near, far] = yield* sockets()
      const heard = yield* listen(NodeTransport.fromDuplex(far))
      answered(near).write([bytesOf("first message")])
      yield* readAll(heard, "101first message")
    })
  )
})
