/** A server of resumable sessions in memory, and a client's way to it over lines that are cut. */
import { Connection, Resume, TestTransport, WebSocketClient } from "@effect-ws/core"
import { Effect, Fiber, Runtime } from "effect"
import { onRequest, switching } from "./rawServer.js"

export interface Line {
  readonly server: Connection.Connection
  /** The server's end. */
  readonly end: TestTransport.TestTransport
}

export interface Options<E> {
  readonly handler: (connection: Connection.Connection) => Effect.Effect<unknown, E>
  /** The user that a request of the client comes from; the path is part of the binding too. */
  readonly owner?: () => string
  /** After how many bytes, of both directions, the next line is cut. */
  readonly cutAfter?: () => number | undefined
  readonly onCut?: () => void
  readonly chunking?: (availableBytes: number) => number
  readonly connection?: Connection.Options
  /** Whether lines begin with an opening handshake. Default true. */
  readonly handshake?: boolean
  /** Handles connections itself, without sessions. */
  readonly plain?: (server: Connection.Connection) => Effect.Effect<unknown, unknown>
}

export const serveResumed = <E, R>(resume: Resume.Resume<R>, options: Options<E>) =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const runtime = yield* Effect.runtime()
    const sessions = yield* Resume.sessions(resume, { heartbeat: false, ...options.connection })
    const lines: Array<Line> = []
    const running = new Set<Fiber.RuntimeFiber<unknown, unknown>>()
    const accept = (end: TestTransport.TestTransport) =>
      Effect.gen(function* () {
        const server = yield* Connection.make(end, { heartbeat: false, ...options.connection, role: "server" })
        lines.push({ server, end })
        yield* Effect.ignore(
          options.plain?.(server) ?? sessions.serve(server, options.owner?.() ?? "", options.handler)
        )
      }).pipe(Effect.scoped)
    const begin = (end: TestTransport.TestTransport) => {
      const fiber = Runtime.runSync(runtime)(Effect.forkIn(accept(end), scope))
      running.add(fiber)
      fiber.addObserver(() => running.delete(fiber))
    }
    const pair = Effect.suspend(() => {
      let left = options.cutAfter?.()
      const chunking = (available: number) => {
        const size = options.chunking?.(available) ?? available
        if (left === undefined) return size
        const taken = Math.min(size, left)
        left -= taken
        if (left <= 0) {
          // After this chunk has come, before the next one does
          left = Number.POSITIVE_INFINITY
          options.onCut?.()
          queueMicrotask(() => Effect.runSync(ends[0].cut))
        }
        return taken
      }
      let ends: readonly [TestTransport.TestTransport, TestTransport.TestTransport]
      return Effect.tap(TestTransport.pair({ chunking }), (made) => {
        ends = made
      })
    })
    const dialing = WebSocketClient.fromDialer(() =>
      Effect.gen(function* () {
        const [near, far] = yield* pair
        yield* Effect.addFinalizer(() => Effect.sync(() => near.abort()))
        onRequest(far, (request) => {
          far.write([switching(request)])
          begin(far)
        })
        return near
      })
    )
    const direct = WebSocketClient.WebSocketClient.of({
      connect: (_, connectOptions = {}) =>
        Effect.flatMap(pair, ([near, far]) => {
          begin(far)
          const { closeTimeout, heartbeat } = connectOptions
          return Connection.make(near, { closeTimeout, heartbeat, role: "client" })
        })
    })
    const client = options.handshake === false ? direct : dialing
    return {
      client,
      sessions,
      lines,
      /** Waits until no connection is handled. */
      idle: Effect.suspend(() => Fiber.awaitAll([...running]))
    }
  })
