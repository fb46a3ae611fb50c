/**
 * What the documents say must be so. Links between the Markdown files lead somewhere; a code block below
 * `<!-- example: examples/src/foo.ts#region -->` is that region of that file (`--write` copies it there); every symbol that
 * a package publishes has a docstring with `@since`; the `@example`s of doc comments compile (against dist, so build first).
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { lineAt, SymbolFlags, withProjects } from "./lib/typescript.mjs"
import { filesBelow, publishedSources, readPackages, workspaceRoot } from "./lib/workspace.mjs"

const skipped = new Set([".git", "coverage", "dist", "node_modules"])

/** The Markdown files of the workspace, relative to it. */
const documentsOf = (root) => filesBelow(root, (name) => skipped.has(name)).filter((file) => file.endsWith(".md"))

// --- Links ---------------------------------------------------------------------------------------------------------

/** Every relative link that leads nowhere, or to a heading that its document lacks, as `file:line: message`. */
export const checkLinks = (root) =>
  documentsOf(root).flatMap((document) =>
    linksOf(readFileSync(join(root, document), "utf8")).flatMap(({ line, target }) => {
      const problem = linkProblem(root, document, target)
      return problem === undefined ? [] : [`${document}:${line}: link ${target}: ${problem}`]
    })
  )

const linkProblem = (root, document, link) => {
  if (/^[a-z][a-z0-9+.-]*:|^\/\//i.test(link)) return undefined
  const [path, heading] = link.split("#")
  const target = path === "" ? join(root, document) : resolve(root, dirname(document), decodeURI(path))
  if (relative(root, target).startsWith("..")) return "leads out of the repository"
  if (!existsSync(target)) return "leads nowhere"
  if (heading === undefined || !target.endsWith(".md")) return undefined
  return headingsOf(readFileSync(target, "utf8")).has(heading) ? undefined : "has no such heading"
}

/** The prose of a document, line by line: fenced code and code spans are blank. */
const proseOf = (text) => {
  let fence
  return text.split("\n").map((line) => {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1]
    if (fence === undefined && mark === undefined) return line.replace(/(`+)(?!`).*?[^`]\1(?!`)/g, "")
    if (fence === undefined) fence = mark
    else if (mark?.startsWith(fence)) fence = undefined
    return ""
  })
}

const linksOf = (text) =>
  proseOf(text).flatMap((line, index) =>
    [...line.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\s*\[[^\]]+\]:\s*<?([^\s>]+)/g)].map(([, inline, reference]) => ({
      line: index + 1,
      target: inline ?? reference
    }))
  )

/** The anchors of a document as GitHub makes them: lower case, punctuation dropped, `-1` and so on for repetitions. */
const headingsOf = (text) => {
  const anchors = new Set()
  let fence = false
  for (const line of text.split("\n")) {
    if (/^ {0,3}(```|~~~)/.test(line)) fence = !fence
    const title = fence ? undefined : /^#{1,6}\s+(.*?)\s*#*$/.exec(line)?.[1]
    if (title === undefined) continue
    const words = title.replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase()
    const anchor = words.replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-")
    let unique = anchor
    for (let count = 1; anchors.has(unique); count++) unique = `${anchor}-${count}`
    anchors.add(unique)
  }
  return anchors
}

// --- Quoted examples -----------------------------------------------------------------------------------------------

const quoted = /^<!-- example: (\S+?)(?:#(\S+))? -->\n(?:\n)?(```\w*)\n([\s\S]*?)^```$/gm

/** Every quoted block that is not its source, as `file:line: message`. With `write` the blocks are replaced instead. */
export const checkQuotes = (root, write = false) =>
  documentsOf(root).flatMap((document) => {
    const text = readFileSync(join(root, document), "utf8")
    const problems = []
    const report = (offset, message) =>
      problems.push(`${document}:${text.slice(0, offset).split("\n").length}: example ${message}`)
    const updated = text.replace(quoted, (whole, path, name, fence, block, offset) => {
      const source = existsSync(join(root, path)) ? regionOf(readFileSync(join(root, path), "utf8"), name) : undefined
      if (source === undefined) report(offset, `${path}${name === undefined ? "" : `#${name}`} does not exist`)
      if (source === undefined || source === block) return whole
      if (!write) report(offset, `${path}#${name} differs: node scripts/check-docs.mjs --write`)
      return `${whole.slice(0, whole.indexOf(fence))}${fence}\n${source}\`\`\``
    })
    const marks = text.match(/^<!-- example:/gm)?.length ?? 0
    if (marks !== (text.match(quoted)?.length ?? 0)) report(0, "comments must each stand on a line above a code block")
    if (write && updated !== text) writeFileSync(join(root, document), updated)
    return problems
  })

