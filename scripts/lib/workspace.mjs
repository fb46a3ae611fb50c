/**
 * What the checks know about the workspace: its packages, their source files, and which of those a package publishes.
 * Paths are absolute with `/` unless they are called relative.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, posix } from "node:path"
import { fileURLToPath } from "node:url"

/** The workspace that these scripts belong to. */
export const workspaceRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export const readJson = (file) => JSON.parse(readFileSync(file, "utf8"))

/** Every file below a folder, relative to it, in one order on every machine. A folder that is absent has none. */
export const filesBelow = (folder, skip = () => false) =>
  existsSync(folder)
    ? readdirSync(folder, { withFileTypes: true })
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        .flatMap((entry) => {
          if (skip(entry.name)) return []
          if (!entry.isDirectory()) return [entry.name]
          return filesBelow(join(folder, entry.name), skip).map((file) => posix.join(entry.name, file))
        })
    : []

/**
 * The packages of a workspace in the order of its package.json: `path` (relative to the workspace), `folder`, `name`,
 * `manifest`, and `sources` (the .ts files of src, relative to src).
 */
export const readPackages = (root) =>
  readJson(join(root, "package.json")).workspaces.map((path) => {
    const folder = join(root, path)
    const manifest = readJson(join(folder, "package.json"))
    const sources = filesBelow(join(folder, "src")).filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
    return { path, folder, name: manifest.name, manifest, sources, published: manifest.private !== true }
  })

/** The name of the package in an import specifier, or undefined for a relative one. */
export const packageOfSpecifier = (specifier) =>
  specifier.startsWith(".") ? undefined : /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0]

/** The keys of `exports` that could serve a subpath, the one that Node takes first: exact, then the longest prefix. */
const matchingKeys = (exports, subpath) => {
  if (subpath in exports && !subpath.includes("*")) return [subpath]
  return Object.keys(exports)
    .filter((key) => {
      const [prefix, suffix] = key.split("*")
      return (
        suffix !== undefined && subpath.length > prefix.length && subpath.startsWith(prefix) && subpath.endsWith(suffix)
      )
    })
    .sort((a, b) => b.indexOf("*") - a.indexOf("*"))
}

const sourceOfTarget = (target) => /^\.\/dist\/(.+?)(?:\.d)?\.[jt]s$/.exec(target)?.[1].concat(".ts")

/** The file (relative to src) that `exports` gives for a subpath such as "./Message", or undefined where it gives none. */
export const sourceOfSubpath = ({ manifest }, subpath) => {
  const key = matchingKeys(manifest.exports ?? {}, subpath)[0]
  const target = key === undefined ? null : manifest.exports[key]
  if (target === null || typeof target !== "object") return undefined
  const [prefix, suffix] = key.split("*")
  const star = suffix === undefined ? "" : subpath.slice(prefix.length, subpath.length - suffix.length)
  return sourceOfTarget(target.default.replace("*", star))
}

/** The source files (relative to src) that users can import, by the exports of the package. */
export const publishedSources = (pkg) => {
  const exact = Object.keys(pkg.manifest.exports ?? {}).filter((key) => !key.includes("*"))
  const byPattern = pkg.sources.map((file) => `./${file.slice(0, -".ts".length)}`)
  const files = [...exact, ...byPattern].map((subpath) => sourceOfSubpath(pkg, subpath))
  return [...new Set(files.filter((file) => file !== undefined && pkg.sources.includes(file)))]
}

/** What is wrong with the exports of a package: targets that are no compiled source, types that are another module's. */
export const exportsProblems = (pkg) =>
  Object.entries(pkg.manifest.exports ?? {}).flatMap(([key, target]) => {
    if (target === null) return key.includes("*") ? [] : [`exports "${key}" is null: leave the key out`]
    if (typeof target === "string")
      return target === "./package.json" ? [] : [`exports "${key}" needs types and default`]
    if (Object.keys(target)[0] !== "types") return [`exports "${key}" must name its types first`]
    const source = sourceOfTarget(target.default ?? "")
    if (source === undefined || sourceOfTarget(target.types) !== source) {
      return [`exports "${key}": types and default must be one module of dist`]
    }
    return key.includes("*") || pkg.sources.includes(source) ? [] : [`exports "${key}" has no src/${source}`]
  })
