/**
 * The progress of a long job as a stream of typed events: the same schema at both ends.
 */
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { EventSchema, EventSource, EventStreamRoute } from "@effect-ws/eventsource"
import { Console, Effect, Schedule, Schema, Stream } from "effect"
import { withServer } from "./local.js"

// #region job
class Progress extends Schema.TaggedClass<Progress>()("Progress", { percent: Schema.Number }) {}
class Done extends Schema.TaggedClass<Done>()("Done", { url: Schema.String }) {}
const JobEvent = EventSchema.json(Schema.Union(Progress, Done))

// event: Progress
// data: {"percent":25,"_tag":"Progress"}
const Job = EventStreamRoute.layer("/jobs/:id", { schema: JobEvent }, ({ params }) =>
  Stream.make(25, 50, 75).pipe(
    Stream.schedule(Schedule.spaced("20 millis")),
    Stream.map((percent) => new Progress({ percent })),
    Stream.concat(Stream.make(new Done({ url: `/results/${params.id}` })))
  )
)

// Stream<Progress | Done, EventSourceError, HttpClient>: until the job is done
const watch = (url: string) =>
  EventSource.stream(url, { schema: JobEvent }).pipe(Stream.takeUntil((event) => event._tag === "Done"))
// #endregion

withServer(Job, (address) =>
  Stream.runForEach(watch(`${address}/jobs/7`), (event) =>
    Console.log(event._tag === "Progress" ? `${event.percent} %` : `done: ${event.url}`)
  )
).pipe(Effect.provide(NodeHttpClient.layer), NodeRuntime.runMain)
