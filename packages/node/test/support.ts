/** What the tests of the server share: a server on the loopback, and a raw client that sends whatever a test wants. */
import * as Http from "node:http"
import * as Net from "node:net"
import { HttpLayerRouter } from "@effect/platform"
import { assert } from "@effect/vitest"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Deferred, Effect, Exit, HashMap, Layer, Logger, LogLevel, Scope } from "effect"
import { encodeFrame, type FrameFields, FrameReader, type RawFrame } from "../../core/test/conformance/rawFrames.js"

/** One line of the log. */
export interface LogLine {
  readonly level: LogLevel.LogLevel
  readonly text: string
  readonly annotations: Readonly<Record<string, unknown>>
}

/** A server that listens. */
export interface Serving {
  readonly port: number
  readonly server: Http.Server
  readonly logs: ReadonlyArray<LogLine>
  /** Waits for a line of the log that contains the text. */
  readonly logged: (text: string) => Effect.Effect<LogLine>
  /** Waits until the server has so many sockets, upgraded ones included. */
  readonly sockets: (count: number) => Effect.Effect<void>
  /** Stops it as leaving its Scope does. */
  readonly stop: Effect.Effect<void>
  /** Waits for the moment at which the server stopped to listen. */
  readonly stopping: Effect.Effect<void>
}

/** Routes without requirements that are not met. */
export type Routes = Layer.Layer<
  never,
  never,
  HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Error", unknown> | Scope.Scope
>

export interface ServeOptions extends NodeWebSocketServer.Options {
  readonly createServer?: () => Http.Server
  /** What the server and its fibers run with besides. */
  readonly layer?: Layer.Layer<never>
}

/** All that is logged goes to `logs`. */
export const logsTo = (logs: { push(line: LogLine): unknown }) =>
  Layer.mergeAll(
    Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ annotations, cause, logLevel, message }) => {
        const text = (Array.isArray(message) ? message : [message]).map(String).join(" ")
        logs.push({
          level: logLevel,
          text: `${text} ${cause._tag === "Empty" ? "" : String(cause)}`.trim(),
          annotations: Object.fromEntries(HashMap.toEntries(annotations))
        })
      })
    ),
    Logger.minimumLogLevel(LogLevel.Debug)
  )

/** Serves routes on a free port of the loopback until the Scope closes, or `stop`. */
export const serve = (routes: Routes, options: ServeOptions = {}): Effect.Effect<Serving, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const logs: Array<LogLine> = []
    const watching = new Set<() => void>()
    const log = (line: LogLine) => {
      logs.push(line)
      for (const check of watching) check()
    }
    const stopping = yield* Deferred.make<void>()
    const count = countSockets()
    let server: Http.Server | undefined
    const createServer = () => {
      server = (options.createServer ?? Http.createServer)()
      count.watch(server)
      const close = server.close.bind(server)
      server.close = (callback) => {
        Deferred.unsafeDone(stopping, Exit.void)
        return close(callback)
      }
      return server
    }
    const app = HttpLayerRouter.serve(routes as Layer.Layer<never, never, HttpLayerRouter.HttpRouter>, {
      disableListenLog: true,
      disableLogger: true
    }).pipe(
      Layer.provide(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1", ...options })),
      Layer.provide(logsTo({ push: log })),
      Layer.provide(options.layer ?? Layer.empty)
    )
    yield* Layer.buildWithScope(app, scope).pipe(Effect.orDie)
    const stop = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => stop)
    return {
      port: portOf(server!),
      server: server!,
      logs,
      logged: (text) =>
        Effect.async<LogLine>((resume) => {
          const check = () => {
            const line = logs.find((line) => line.text.includes(text))
            if (line === undefined) return
            watching.delete(check)
            resume(Effect.succeed(line))
          }
          watching.add(check)
          check()
        }),
      sockets: count.sockets,
      stop,
      stopping: Deferred.await(stopping)
    }
  })

export const portOf = (server: Net.Server): number => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

/** Follows how many sockets a server has. */
export const countSockets = () => {
  const open = new Set<Net.Socket>()
  const waiting = new Set<() => void>()
  const changed = () => {
    for (const check of waiting) check()
  }
  return {
    watch: (server: Net.Server): void => {
      server.on("connection", (socket: Net.Socket) => {
        open.add(socket)
        changed()
        socket.once("close", () => {
          open.delete(socket)
          changed()
        })
      })
    },
    sockets: (count: number) =>
      Effect.async<void>((resume) => {
        const check = () => {
          if (open.size !== count) return
          waiting.delete(check)
          resume(Effect.void)
        }
        waiting.add(check)
        check()
      })
  }
}

