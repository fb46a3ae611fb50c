/** Resumable sessions of routes, over sockets. */
import { KeyValueStore } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  type Connection,
  Resume,
  WebSocketClient,
  WebSocketContract,
  WebSocketError,
  WebSocketRoute
} from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Context, Data, Deferred, Effect, Exit, Layer, Queue, Ref, Schedule, Schema, Stream } from "effect"
import { serve } from "./support.js"

const Numbers = WebSocketContract.make("/numbers/:room", {
  path: Schema.Struct({ room: Schema.String }),
  urlParams: Schema.Struct({ user: Schema.optional(Schema.String) }),
  incoming: Schema.Number,
  outgoing: Schema.Number
})

class Tired extends Data.TaggedError("Tired") {}

/** A client that remembers its connections. */
const remembering = Effect.map(WebSocketClient.WebSocketClient, (client) => {
  const lines: Array<Connection.Connection> = []
  return {
    lines,
    cut: Effect.suspend(() => lines[lines.length - 1]!.abort),
    service: WebSocketClient.WebSocketClient.of({
      connect: (url, options) => Effect.tap(client.connect(url, options), (line) => Effect.sync(() => lines.push(line)))
    })
  }
}).pipe(Effect.provide(NodeWebSocketClient.layer))

const quick = Schedule.spaced("5 millis")

