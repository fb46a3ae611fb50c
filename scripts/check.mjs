/** Everything but the tests: prints one line per check with its time, and after it what a failed one said. */
import { spawn } from "node:child_process"
import { join } from "node:path"
import { filesBelow, workspaceRoot } from "./lib/workspace.mjs"

const node = (...args) => ({ command: process.execPath, args })
const bin = (path, ...args) => node(join("node_modules", path), ...args)

const selfTests = filesBelow(join(workspaceRoot, "scripts"))
  .filter((file) => file.endsWith(".test.mjs"))
  .map((file) => join("scripts", file))

/** In this order: the examples of the doc comments compile against what the build wrote. */
const checks = [
  ["types", bin("typescript/bin/tsc", "-b")],
  ["format and lint", bin("@biomejs/biome/bin/biome", "ci", "--max-diagnostics=100", ".")],
  ["checks can fail", node("--test", ...selfTests)],
  ["import direction", node("scripts/check-imports.mjs")],
  ["assembled", node("scripts/assemble.mjs")],
  ["documents", node("scripts/check-docs.mjs")],
  ["bundles", node("scripts/bundle-size.mjs")],
  ["lockfile", node("scripts/check-lockfile.mjs")]
]

const start = ({ command, args }) =>
  new Promise((done) => {
    const child = spawn(command, args, { cwd: workspaceRoot, stdio: ["ignore", "pipe", "pipe"] })
    const output = []
    child.stdout.on("data", (bytes) => output.push(bytes))
    child.stderr.on("data", (bytes) => output.push(bytes))
    child.on("error", (error) => done({ ok: false, output: error.message }))
    child.on("close", (code) => done({ ok: code === 0, output: Buffer.concat(output).toString().trim() }))
  })

let failed = 0
const print = (name, ok, millis, output) => {
  console.log(`${ok ? "ok    " : "FAILED"} ${name} (${(millis / 1000).toFixed(1)} s)`)
  if (ok) return
  failed++
  console.log(output)
}

for (const [name, command] of checks) {
  const started = performance.now()
  const { ok, output } = await start(command)
  print(name, ok, performance.now() - started, output)
}
process.exitCode = failed === 0 ? 0 : 1
