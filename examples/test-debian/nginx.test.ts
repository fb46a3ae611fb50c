/** Our server behind nginx, whose settings are its defaults wherever it has some. */
import { NodeHttpClient } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { type Connection, WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { EventSource, EventStreamRoute, ServerSentEvent } from "@effect-ws/eventsource"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Context, Effect, Fiber, Layer, Queue, Stream } from "effect"
import { daemon, folder, freePort, serve, write } from "./support.js"

const configuration = (folder: string, port: number, upstream: number) => `
  daemon off;
  master_process off;
  pid ${folder}/nginx.pid;
  error_log stderr warn;
  events {}
  http {
    access_log off;
    client_body_temp_path ${folder}/body;
    proxy_temp_path ${folder}/proxy;
    fastcgi_temp_path ${folder}/fastcgi;
    uwsgi_temp_path ${folder}/uwsgi;
    scgi_temp_path ${folder}/scgi;
    server {
      listen 127.0.0.1:${port};
      location / { proxy_pass http://127.0.0.1:${upstream}; }
      location /socket {
        proxy_pass http://127.0.0.1:${upstream};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header Host $http_host;
      }
    }
  }
`

/** The server's ends, in the hands of the tests. */
class Behind extends Context.Tag("Behind")<
  Behind,
  {
    readonly url: string
    /** What the event streams send. */
    readonly events: Queue.Enqueue<string>
    /** Their readers that left. */
    readonly left: Queue.Dequeue<string>
    readonly sockets: Queue.Dequeue<Connection.Connection>
  }
>() {}

const BehindLive = Layer.scoped(
  Behind,
  Effect.gen(function* () {
    const events = yield* Queue.unbounded<string>()
    const left = yield* Queue.unbounded<string>()
    const sockets = yield* Queue.unbounded<Connection.Connection>()
    const Events = EventStreamRoute.layer("/events", {}, ({ url }) =>
      Stream.fromQueue(events).pipe(
        Stream.map((data) => ServerSentEvent.make({ data })),
        Stream.ensuring(Queue.offer(left, url))
      )
    )
    const Echo = WebSocketRoute.layer("/socket", { subprotocols: ["echo.v1"] }, (socket) =>
      Effect.zipRight(Queue.offer(sockets, socket), Stream.run(socket.messages, socket.sink))
    )
    const { port: upstream } = yield* serve(Layer.merge(Events, Echo))
    const port = yield* freePort
    const place = yield* folder
    const config = write(place, "nginx.conf", configuration(place, port, upstream))
    yield* daemon(port, "nginx", ["-p", place, "-c", config])
    return { url: `http://127.0.0.1:${port}`, events, left, sockets }
  })
)

const clients = Layer.merge(NodeWebSocketClient.layer, NodeHttpClient.layer)

layer(Layer.merge(BehindLive, clients), { excludeTestServices: true })("behind nginx", (it) => {
  it.scoped("each event is there before the next one is sent, and the handler sees the reader leave", () =>
    Effect.gen(function* () {
      const { events, left, url } = yield* Behind
      const received = yield* Queue.unbounded<string>()
      const source = yield* EventSource.make(`${url}/events?reader=one`, { reconnect: false })
      const reading = yield* Effect.fork(Stream.runForEach(source.events, ({ data }) => Queue.offer(received, data)))
      yield* source.status.changes.pipe(
        Stream.takeUntil(({ _tag }) => _tag === "Open"),
        Stream.runDrain
      )
      for (const data of ["one", "two\nlines", "zwölf 🐈", "x".repeat(100_000), ""]) {
        yield* Queue.offer(events, data)
        assert.strictEqual(yield* Queue.take(received), data)
      }
      yield* Fiber.interrupt(reading)
      assert.strictEqual(yield* Queue.take(left), "/events?reader=one")
    })
  )

  it.scoped("a WebSocket echoes text and binary, small and large", () =>
    Effect.gen(function* () {
      const { url } = yield* Behind
      const socket = yield* WebSocketClient.connect(`${url}/socket`, { subprotocols: ["echo.v1"] })
      assert.strictEqual(socket.subprotocol, "echo.v1")
      for (const message of ["", "zwölf 🐈", "x".repeat(0x100000), Uint8Array.of(0, 255), new Uint8Array(0x100000)]) {
        yield* socket.send(message)
        const echo = yield* socket.take
        assert.isTrue(typeof echo === "string" ? echo === message : Buffer.compare(echo, message as Uint8Array) === 0)
      }
      yield* socket.ping()
    })
  )

  it.scoped("the client's close and the server's reach the other end with code and reason", () =>
    Effect.gen(function* () {
      const { sockets, url } = yield* Behind
      const open = Effect.gen(function* () {
        yield* Queue.takeAll(sockets)
        const client = yield* WebSocketClient.connect(`${url}/socket`)
        return { client, server: yield* Queue.take(sockets) }
      })
      const one = yield* open
      yield* one.client.close(4001, "by the client")
      assert.deepInclude(yield* one.server.closed, {
        code: 4001,
        reason: "by the client",
        initiator: "remote",
        clean: true
      })
      const two = yield* open
      yield* two.server.close(4002, "by the server")
      assert.deepInclude(yield* two.client.closed, {
        code: 4002,
        reason: "by the server",
        initiator: "remote",
        clean: true
      })
      const three = yield* open
      yield* three.client.abort
      assert.deepInclude(yield* three.server.closed, { code: 1006, clean: false })
    })
  )
})
