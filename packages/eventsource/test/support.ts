/** Servers and raw readers for the tests. */

import * as http from "node:http"
import * as net from "node:net"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Exit, Layer, Scope } from "effect"

/** Serves routes on a free port as long as the scope lives. */
export const serve = <E>(
  routes: Layer.Layer<never, E, HttpLayerRouter.HttpRouter>,
  createServer: () => http.Server = http.createServer
): Effect.Effect<number, E, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      HttpLayerRouter.serve(routes, { disableListenLog: true, disableLogger: true }).pipe(
        Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
        Layer.orDie
      )
    )
    const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
    return address._tag === "TcpAddress" ? address.port : 0
  })

/** Serves routes until the given Effect is run. */
export const serveUntil = <E>(
  routes: Layer.Layer<never, E, HttpLayerRouter.HttpRouter>,
  createServer?: () => http.Server
) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const port = yield* Scope.extend(serve(routes, createServer), scope)
    return { port, shutdown: Scope.close(scope, Exit.void) }
  })

/** A response that is being read; `text` grows. */
export interface Reader {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly text: () => string
  /** Resolves when the text satisfies the predicate. */
  readonly until: (predicate: (text: string) => boolean) => Promise<string>
  /** How the response ended: `"end"`, or the code of the error. */
  readonly ended: Promise<string>
  readonly leave: () => void
}

export const get = (
  port: number,
  path: string,
  headers: http.OutgoingHttpHeaders = {},
  method = "GET"
): Promise<Reader> =>
  new Promise((resolve, reject) => {
    const request = http.request({ port, path, headers, method, host: "127.0.0.1", agent: false }, (response) => {
      let text = ""
      const waiting = new Set<() => void>()
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        text += chunk
        for (const check of waiting) check()
      })
      resolve({
        status: response.statusCode!,
        headers: response.headers,
        text: () => text,
        until: (predicate) =>
          new Promise((resolve) => {
            const check = () => {
              if (!predicate(text)) return
              waiting.delete(check)
              resolve(text)
            }
            waiting.add(check)
            check()
          }),
        ended: new Promise((resolve) => {
          response.on("end", () => resolve("end"))
          response.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"))
        }),
        leave: () => request.destroy()
      })
    })
    request.on("error", reject)
    request.end()
  })

/** Sends bytes, and reads until the connection ends: its bytes, and `"end"` or the code of the error. */
export const raw = (
  port: number,
  request: string,
  onText: (text: string) => void = () => {}
): Promise<{ readonly text: string; readonly ended: string }> =>
  new Promise((resolve) => {
    let text = ""
    let ended = "end"
    const socket = net.connect(port, "127.0.0.1", () => socket.write(request))
    socket.setEncoding("utf8")
    socket.on("data", (chunk: string) => {
      text += chunk
      onText(text)
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      ended = error.code ?? "error"
    })
    socket.on("close", () => resolve({ text, ended }))
  })
