import { HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { EventSource } from "@effect-ws/eventsource"
import { Chunk, Deferred, Effect, Stream } from "effect"
import { start } from "./program.js"

const ready = Effect.gen(function* () {
  const program = yield* start("sse.js", [], { PORT: "0", SIZE: "1000" })
  const line = yield* program.firstLine
  assert.match(line, /^READY http:\/\/127\.0\.0\.1:\d+\/$/)
  return { program, url: line.slice("READY ".length) }
})

const take = (url: string, count: number, options?: EventSource.Options) =>
  Effect.map(Stream.runCollect(Stream.take(EventSource.stream(url, options), count)), Chunk.toReadonlyArray)

describe("sse", () => {
  it.scopedLive("counts, and goes on after the last event ID", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      for (const [lastEventId, ids] of [
        ["", ["1", "2", "3"]],
        ["41", ["42", "43", "44"]]
      ] as const) {
        const events = yield* take(`${url}events`, 3, { lastEventId })
        assert.deepStrictEqual(
          events,
          ids.map((id) => ({ _tag: "Event", event: "tick", data: `{"n":${id}}`, id, lastEventId: id }))
        )
      }
    }).pipe(Effect.provide(NodeHttpClient.layer))
  )

  it.scopedLive("sends what is posted to every subscriber, and what one has missed when it comes back", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      const publish = (text: string) =>
        HttpClient.execute(HttpClientRequest.bodyText(HttpClientRequest.post(`${url}publish`), text))
      const sources = yield* Effect.forEach([1, 2], () => EventSource.make(`${url}sse`))
      const seen = yield* Effect.forEach(sources, ({ events }) =>
        Effect.fork(Stream.runCollect(Stream.take(events, 1)))
      )
      for (const { status } of sources) {
        yield* Stream.runHead(Stream.filter(status.changes, (status) => status._tag === "Open"))
      }
      assert.strictEqual((yield* publish("one\ntwo")).status, 204)
      for (const fiber of seen) {
        const [event] = Chunk.toReadonlyArray(yield* fiber)
        assert.strictEqual(event?.data, "one\ntwo")
      }
      yield* publish("three")
      const missed = yield* take(`${url}sse`, 1, { lastEventId: yield* sources[0]!.lastEventId })
      assert.strictEqual(missed[0]?.data, "three")
    }).pipe(Effect.provide(NodeHttpClient.layer))
  )

  it.scopedLive("is a firehose of events of SIZE", () =>
    Effect.gen(function* () {
      const { url } = yield* ready
      const events = yield* take(`${url}firehose`, 5000)
      assert.isTrue(events.every(({ data }) => data === "x".repeat(1000)))
    }).pipe(Effect.provide(NodeHttpClient.layer))
  )

  it.scopedLive("ends with 0 while event streams are open", () =>
    Effect.gen(function* () {
      const { program, url } = yield* ready
      const opened = yield* Deferred.make<void>()
      const reading = yield* Effect.fork(
        Stream.runForEach(EventSource.stream(`${url}events`, { reconnect: false }), () =>
          Deferred.succeed(opened, undefined)
        )
      )
      yield* Deferred.await(opened)
      yield* program.signal("SIGINT")
      yield* reading
      assert.strictEqual((yield* program.ended).code, 0)
    }).pipe(Effect.provide(NodeHttpClient.layer))
  )
})
