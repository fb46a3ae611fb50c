/**
 * A heartbeat on a Schedule of one's own, and a peer that falls silent without closing.
 */
import { TestTransport } from "@effect-ws/core"
import { Console, Duration, Effect, Schedule, Stream } from "effect"

const program = Effect.gen(function* () {
  // #region heartbeat
  const heartbeat = { schedule: Schedule.spaced("50 millis"), timeout: "50 millis" } as const
  const { client, serverTransport } = yield* TestTransport.connections({
    client: { heartbeat },
    server: { heartbeat: false }
  })
  // #endregion

  const roundTrip = yield* client.ping()
  yield* Console.log(`a ping of our own was answered within a second: ${Duration.lessThan(roundTrip, "1 second")}`)

  // The line stays up, but nothing comes through any more
  yield* serverTransport.stall
  yield* Stream.runDrain(client.messages).pipe(
    Effect.catchTag("HeartbeatTimeout", (error) => Console.log(error.message))
  )
  const { code } = yield* client.closed
  yield* Console.log(`the connection ended with ${code}`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
