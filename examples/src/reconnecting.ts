/**
 * Clients that stay connected: a token and a subscription for each connection, and what is not tried again.
 */
import { NodeRuntime } from "@effect/platform-node"
import { type Connection, Reconnecting, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Data, Effect, Layer, Ref, Schema, Stream } from "effect"
import { withServer } from "./local.js"

/** Is restarted after two quotes; after two more it has said all. */
const Quotes = WebSocketRoute.layer(
  "/quotes",
  { urlParams: Schema.Struct({ token: Schema.NumberFromString }) },
  (socket, { urlParams: { token } }) =>
    Effect.gen(function* () {
      const topic = yield* socket.take
      yield* socket.sendAll([`${topic}, token ${token}: 1.08`, `${topic}, token ${token}: 1.09`])
      if (token === 1) yield* socket.close(1012, "restarting")
    })
)

const Private = WebSocketRoute.layer("/private", {}, (socket) =>
  Effect.flatMap(socket.take, (password) => socket.send(password === "s3cret" ? "welcome" : "go away"))
)

class Tokens extends Effect.Tag("Tokens")<Tokens, { readonly next: Effect.Effect<number> }>() {}

const TokensLive = Layer.effect(
  Tokens,
  Effect.map(Ref.make(0), (count) => ({ next: Ref.updateAndGet(count, (n) => n + 1) }))
)

// #region quotes
const quotes = (address: string) =>
  Effect.gen(function* () {
    const client = yield* WebSocketClient.reconnecting(
      Effect.map(Tokens.next, (token) => `${address}/quotes?token=${token}`),
      { onOpen: (socket) => socket.send("EURUSD") }
    )
    yield* Stream.runForEach(client.messages, Console.log)
  }).pipe(Effect.scoped)
// #endregion

class BadPassword extends Data.TaggedError("BadPassword") {}

const authenticate = (socket: Connection.Connection) =>
  Effect.gen(function* () {
    yield* socket.send("guess")
    if ((yield* socket.take) !== "welcome") return yield* new BadPassword()
  })

const secrets = (address: string) =>
  Effect.gen(function* () {
    // #region retryable
    const client = yield* WebSocketClient.reconnecting(`${address}/private`, {
      onOpen: authenticate, // may fail with BadPassword
      retryable: (error) =>
        error._tag === "ConnectionClosed"
          ? error.code !== 4001
          : error._tag !== "BadPassword" && Reconnecting.isRetryable(error)
    })
    // #endregion
    yield* Effect.catchTag(Stream.runDrain(client.messages), "BadPassword", () => Console.log("not tried again"))
  }).pipe(Effect.scoped)

withServer(Layer.merge(Quotes, Private), (address) => Effect.zipRight(quotes(address), secrets(address))).pipe(
  Effect.provide([TokensLive, NodeWebSocketClient.layer]),
  NodeRuntime.runMain
)
