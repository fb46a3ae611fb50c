/**
 * The benchmark's runner: `node bench/dist/run.js [options]`, see the README beside this folder.
 *
 * Rounds alternate: in each round every row runs on every server before the next round starts, and the order of servers
 * rotates, so that what the machine does meanwhile hits all of them.
 */
import { writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import { canPin, killAllOnExit } from "./children.js"
import { type Measurement, measure } from "./measure.js"
import { format, summarize, warnings } from "./report.js"
import { isEventRow, type Row, rows } from "./rows.js"
import { baseline, clients, eventBaseline, eventServers, type ServerEntry, servers } from "./servers.js"

const usage = `node bench/dist/run.js [options]
  --rows a,b          only these rows; a name also stands for all that start with it
  --servers x,y       only these servers and clients (ratios are taken to ${baseline}, those of sse rows to ${eventBaseline})
  --rounds 5          alternating rounds
  --seconds 2         length of each measurement
  --warmup 0.5        seconds of the same load before it
  --retries 2         how often a measurement is repeated while other processes used its cores
  --connections 10000 connections of the memory rows without compression
  --server-core 0     core of the server; in client rows, of the client
  --load-core 1       core of the load generator; in client rows, of the server
  --unpinned          leave the choice of cores to the system
  --node-args "..."   further arguments for the Node of what is measured, separated by spaces
  --json file         write all measurements and the summary
rows:    ${rows.map(({ name }) => name).join(", ")}
servers: ${[...servers, ...eventServers].map(({ name }) => name).join(", ")}
clients: ${clients.map(({ name }) => name).join(", ")}`

const { values: options } = parseArgs({
  options: {
    rows: { type: "string" },
    servers: { type: "string" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    warmup: { type: "string", default: "0.5" },
    retries: { type: "string", default: "2" },
    connections: { type: "string" },
    "server-core": { type: "string", default: "0" },
    "load-core": { type: "string", default: "1" },
    unpinned: { type: "boolean", default: false },
    "node-args": { type: "string", default: "" },
    json: { type: "string" },
    help: { type: "boolean", default: false }
  }
})

const stop = (message: string): never => {
  console.error(message)
  process.exit(1)
}

const positive = (name: string, text: string): number => {
  const value = Number(text)
  return value > 0 ? value : stop(`--${name} ${text}: not a positive number`)
}

/** The entries that `list` names, in the table's order; all of them without a list. */
const choose = <A extends { readonly name: string }>(
  option: string,
  list: string | undefined,
  all: ReadonlyArray<A>
): ReadonlyArray<A> => {
  if (list === undefined) return all
  const names = list.split(",").map((name) => name.trim())
  const isExact = (name: string): boolean => all.some((entry) => entry.name === name)
  const wants = (entry: A, name: string): boolean => (isExact(name) ? entry.name === name : entry.name.startsWith(name))
  for (const name of names) {
    if (!all.some((entry) => wants(entry, name))) stop(`--${option}: no ${name}\n\n${usage}`)
  }
  return all.filter((entry) => names.some((name) => wants(entry, name)))
}

const rotate = <A>(all: ReadonlyArray<A>, by: number): ReadonlyArray<A> => {
  const first = by % Math.max(1, all.length)
  return [...all.slice(first), ...all.slice(0, first)]
}

/** What `row` is measured on. */
const subjectsOf = (row: Row): ReadonlyArray<ServerEntry> => {
  if (row.kind === "client") return clients
  if (isEventRow(row)) return eventServers
  const { servers: able } = "servers" in row ? row : {}
  return able === undefined ? servers : servers.filter(({ name }) => able.includes(name))
}

/** Rows of the table: a memory row gives two. */
const aboutOf = (name: string): string => {
  if (name.endsWith("-heap")) return `JavaScript heap and buffers: ${aboutOf(name.slice(0, -"-heap".length))}`
  if (name.endsWith("-rss")) return `resident set: ${aboutOf(name.slice(0, -"-rss".length))}`
  return rows.find((row) => row.name === name)?.about ?? ""
}

const main = async (): Promise<void> => {
  if (options.help) return console.log(usage)
  const rounds = positive("rounds", options.rounds)
  const seconds = positive("seconds", options.seconds)
  const warmupSeconds = positive("warmup", options.warmup)
  const retries = Number(options.retries)
  const connections = options.connections === undefined ? undefined : positive("connections", options.connections)
  const others = clients.filter(({ name }) => !servers.some((server) => server.name === name))
  const names = choose("servers", options.servers, [...servers, ...eventServers, ...others]).map(({ name }) => name)
  const takesConnections = (row: Row): boolean =>
    row.kind === "sse-memory" || (row.kind === "memory" && row.deflate === undefined)
  const chosenRows = choose("rows", options.rows, rows).map(
    (row): Row => (connections !== undefined && takesConnections(row) ? ({ ...row, connections } as Row) : row)
  )
  const wantedCores = { server: Number(options["server-core"]), load: Number(options["load-core"]) }
  const cores = !options.unpinned && canPin(wantedCores) ? wantedCores : undefined
  const notes = new Set<string>()
  const note = (message: string): void => {
    if (!notes.has(message)) console.error(`note: ${message}`)
    notes.add(message)
  }
  if (cores === undefined && !options.unpinned) note("taskset or a second core is missing: processes are not pinned")

  const nodeArgs = options["node-args"].split(" ").filter((argument) => argument !== "")
  const measurements: Array<Measurement> = []
  for (let round = 0; round < rounds; round++) {
    for (const row of chosenRows) {
      const able = subjectsOf(row).filter(({ name }) => names.includes(name))
      if (able.length === 0 && round === 0) note(`${row.name}: none of these servers has it`)
      for (const server of rotate(able, round)) {
        const found = await measure(server, row, round, { cores, seconds, warmupSeconds, retries, nodeArgs, note })
        measurements.push(...found)
        for (const one of found) {
          const outcome = "error" in one ? `error: ${one.error}` : Math.round(one.value).toLocaleString("en-US")
          console.error(`round ${round + 1}/${rounds}  ${one.row.padEnd(16)}  ${one.server.padEnd(16)}  ${outcome}`)
        }
      }
    }
  }

  const summary = summarize(measurements, names, (row) => (row.startsWith("sse-") ? eventBaseline : baseline))
  const machine = {
    node: process.version,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    pinned: cores !== undefined
  }
  console.log(
    `\nNode ${machine.node}, ${machine.cpu}, ${machine.cores} cores; ${rounds} rounds of ${seconds} s after ${warmupSeconds} s; ` +
      `${cores === undefined ? "not pinned" : `server on core ${cores.server}, load on core ${cores.load}`}\n`
  )
  console.log(format(summary, aboutOf))
  for (const warning of warnings(summary)) console.log(`warning: ${warning}`)
  for (const message of notes) console.log(`note: ${message}`)
  if (options.json !== undefined) {
    const settings = { rounds, seconds, warmupSeconds, retries, nodeArgs, cores: cores ?? null }
    const result = { date: new Date().toISOString(), machine, settings, notes: [...notes], summary, measurements }
    writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`)
  }
  if (measurements.some((one) => "error" in one)) process.exitCode = 1
}

killAllOnExit()
await main()
