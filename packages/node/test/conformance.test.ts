/** The conformance suite over loopback TCP: a route with a raw client, and our client with a raw server. */
import { once } from "node:events"
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, WebSocketRoute } from "@effect-ws/core"
import { Handshake } from "@effect-ws/core/engine"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Effect, Fiber, Layer, Stream } from "effect"
import { type Case, cases } from "../../core/test/conformance/cases.js"
import { type Cutting, type RawPeer, runCase } from "../../core/test/conformance/runner.js"
import { connect, portOf, RawClient, serve } from "./support.js"

const echo = (socket: Connection.Connection) => Stream.run(socket.messages, socket.sink)

const rawPeer = (raw: RawClient): RawPeer => ({
  send: (bytes) =>
    new Promise((resume) => {
      if (raw.socket.destroyed || raw.socket.writableEnded || raw.socket.write(bytes)) return resume()
      const go = () => {
        raw.socket.off("drain", go).off("close", go)
        resume()
      }
      raw.socket.on("drain", go).on("close", go)
    }),
  next: () => Effect.runPromise(raw.bytes),
  end: () => {
    raw.socket.end()
  }
})

const isLarge = ({ bytes }: Case) => bytes > 300_000
const cuttings = (testCase: Case): ReadonlyArray<Cutting> =>
  isLarge(testCase) ? ["as written"] : ["as written", "joined"]
const title = ({ id, section, title }: Case) => `${id} ${title} (${section})`
const limits = [...new Set(cases.map(({ maxMessageBytes }) => maxMessageBytes))]

const server = serve(
  Layer.mergeAll(
    Layer.empty as unknown as Parameters<typeof serve>[0],
    ...limits.map((maxMessageBytes) =>
      WebSocketRoute.layer(`/${maxMessageBytes ?? "default"}`, { maxMessageBytes }, echo)
    )
  )
)

describe("conformance over loopback: server", () => {
  for (const testCase of cases) {
    if (!testCase.roles.includes("server")) continue
    it.scopedLive(title(testCase), () =>
      Effect.gen(function* () {
        const serving = yield* server
        for (const cutting of cuttings(testCase)) {
          const raw = yield* connect(serving.port)
          raw.socket.setNoDelay(true)
          const answer = yield* raw.upgrade(`/${testCase.maxMessageBytes ?? "default"}`)
          assert.strictEqual(answer.status, 101)
          yield* Effect.promise(() => runCase(testCase, "server", rawPeer(raw), cutting))
        }
        yield* serving.sockets(0)
      })
    )
  }
})

/** Accepts one connection, answers its handshake, and gives it with what came after. */
const acceptOne = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = Net.createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1")
    await once(server, "listening")
    const accepted = (async () => {
      const [socket] = (await once(server, "connection")) as [Net.Socket]
      server.close()
      let head = ""
      while (!head.endsWith("\r\n\r\n")) head += String((await once(socket, "data"))[0])
      const key = /sec-websocket-key: *(\S+)/i.exec(head)![1]!
      socket.setNoDelay(true)
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          `Sec-WebSocket-Accept: ${Handshake.acceptKey(key)}\r\n\r\n`
      )
      return new RawClient(socket)
    })()
    return { port: portOf(server), accepted }
  }),
  ({ accepted }) => Effect.promise(async () => (await accepted).socket.destroy())
)

describe("conformance over loopback: client", () => {
  for (const testCase of cases) {
    if (!testCase.roles.includes("client")) continue
    it.live(title(testCase), () =>
      Effect.forEach(
        cuttings(testCase),
        (cutting) =>
          Effect.gen(function* () {
            const { accepted, port } = yield* acceptOne
            const { maxMessageBytes } = testCase
            const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${port}/`, { maxMessageBytes })
            const echoing = yield* Effect.fork(Effect.exit(echo(socket)))
            yield* Effect.promise(async () => runCase(testCase, "client", rawPeer(await accepted), cutting))
            yield* Fiber.join(echoing)
          }).pipe(Effect.scoped),
        { discard: true }
      )
    )
  }
})
