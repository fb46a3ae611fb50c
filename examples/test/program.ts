/**
 * Starts programs of `dist` as their users do, each as a process of its own that ends with the test.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"

export interface Ended {
  readonly code: number | null
  readonly stdout: ReadonlyArray<string>
  readonly stderr: string
}

export interface Program {
  /** The first line of its output, which dies with what stands on stderr when it ends before. */
  readonly firstLine: Effect.Effect<string>
  readonly ended: Effect.Effect<Ended>
  readonly signal: (signal: "SIGINT" | "SIGTERM") => Effect.Effect<void>
}

export const start = (
  script: string,
  args: ReadonlyArray<string> = [],
  env: Readonly<Record<string, string>> = {}
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [fileURLToPath(new URL(`../dist/${script}`, import.meta.url)), ...args], {
          env: { PATH: process.env.PATH, ...env },
          stdio: ["ignore", "pipe", "pipe"]
        })
      ),
      (child) =>
        Effect.sync(() => {
          if (child.exitCode === null) child.kill("SIGKILL")
        })
    ),
    observe
  )

/** Runs a program to its end. */
export const run = (script: string, args?: ReadonlyArray<string>, env?: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.flatMap(start(script, args, env), (program) => program.ended))

const observe = (child: ChildProcess): Program => {
  let stdout = ""
  let stderr = ""
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
  })
  const firstLine = new Promise<string | undefined>((resolve) => {
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
      const end = stdout.indexOf("\n")
      if (end >= 0) resolve(stdout.slice(0, end))
    })
    child.on("close", () => resolve(undefined))
  })
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code) => resolve({ code, stdout: stdout.split("\n").slice(0, -1), stderr }))
  })
  return {
    firstLine: Effect.flatMap(
      Effect.promise(() => firstLine),
      (line) => (line === undefined ? Effect.dieMessage(`the program ended: ${stderr}`) : Effect.succeed(line))
    ),
    ended: Effect.promise(() => ended),
    signal: (signal) => Effect.sync(() => child.kill(signal))
  }
}
