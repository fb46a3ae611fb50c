// Events of a URL over fetch.

import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as EventSource from "@effect-ws/eventsource/EventSource"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

EventSource.stream("https://example.com/events").pipe(
  Stream.runForEach((event) => Effect.sync(() => console.log(event.data))),
  Effect.provide(FetchHttpClient.layer),
  Effect.runPromise
)
