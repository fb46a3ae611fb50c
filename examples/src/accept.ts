/**
 * Who may connect is decided before the 101: with services, a response of one's own, headers and cookies.
 */
import { Cookies, HttpServerResponse } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Console, Effect, Either, Layer, Schema, Stream } from "effect"
import { withServer } from "./local.js"

class Users extends Effect.Service<Users>()("Users", {
  succeed: { byToken: (token: string | undefined) => (token === "Bearer 42" ? { name: "Ada" } : undefined) }
}) {}

// #region accept
const Account = WebSocketRoute.layer(
  "/accounts/:id",
  {
    path: Schema.Struct({ id: Schema.NumberFromString }),
    accept: ({ headers, path }) =>
      Effect.gen(function* () {
        const users = yield* Users
        const user = users.byToken(headers.authorization)
        // An ordinary response is sent instead of the 101
        if (user === undefined) return HttpServerResponse.text("unknown token", { status: 401 })
        const cookies = Cookies.fromIterable([Cookies.unsafeMakeCookie("last", `${path.id}`, { httpOnly: true })])
        return WebSocketRoute.accept(user, { headers: { "x-user": user.name }, cookies })
      })
  },
  // `accepted` is what accept gave, `path` is decoded
  (socket, { accepted, path }) => socket.send(`${accepted.name} sees account ${path.id}`)
)
// #endregion

const visit = (url: string, authorization: string) =>
  WebSocketClient.connect(url, { headers: { authorization } }).pipe(
    Effect.flatMap((socket) => Stream.runForEach(socket.messages, (message) => Console.log(message))),
    Effect.scoped,
    Effect.either,
    Effect.tap((result) =>
      Either.isLeft(result) && result.left._tag === "HandshakeError"
        ? Console.log(`refused with ${result.left.status}: ${result.left.body}`)
        : Effect.void
    )
  )

withServer(Account, (address) =>
  Effect.gen(function* () {
    yield* visit(`${address}/accounts/7`, "Bearer 42")
    yield* visit(`${address}/accounts/7`, "Bearer 41")
    yield* visit(`${address}/accounts/seven`, "Bearer 42")
  })
).pipe(Effect.provide(Layer.merge(NodeWebSocketClient.layer, Users.Default)), NodeRuntime.runMain)