describe("a route with resume", () => {
  it.scopedLive("one handler serves a client over several connections, then nothing is left", () =>
    Effect.gen(function* () {
      const begun = yield* Ref.make(0)
      const scopeEnded = yield* Deferred.make<void>()
      const routes = WebSocketRoute.implement(Numbers).toLayer(
        (socket) =>
          Effect.gen(function* () {
            yield* Ref.update(begun, (n) => n + 1)
            // The Scope of the first request is open as long as the session.
            yield* Effect.addFinalizer(() => Deferred.succeed(scopeEnded, undefined))
            yield* socket.runForEach((n) => socket.send(-n))
          }),
        { resume: Resume.memory() }
      )
      const server = yield* serve(routes)
      const { cut, lines, service } = yield* remembering
      const client = yield* WebSocketClient.reconnecting(Numbers, {
        baseUrl: `ws://127.0.0.1:${server.port}`,
        path: { room: "a" },
        schedule: quick,
        resume: Resume.memory()
      }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, service))
      for (let n = 1; n <= 20; n++) {
        yield* client.send(n)
        if (n % 5 === 0) yield* cut
        assert.strictEqual(yield* client.take, -n)
      }
      assert.isFalse(yield* Deferred.isDone(scopeEnded))
      assert.strictEqual(yield* Ref.get(begun), 1)
      assert.strictEqual(lines.length, 5)
      yield* client.close()
      yield* Deferred.await(scopeEnded)
      yield* server.sockets(0)
    })
  )

  it.scopedLive("a failure of the handler closes with onError's frame, also for a client that was away", () =>
    Effect.gen(function* () {
      const fail = yield* Deferred.make<void>()
      const failed = yield* Deferred.make<void>()
      const routes = WebSocketRoute.implement(Numbers).toLayer(
        (socket) =>
          socket
            .send(1)
            .pipe(
              Effect.zipRight(Deferred.await(fail)),
              Effect.zipRight(socket.send(2)),
              Effect.zipRight(new Tired()),
              Effect.ensuring(Deferred.succeed(failed, undefined))
            ),
        {
          resume: Resume.memory(),
          onError: (error) => (error._tag === "Tired" ? { code: 4000, reason: "tired" } : undefined)
        }
      )
      const server = yield* serve(routes)
      const away = yield* Queue.unbounded<void>()
      const { cut, service } = yield* remembering
      const client = yield* WebSocketClient.reconnecting(Numbers, {
        // The second attempt waits until the handler has failed.
        url: Effect.as(Queue.take(away), `ws://127.0.0.1:${server.port}/numbers/a`),
        schedule: quick,
        retryable: (error) => !(error instanceof WebSocketError.ConnectionClosed) || error.code !== 4000,
        resume: Resume.memory()
      }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, service))
      yield* Queue.offer(away, undefined)
      assert.strictEqual(yield* client.take, 1)
      yield* cut
      yield* Deferred.succeed(fail, undefined)
      yield* Deferred.await(failed)
      yield* Queue.offer(away, undefined)
      assert.strictEqual(yield* client.take, 2)
      const error = yield* Effect.flip(client.take)
      assert.isTrue(error instanceof WebSocketError.ConnectionClosed && error.code === 4000 && error.reason === "tired")
      yield* server.sockets(0)
    })
  )

  for (const [name, first, second, continued] of [
    ["the same path and owner", "a?user=ada", "a?user=ada", true],
    ["another path", "a?user=ada", "b?user=ada", false],
    ["another owner", "a?user=ada", "a?user=eve", false]
  ] as const) {
    it.scopedLive(`a session is continued with ${name}: ${continued}`, () =>
      Effect.gen(function* () {
        const routes = WebSocketRoute.implement(Numbers).toLayer((socket) => Stream.runDrain(socket.messages), {
          resume: Resume.memory(),
          sessionOwner: ({ urlParams }) => urlParams.user ?? ""
        })
        const { port } = yield* serve(routes)
        const { service } = yield* remembering
        const greet = (place: string, id: string) =>
          Effect.gen(function* () {
            const socket = yield* service.connect(`ws://127.0.0.1:${port}/numbers/${place}`)
            yield* socket.send(`H1 ${id} 0 0 1 0 1 1`)
            return `${yield* socket.take}`.split(" ")
          })
        const [, , id] = yield* greet(first, "-")
        const [, status] = yield* greet(second, id!)
        assert.strictEqual(status, continued ? "resumed" : "unknown")
      })
    )
  }

  it.scopedLive("shutdown ends sessions with 1001, those of clients that are away too, and at once", () =>
    Effect.gen(function* () {
      const exits = yield* Queue.unbounded<Exit.Exit<unknown, unknown>>()
      const begun = yield* Queue.unbounded<void>()
      const routes = WebSocketRoute.implement(Numbers).toLayer(
        (socket) =>
          Effect.zipRight(Queue.offer(begun, undefined), Stream.runDrain(socket.messages)).pipe(
            Effect.onExit((exit) => Queue.offer(exits, exit))
          ),
        { resume: Resume.memory() }
      )
      const server = yield* serve(routes, { drainTimeout: "1 hour" })
      const { lines, service } = yield* remembering
      for (let i = 0; i < 3; i++) {
        yield* WebSocketClient.reconnecting(Numbers, {
          url: `ws://127.0.0.1:${server.port}/numbers/a`,
          schedule: i === 0 ? Schedule.spaced("1 hour") : quick,
          retryable: (error) => error instanceof WebSocketError.ConnectionClosed && error.code === 1006,
          resume: Resume.memory()
        }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, service))
        yield* Queue.take(begun)
      }
      // The first is away, the second is on its second connection.
      yield* lines[0]!.abort
      yield* lines[1]!.abort
      yield* server.sockets(2)
      yield* server.stop
      assert.isTrue((yield* Queue.takeN(exits, 3).pipe(Effect.map((all) => [...all]))).every(Exit.isInterrupted))
      yield* server.sockets(0)
    })
  )

  it.scopedLive(
    "a server that was shut down leaves its sessions to the next: also on a second line, or without one",
    () =>
      Effect.gen(function* () {
        const store = yield* Effect.map(
          Layer.build(KeyValueStore.layerMemory),
          Context.get(KeyValueStore.KeyValueStore)
        )
        const begun = yield* Queue.unbounded<boolean>()
        const routes = WebSocketRoute.implement(Numbers)
          .toLayer(
            (socket) =>
              Effect.gen(function* () {
                const restored = Resume.info(socket)!.restored
                yield* Queue.offer(begun, restored)
                // One before, one after: what was sent before is delivered, whoever was there.
                yield* socket.send(restored ? 2 : 1)
                yield* Stream.runDrain(socket.messages)
              }),
            { resume: Resume.keyValueStore() }
          )
          .pipe(Layer.provide(Layer.succeed(KeyValueStore.KeyValueStore, store)))
        const first = yield* serve(routes)
        let port = first.port
        const urlOf = (port: number) => `ws://127.0.0.1:${port}/numbers/a`
        const gate = yield* Effect.makeSemaphore(1)
        const { lines, service } = yield* remembering
        const clients: Array<{ readonly take: Effect.Effect<number, unknown> }> = []
        for (let i = 0; i < 3; i++) {
          clients.push(
            yield* WebSocketClient.reconnecting(Numbers, {
              url: Effect.map(i === 0 ? gate.withPermits(1)(Effect.void) : Effect.void, () => urlOf(port)),
              schedule: quick,
              resume: Resume.memory()
            }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, service))
          )
          assert.isFalse(yield* Queue.take(begun))
        }
        yield* gate.take(1)
        yield* lines[0]!.abort
        yield* lines[1]!.abort
        yield* first.sockets(2)
        yield* first.stop
        const second = yield* serve(routes)
        port = second.port
        yield* gate.release(1)
        for (const client of clients) {
          assert.deepStrictEqual([yield* client.take, yield* client.take], [1, 2])
          assert.isTrue(yield* Queue.take(begun))
        }
      })
  )

  it.scopedLive("cut leaves the session, abort ends it", () =>
    Effect.gen(function* () {
      const sockets = yield* Queue.unbounded<{ readonly raw: Connection.Connection }>()
      const routes = WebSocketRoute.implement(Numbers).toLayer(
        (socket) =>
          Effect.zipRight(
            Queue.offer(sockets, socket),
            socket.runForEach((n) => socket.send(-n))
          ),
        { resume: Resume.memory() }
      )
      const { port } = yield* serve(routes)
      const { lines, service } = yield* remembering
      const client = yield* WebSocketClient.reconnecting(Numbers, {
        url: `ws://127.0.0.1:${port}/numbers/a`,
        schedule: quick,
        resume: Resume.memory()
      }).pipe(Effect.provideService(WebSocketClient.WebSocketClient, service))
      const socket = yield* Queue.take(sockets)
      for (let n = 1; n <= 3; n++) {
        yield* client.send(n)
        yield* Resume.cut(socket)
        assert.strictEqual(yield* client.take, -n)
      }
      assert.strictEqual(lines.length, 4)
      yield* socket.raw.abort
      const error = yield* Effect.flip(client.take)
      assert.isTrue(error instanceof WebSocketError.ConnectionClosed && error.cause instanceof WebSocketError.ResumeGap)
    })
  )
})
