/**
 * How cost grows: processor time of a server per message, against the number of connections and against the size of messages.
 * `node bench/dist/growth.js [options]`; prints a table and a plot for each, and writes the plots as SVG on demand.
 *
 * Linear growth is a flat line: per message over connections, per byte over sizes.
 */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { canPin, killAllOnExit } from "./children.js"
import { measure } from "./measure.js"
import { median } from "./report.js"
import type { EchoRow } from "./rows.js"
import { type ServerEntry, servers } from "./servers.js"

const KiB = 1024

const usage = `node bench/dist/growth.js [options]
  --servers ws,ours-fused                servers to compare
  --connections 1000,2000,5000,10000     numbers of connections, each with one message of 128 B in flight
  --kib 1,16,128,1024,4096,16384         sizes of binary messages in KiB, on 4 connections with one in flight
  --rounds 3                             alternating rounds; medians count
  --seconds 2                            length of each measurement
  --node-args "..."                      further arguments for the servers' Node, separated by spaces
  --svg file                             also writes the plots as a picture`

const { values: options } = parseArgs({
  options: {
    servers: { type: "string", default: "ws,ours-stream,ours-fused" },
    connections: { type: "string", default: "1000,2000,5000,10000" },
    kib: { type: "string", default: "1,16,128,1024,4096,16384" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "2" },
    "node-args": { type: "string", default: "" },
    svg: { type: "string" },
    help: { type: "boolean", default: false }
  }
})

/** One plot: a line of costs for each server. */
interface Plot {
  readonly title: string
  readonly unit: string
  readonly ticks: ReadonlyArray<string>
  readonly lines: ReadonlyArray<{ readonly name: string; readonly costs: ReadonlyArray<number> }>
}

const numbers = (list: string): ReadonlyArray<number> => list.split(",").map(Number)

const byConnections = (connections: number): EchoRow => ({
  kind: "echo",
  name: `${connections} connections`,
  about: "",
  connections,
  inFlight: 1,
  payloadBytes: 128,
  binary: false
})

const bySize = (kib: number): EchoRow => ({
  kind: "echo",
  name: `${kib} KiB`,
  about: "",
  connections: 4,
  inFlight: 1,
  payloadBytes: kib * KiB,
  binary: true
})

const cores = { server: 0, load: 1 }

/** Median cost of each row on each server: microseconds per message. */
const costsOf = async (
  rows: ReadonlyArray<EchoRow>,
  entries: ReadonlyArray<ServerEntry>
): Promise<ReadonlyArray<ReadonlyArray<number>>> => {
  const found = entries.map(() => rows.map((): Array<number> => []))
  const pinned = canPin(cores) ? cores : undefined
  const seconds = Number(options.seconds)
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [r, row] of rows.entries()) {
      for (const [s, server] of entries.entries()) {
        const [one] = await measure(server, row, round, {
          cores: pinned,
          seconds,
          warmupSeconds: 1,
          retries: 0,
          nodeArgs: options["node-args"].split(" ").filter((argument) => argument !== ""),
          note: console.error
        })
        if (one === undefined || "error" in one) {
          console.error(`${row.name}, ${server.name}: ${one?.error}`)
          process.exitCode = 1
        } else if (one.serverMicrosPerOperation !== undefined) found[s]![r]!.push(one.serverMicrosPerOperation)
      }
    }
  }
  return found.map((line) => line.map((costs) => (costs.length === 0 ? Number.NaN : median(costs))))
}

const format = (value: number): string => value.toPrecision(3)

const table = ({ lines, ticks, title, unit }: Plot): string => {
  const cells = [["", ...ticks], ...lines.map(({ costs, name }) => [name, ...costs.map(format)])]
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)))
  const layOut = (line: ReadonlyArray<string>) => line.map((cell, i) => cell.padStart(widths[i]!)).join("  ")
  return [`${title}: ${unit}`, ...cells.map(layOut)].join("\n")
}

