/** Programs of the system, started for one test on free ports, with configurations in a folder of their own. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeWebSocketServer } from "@effect-ws/node"
import { Context, Effect, Exit, Layer, Schedule, Scope } from "effect"
import { build } from "esbuild"
import { type Browser, chromium, type Page } from "playwright-core"

// ---- programs ----------------------------------------------------------------------------------------------------------

/** A folder that goes with the Scope. Programs that give up root may read and write it. */
export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "effect-ws-"))
    chmodSync(path, 0o777)
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A file in a folder; gives its path. */
export const write = (folder: string, name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

/** A port that nobody listens on now. */
export const freePort: Effect.Effect<number> = Effect.promise(async () => {
  const server = Net.createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as Net.AddressInfo
  server.close()
  await once(server, "close")
  return port
})

/** Runs a program that stays in the foreground until the Scope closes, and waits until it listens on the port. */
export const daemon = (
  port: number,
  command: string,
  args: ReadonlyArray<string>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    let output = ""
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
        for (const stream of [child.stdout, child.stderr])
          stream.setEncoding("utf8").on("data", (text) => (output += text))
        // Whether it could be started is seen below.
        child.on("error", (error) => (output += error.message))
        return child
      }),
      end
    )
    yield* Effect.retry(reach(port), {
      schedule: Schedule.spaced("20 millis"),
      while: () => child.pid !== undefined && child.exitCode === null
    }).pipe(
      Effect.timeout("20 seconds"),
      Effect.catchAll(() => Effect.dieMessage(`${command} does not listen on port ${port}: ${output}`))
    )
  })

const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.promise(async () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill("SIGKILL")
    await once(child, "exit")
  })

const reach = (port: number): Effect.Effect<void, Error> =>
  Effect.async((resume) => {
    const socket = Net.connect(port, "127.0.0.1")
    socket.once("connect", () => resume(Effect.void))
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.once("connect", () => socket.destroy())
  })

// ---- our servers -------------------------------------------------------------------------------------------------------

/** What the routes of a contract fail with is answered by the router. */
export type Routes = Layer.Layer<never, never, HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Error", unknown>>

/** Serves routes on the loopback until the Scope closes, or the Effect that it gives is run. */
export const serve = (
  routes: Routes,
  options: { readonly port?: number; readonly server?: Parameters<typeof NodeWebSocketServer.layer>[0] } = {}
): Effect.Effect<{ readonly port: number; readonly stop: Effect.Effect<void> }, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const stop = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => stop)
    const layer = NodeWebSocketServer.layer(options.server ?? createServer, {
      port: options.port ?? 0,
      host: "127.0.0.1",
      drainTimeout: "500 millis"
    })
    const context = yield* HttpLayerRouter.serve(routes as Layer.Layer<never, never, HttpLayerRouter.HttpRouter>, {
      disableListenLog: true,
      disableLogger: true
    }).pipe(Layer.provideMerge(Layer.orDie(layer)), Layer.buildWithScope(scope))
    const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
    return { port: address._tag === "TcpAddress" ? address.port : 0, stop }
  })

const certificates = new URL("../../packages/node/test/fixtures/", import.meta.url)

/** A file of the certificates for `localhost` that the tests of `packages/node` made. */
export const certificate = (name: string): string => readFileSync(new URL(name, certificates), "utf8")

// ---- the browser -------------------------------------------------------------------------------------------------------

/** A script for the browser and all that it imports, as one text. Whatever only Node has is an error. */
export const bundle = (entry: string): Effect.Effect<string> =>
  Effect.promise(async () => {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
      bundle: true,
      format: "iife",
      platform: "browser",
      target: "es2022",
      write: false
    })
    return outputFiles[0]!.text
  })

/** Debian's Chromium, which root can't run in its sandbox. */
export class Chromium extends Context.Tag("Chromium")<Chromium, Browser>() {
  static readonly layer = Layer.scoped(
    Chromium,
    Effect.acquireRelease(
      Effect.promise(() =>
        chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] })
      ),
      (browser) => Effect.promise(() => browser.close())
    )
  )
}

/** A page in a context of its own; an error in it that nobody catches fails the test at its end. */
export const openPage = (url: string): Effect.Effect<Page, never, Chromium | Scope.Scope> =>
  Effect.gen(function* () {
    const browser = yield* Chromium
    const context = yield* Effect.acquireRelease(
      Effect.promise(() => browser.newContext()),
      (context) => Effect.promise(() => context.close())
    )
    const page = yield* Effect.promise(() => context.newPage())
    const errors: Array<Error> = []
    page.on("pageerror", (error) => errors.push(error))
    yield* Effect.addFinalizer(() => (errors.length === 0 ? Effect.void : Effect.die(errors[0])))
    yield* Effect.promise(() => page.goto(url))
    return page
  })
