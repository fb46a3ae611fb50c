/** What the tests call in the browser: our clients, bundled without anything of Node's. */
import { FetchHttpClient } from "@effect/platform"
import { WebSocketClient } from "@effect-ws/core"
import { EventSource } from "@effect-ws/eventsource"
import { Effect, Schedule, Scope, Stream } from "effect"
import { Talk } from "./contract.js"

const clients = {
  /** Sends text, text that is not ASCII, and 1 MiB of bytes; gives what came back, and the end. */
  echo: () =>
    Effect.gen(function* () {
      const socket = yield* WebSocketClient.connect("/echo", { subprotocols: ["echo.v2", "echo.v1"] })
      const bytes = Uint8Array.from({ length: 0x100000 }, (_, at) => at)
      const echoes: Array<string> = []
      for (const message of ["hello", "zwölf 🐈", "", bytes]) {
        yield* socket.send(message)
        const echo = yield* socket.take
        if (typeof echo === "string") echoes.push(echo)
        else echoes.push(echo.every((byte, at) => byte === bytes[at]) ? `${echo.length} bytes` : "other bytes")
      }
      const { clean, code, initiator } = yield* socket.close(4000, "enough")
      return { subprotocol: socket.subprotocol, echoes, end: { clean, code, initiator } }
    }).pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise),

  /** The failure of a connection that the server refuses, and of one that is closed with 4001. */
  failures: () =>
    Effect.gen(function* () {
      const refused = yield* Effect.flip(WebSocketClient.connect("/refused"))
      const socket = yield* WebSocketClient.connect("/closes")
      const closed = yield* Effect.flip(Stream.runDrain(socket.messages))
      return {
        refused: { tag: refused._tag, phase: refused.phase, reason: refused.reason },
        closed: { tag: closed._tag, code: closed._tag === "ConnectionClosed" ? closed.code : undefined }
      }
    }).pipe(Effect.scoped, Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise),

  /** Stays connected until the page goes. */
  talk: async (): Promise<Talking> => {
    const client = await WebSocketClient.reconnecting(Talk, {
      baseUrl: "",
      path: { topic: "restarts" },
      schedule: Schedule.spaced("50 millis")
    }).pipe(Scope.extend(Effect.runSync(Scope.make())), Effect.provide(WebSocketClient.layerGlobal), Effect.runPromise)
    const talking = {
      connections: 0,
      failures: 0,
      heard: [] as Array<string>,
      say: (say: string) => Effect.runPromise(client.send({ say }))
    }
    const watch = (status: Effect.Effect.Success<typeof client.status>) => {
      if (status._tag === "Open") talking.connections = status.connections
      // An attempt that failed, not the end of a connection
      if (status._tag === "Waiting" && status.cause._tag === "HandshakeError") talking.failures++
    }
    Effect.runFork(Stream.runForEach(client.status.changes, (status) => Effect.sync(() => watch(status))))
    Effect.runFork(Stream.runForEach(client.messages, ({ said }) => Effect.sync(() => talking.heard.push(said))))
    return talking
  },

  /** Events over fetch until the server has no more (204). */
  events: (url: string) =>
    EventSource.stream(url, { reconnectionTime: "1 millis" }).pipe(
      Stream.map(({ data, event, lastEventId }) => ({ event, data, lastEventId })),
      Stream.runCollect,
      Effect.map((events) => [...events]),
      Effect.provide(FetchHttpClient.layer),
      Effect.runPromise
    )
}

/** A client that stays connected, as the tests see it from outside. */
export interface Talking {
  readonly connections: number
  /** Attempts that failed. */
  readonly failures: number
  readonly heard: ReadonlyArray<string>
  readonly say: (text: string) => Promise<void>
}

declare global {
  interface Window {
    clients: typeof clients
    talking: Talking
  }
}

window.clients = clients
