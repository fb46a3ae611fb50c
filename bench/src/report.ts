/** From measurements to the table: medians, ratios within a round, spread. Pure; the runner prints. */
import { disturbed, type Figures, type Measurement } from "./measure.js"

export interface Line {
  readonly server: string
  readonly row: string
  /** Median over the rounds. */
  readonly value: number
  /** Median of the ratios to the baseline of the same round; absent without a baseline. */
  readonly ratio?: number
  /** Lowest and highest of these ratios. */
  readonly ratioRange?: readonly [number, number]
  /** (highest - lowest) / median of the values. */
  readonly spread: number
  /** Highest over the rounds: one busy round is enough to doubt a figure. */
  readonly loadCpu: number
  readonly serverCpu?: number
  /** Highest over the rounds, see {@link Figures}. */
  readonly waited?: number
  readonly serverMicrosPerOperation?: number
  readonly rounds: number
  readonly errors: ReadonlyArray<string>
}

/** Above this share of its core the load generator may be what limits the figure... */
const busyLoad = 0.9

/** ...unless the server used at least this share of its own. */
const busyServer = 0.95

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** One line per row and server, in the order in which they first appear in `servers`. */
export const summarize = (
  measurements: ReadonlyArray<Measurement>,
  servers: ReadonlyArray<string>,
  baselineOf: (row: string) => string
): ReadonlyArray<Line> => {
  const rows = [...new Set(measurements.map(({ row }) => row))]
  return rows.flatMap((row) =>
    servers.flatMap((server) => {
      const own = measurements.filter((one) => one.row === row && one.server === server)
      return own.length === 0 ? [] : [lineOf(row, server, own, baseRates(measurements, row, baselineOf(row)))]
    })
  )
}

type Found = Extract<Measurement, Figures>

const isFound = (one: Measurement): one is Found => !("error" in one)

const baseRates = (measurements: ReadonlyArray<Measurement>, row: string, baseline: string): Map<number, number> =>
  new Map(
    measurements
      .filter((one) => one.row === row && one.server === baseline)
      .filter(isFound)
      .map((one) => [one.round, one.value])
  )

const lineOf = (row: string, server: string, own: ReadonlyArray<Measurement>, base: Map<number, number>): Line => {
  const found = own.filter(isFound)
  const values = found.map((one) => one.value)
  const ratios = found.flatMap((one) => {
    const rate = base.get(one.round)
    return rate === undefined ? [] : [one.value / rate]
  })
  const medianOf = (of: (one: Found) => number | undefined): number | undefined => {
    const some = found.map(of).filter((value) => value !== undefined)
    return some.length === 0 ? undefined : median(some)
  }
  const serverCpu = medianOf((one) => one.serverCpu)
  const waited = found.flatMap((one) => (one.waited === undefined ? [] : [one.waited]))
  const micros = medianOf((one) => one.serverMicrosPerOperation)
  return {
    server,
    row,
    value: values.length === 0 ? Number.NaN : median(values),
    ...(ratios.length === 0 ? {} : { ratio: median(ratios), ratioRange: [Math.min(...ratios), Math.max(...ratios)] }),
    spread: values.length === 0 ? Number.NaN : (Math.max(...values) - Math.min(...values)) / median(values),
    loadCpu: Math.max(...found.map((one) => one.loadCpu)),
    ...(serverCpu === undefined ? {} : { serverCpu }),
    ...(waited.length === 0 ? {} : { waited: Math.max(...waited) }),
    ...(micros === undefined ? {} : { serverMicrosPerOperation: micros }),
    rounds: found.length,
    errors: own.flatMap((one) => ("error" in one ? [one.error] : []))
  }
}

/** A sentence for each line in which the load generator was busy enough to doubt the figure. */
export const warnings = (lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  lines
    .filter((line) => line.rounds > 0 && line.loadCpu > busyLoad)
    .map((line) => {
      const saturated = line.serverCpu !== undefined && line.serverCpu >= busyServer
      const meaning = saturated
        ? "the server was at its own limit all the same"
        : "the figure is a lower bound of what the server can do"
      return `${line.row}, ${line.server}: load generator ${Math.round(line.loadCpu * 100)}% busy; ${meaning}`
    })

const columns = ["server", "median", "ratio", "ratios", "spread", "load CPU", "server CPU", "waited", "µs/op"]

/** The table as text: a block per row, with `about` as its heading. */
export const format = (lines: ReadonlyArray<Line>, about: (row: string) => string): string => {
  const rows = [...new Set(lines.map(({ row }) => row))]
  return rows
    .map((row) => {
      const cells = lines.filter((line) => line.row === row).map(cellsOf)
      const widths = columns.map((column, i) => Math.max(column.length, ...cells.map((line) => line[i]!.length)))
      const layOut = (line: ReadonlyArray<string>): string =>
        line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
      const errors = lines
        .filter((line) => line.row === row)
        .flatMap((line) =>
          [...new Set(line.errors)].map((error) => `  ! ${line.server}: ${error.replace(/\s+/g, " ").slice(0, 400)}`)
        )
      return [`${row}: ${about(row)}`, layOut(columns), ...cells.map(layOut), ...errors, ""].join("\n")
    })
    .join("\n")
}

const cellsOf = (line: Line): ReadonlyArray<string> => {
  if (line.rounds === 0) return [line.server, "error", ...columns.slice(2).map(() => "")]
  const share = (value: number | undefined): string => (value === undefined ? "" : `${Math.round(value * 100)}%`)
  const range = line.ratioRange
  return [
    line.server,
    Math.round(line.value).toLocaleString("en-US"),
    line.ratio === undefined ? "-" : line.ratio.toFixed(2),
    range === undefined ? "-" : `${range[0].toFixed(2)}..${range[1].toFixed(2)}`,
    share(line.spread),
    `${share(line.loadCpu)}${line.loadCpu > busyLoad ? " !" : ""}`,
    share(line.serverCpu),
    `${share(line.waited)}${(line.waited ?? 0) > disturbed ? " !" : ""}`,
    line.serverMicrosPerOperation === undefined ? "" : line.serverMicrosPerOperation.toFixed(1)
  ]
}
