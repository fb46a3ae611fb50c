/** One measurement: a fresh server, a fresh load generator, one workload. */
import {
  type Cores,
  type LoadSteps,
  type Program,
  runLoad,
  type Server,
  startServer,
  waitedSeconds
} from "./children.js"
import type { CpuAnswer, MemoryAnswer } from "./messages.js"
import { type ClientRow, isMemoryRow, type Row } from "./rows.js"
import { answeringServer, type ServerEntry } from "./servers.js"

/** What a measurement found, or why it found nothing. */
export type Measurement = {
  readonly server: string
  readonly row: string
  readonly round: number
} & (Figures | { readonly error: string })

export interface Figures {
  /** Operations per second, bytes per connection in a memory row, milliseconds of processor time per second in an idle row. */
  readonly value: number
  /** Share of a core which the load generator used, 0 to 1. */
  readonly loadCpu: number
  /** Share of a core which the server used within the window, 0 to 1. Absent in memory rows. */
  readonly serverCpu?: number
  /**
   * Share of the window in which the server or the load generator, whichever is more, was ready to run while its core
   * worked for someone else. Absent in memory rows.
   */
  readonly waited?: number
  /** Processor time of the server per operation. Unlike the rate it hardly changes when others use the machine. */
  readonly serverMicrosPerOperation?: number
}

export interface MeasureOptions {
  readonly cores: Cores | undefined
  readonly seconds: number
  readonly warmupSeconds: number
  /** How often a measurement is repeated while others used its cores; the least disturbed attempt counts. */
  readonly retries: number
  /** Further arguments for the server's Node, e.g. `--cpu-prof`. */
  readonly nodeArgs: ReadonlyArray<string>
  readonly note: (message: string) => void
}

/** Measures `row` on `server`. A memory row gives two figures: what the JavaScript heap and its buffers take, and RSS. */
export const measure = async (
  server: ServerEntry,
  row: Row,
  round: number,
  options: MeasureOptions
): Promise<ReadonlyArray<Measurement>> => {
  const named = (name: string) => ({ server: server.name, row: name, round })
  try {
    const attempt = row.kind === "client" ? () => runClient(server, row, options) : () => run(server, row, options)
    const figures = await leastDisturbed(options.retries, attempt)
    return Object.entries(figures).map(([name, found]) => ({ ...named(name), ...found }))
  } catch (error) {
    return [{ ...named(row.name), error: error instanceof Error ? error.message : String(error) }]
  }
}

/** Above this share of waiting a measurement says more about the machine than about the server. */
export const disturbed = 0.05

const leastDisturbed = async (
  retries: number,
  attempt: () => Promise<Record<string, Figures>>
): Promise<Record<string, Figures>> => {
  const waitedIn = (figures: Record<string, Figures>): number =>
    Math.max(...Object.values(figures).map(({ waited }) => waited ?? 0))
  let best = await attempt()
  for (let retry = 0; retry < retries && waitedIn(best) > disturbed; retry++) {
    const again = await attempt()
    if (waitedIn(again) < waitedIn(best)) best = again
  }
  return best
}

const run = async (server: ServerEntry, row: Row, options: MeasureOptions): Promise<Record<string, Figures>> => {
  const { cores, note } = options
  const seconds = Math.max(options.seconds, row.kind === "idle" ? row.windowSeconds : 0)
  const warmupSeconds = Math.max(options.warmupSeconds, "warmupSeconds" in row ? row.warmupSeconds : 0)
  const process = await startServer(cores?.server, server.file, options.nodeArgs)
  try {
    const window = watch(process)
    const memory: Array<MemoryAnswer & { readonly connections: number }> = []
    const done = await runLoad(
      cores?.load,
      { port: process.port, controlPort: process.controlPort, row, seconds, warmupSeconds },
      {
        ...window.steps,
        idle: async (connections) => {
          memory.push({ ...(await process.memory()), connections })
        },
        note: (message) => note(`${server.name}, ${row.name}: ${message}`)
      },
      process.died
    )
    if (isMemoryRow(row)) return memoryFigures(row.name, memory, done.cpuShare)
    const value = done.operations / done.seconds
    const { serverCpu, waitedSeconds } = window.seen()
    return {
      [row.name]: {
        value: row.kind === "idle" ? serverCpu * 1000 : value,
        loadCpu: done.cpuShare,
        serverCpu,
        waited: waitedSeconds / done.seconds,
        serverMicrosPerOperation: (serverCpu / value) * 1e6
      }
    }
  } finally {
    if (!(await process.stop())) note(`${server.name}, ${row.name}: did not end within 3 s of SIGTERM`)
  }
}

/**
 * Measures a client: on the core of the servers, against a server on the core of the load. "Server" and "load" of the figures
 * are what is measured and what is not, so here the client and the server that answers.
 */
const runClient = async (
  client: ServerEntry,
  row: ClientRow,
  options: MeasureOptions
): Promise<Record<string, Figures>> => {
  const { cores, note, nodeArgs, seconds, warmupSeconds } = options
  const server = await startServer(cores?.load, answeringServer, [], [JSON.stringify(row)])
  try {
    const window = watch(server)
    const program: Program = { file: client.file, nodeArgs }
    const done = await runLoad(
      cores?.server,
      { port: server.port, controlPort: undefined, row, seconds, warmupSeconds },
      {
        ...window.steps,
        idle: async () => {},
        note: (message) => note(`${client.name}, ${row.name}: ${message}`)
      },
      server.died,
      program
    )
    const { serverCpu, waitedSeconds } = window.seen()
    const value = done.operations / done.seconds
    return {
      [row.name]: {
        value,
        loadCpu: serverCpu,
        serverCpu: done.cpuShare,
        waited: waitedSeconds / done.seconds,
        serverMicrosPerOperation: (done.cpuShare / value) * 1e6
      }
    }
  } finally {
    await server.stop()
  }
}

/** Looks at the server, and at who waited for a core, where the window begins and ends. */
const watch = (server: Server) => {
  let before: CpuAnswer | undefined
  let after: CpuAnswer | undefined
  let waits: readonly [server: number, load: number] = [0, 0]
  const steps: Pick<LoadSteps, "windowStart" | "windowEnd"> = {
    windowStart: async (loadPid) => {
      waits = [-waitedSeconds(server.pid), -waitedSeconds(loadPid)]
      before = await server.cpu()
    },
    windowEnd: async (loadPid) => {
      waits = [waits[0] + waitedSeconds(server.pid), waits[1] + waitedSeconds(loadPid)]
      after = await server.cpu()
    }
  }
  /** The share of its core that the server used, and the longer of the two waits. */
  const seen = () => {
    if (before === undefined || after === undefined) throw new Error("no CPU time from the server")
    // By the server's own clock, since a busy server answers late.
    const serverCpu = (after.cpuSeconds - before.cpuSeconds) / (after.atSeconds - before.atSeconds)
    return { serverCpu, waitedSeconds: Math.max(...waits) }
  }
  return { steps, seen }
}

const memoryFigures = (
  name: string,
  [some, all]: ReadonlyArray<MemoryAnswer & { readonly connections: number }>,
  loadCpu: number
): Record<string, Figures> => {
  if (some === undefined || all === undefined) throw new Error("no memory figures from the server")
  const perConnection = (of: (answer: MemoryAnswer) => number): number =>
    (of(all) - of(some)) / (all.connections - some.connections)
  return {
    [`${name}-heap`]: { value: perConnection((answer) => answer.heapUsed + answer.external), loadCpu },
    [`${name}-rss`]: { value: perConnection((answer) => answer.rss), loadCpu }
  }
}
