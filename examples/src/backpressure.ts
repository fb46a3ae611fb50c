/**
 * Both ways round: a peer that does not read makes `send` wait, a consumer that does not pull stops the peer.
 */
import { TestTransport } from "@effect-ws/core"
import { Console, Effect, Fiber, Stream } from "effect"

const kibibyte = new Uint8Array(1024)

const slowPeer = Effect.gen(function* () {
  const { client, clientTransport } = yield* TestTransport.connections({ client: { highWaterMark: 4096 } })
  // Nothing leaves this end until `flow`
  yield* clientTransport.stall

  // #region try-send
  // Who would rather drop than wait asks first
  let sent = 0
  while (yield* client.trySend(kibibyte)) sent++
  yield* Console.log(
    `${sent} messages went, the next one would have to wait behind ${yield* client.bufferedBytes} bytes`
  )
  // #endregion

  // #region send-waits
  // Who must not lose anything waits; an interrupted send was sent whole or not at all
  const waiting = yield* Effect.fork(client.send(kibibyte))
  yield* clientTransport.flow
  yield* Fiber.join(waiting)
  yield* Console.log("sent after the line was free again")
  // #endregion
}).pipe(Effect.scoped)

const slowConsumer = Effect.gen(function* () {
  // #region slow-consumer
  // At most 4 messages are decoded ahead of the consumer; then the transport is paused
  const { client, clientTransport, server } = yield* TestTransport.connections({
    client: { highWaterMark: 4096 },
    server: { maxQueuedMessages: 4 }
  })
  const sender = yield* Effect.fork(Effect.repeatN(client.send(kibibyte), 99))
  yield* server.messages.pipe(
    Stream.rechunk(1),
    Stream.take(100),
    Stream.runForEach(() => Effect.yieldNow())
  )
  yield* Fiber.join(sender)
  // #endregion
  yield* Console.log(`all 100 messages came through: ${yield* clientTransport.writtenBytes} bytes`)
}).pipe(Effect.scoped)

await Effect.runPromise(Effect.zipRight(slowPeer, slowConsumer))
