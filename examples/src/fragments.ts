/**
 * A message whose length nobody knows when it begins: a frame for every piece of a Stream.
 */
import { TestTransport } from "@effect-ws/core"
import { Console, Effect, Stream } from "effect"

const program = Effect.gen(function* () {
  const { client, server } = yield* TestTransport.connections()

  // #region fragments
  const report = Stream.range(1, 5).pipe(Stream.map((row) => `row ${row};`))
  yield* client.sendFragments("text", report)
  // #endregion
  yield* Console.log(`one message: ${yield* server.take}`)

  // #region broken
  // When the pieces fail after the first one left, the peer must not take half a message for a whole one: 1011
  const broken = Stream.concat(Stream.make("row 1;"), Stream.fail("the database is gone"))
  yield* client.sendFragments("text", broken).pipe(Effect.catchAll((error) => Console.log(`failed: ${error}`)))
  // #endregion
  const { code } = yield* server.closed
  yield* Console.log(`closed with ${code}`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
