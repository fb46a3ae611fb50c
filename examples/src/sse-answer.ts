/**
 * The answer of a language model in parts: a POST whose response is an event stream, up to `[DONE]`.
 */
import { HttpClientRequest, HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { EventSource, EventStream, ServerSentEvent } from "@effect-ws/eventsource"
import { Console, Effect, Schema, Stream } from "effect"
import { withServer } from "./local.js"

// #region server
const Question = Schema.Struct({ question: Schema.String, stream: Schema.Literal(true) })
const Delta = Schema.parseJson(Schema.Struct({ delta: Schema.String }))

const Answer = HttpLayerRouter.add(
  "POST",
  "/v1/answers",
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (request.headers.authorization !== "Bearer secret") return HttpServerResponse.empty({ status: 401 })
    const { question } = yield* HttpServerRequest.schemaBodyJson(Question)
    const deltas = Stream.mapEffect(Stream.make("You asked ", "about ", question), (delta) =>
      Schema.encode(Delta)({ delta })
    )
    const parts = Stream.concat(deltas, Stream.make("[DONE]"))
    return yield* EventStream.response(Stream.map(parts, (data) => ServerSentEvent.make({ data })))
  })
)
// #endregion

// #region client
const token = Effect.succeed("secret")

// The request is an Effect: it runs for every attempt, here with a fresh token. The end of the body is the end
const answer = (url: string, question: string) =>
  EventSource.stream(
    Effect.map(token, (token) =>
      HttpClientRequest.post(url).pipe(
        HttpClientRequest.bearerToken(token),
        HttpClientRequest.bodyUnsafeJson({ question, stream: true })
      )
    ),
    { reconnect: false, idleTimeout: "1 minute" }
  ).pipe(
    Stream.takeWhile(({ data }) => data !== "[DONE]"),
    Stream.mapEffect(({ data }) => Schema.decode(Delta)(data)),
    Stream.map(({ delta }) => delta)
  )
// #endregion

withServer(Answer, (address) =>
  Stream.runForEach(answer(`${address}/v1/answers`, "the weather"), (delta) => Console.log(delta.trim()))
).pipe(Effect.provide(NodeHttpClient.layer), NodeRuntime.runMain)
