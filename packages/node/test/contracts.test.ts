/** Contracts over real sockets: a Layer at one end, a typed connection at the other. */
import { HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { MessagePack, WebSocketClient, WebSocketContract, WebSocketError, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Context, Data, Effect, Layer, LogLevel, Schedule, Schema, Stream } from "effect"
import { serve } from "./support.js"

class Greetings extends Context.Tag("Greetings")<Greetings, { readonly hello: string }>() {}

const Greeter = WebSocketRoute.make("/greet/:times", {
  path: Schema.Struct({ times: Schema.NumberFromString }),
  urlParams: Schema.Struct({ upper: Schema.optional(Schema.BooleanFromString) }),
  headers: Schema.Struct({ "x-user": Schema.NonEmptyString }),
  incoming: Schema.Struct({ name: Schema.NonEmptyString }),
  outgoing: Schema.Struct({ greeting: Schema.String, at: Schema.Date }),
  subprotocols: ["greet.v2", "greet.v1"],
  accept: ({ headers, path }) =>
    Effect.gen(function* () {
      if (path.times > 9) return HttpServerResponse.unsafeJson("too often", { status: 403 })
      return WebSocketRoute.accept({ user: headers["x-user"] })
    })
})

const at = new Date(0)
const headers = { "x-user": "ada" }

class Tired extends Data.TaggedError("Tired") {}

const GreeterLive = Greeter.toLayer(
  Effect.map(Greetings, ({ hello }) =>
    Greeter.of((socket, { accepted, path, urlParams }) =>
      socket.runForEach(({ name }) =>
        Effect.gen(function* () {
          if (name === "tired") return yield* new Tired()
          const greeting = `${hello} ${name} from ${accepted.user} (${socket.subprotocol})`
          yield* Effect.repeatN(
            socket.send({ greeting: urlParams.upper === true ? greeting.toUpperCase() : greeting, at }),
            path.times - 1
          )
        })
      )
    )
  ),
  { onError: (error) => (error._tag === "Tired" ? { code: 4000, reason: "tired" } : undefined) }
).pipe(Layer.provide(Layer.succeed(Greetings, { hello: "hello" })))

describe("a contract over sockets", () => {
  it.scopedLive("both ends by its types", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(GreeterLive)
      const socket = yield* WebSocketClient.connect(Greeter, {
        baseUrl: `ws://127.0.0.1:${port}`,
        path: { times: 2 },
        urlParams: { upper: true },
        headers
      })
      assert.strictEqual(socket.subprotocol, "greet.v2")
      yield* socket.send({ name: "eve" })
      const greeting = { greeting: "HELLO EVE FROM ADA (GREET.V2)", at }
      assert.deepStrictEqual(yield* socket.take, greeting)
      assert.deepStrictEqual(yield* socket.take, greeting)
      yield* socket.send({ name: "tired" })
      assert.deepInclude(yield* Effect.flip(socket.take), { _tag: "ConnectionClosed", code: 4000, reason: "tired" })
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("a message that does not fit closes with 1008 and is no error of the server's log", () =>
    Effect.gen(function* () {
      const serving = yield* serve(GreeterLive)
      const socket = yield* WebSocketClient.connect(`ws://127.0.0.1:${serving.port}/greet/1`, { headers })
      yield* socket.send('{"name":""}')
      assert.deepInclude(yield* socket.closed, { code: 1008, reason: "does not fit: name" })
      yield* serving.sockets(0)
      assert.isEmpty(serving.logs.filter(({ level }) => LogLevel.greaterThan(level, LogLevel.Debug)))
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("refused by accept, and by the schemas", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(GreeterLive)
      const connect = (times: number) =>
        Effect.flip(WebSocketClient.connect(Greeter, { baseUrl: `ws://127.0.0.1:${port}`, path: { times }, headers }))
      assert.deepInclude(yield* connect(10), { status: 403, body: '"too often"' })
      const error = yield* Effect.flip(WebSocketClient.connect(`ws://127.0.0.1:${port}/greet/often`, { headers }))
      assert.strictEqual(error.status, 400)
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )

  it.scopedLive("a contract made apart, in MessagePack, reconnecting", () =>
    Effect.gen(function* () {
      const Count = WebSocketContract.make("/count", {
        urlParams: Schema.Struct({ from: Schema.NumberFromString }),
        outgoing: Schema.Struct({ n: Schema.Number }),
        codec: MessagePack.codec
      })
      const live = WebSocketRoute.implement(Count).toLayer((socket, { urlParams: { from } }) =>
        // Three numbers, then it asks the client to come back; the last time all is said.
        Effect.zipRight(socket.sendAll([1, 2, 3].map((i) => ({ n: from + i }))), socket.close(from < 6 ? 1012 : 1000))
      )
      const { port } = yield* serve(live)
      let last = 0
      const client = yield* WebSocketClient.reconnecting(Count, {
        baseUrl: `ws://127.0.0.1:${port}`,
        urlParams: Effect.sync(() => ({ from: last })),
        schedule: Schedule.spaced("10 millis")
      })
      const numbers: Array<number> = []
      yield* Stream.runForEach(client.messages, ({ n }) =>
        Effect.sync(() => {
          last = n
          numbers.push(n)
        })
      )
      assert.deepStrictEqual(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9])
      const wrong = yield* WebSocketClient.connect(
        WebSocketContract.make("/count", { outgoing: Schema.Struct({ m: Schema.Number }), codec: MessagePack.codec }),
        { baseUrl: `ws://127.0.0.1:${port}`, urlParams: { from: "0" } }
      )
      const error = yield* Effect.flip(wrong.take)
      assert.instanceOf(error, WebSocketError.MessageError)
      assert.strictEqual((error as WebSocketError.MessageError).field, "m")
    }).pipe(Effect.provide(NodeWebSocketClient.layer))
  )
})