/** The lines between `// #region name` and its `// #endregion`, unindented, other region marks left out. */
const regionOf = (text, name) => {
  const lines = text.replace(/\n$/, "").split("\n")
  const mark = (line) => /^\s*\/\/ #(region|endregion)\b\s*(\S*)/.exec(line)
  const start =
    name === undefined ? -1 : lines.findIndex((line) => mark(line)?.[1] === "region" && mark(line)[2] === name)
  if (name !== undefined && start < 0) return undefined
  const body = []
  for (let depth = 1, at = start + 1; at < lines.length; at++) {
    const kind = mark(lines[at])?.[1]
    if (kind === undefined) body.push(lines[at])
    else if (kind === "region") depth++
    else if (--depth === 0 && name !== undefined) return unindented(body)
  }
  return name === undefined ? unindented(body) : undefined
}

const unindented = (lines) => {
  const indents = lines.filter((line) => line.trim() !== "").map((line) => line.search(/\S/))
  const indent = Math.min(...indents)
  const text = lines.map((line) => line.slice(indent)).join("\n")
  return `${text.replace(/^\n+|\s+$/g, "")}\n`
}

// --- Docstrings ----------------------------------------------------------------------------------------------------

/** Every published symbol without a docstring or without `@since`, as `file:line: message`, and how many there are in all. */
export const checkDocstrings = (root) => {
  const packages = readPackages(root).filter((pkg) => pkg.published)
  const configs = packages.map((pkg) => join(pkg.folder, "tsconfig.json"))
  const symbols = withProjects(configs, (projects) =>
    projects.flatMap((project, index) => publishedSymbols(packages[index], project))
  )
  const problems = symbols.flatMap(({ file, line, name, text, tags }) => {
    const lacking = text.trim() === "" ? "docstring" : tags.includes("since") ? undefined : "@since"
    return lacking === undefined ? [] : [`${relative(root, file)}:${line}: ${name} has no ${lacking}`]
  })
  return { problems, count: symbols.length }
}

/** What users of a package can name, through `export * as` and re-exports too, except `@internal`; each symbol once. */
const publishedSymbols = (pkg, { program, checker }) => {
  const seen = new Set()
  const exportsOf = (module) =>
    checker.getExportsOfModule(module).flatMap((exported) => {
      const symbol = (exported.flags & SymbolFlags.Alias) === 0 ? exported : checker.getAliasedSymbol(exported)
      const declaration = symbol.declarations[0]?.resolve()
      const source = declaration?.getSourceFile()
      const own = source?.fileName.startsWith(`${pkg.folder}/src/`) === true
      if (!own || seen.has(symbol.id)) return []
      seen.add(symbol.id)
      if (declaration === source) return exportsOf(symbol)
      const tags = checker.getJsDocTagsOfSymbol(symbol).map((tag) => tag.name)
      if (tags.includes("internal")) return []
      const line = lineAt(source, declaration.getStart())
      return [
        { file: source.fileName, line, name: symbol.name, text: checker.getDocumentationCommentOfSymbol(symbol), tags }
      ]
    })
  return publishedSources(pkg).flatMap((file) => {
    const module = checker.getSymbolAtLocation(program.getSourceFile(join(pkg.folder, "src", file)))
    return module === undefined ? [] : exportsOf(module)
  })
}