/** An HTTP response, and its body if it has a length. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly cookies: ReadonlyArray<string>
  readonly body: string
}

/** Headers by name; `undefined` leaves one of the handshake's own out. */
export type RawHeaders = Readonly<Record<string, string | undefined>>

/** A server that knows nothing of WebSockets. */
export const plainServer = Effect.gen(function* () {
  const server = Http.createServer((_, response) => response.end("an ordinary answer"))
  const count = countSockets()
  count.watch(server)
  yield* Effect.acquireRelease(
    Effect.async<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  return { server, port: portOf(server), sockets: count.sockets }
})

/** The key of RFC 6455 §1.3 and what accepts it. */
export const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="
export const sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/** A handshake as text. */
export const handshake = (path: string, headers: RawHeaders = {}, startLine = `GET ${path} HTTP/1.1`): string => {
  const all: Record<string, string | undefined> = {
    Host: "localhost",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": sampleKey,
    ...headers
  }
  const lines = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}\r\n`]))
  return `${startLine}\r\n${lines.join("")}\r\n`
}

const maskKey = Uint8Array.of(1, 2, 3, 4)

/** A frame as clients send it. */
export const clientFrame = (fields: FrameFields): Uint8Array => encodeFrame(fields, maskKey)

/** A text message as clients send it. */
export const clientText = (text: string): Uint8Array => clientFrame({ opcode: 1, payload: Buffer.from(text) })

/** The end of a TCP or TLS connection in the hands of a test. */
export class RawClient {
  private readonly chunks: Array<Buffer> = []
  private readonly reader = new FrameReader()
  private waiting: Array<() => void> = []
  private over: "end" | "reset" | undefined

  constructor(readonly socket: Net.Socket) {
    socket.on("data", (chunk) => {
      this.chunks.push(chunk)
      this.wake()
    })
    socket.on("end", () => this.finish("end"))
    socket.on("error", () => this.finish("reset"))
    socket.on("close", () => this.finish("end"))
  }

  private finish(how: "end" | "reset"): void {
    this.over ??= how
    this.wake()
  }

  private wake(): void {
    const { waiting } = this
    this.waiting = []
    for (const resume of waiting) resume()
  }

  private async more(): Promise<Buffer | undefined> {
    while (this.chunks.length === 0) {
      if (this.over !== undefined) return undefined
      await new Promise<void>((resume) => this.waiting.push(resume))
    }
    return this.chunks.shift()
  }

  /** The next bytes, `undefined` at the end. */
  readonly bytes = Effect.promise(() => this.more())

  write(data: string | Uint8Array): Effect.Effect<void> {
    return Effect.sync(() => {
      this.socket.write(data)
    })
  }

  /** The next response. */
  readonly answer: Effect.Effect<Answer> = Effect.promise(async () => {
    let text = ""
    const fill = async (enough: () => boolean) => {
      while (!enough()) {
        const chunk = await this.more()
        if (chunk === undefined) throw new Error(`the connection ended (${this.over}) inside a response: ${text}`)
        text += chunk.toString("latin1")
      }
    }
    await fill(() => text.includes("\r\n\r\n"))
    const end = text.indexOf("\r\n\r\n") + 4
    const [statusLine, ...lines] = text.slice(0, end - 4).split("\r\n")
    const headers: Record<string, string> = {}
    const cookies: Array<string> = []
    for (const line of lines) {
      const colon = line.indexOf(":")
      const name = line.slice(0, colon).toLowerCase()
      const value = line.slice(colon + 1).trim()
      if (name === "set-cookie") cookies.push(value)
      else headers[name] = name in headers ? `${headers[name]}, ${value}` : value
    }
    const length = Number(headers["content-length"] ?? 0)
    await fill(() => text.length >= end + length)
    if (text.length > end + length) this.chunks.unshift(Buffer.from(text.slice(end + length), "latin1"))
    return { status: Number(statusLine!.split(" ")[1]), headers, cookies, body: text.slice(end, end + length) }
  })

  /** Sends a handshake and gives its answer. */
  upgrade(path: string, headers: RawHeaders = {}, startLine?: string): Effect.Effect<Answer> {
    return Effect.zipRight(this.write(handshake(path, headers, startLine)), this.answer)
  }

  /** The next frame, `undefined` at the end. */
  readonly frame: Effect.Effect<RawFrame | undefined> = Effect.promise(async () => {
    for (;;) {
      const frame = this.reader.next()
      if (frame !== undefined) return frame
      const chunk = await this.more()
      if (chunk === undefined) return undefined
      this.reader.push(chunk)
    }
  })

  /** The next frame, which is a text message. */
  readonly text: Effect.Effect<string> = Effect.map(this.frame, (frame) => {
    if (frame?.opcode !== 1) throw new Error(`no text message but ${frame === undefined ? "the end" : frame.opcode}`)
    return Buffer.from(frame.payload).toString()
  })

  /** The code and reason of the close frame which comes next; 1005 without, 1006 for the end of the connection. */
  readonly closeFrame: Effect.Effect<{ readonly code: number; readonly reason: string }> = Effect.map(
    this.frame,
    (frame) => {
      if (frame === undefined) return { code: 1006, reason: "" }
      if (frame.opcode !== 8) throw new Error(`no close frame but ${frame.opcode}`)
      const payload = Buffer.from(frame.payload)
      return payload.length === 0
        ? { code: 1005, reason: "" }
        : { code: payload.readUInt16BE(0), reason: payload.toString("utf8", 2) }
    }
  )

  sendText(text: string): Effect.Effect<void> {
    return this.write(clientText(text))
  }

  /** Sends a close frame. */
  sendClose(code: number): Effect.Effect<void> {
    return this.write(clientFrame({ opcode: 8, payload: Uint8Array.of(code >> 8, code & 0xff) }))
  }

  /** The closing handshake, by us; the server ends its side first (RFC 6455 §7.1.1). */
  close(code = 1000): Effect.Effect<{ readonly code: number; readonly reason: string }> {
    return Effect.zipLeft(Effect.zipRight(this.sendClose(code), this.closeFrame), Effect.zipRight(this.ended, this.end))
  }

  /** Waits for the end and says how it came; what was still to be read is dropped. */
  readonly ended: Effect.Effect<"end" | "reset"> = Effect.promise(async () => {
    while ((await this.more()) !== undefined);
    return this.over!
  })

  /** FIN. */
  readonly end = Effect.sync(() => {
    this.socket.end()
  })

  /** RST. */
  readonly reset = Effect.sync(() => {
    this.socket.resetAndDestroy()
  })
}

/** A connection that a raw client opens, for the Scope. */
export const connect = (
  port: number,
  open: () => Net.Socket = () => Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<RawClient>((resume) => {
      const socket = open()
      const client = new RawClient(socket)
      const opened = () => resume(Effect.succeed(client))
      socket.once("encrypted" in socket ? "secureConnect" : "connect", opened)
      socket.once("error", (error) => resume(Effect.die(error)))
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

/** A connection on which a handshake was accepted. */
export const open = (
  port: number,
  path: string,
  headers: RawHeaders = {}
): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* connect(port)
    const answer = yield* client.upgrade(path, headers)
    if (answer.status !== 101) return yield* Effect.dieMessage(`${answer.status}: ${answer.body}`)
    return client
  })

/** What clients do that leave before they have an answer. */
export const departures: ReadonlyArray<readonly [name: string, leave: (client: RawClient) => Effect.Effect<void>]> = [
  ["a reset", (client) => client.reset],
  ["the end of its side", (client) => client.end],
  [
    "the end of its side after bytes that nobody takes",
    (client) => Effect.zipRight(client.write(clientText("x".repeat(10_000))), client.end)
  ]
]

/** A client of an echo sends one message with its handshake and more while that is decided: none of them is lost. */
export const sendsWhileAsked = (
  port: number,
  count: number,
  asked: Deferred.Deferred<void>,
  decide: Deferred.Deferred<void>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    const texts = Array.from({ length: count }, (_, i) => `${i} ${"x".repeat(10_000)}`)
    const client = yield* connect(port)
    yield* client.write(Buffer.concat([Buffer.from(handshake("/")), clientText("first")]))
    yield* Deferred.await(asked)
    yield* client.write(Buffer.concat(texts.map(clientText)))
    yield* Effect.promise(() => new Promise<void>((resume) => setImmediate(resume)))
    yield* Deferred.succeed(decide, undefined)
    assert.strictEqual((yield* client.answer).status, 101)
    for (const text of ["first", ...texts]) assert.strictEqual(yield* client.text, text)
    yield* client.close()
  })
