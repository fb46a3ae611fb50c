/**
 * The processes of a measurement: started on a core of their own, ended whatever happens.
 *
 * Ends only what it started. A server also ends by itself when its standard input does, a load generator when its IPC
 * channel does, so nothing stays behind when the runner is killed.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { CpuAnswer, LoadCommand, LoadReport, LoadTask, MemoryAnswer } from "./messages.js"

/** A core for each process, or `undefined` when processes can't be pinned here. */
export interface Cores {
  readonly server: number
  readonly load: number
}

/** Whether `taskset` exists and lets us use both cores. */
export const canPin = (cores: Cores): boolean =>
  availableParallelism() >= 2 &&
  [cores.server, cores.load].every((core) => spawnSync("taskset", ["-c", String(core), "true"]).status === 0)

/**
 * Seconds for which a process was ready to run but its core did something else, so far; 0 where the system does not say.
 * It tells a slow server from a machine that others use too.
 */
export const waitedSeconds = (pid: number): number => {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, "latin1").split(" ")[1]) / 1e9
  } catch {
    return 0
  }
}

const children = new Set<ChildProcess>()

/** Ends every process that is still there, at once, when this one ends. The ordinary way is `stop`. */
export const killAllOnExit = (): void => {
  process.on("exit", () => {
    for (const child of children) child.kill("SIGKILL")
  })
  // Without a listener a signal would end this process before that.
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129]
  ] as const) {
    process.on(signal, () => process.exit(code))
  }
}

const start = (
  core: number | undefined,
  args: ReadonlyArray<string>,
  stdio: Array<"pipe" | "ignore" | "inherit" | "ipc">
): ChildProcess => {
  const child =
    core === undefined
      ? spawn(process.execPath, args, { stdio })
      : spawn("taskset", ["-c", String(core), process.execPath, ...args], { stdio })
  children.add(child)
  child.once("exit", () => children.delete(child))
  return child
}

const exited = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once("exit", () => resolve()))

/** `promise`, or a rejection that says what did not happen in time. */
const within = async <A>(seconds: number, what: string, promise: Promise<A>): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${seconds} s`)), seconds * 1000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export interface Server {
  readonly pid: number
  readonly port: number
  readonly controlPort: number | undefined
  readonly cpu: () => Promise<CpuAnswer>
  readonly memory: () => Promise<MemoryAnswer>
  /** Rejects when the process ends before `stop`. */
  readonly died: Promise<never>
  /** SIGTERM, and SIGKILL 3 seconds later. Resolves to whether the signal to end was enough. */
  readonly stop: () => Promise<boolean>
}

/** Starts a server and waits, up to 30 seconds, until it listens. */
export const startServer = async (
  core: number | undefined,
  file: string,
  nodeArgs: ReadonlyArray<string>,
  args: ReadonlyArray<string> = []
): Promise<Server> => {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const child = start(core, ["--expose-gc", ...nodeArgs, path, ...args], ["pipe", "pipe", "pipe"])
  child.stdin!.on("error", () => {})
  let stopping = false
  let stderr = ""
  child.stderr!.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk).slice(-2000)
  })
  const died = new Promise<never>((_, reject) => {
    child.once("error", reject)
    child.once("exit", (code, signal) => {
      if (!stopping) reject(new Error(`the server ended (${signal ?? code}) ${stderr.trim()}`))
    })
  })
  died.catch(() => {})

  const waiting: Array<(line: string) => void> = []
  let onReady: (ports: ReadonlyArray<number>) => void
  const ready = new Promise<ReadonlyArray<number>>((resolve) => {
    onReady = resolve
  })
  createInterface({ input: child.stdout! }).on("line", (line) => {
    if (line.startsWith("READY ")) onReady(line.slice("READY ".length).split(" ").map(Number))
    else if (line.startsWith("{")) waiting.shift()?.(line)
  })
  const ask = async <A>(question: string): Promise<A> => {
    const line = new Promise<string>((resolve) => waiting.push(resolve))
    child.stdin!.write(`${question}\n`)
    return JSON.parse(await within(60, `the server's answer to ${question}`, Promise.race([line, died]))) as A
  }
  const stop = async (): Promise<boolean> => {
    stopping = true
    child.kill("SIGTERM")
    const polite = await within(3, "exit", exited(child)).then(
      () => true,
      () => false
    )
    if (!polite) child.kill("SIGKILL")
    await exited(child)
    return polite
  }
  try {
    const [port, controlPort] = await within(30, "READY", Promise.race([ready, died]))
    return {
      pid: child.pid!,
      port: port!,
      controlPort,
      cpu: () => ask("cpu"),
      memory: () => ask("mem"),
      died,
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** What the runner does at the steps of a run. A rejection ends the run. */
export interface LoadSteps {
  readonly windowStart: (loadPid: number) => Promise<void>
  readonly windowEnd: (loadPid: number) => Promise<void>
  readonly idle: (connections: number) => Promise<void>
  readonly note: (message: string) => void
}

/** A program that makes load: its compiled file, and further arguments for its Node. */
export interface Program {
  readonly file: string
  readonly nodeArgs: ReadonlyArray<string>
}

/** Runs a load generator to its end. Rejects with its error, or when it outlives the time that its task can take. */
export const runLoad = async (
  core: number | undefined,
  task: LoadTask,
  steps: LoadSteps,
  died: Promise<never>,
  program: Program = { file: "./load.js", nodeArgs: [] }
): Promise<Extract<LoadReport, { readonly type: "done" }>> => {
  const path = fileURLToPath(new URL(program.file, import.meta.url))
  const child = start(core, [...program.nodeArgs, path, JSON.stringify(task)], ["ignore", "inherit", "inherit", "ipc"])
  try {
    const outcome = new Promise<Extract<LoadReport, { readonly type: "done" }>>((resolve, reject) => {
      // Steps are taken one after the other, so that the result waits for the last question to the server.
      let last: Promise<void> = Promise.resolve()
      let isDone = false
      const step = (run: () => Promise<void>): void => {
        last = last.then(run)
        last.catch(reject)
      }
      child.once("error", reject)
      child.once("exit", (code, signal) => {
        if (!isDone) reject(new Error(`the load generator ended (${signal ?? code})`))
      })
      child.on("message", (message: LoadReport) => {
        switch (message.type) {
          case "windowStart":
            return step(() => steps.windowStart(child.pid!))
          case "windowEnd":
            return step(() => steps.windowEnd(child.pid!))
          case "idle":
            return step(async () => {
              await steps.idle(message.connections)
              child.send({ type: "next" } satisfies LoadCommand)
            })
          case "note":
            return steps.note(message.message)
          case "error":
            return reject(new Error(message.message))
          case "done":
            isDone = true
            return step(async () => resolve(message))
        }
      })
    })
    const done = await within(
      task.warmupSeconds + task.seconds + 120,
      "the load generator",
      Promise.race([outcome, died])
    )
    // It ends by itself, and may have a profile to write before.
    await within(3, "exit", exited(child)).catch(() => {})
    return done
  } finally {
    child.kill("SIGKILL")
    await exited(child)
  }
}
