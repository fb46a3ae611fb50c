/**
 * Imports point down only: this check reads every import, export-from, `import()` and import type of the sources and
 * names each one that points elsewhere. The rules, by the names under which they are reported:
 *
 * - engine-alone: the engine imports nothing but the engine;
 * - engine-layers: within the engine bytes < codec < protocol, by the table below, which must know every file;
 * - portable: core and eventsource have no Node module and no `Buffer` or `process`;
 * - packages: a package imports only what the table below allows and its package.json declares;
 * - published: another package is imported by a name that its `exports` publish, never by a path;
 * - cycles: no module imports itself through others (imports of types alone excepted, nothing remains of them);
 * - exports: the `exports` of each package.json are files of its src.
 */
import { existsSync } from "node:fs"
import { isBuiltin } from "node:module"
import { join, posix, relative, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { lineAt, SyntaxKind, walk, withSyntax } from "./lib/typescript.mjs"
import { exportsProblems, packageOfSpecifier, readPackages, sourceOfSubpath, workspaceRoot } from "./lib/workspace.mjs"

/** The files of packages/core/src/engine, lowest layer first. A file may import its own layer and those above it here. */
const engineLayers = [
  [
    "bytes",
    [
      "base64",
      "byteQueue",
      "byteWriter",
      "framesModule",
      "FrameScanner",
      "headerGrammar",
      "mask",
      "md5",
      "Natives",
      "random",
      "sha1",
      "utf8"
    ]
  ],
  ["codec", ["CloseCode", "Frame", "FrameDecoder", "FrameEncoder", "Limits", "MessageAssembler", "Opcode", "Rule"]],
  [
    "protocol",
    [
      "closeInfo",
      "ConnectionProtocol",
      "deflateParameters",
      "ExtendedOutput",
      "Extension",
      "Handshake",
      "HttpBody",
      "HttpHead",
      "HttpResponse",
      "Protocol"
    ]
  ],
  ["drafts", ["drafts/HixieDecoder", "drafts/HixieHandshake", "drafts/HixieProtocol"]],
  ["roles", ["Endpoint", "ServerHandshake"]],
  ["index", ["index"]]
]

/** What each package may import, besides itself. A private package (examples, bench) may import what it declares. */
const mayImport = {
  "@effect-ws/core": { packages: ["effect", "@effect/platform"], node: false },
  "@effect-ws/node": {
    packages: ["effect", "@effect/platform", "@effect/platform-node", "@effect-ws/core"],
    node: true
  },
  "@effect-ws/eventsource": { packages: ["effect", "@effect/platform", "@effect-ws/core"], node: false }
}

const engineOwner = "@effect-ws/core"
const engineFolder = "engine/"
const nodeGlobals = new Set(["Buffer", "process"])

/** Every broken rule of the workspace at `root`, as `{ file, line, rule, message }`, files relative to the root. */
export const checkImports = (root) => {
  const packages = readPackages(root)
  const files = packages.flatMap((pkg) => pkg.sources.map((file) => join(pkg.folder, "src", file)))
  return withSyntax(root, files, (trees) => packages.flatMap((pkg) => checkPackage(root, packages, pkg, trees)))
}

const checkPackage = (root, packages, pkg, trees) => {
  const findings = exportsProblems(pkg).map((message) => ({
    file: `${pkg.path}/package.json`,
    line: 1,
    rule: "exports",
    message
  }))
  const edges = new Map()
  for (const file of pkg.sources) {
    const tree = trees.get(join(pkg.folder, "src", file))
    const report = (line, rule, message) => findings.push({ file: `${pkg.path}/src/${file}`, line, rule, message })
    const imports = importsOf(tree).map((found) => ({ ...found, ...resolveImport(pkg, file, found.specifier) }))
    for (const found of imports) {
      const broken = brokenRule(root, packages, pkg, file, found)
      if (broken !== undefined) report(found.line, broken[0], broken[1])
    }
    if (engineLayer(pkg, file) === unknownLayer) {
      report(1, "engine-layers", `${file} is in no layer: add it to the table in scripts/check-imports.mjs`)
    }
    if (mayImport[pkg.name]?.node === false) {
      for (const { name, line } of nodeGlobalsOf(tree)) report(line, "portable", `${name} exists on Node only`)
    }
    edges.set(
      file,
      imports.filter((found) => !found.typeOnly && found.target !== undefined)
    )
  }
  for (const { file, line, path } of cyclesOf(edges)) {
    findings.push({ file: `${pkg.path}/src/${file}`, line, rule: "cycles", message: path.join(" -> ") })
  }
  return findings
}

/** The first rule that an import breaks, as name and message. */
const brokenRule = (root, packages, pkg, file, found) => {
  const { specifier, target, outside } = found
  const owner = packageOfSpecifier(specifier)
  if (engineLayer(pkg, file) !== undefined) {
    if (target === undefined || engineLayer(pkg, target) === undefined) {
      return ["engine-alone", `the engine may not import ${specifier}`]
    }
    if (engineLayer(pkg, file) !== unknownLayer && engineLayer(pkg, target) > engineLayer(pkg, file)) {
      return ["engine-layers", `${layerName(pkg, file)} may not import ${layerName(pkg, target)} (${specifier})`]
    }
    return undefined
  }
  if (owner === undefined) {
    if (outside !== undefined) {
      return ["published", `${specifier} leaves src (${relative(root, outside).split(sep).join("/")})`]
    }
    return target === undefined ? ["published", `${specifier} is no file of src`] : undefined
  }
  if (isBuiltin(specifier)) {
    return mayImport[pkg.name]?.node === false ? ["portable", `${specifier} exists on Node only`] : undefined
  }
  return brokenPackageRule(packages, pkg, owner, specifier)
}

const brokenPackageRule = (packages, pkg, owner, specifier) => {
  if (owner === pkg.name) return ["published", `${specifier} is this package: import it by a relative path`]
  const allowed = mayImport[pkg.name]
  if (pkg.published && !(allowed?.packages ?? []).includes(owner)) {
    return ["packages", `${pkg.name} may not import ${owner}`]
  }
  const { dependencies, devDependencies, peerDependencies } = pkg.manifest
  const declared = { ...dependencies, ...peerDependencies, ...(pkg.published ? {} : devDependencies) }
  if (!(owner in declared)) return ["packages", `${owner} is not in the dependencies of ${pkg.path}/package.json`]
  const sibling = packages.find(({ name }) => name === owner)
  if (sibling === undefined) return undefined
  const source = sourceOfSubpath(sibling, `.${specifier.slice(owner.length)}`)
  return source !== undefined && sibling.sources.includes(source)
    ? undefined
    : ["published", `${specifier} is not among the exports of ${owner}`]
}

/** Where a relative import leads: `target` is a source file of the package (relative to src), `outside` a path beyond it. */
const resolveImport = (pkg, file, specifier) => {
  if (!specifier.startsWith(".")) return {}
  const path = posix.normalize(posix.join(posix.dirname(file), specifier))
  if (path.startsWith("../")) return { outside: join(pkg.folder, "src", path) }
  const target = path.replace(/\.js$/, ".ts")
  if (pkg.sources.includes(target)) return { target }
  // Hand-written declarations have no code, and nothing to import further.
  return existsSync(join(pkg.folder, "src", path.replace(/\.js$/, ".d.ts"))) ? { target: path } : {}
}

/** Every module that a file names: specifier, line, and whether nothing of the import is left at run time. */
const importsOf = (tree) =>
  [...tree.imports, ...tree.moduleAugmentations.filter((name) => name.kind === SyntaxKind.StringLiteral)].map(
    (name) => {
      const parent = name.parent
      const typeOnly =
        parent.kind === SyntaxKind.LiteralType ||
        parent.kind === SyntaxKind.ModuleDeclaration ||
        parent.isTypeOnly === true ||
        parent.importClause?.isTypeOnly === true
      return { specifier: name.text, line: lineAt(tree, name.getStart()), typeOnly }
    }
  )

const unknownLayer = -1

/** Which layer of the engine a file of core is in: undefined outside the engine, -1 when the table does not know it. */
const engineLayer = (pkg, file) => {
  if (pkg.name !== engineOwner || !file.startsWith(engineFolder)) return undefined
  const module = file.slice(engineFolder.length, -".ts".length)
  return engineLayers.findIndex(([, modules]) => modules.includes(module))
}

const layerName = (pkg, file) => engineLayers[engineLayer(pkg, file)]?.[0] ?? "a file of no layer"

/** Uses of Node's globals, through `globalThis` or bare. A bare name that the file itself declares is the file's own. */
const nodeGlobalsOf = (tree) => {
  const uses = tree.typeReferenceDirectives
    .filter(({ fileName }) => fileName === "node")
    .map(({ fileName, pos }) => ({ name: `types="${fileName}"`, line: lineAt(tree, pos) }))
  const bare = []
  const own = new Set()
  walk(tree, (node) => {
    if (!nodeGlobals.has(node.text)) return
    const { parent } = node
    const use = { name: node.text, line: lineAt(tree, node.getStart()) }
    if (node.kind === SyntaxKind.StringLiteral) {
      if (parent.kind === SyntaxKind.ElementAccessExpression && isGlobalThis(parent.expression)) uses.push(use)
    } else if (
      node.kind !== SyntaxKind.Identifier ||
      (parent.kind === SyntaxKind.QualifiedName && parent.right === node)
    ) {
      return
    } else if (parent.kind === SyntaxKind.PropertyAccessExpression && parent.name === node) {
      if (isGlobalThis(parent.expression)) uses.push(use)
    } else if (parent.name !== node) {
      bare.push(use)
    } else if (isAmbient(parent)) {
      uses.push(use)
    } else if (parent.kind === SyntaxKind.ShorthandPropertyAssignment) {
      bare.push(use)
    } else if (bindings.has(parent.kind)) {
      own.add(node.text)
    }
  })
  return [...uses, ...bare.filter(({ name }) => !own.has(name))]
}

const bindings = new Set([
  SyntaxKind.BindingElement,
  SyntaxKind.ClassDeclaration,
  SyntaxKind.FunctionDeclaration,
  SyntaxKind.ImportClause,
  SyntaxKind.ImportSpecifier,
  SyntaxKind.InterfaceDeclaration,
  SyntaxKind.NamespaceImport,
  SyntaxKind.Parameter,
  SyntaxKind.TypeAliasDeclaration,
  SyntaxKind.VariableDeclaration
])

/** `globalThis`, also behind casts: `(globalThis as { process?: unknown })`. */
const isGlobalThis = (node) => {
  let inner = node
  while (casts.has(inner.kind)) inner = inner.expression
  return inner.kind === SyntaxKind.Identifier && inner.text === "globalThis"
}

const casts = new Set([
  SyntaxKind.AsExpression,
  SyntaxKind.NonNullExpression,
  SyntaxKind.ParenthesizedExpression,
  SyntaxKind.SatisfiesExpression
])

const isAmbient = (node) => {
  for (let at = node; at !== undefined && at.kind !== SyntaxKind.SourceFile; at = at.parent) {
    if (at.modifiers?.some((modifier) => modifier.kind === SyntaxKind.DeclareKeyword)) return true
  }
  return false
}

/** One finding for each import that closes a circle, in a walk from the first file on. */
const cyclesOf = (edges) => {
  const cycles = []
  const done = new Set()
  const visit = (file, path) => {
    for (const { target, line } of edges.get(file) ?? []) {
      const start = path.indexOf(target)
      if (start >= 0) cycles.push({ file, line, path: [...path.slice(start), target] })
      else if (!done.has(target)) visit(target, [...path, target])
    }
    done.add(file)
  }
  for (const file of edges.keys()) if (!done.has(file)) visit(file, [file])
  return cycles
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const findings = checkImports(process.argv[2] ?? workspaceRoot)
  for (const { file, line, rule, message } of findings) console.error(`${file}:${line}: ${rule}: ${message}`)
  if (findings.length > 0) process.exitCode = 1
  else console.log(`imports: ${readPackages(workspaceRoot).length} packages, nothing points up`)
}