// --- Examples in doc comments --------------------------------------------------------------------------------------

/** Every compile error of an `@example`, at the line of the source it stands in, and how many examples there are. */
export const checkExamples = (root) => {
  const sources = readPackages(root)
    .filter((pkg) => pkg.published)
    .flatMap((pkg) => pkg.sources.map((file) => join(pkg.folder, "src", file)))
  const examples = sources.flatMap((file) =>
    examplesOf(readFileSync(file, "utf8")).map((example) => ({ ...example, file: relative(root, file) }))
  )
  return { problems: examples.length === 0 ? [] : compile(root, examples), count: examples.length }
}

/** The `@example`s of a source, fenced or not: their code, and the line (from 1) on which it begins. */
const examplesOf = (text) =>
  [...text.matchAll(/\/\*\*[\s\S]*?\*\//g)].flatMap((comment) => {
    const firstLine = text.slice(0, comment.index).split("\n").length
    const lines = comment[0].split("\n").map((line) => line.replace(/^\s*\/?\*+\/?\s?|\s*\*\/$/g, ""))
    const tags = lines.flatMap((line, at) => (/^@\w+(\s|$)/.test(line) ? [at] : []))
    return tags
      .filter((at) => lines[at].startsWith("@example"))
      .map((at) => {
        const section = lines.slice(
          at + 1,
          tags.find((tag) => tag > at)
        )
        const open = section.findIndex((line) => line.startsWith("```"))
        const close = section.findIndex((line, index) => index > open && line.startsWith("```"))
        const [start, end] = open < 0 ? [0, section.length] : [open + 1, close]
        return { line: firstLine + at + 1 + start, code: section.slice(start, end) }
      })
  })

/** Each example is a module of its own, moved down by empty lines to the line that it has in its source. */
const compile = (root, examples) => {
  const cache = join(root, "node_modules/.cache")
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, "doc-examples-"))
  try {
    const originals = new Map()
    for (const { file, line, code } of examples) {
      const name = `${file.replace(/\W+/g, "_")}_${line}.ts`
      originals.set(name, file)
      writeFileSync(join(folder, name), `${"\n".repeat(line - 1)}${code.join("\n")}\n`)
    }
    const compilerOptions = {
      target: "ES2022",
      module: "NodeNext",
      lib: ["ES2022", "DOM"],
      types: ["node"],
      moduleDetection: "force",
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: true,
      noEmit: true
    }
    writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [...originals.keys()] }))
    const tsc = join(root, "node_modules/typescript/bin/tsc")
    const run = spawnSync(process.execPath, [tsc, "-p", folder, "--pretty", "false"], { cwd: folder, encoding: "utf8" })
    if (run.status === 0) return []
    return `${run.stdout}${run.stderr}`
      .trim()
      .replace(/^(\S+?)\((\d+),\d+\)/gm, (whole, name, line) =>
        originals.has(name) ? `${originals.get(name)}:${line}` : whole
      )
      .split("\n")
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

// -------------------------------------------------------------------------------------------------------------------

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const write = process.argv.includes("--write")
  const docstrings = checkDocstrings(workspaceRoot)
  const examples = checkExamples(workspaceRoot)
  const problems = [
    ...checkLinks(workspaceRoot),
    ...checkQuotes(workspaceRoot, write),
    ...docstrings.problems,
    ...examples.problems
  ]
  for (const problem of problems) console.error(problem)
  const documents = documentsOf(workspaceRoot).length
  const lacking = docstrings.problems.length === 0 ? "" : `, ${docstrings.problems.length} of them lacking`
  console.log(`docs: ${documents} documents, ${docstrings.count} symbols${lacking}, ${examples.count} examples`)
  if (problems.length > 0) process.exitCode = 1
}