const bars = ({ lines, ticks }: Plot): string => {
  const most = Math.max(...lines.flatMap(({ costs }) => costs.filter(Number.isFinite)))
  const width = Math.max(...ticks.map((tick) => tick.length), ...lines.map(({ name }) => name.length))
  return lines
    .flatMap(({ costs, name }) => [
      name,
      ...costs.map((cost, i) => `${ticks[i]!.padStart(width)} ${"█".repeat(Math.round((cost / most) * 60) || 0)}`)
    ])
    .join("\n")
}

const colours = ["#888", "#c60", "#06c", "#090", "#909"]

/** A plot with equal steps between ticks and a linear scale from 0. */
const svg = (plots: ReadonlyArray<Plot>): string => {
  const [width, height, left, top] = [480, 260, 60, 40]
  const drawn = plots.map(({ lines, ticks, title, unit }, index) => {
    const most = Math.max(...lines.flatMap(({ costs }) => costs.filter(Number.isFinite)))
    const x = (i: number): number => left + (i / Math.max(1, ticks.length - 1)) * (width - left - 40)
    const y = (cost: number): number => top + (1 - cost / most) * (height - top - 40)
    const paths = lines.map(({ costs, name }, n) => {
      const points = costs.map((cost, i) => (Number.isFinite(cost) ? `${x(i).toFixed(1)},${y(cost).toFixed(1)}` : ""))
      const colour = colours[n % colours.length]
      return (
        `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.filter((point) => point !== "").join(" ")}"/>` +
        `<text x="${left + 8 + n * 100}" y="${height - 4}" fill="${colour}">${name}</text>`
      )
    })
    const labels = ticks.map((tick, i) => `<text x="${x(i)}" y="${height - 22}" text-anchor="middle">${tick}</text>`)
    return [
      `<g transform="translate(0 ${index * height})">`,
      `<text x="8" y="16">${title}: ${unit}</text>`,
      `<text x="8" y="${top + 4}">${format(most)}</text><text x="8" y="${height - 40}">0</text>`,
      `<line x1="${left}" x2="${width - 40}" y1="${height - 40}" y2="${height - 40}" stroke="#888"/>`,
      ...paths,
      ...labels,
      "</g>"
    ].join("\n")
  })
  const total = height * plots.length
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" viewBox="0 0 ${width} ${total}" font-family="sans-serif" font-size="11">`,
    "<title>How cost grows</title>",
    `<rect width="${width}" height="${total}" fill="#fff"/>`,
    ...drawn,
    "</svg>\n"
  ].join("\n")
}

const main = async (): Promise<void> => {
  if (options.help) return console.log(usage)
  const entries = options.servers.split(",").map((name) => {
    const entry = servers.find((server) => server.name === name)
    if (entry === undefined) throw new Error(`no server ${name}\n${usage}`)
    return entry
  })
  const plotOf = (
    title: string,
    unit: string,
    ticks: ReadonlyArray<string>,
    costs: ReadonlyArray<ReadonlyArray<number>>
  ) => ({
    title,
    unit,
    ticks,
    lines: entries.map(({ name }, i) => ({ name, costs: costs[i]! }))
  })
  const connections = numbers(options.connections)
  const sizes = numbers(options.kib)
  const perMessage = await costsOf(connections.map(byConnections), entries)
  const perSize = await costsOf(sizes.map(bySize), entries)
  const perKiB = perSize.map((line) => line.map((cost, i) => cost / sizes[i]!))
  const plots = [
    plotOf("connections", "µs of the server's processor per message of 128 B", connections.map(String), perMessage),
    plotOf(
      "message size",
      "µs of the server's processor per KiB",
      sizes.map((size) => `${size} KiB`),
      perKiB
    )
  ]
  for (const plot of plots) console.log(`${table(plot)}\n\n${bars(plot)}\n`)
  if (options.svg !== undefined) writeFileSync(options.svg, svg(plots))
}

killAllOnExit()
await main()
