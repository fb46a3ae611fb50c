/** Thousands of broken connections: nothing stays behind, and the others are served all the time. */
import type * as Net from "node:net"
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { WebSocketRoute } from "@effect-ws/core"
import { Effect, Layer, Stream, Supervisor } from "effect"
import { clientFrame, clientText, connect, handshake, open, type RawClient, serve } from "./support.js"

const Routes = Layer.mergeAll(
  WebSocketRoute.layer("/echo", { maxMessageBytes: 1000, closeTimeout: "1 hour" }, (socket) =>
    Stream.run(socket.messages, socket.sink)
  ),
  WebSocketRoute.each("/each", {}, (message, socket) => void socket.unsafeTrySend(message)),
  WebSocketRoute.layer("/flood", {}, (socket) => Effect.forever(socket.send("x".repeat(100_000)))),
  WebSocketRoute.layer("/fails", {}, (socket) => Effect.zipRight(socket.take, Effect.die(new Error("on purpose")))),
  WebSocketRoute.layer("/undecided", { accept: () => Effect.never }, () => Effect.void),
  WebSocketRoute.layer(
    "/scoped",
    { accept: () => Effect.addFinalizer(() => Effect.void), handlerTimeout: 1 },
    () => Effect.never
  ),
  HttpLayerRouter.add("GET", "/slow", Effect.never),
  HttpLayerRouter.add("GET", "/health", HttpServerResponse.text("ok"))
)

const bytes = (...parts: ReadonlyArray<string | Uint8Array>) =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)))
const endAfterwards = (client: RawClient) => Effect.zipRight(client.end, client.ended)

/** Ways to break a connection. Those with an answer read it first, so that they break it later. */
const ways: Readonly<Record<string, (client: RawClient) => Effect.Effect<unknown>>> = {
  "reset at once": (client) => client.reset,
  "end at once": endAfterwards,
  "reset inside the head": (client) =>
    Effect.zipRight(client.write("GET /echo HTTP/1.1\r\nHost: x\r\nUpgr"), client.reset),
  "end inside the head": (client) => Effect.zipRight(client.write("GET /echo HTTP/1.1\r\nHo"), endAfterwards(client)),
  "no HTTP at all": (client) => Effect.zipRight(client.write("\x16\x03\x01 hello\r\n\r\n"), client.ended),
  "reset with the handshake": (client) => Effect.zipRight(client.write(handshake("/echo")), client.reset),
  "reset with the handshake and a message": (client) =>
    Effect.zipRight(client.write(bytes(handshake("/each"), clientText("x"))), client.reset),
  "reset after the 101": (client) => Effect.zipRight(client.upgrade("/scoped"), client.reset),
  "end after the 101": (client) => Effect.zipRight(client.upgrade("/echo"), endAfterwards(client)),
  "end with the handshake": (client) => Effect.zipRight(client.write(handshake("/echo")), endAfterwards(client)),
  "reset while undecided": (client) => Effect.zipRight(client.write(handshake("/undecided")), client.reset),
  "end while undecided": (client) => Effect.zipRight(client.write(handshake("/undecided")), endAfterwards(client)),
  "refused, reset": (client) =>
    Effect.zipRight(client.upgrade("/echo", { "Sec-WebSocket-Key": undefined }), client.reset),
  "refused, ends": (client) =>
    Effect.zipRight(client.upgrade("/echo", { Origin: "http://evil" }), endAfterwards(client)),
  "refused with more to read": (client) =>
    Effect.zipRight(client.write(bytes(handshake("/nowhere"), new Uint8Array(50_000))), endAfterwards(client)),
  "a handshake behind a request": (client) =>
    Effect.zipRight(client.write(`GET /slow HTTP/1.1\r\nHost: x\r\n\r\n${handshake("/echo")}`), client.ended),
  "two handshakes": (client) =>
    Effect.zipRight(client.write(bytes(handshake("/echo"), handshake("/echo"))), endAfterwards(client)),
  "a frame without mask": (client) =>
    Effect.zipRight(
      client.upgrade("/echo"),
      Effect.zipRight(client.write(Uint8Array.of(0x81, 1, 65)), endAfterwards(client))
    ),
  "a reserved bit, and a reset": (client) =>
    Effect.zipRight(
      client.upgrade("/each"),
      Effect.zipRight(client.write(clientFrame({ opcode: 1, rsv: 4 })), client.reset)
    ),
  "half a frame": (client) =>
    Effect.zipRight(
      client.upgrade("/echo"),
      Effect.zipRight(client.write(clientText("half").subarray(0, 7)), client.reset)
    ),
  "half a message": (client) =>
    Effect.zipRight(
      client.upgrade("/each"),
      Effect.zipRight(
        client.write(clientFrame({ opcode: 1, fin: false, payload: bytes("half") })),
        endAfterwards(client)
      )
    ),
  "a message over the limit": (client) =>
    Effect.zipRight(
      client.upgrade("/echo"),
      Effect.zipRight(client.write(clientFrame({ opcode: 2, announced: 1n << 40n })), endAfterwards(client))
    ),
  "a close frame, and a reset": (client) =>
    Effect.zipRight(client.upgrade("/echo"), Effect.zipRight(client.sendClose(1000), client.reset)),
  "a closing handshake without an end": (client) =>
    Effect.zipRight(client.upgrade("/echo"), Effect.zipRight(client.sendClose(1000), client.ended)),
  "pings, never reading": (client) =>
    Effect.gen(function* () {
      yield* client.upgrade("/echo")
      client.socket.pause()
      yield* client.write(bytes(...Array.from({ length: 200 }, () => clientFrame({ opcode: 9 }))))
      yield* client.reset
    }),
  "stalled while it is flooded": (client) =>
    Effect.gen(function* () {
      yield* client.upgrade("/flood")
      client.socket.pause()
      yield* client.write(clientText("still here"))
      yield* client.reset
    }),
  "a handler that dies": (client) =>
    Effect.zipRight(client.upgrade("/fails"), Effect.zipRight(client.sendText("go"), endAfterwards(client)))
}

