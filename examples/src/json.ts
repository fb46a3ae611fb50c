/**
 * JSON messages by Schema, in both directions, with operators that keep together what arrived together.
 */
import { TestTransport } from "@effect-ws/core"
import { Console, Effect, Either, Schema, Stream } from "effect"

// #region json
const Order = Schema.parseJson(Schema.Struct({ item: Schema.NonEmptyString, count: Schema.Int }))
const decode = Schema.decodeUnknownEither(Order)

const confirm = (message: unknown) =>
  Either.match(decode(message), {
    onLeft: () => `{"error":"not an order"}`,
    onRight: ({ count, item }) => `{"confirmed":"${count} of ${item}"}`
  })
// #endregion

const program = Effect.gen(function* () {
  const { client, server } = yield* TestTransport.connections()
  yield* Effect.fork(
    // #region run
    Stream.run(Stream.map(server.messages, confirm), server.sink)
    // #endregion
  )
  yield* client.sendAll([`{"item":"tea","count":2}`, `{"item":"tea"}`, new Uint8Array([1])])
  for (let answers = 0; answers < 3; answers++) yield* Console.log(`${yield* client.take}`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
