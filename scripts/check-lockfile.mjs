/**
 * The lockfile must serve every machine: it names no host that packages come from, and it lists the native builds of every
 * platform. npm leaves out those that the registry at hand did not serve, and then refuses `npm ci`; `--write` adds them,
 * without their integrity, which only a registry can tell.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { readJson, workspaceRoot } from "./lib/workspace.mjs"

/** Packages of the lockfile, and lines of .npmrc, that are bound to a host. */
export const boundToHost = (lock, npmrc) => [
  ...Object.entries(lock.packages)
    .filter(([, { resolved }]) => /^[\w+.-]+:|^\/\/|@.*:/.test(resolved ?? ""))
    .map(([path, { resolved }]) => `package-lock.json: ${path} is resolved to ${resolved}`),
  ...npmrc
    .split("\n")
    .filter((line) => /registry\s*=\s*\w+:|^\/\//.test(line))
    .map((line) => `.npmrc: ${line}`)
]

/** The optional packages that an entry of the lockfile asks for and that have no entry: `{ name, version, owner }`. */
export const missingOptional = (lock) => {
  const missing = Object.entries(lock.packages).flatMap(([path, owner]) =>
    Object.entries(owner.optionalDependencies ?? {})
      .filter(([name]) => !(`node_modules/${name}` in lock.packages || `${path}/node_modules/${name}` in lock.packages))
      .map(([name, version]) => [name, { name, version, owner }])
  )
  return [...new Map(missing).values()]
}

/** The lockfile with an entry for every missing native build whose platform its name tells. */
export const completed = (lock) => {
  const added = missingOptional(lock).flatMap(({ name, version, owner }) => {
    const platform = platformOf(name)
    const entry = { version, ...platform, ...(owner.dev ? { dev: true } : {}), license: owner.license, optional: true }
    return platform === undefined || !/^\d/.test(version) ? [] : [[`node_modules/${name}`, entry]]
  })
  const [root, ...entries] = [...Object.entries(lock.packages), ...added]
  const sorted = entries.sort(([a], [b]) => a.localeCompare(b, "en"))
  return { ...lock, packages: Object.fromEntries([root, ...sorted]) }
}

/** `@rollup/rollup-linux-x64-musl` and the like: operating system, processor, C library. */
const platformOf = (name) => {
  const systems = "aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32"
  const processors = "arm64|arm|ia32|loong64|mips64el|ppc64|riscv64|s390x|x64"
  const match = new RegExp(`(?:^|[/-])(${systems})-(${processors})(?:-(\\w+))?$`).exec(name)
  if (match === null) return undefined
  const [, os, cpu, abi] = match
  const libc = os === "linux" && abi !== undefined ? { libc: [abi.startsWith("musl") ? "musl" : "glibc"] } : {}
  return { cpu: [cpu], os: [os], ...libc }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = join(workspaceRoot, "package-lock.json")
  if (process.argv.includes("--write")) writeFileSync(file, `${JSON.stringify(completed(readJson(file)), null, 2)}\n`)
  const lock = readJson(file)
  const missing = missingOptional(lock).map(({ name }) => `package-lock.json: ${name} is missing`)
  if (missing.length > 0) missing.push("to add them: node scripts/check-lockfile.mjs --write")
  const problems = [...boundToHost(lock, readFileSync(join(workspaceRoot, ".npmrc"), "utf8")), ...missing]
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) process.exitCode = 1
  else console.log(`lockfile: ${Object.keys(lock.packages).length} packages, no host`)
}
