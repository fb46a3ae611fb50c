/**
 * What a page loads: bundles the programs of scripts/bundles by esbuild from the built packages. Fails when one needs Node, when
 * one has a part of ours that a browser has no use for, and when docs/client.md states other sizes (`--write` puts them there).
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import { workspaceRoot } from "./lib/workspace.mjs"

/** The programs, how the document names them, and whether they import modules by their own paths, so that nothing idle comes along. */
const programs = [
  ["connect", "connect, send, take", true],
  ["reconnecting-url", "`reconnecting` by URL", true],
  ["reconnecting-contract", "`reconnecting` by contract, with `effect/Schema`", true],
  ["event-source", "`EventSource.stream` over fetch", true],
  ["connect-by-index", 'connect, send, take; `from "@effect-ws/core"` and `"effect"`', false]
]

/** The browser speaks the protocol itself, and serves nothing. */
const idle =
  /^packages\/(core\/dist\/(engine\/(?!CloseCode|closeInfo|Limits|Natives|Rule|utf8)|internal\/(Framed|client(Handshake|Target))|.*(Route|Upgrade|TestTransport))|eventsource\/dist\/(EventStream|EventBroadcast|EventLog)|node\/)/

/** Sizes may differ by so much from those in the document: minor versions of what is bundled, and of zlib. */
const tolerance = 0.05

/** What only Node has, found where no declaration of the bundle is meant. */
const nodeGlobals = ["Buffer", "process", "require", "setImmediate"]
const marker = (name) => `globalThis.onlyInNode_${name}`

/**
 * Bundles a program. Gives the sizes in bytes of all and of our own packages alone, each minified and with gzip besides, and what is
 * wrong with it. `lean`: nothing idle may be in it.
 */
export const measure = async (entry, root = workspaceRoot, lean = true) => {
  const options = {
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    metafile: true,
    write: false,
    logLevel: "silent",
    define: Object.fromEntries(nodeGlobals.map((name) => [name, marker(name)]))
  }
  try {
    const whole = await build(options)
    const own = await build({ ...options, external: ["effect", "effect/*", "@effect/platform", "@effect/platform/*"] })
    const [text, ownText] = [whole, own].map(({ outputFiles }) => outputFiles[0].text)
    const used = Object.entries(Object.values(whole.metafile.outputs)[0].inputs)
      .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
      .map(([file]) => file)
    return {
      sizes: [whole, own].flatMap(({ outputFiles: [{ contents }] }) => [contents.length, gzipSync(contents).length]),
      problems: [
        ...nodeGlobals
          .filter((name) => ownText.includes(marker(name)) || isNeeded(text, name))
          .map((name) => `uses ${name} of Node`),
        ...(lean ? used.filter((file) => idle.test(file)).map((file) => `holds ${file}, which is of no use there`) : [])
      ]
    }
  } catch (error) {
    const messages = error.errors ?? [{ text: error.message }]
    return { sizes: [], problems: messages.map(({ text, location }) => `${location?.file ?? entry}: ${text}`) }
  }
}

/** Whether the text reads a global and never asks whether it is there, as libraries do that run everywhere. */
const isNeeded = (text, name) => text.includes(marker(name)) && !text.includes(`typeof ${marker(name)}`)

const kilobytes = (bytes) => (bytes / 1000).toFixed(1)

/** Rows as a table of Markdown. */
export const formatTable = (rows) =>
  [
    "| program | all: min | min+gzip | of it effect-ws: min | min+gzip |",
    "| --- | --- | --- | --- | --- |",
    ...rows.map(({ name, sizes }) => `| ${[name, ...sizes.map((size) => `${kilobytes(size)} kB`)].join(" | ")} |`)
  ].join("\n")

const region = /(<!-- bundles -->\n)([\s\S]*?)(\n<!-- \/bundles -->)/

/** Whether the table in the text states these rows, up to the tolerance; the reason if not. */
export const tableProblem = (text, rows) => {
  const table = region.exec(text)?.[2]
  if (table === undefined) return "has no table between <!-- bundles --> and <!-- /bundles -->"
  const stated = table.split("\n").slice(2)
  if (stated.length !== rows.length) return `states ${stated.length} bundles of ${rows.length}`
  for (const [at, { name, sizes }] of rows.entries()) {
    const [, title, ...cells] = stated[at].split("|").map((cell) => cell.trim())
    if (title !== name) return `states "${title}" where "${name}" is next`
    const far = sizes.findIndex(
      (size, at) => !(Math.abs(Number.parseFloat(cells[at]) * 1000 - size) <= tolerance * size)
    )
    if (far >= 0) return `states ${cells[far]} for "${name}", which has ${kilobytes(sizes[far])} kB`
  }
  return undefined
}

/** The text with its table replaced. */
export const withTable = (text, rows) =>
  text.replace(region, (_, begin, __, end) => `${begin}${formatTable(rows)}${end}`)

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const document = join(workspaceRoot, "docs/client.md")
  const rows = []
  const problems = []
  for (const [file, name, lean] of programs) {
    const bundle = await measure(`scripts/bundles/${file}.mjs`, workspaceRoot, lean)
    rows.push({ name, sizes: bundle.sizes })
    problems.push(...bundle.problems.map((problem) => `scripts/bundles/${file}.mjs: ${problem}`))
  }
  if (problems.length === 0) {
    const text = readFileSync(document, "utf8")
    if (process.argv.includes("--write")) writeFileSync(document, withTable(text, rows))
    const problem = tableProblem(readFileSync(document, "utf8"), rows)
    if (problem !== undefined) problems.push(`docs/client.md ${problem}: node scripts/bundle-size.mjs --write`)
    console.log(formatTable(rows))
  }
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) process.exitCode = 1
}
