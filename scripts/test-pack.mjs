/**
 * What users get: packs each published package, installs the tarballs with their peers into an empty project outside the
 * workspace, and compiles and runs there the first example of each README. Needs a built workspace, and what `npm install`
 * needs.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { filesBelow, readJson, readPackages, workspaceRoot } from "./lib/workspace.mjs"

/** An example that has not ended by then is stuck. */
const exampleTimeoutMillis = 60_000

const problems = []
const report = (name, message) => {
  problems.push(`${name}: ${message}`)
  console.error(`${name}: ${message}`)
}

/** Runs a program to its end and gives its output, or undefined after reporting why it failed. */
const run = (name, what, command, args, options) => {
  const result = spawnSync(command, args, { encoding: "utf8", ...options })
  if (result.status === 0) return result.stdout
  const late = result.error?.code === "ETIMEDOUT"
  const ending = late ? `did not end within ${exampleTimeoutMillis} ms` : `failed (${result.signal ?? result.status})`
  report(name, `${what} ${ending}\n${result.stdout ?? ""}${result.stderr ?? ""}`.trimEnd())
  return undefined
}

/** Packs a package and checks what the tarball holds. Gives its path. */
const pack = (pkg, destination) => {
  const output = run(pkg.name, "npm pack", "npm", ["pack", "--json", "--pack-destination", destination], {
    cwd: pkg.folder
  })
  if (output === undefined) return undefined
  const [{ filename, files, size }] = Object.values(JSON.parse(output))
  const held = files.map(({ path }) => path)
  const needed = ["package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts", "src/index.ts"]
  for (const file of needed) if (!held.includes(file)) report(pkg.name, `the tarball lacks ${file}`)
  for (const file of held) {
    const problem = tarballProblem(pkg, file)
    if (problem !== undefined) report(pkg.name, `the tarball holds ${file}, ${problem}`)
  }
  console.log(`${pkg.name}: packed ${held.length} files, ${Math.round(size / 1024)} KiB`)
  return join(destination, filename)
}

const tarballProblem = (pkg, file) => {
  if (/(^|\/)tests?\/|\.test\.|tsbuildinfo|(^|\/)node_modules\//.test(file)) return "which is not for users"
  if (/^(package\.json|README\.md|LICENSE|CHANGELOG\.md|src\/.+\.(ts|wat))$/.test(file)) return undefined
  const source = /^dist\/(.+?)(\.d\.ts|\.js)(\.map)?$/.exec(file)?.[1]
  if (source === undefined) return "which nothing asks for"
  return pkg.sources.includes(`${source}.ts`) ? undefined : "which has no source: npm run clean, then build"
}

/** The first TypeScript block of the README of a package, or undefined after reporting that there is none. */
const firstExample = (pkg) => {
  const readme = join(pkg.folder, "README.md")
  if (!existsSync(readme)) {
    report(pkg.name, `${pkg.path}/README.md is missing`)
    return undefined
  }
  const code = /^```ts\b.*\n([\s\S]*?)^```$/m.exec(readFileSync(readme, "utf8"))?.[1]
  if (code === undefined) report(pkg.name, `${pkg.path}/README.md has no \`\`\`ts block`)
  return code
}

/** The peers of all packages in the versions that the workspace itself was tested with, and Node's types. */
const peersOf = (packages) => {
  const names = new Set(packages.flatMap(({ manifest }) => Object.keys(manifest.peerDependencies ?? {})))
  return [...names, "@types/node"]
    .filter((name) => !packages.some((pkg) => pkg.name === name))
    .map((name) => `${name}@${readJson(join(workspaceRoot, "node_modules", name, "package.json")).version}`)
}

const compilerOptions = {
  target: "ES2022",
  module: "NodeNext",
  lib: ["ES2022", "DOM"],
  types: ["node"],
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  rootDir: "src",
  outDir: "out"
}

const testExamples = (packages, project) => {
  mkdirSync(join(project, "src"))
  const examples = packages.flatMap((pkg) => {
    const code = firstExample(pkg)
    if (code === undefined) return []
    const name = pkg.path.slice(pkg.path.lastIndexOf("/") + 1)
    writeFileSync(join(project, "src", `${name}.ts`), code)
    return [{ pkg, name }]
  })
  if (examples.length === 0) return
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["src"] }))
  const tsc = join(workspaceRoot, "node_modules/typescript/bin/tsc")
  const options = { cwd: project, timeout: exampleTimeoutMillis, killSignal: "SIGKILL" }
  if (run("examples", "tsc", process.execPath, [tsc, "-p", "."], options) === undefined) return
  for (const { pkg, name } of examples) {
    const started = performance.now()
    const output = run(pkg.name, "the first example", process.execPath, [join("out", `${name}.js`)], options)
    if (output === undefined) continue
    const lines = output.split("\n").length - 1
    console.log(
      `${pkg.name}: first example ran in ${Math.round(performance.now() - started)} ms, ${lines} lines printed`
    )
  }
}

const folder = mkdtempSync(join(tmpdir(), "effect-ws-pack-"))
try {
  const packages = readPackages(workspaceRoot).filter((pkg) => pkg.published)
  for (const { name, folder, sources } of packages) {
    const built = new Set(filesBelow(join(folder, "dist")))
    const absent = sources.filter((file) => !built.has(file.replace(/\.ts$/, ".js")))
    if (absent.length > 0) report(name, `is not built: dist lacks ${absent.join(", ")}`)
  }
  const tarballs = packages.map((pkg) => pack(pkg, folder))
  if (!tarballs.includes(undefined)) {
    const project = join(folder, "project")
    mkdirSync(project)
    writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }))
    const flags = ["--prefer-offline", "--no-audit", "--no-fund", "--strict-peer-deps"]
    const args = ["install", ...flags, ...tarballs, ...peersOf(packages)]
    if (run("project", "npm install", "npm", args, { cwd: project }) !== undefined) testExamples(packages, project)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(problems.length === 0 ? "pack: all packages install and run" : `pack: ${problems.length} problems`)
process.exitCode = problems.length === 0 ? 0 : 1
