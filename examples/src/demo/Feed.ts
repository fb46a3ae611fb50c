/**
 * The live feed: what the server tells about itself once per interval, over a WebSocket route and as Server-Sent Events, both from
 * one source.
 */
import { WebSocketRoute } from "@effect-ws/core"
import { EventSchema, EventStreamRoute } from "@effect-ws/eventsource"
import { Clock, Effect, Layer, PubSub, Schedule, Stream } from "effect"
import { Tick, Ticks } from "./protocol.js"
import { Rooms } from "./Rooms.js"
import * as Settings from "./Settings.js"

/** The ticks of the last minute or so, then those to come. Who does not keep up misses some. */
export class Feed extends Effect.Service<Feed>()("demo/Feed", {
  scoped: Effect.gen(function* () {
    const rooms = yield* Rooms
    const { interval, replay } = yield* Settings.feed
    const hub = yield* Effect.acquireRelease(PubSub.sliding<Tick>({ capacity: 16, replay }), PubSub.shutdown)
    const started = yield* Clock.currentTimeMillis
    let n = 0
    const publish = Effect.gen(function* () {
      const at = yield* Clock.currentTimeMillis
      const counts = yield* rooms.counts
      const heapMiB = Math.round((process.memoryUsage().heapUsed / 0x100000) * 10) / 10
      const tick: Tick = { _tag: "tick", n: ++n, at, heapMiB, ...counts }
      yield* PubSub.publish(hub, tick)
    })
    yield* Effect.forkScoped(Effect.repeat(publish, Schedule.fixed(interval)))
    return {
      ticks: Stream.fromPubSub(hub),
      /** The ID of an event: counting starts again with the server, so it names the server's start too. */
      idOf: (tick: Tick) => `${started}-${tick.n}`,
      /** The number of the tick with that ID, 0 for one of an earlier server. */
      numberOf: (id: string) => {
        const [start, number] = id.split("-")
        return start === `${started}` ? Number(number) || 0 : 0
      }
    }
  }),
  dependencies: [Rooms.Default]
}) {}

/** `/feed` as a WebSocket. The client says nothing; reading tells when it leaves. */
const WebSocketFeed = Layer.unwrapEffect(
  Effect.map(Feed, ({ ticks }) =>
    WebSocketRoute.implement(Ticks).toLayer((socket) =>
      Effect.raceFirst(Stream.run(ticks, socket.sink), Stream.runDrain(socket.messages))
    )
  )
)

/** `/events` as Server-Sent Events. A reader that comes back goes on after the last tick that it saw. */
const EventFeed = Layer.unwrapEffect(
  Effect.map(Feed, ({ idOf, numberOf, ticks }) =>
    EventStreamRoute.layer(
      "/events",
      { schema: EventSchema.json(Tick, { id: idOf }), retry: "1 second" },
      ({ lastEventId }) => {
        const last = numberOf(lastEventId)
        return Stream.filter(ticks, (tick) => tick.n > last)
      }
    )
  )
)

export const FeedRoutes = Layer.merge(WebSocketFeed, EventFeed)
