/**
 * A live dashboard: who opens it gets the state as it is, then every change, which is encoded once for all.
 */
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { EventBroadcast, EventSource, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { Chunk, Console, Context, Deferred, Effect, Layer, Ref, Stream } from "effect"
import { withServer } from "./local.js"

// #region dashboard
class Dashboard extends Context.Tag("Dashboard")<
  Dashboard,
  {
    readonly orders: Ref.Ref<number>
    readonly changes: EventBroadcast.EventBroadcast
  }
>() {
  static readonly layer = Layer.effect(Dashboard, Effect.all({ orders: Ref.make(0), changes: EventBroadcast.make() }))
}

const orders = (count: number) => ServerSentEvent.make({ event: "orders", data: JSON.stringify({ count }) })

const ordered = Effect.gen(function* () {
  const dashboard = yield* Dashboard
  const count = yield* Ref.updateAndGet(dashboard.orders, (count) => count + 1)
  yield* dashboard.changes.publish(orders(count))
})

// A reader that does not keep up is cut: it comes back, and has the state again
const Live = EventStreamRoute.layerEffect(
  "/dashboard",
  { slowReader: "cut" },
  Effect.map(
    Dashboard,
    (dashboard) => () =>
      dashboard.changes.subscribe("", { first: Effect.map(Ref.get(dashboard.orders), (count) => [orders(count)]) })
  )
)
// #endregion

const watch = (name: string, url: string, opened: Deferred.Deferred<void>) =>
  EventSource.stream(url).pipe(
    Stream.tap(() => Deferred.succeed(opened, undefined)),
    Stream.map((event) => `${event.event} ${event.data}`),
    Stream.takeUntil((line) => line.includes("3")),
    Stream.runCollect,
    Effect.map((lines) => `${name}: ${Chunk.join(lines, ", ")}`)
  )

const program = (address: string) =>
  Effect.gen(function* () {
    const opened = { ada: yield* Deferred.make<void>(), bob: yield* Deferred.make<void>() }
    const ada = yield* Effect.fork(watch("ada", `${address}/dashboard`, opened.ada))
    yield* Deferred.await(opened.ada)
    yield* ordered
    yield* ordered
    const bob = yield* Effect.fork(watch("bob", `${address}/dashboard`, opened.bob))
    yield* Deferred.await(opened.bob)
    yield* ordered
    yield* Console.log(yield* ada)
    yield* Console.log(yield* bob)
  })

Effect.flatMap(Layer.build(Dashboard.layer), (dashboard) =>
  withServer(Live, program).pipe(Effect.provide(dashboard))
).pipe(Effect.scoped, Effect.provide(NodeHttpClient.layer), NodeRuntime.runMain)