const rounds = 80

const turn = Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))

/** Sockets, servers and timers of this process, those of the standard streams aside. */
const resources = () => {
  const counts: Record<string, number> = { TCPSocketWrap: 0, TCPServerWrap: 0, Timeout: 0, Immediate: 0 }
  for (const name of process.getActiveResourcesInfo()) if (name in counts) counts[name]!++
  return counts
}

const listeners = (server: Net.Server) =>
  Object.fromEntries(server.eventNames().map((name) => [String(name), server.listenerCount(name)]))

describe("broken connections", () => {
  it.scopedLive(`leave nothing behind: ${Object.keys(ways).length} ways, ${rounds} times each`, () =>
    Effect.gen(function* () {
      const supervisor = yield* Supervisor.track
      const serving = yield* serve(Routes, { layer: Supervisor.addSupervisor(supervisor) })
      const fibers = Effect.map(supervisor.value, (all) => all.filter((fiber) => fiber.unsafePoll() === null).length)
      const healthy = yield* open(serving.port, "/echo")
      const stillServed = (text: string) =>
        Effect.gen(function* () {
          yield* healthy.sendText(text)
          assert.strictEqual(yield* healthy.text, text)
          const answer = yield* Effect.promise(() => fetch(`http://127.0.0.1:${serving.port}/health`))
          assert.strictEqual(yield* Effect.promise(() => answer.text()), "ok")
        })
      // The pool of `fetch` has its connection.
      yield* stillServed("before")
      const before = { fibers: yield* fibers, resources: resources(), listeners: listeners(serving.server) }

      for (let round = 0; round < rounds; round++) {
        yield* Effect.forEach(Object.values(ways), (way) => Effect.scoped(Effect.flatMap(connect(serving.port), way)), {
          concurrency: "unbounded",
          discard: true
        })
        if (round % 20 === 0) yield* stillServed(`round ${round}`)
      }

      yield* serving.sockets(2)
      yield* stillServed("after")
      yield* Effect.repeat(Effect.zipRight(turn, fibers), { until: (count) => count <= before.fibers })
      yield* Effect.repeat(Effect.zipRight(turn, Effect.sync(resources)), {
        until: (now) => Object.keys(now).every((name) => now[name]! <= before.resources[name]!)
      })
      assert.deepStrictEqual(listeners(serving.server), before.listeners)
      yield* healthy.close()
    })
  )

  it.scopedLive("clients that are refused and never leave are cut", () =>
    Effect.gen(function* () {
      const serving = yield* serve(Routes)
      const stayers = yield* Effect.forEach(
        ["/nowhere", "/nowhere", "/echo"],
        (path) =>
          Effect.tap(connect(serving.port), (client) => client.upgrade(path, { Origin: "http://evil.example" })),
        { concurrency: "unbounded" }
      )
      for (const client of stayers) yield* client.ended
      yield* serving.sockets(0)
    })
  )
})
