/**
 * Other implementations at the other end of real connections.
 */

import * as http from "node:http"
import type { AddressInfo } from "node:net"
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { createSession } from "better-sse"
import { Chunk, Effect, Layer, type Scope, Stream } from "effect"
import { EventSource as EventSourcePackage } from "eventsource"
import faye from "faye-websocket"
import { EventSource as UndiciEventSource } from "undici"
import { EventSource, EventStreamRoute, ServerSentEvent } from "../src/index.js"
import { serve } from "./support.js"

/** What both clients have of the browser's interface. */
interface BrowserLike {
  addEventListener(
    type: string,
    listener: (event: { readonly data: string; readonly lastEventId: string }) => void
  ): void
  onerror: unknown
  close(): void
}

const clients: ReadonlyArray<readonly [string, (url: string) => BrowserLike]> = [
  ["eventsource", (url) => new EventSourcePackage(url) as unknown as BrowserLike],
  ["undici's EventSource", (url) => new UndiciEventSource(url) as unknown as BrowserLike]
]

describe.each(clients)("%s as a client of our server", (_, connect) => {
  it.scopedLive("gets every event, and resumes after an end and after a failure", () =>
    Effect.gen(function* () {
      const route = EventStreamRoute.layer("/", { retry: "1 millis" }, ({ lastEventId }) => {
        const from = lastEventId === "" ? 1 : Number(lastEventId.slice(1)) + 1
        const two = Stream.range(from, from + 1).pipe(
          Stream.map((n) => ServerSentEvent.make({ event: "tick", id: `é${n}`, data: `${n}\nline ✓` }))
        )
        return from === 3 ? Stream.concat(two, Stream.fail("boom")) : two
      })
      const port = yield* serve(route)
      const seen = yield* Effect.async<ReadonlyArray<readonly [string, string]>>((resume) => {
        const seen: Array<readonly [string, string]> = []
        const source = connect(`http://127.0.0.1:${port}/`)
        source.onerror = () => {}
        source.addEventListener("tick", (event) => {
          seen.push([event.data, event.lastEventId])
          if (seen.length < 6) return
          source.close()
          resume(Effect.succeed(seen.slice(0, 6)))
        })
      })
      assert.deepStrictEqual(
        seen,
        [1, 2, 3, 4, 5, 6].map((n) => [`${n}\nline ✓`, `é${n}`])
      )
    })
  )

  it.scopedLive("stops at 204", () =>
    Effect.gen(function* () {
      let requests = 0
      const stop = HttpLayerRouter.add(
        "GET",
        "/",
        Effect.sync(() => {
          requests++
          return HttpServerResponse.empty()
        })
      )
      const port = yield* serve(stop)
      yield* Effect.async<void>((resume) => {
        const source = connect(`http://127.0.0.1:${port}/`)
        source.onerror = () => resume(Effect.void)
      })
      assert.strictEqual(requests, 1)
    })
  )
})

/** A server of another kind. */
const listen = (handler: http.RequestListener): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<http.Server>((resume) => {
        const server = http.createServer(handler)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.closeAllConnections()
          server.close()
        })
    ),
    (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  )

const take = (url: string, count: number) =>
  EventSource.stream(url, { reconnectionTime: 1 }).pipe(
    Stream.take(count),
    Stream.runCollect,
    Effect.map((events) =>
      Chunk.toReadonlyArray(events).map(({ data, event, lastEventId }) => [event, data, lastEventId])
    ),
    Effect.provide(Layer.fresh(NodeHttpClient.layer))
  )

describe("our client at", () => {
  it.scopedLive("better-sse", () =>
    Effect.gen(function* () {
      const url = yield* listen(async (request, response) => {
        const session = await createSession(request, response, { retry: 1 })
        const from = session.lastId === "" ? 1 : Number(session.lastId) + 1
        for (let n = from; n < from + 2; n++) session.push({ n, text: "a\nb ✓" }, "tick", String(n))
        response.end()
      })
      const events = yield* take(url, 4)
      assert.deepStrictEqual(
        events,
        [1, 2, 3, 4].map((n) => ["tick", JSON.stringify({ n, text: "a\nb ✓" }), String(n)])
      )
    })
  )

  it.scopedLive("faye-websocket's EventSource", () =>
    Effect.gen(function* () {
      const url = yield* listen((request, response) => {
        if (!faye.EventSource.isEventSource(request)) return response.writeHead(400).end()
        const source = new faye.EventSource(request, response, { retry: 0.001 })
        const from = source.lastEventId === "" ? 1 : Number(source.lastEventId) + 1
        source.ping()
        source.send(`${from}\r\nline\n`, { event: "tick", id: String(from) })
        source.send("plain ✓")
        source.close()
      })
      const events = yield* take(url, 4)
      assert.deepStrictEqual(events, [
        ["tick", "1\nline\n", "1"],
        ["message", "plain ✓", "1"],
        ["tick", "2\nline\n", "2"],
        ["message", "plain ✓", "2"]
      ])
    })
  )
})
