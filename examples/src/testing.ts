/**
 * How a handler is tested without sockets: the line in memory, the time by TestClock.
 */
import { type Connection, TestTransport } from "@effect-ws/core"
import { Console, Duration, Effect, Fiber, Schedule, Stream, TestClock, TestContext } from "effect"

// #region handler
/** The handler under test: says "tick" every second until the client leaves. */
const ticker = (socket: Connection.Connection) =>
  Effect.raceFirst(
    Stream.run(Stream.as(Stream.fromSchedule(Schedule.spaced("1 second")), "tick"), socket.sink),
    Stream.runDrain(socket.messages)
  )
// #endregion

// #region time
const ticksFollowTheClock = Effect.gen(function* () {
  const { client, server } = yield* TestTransport.connections()
  const handling = yield* Effect.fork(ticker(server))
  yield* TestClock.adjust("3 seconds")
  yield* Console.log([yield* client.take, yield* client.take, yield* client.take].join(" "))
  yield* client.close()
  yield* Fiber.join(handling)
}).pipe(Effect.scoped)
// #endregion

// #region line
const aCutLineIsAnError = Effect.gen(function* () {
  const { client, clientTransport, server } = yield* TestTransport.connections({ delay: "100 millis" })
  yield* client.send("this never arrives")
  yield* clientTransport.cut
  const error = yield* Effect.flip(server.take)
  yield* Console.log(`${error._tag} ${error._tag === "ConnectionClosed" ? error.code : ""}`)
}).pipe(Effect.scoped)
// #endregion

// #region heartbeat
const aSilentPeerIsFound = Effect.gen(function* () {
  const { client, server, serverTransport } = yield* TestTransport.connections()
  yield* serverTransport.stall
  yield* Effect.fork(Stream.runDrain(server.messages))
  const reading = yield* Effect.fork(Effect.flip(Stream.runDrain(client.messages)))
  // 20 seconds to the first ping, 20 seconds for anything to come
  yield* TestClock.adjust(Duration.seconds(40))
  yield* Console.log((yield* Fiber.join(reading))._tag)
}).pipe(Effect.scoped)
// #endregion

await Effect.runPromise(
  Effect.all([ticksFollowTheClock, aCutLineIsAnError, aSilentPeerIsFound]).pipe(Effect.provide(TestContext.TestContext))
)
