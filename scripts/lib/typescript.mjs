/**
 * The compiler as a library. TypeScript 7 offers this under "unstable" names, which may change with a minor version: the
 * scripts reach them through this file only.
 */
import { API } from "typescript/unstable/sync"

export { SyntaxKind } from "typescript/unstable/ast"
export { SymbolFlags } from "typescript/unstable/sync"

/** Opens tsconfig files, gives their projects to `use` in the same order, and ends the compiler afterwards. */
export const withProjects = (configs, use) => withCompiler({}, configs, use)

/**
 * Parses files without resolving or checking anything, and gives `use` a map from file to its syntax tree. A tree is only
 * readable within `use`.
 */
export const withSyntax = (root, files, use) => {
  const config = `${root}/tsconfig.syntax-only.json`
  const text = JSON.stringify({
    compilerOptions: { noLib: true, noResolve: true, types: [], module: "nodenext" },
    files
  })
  const fs = {
    readFile: (file) => (file === config ? text : undefined),
    fileExists: (file) => (file === config ? true : undefined)
  }
  return withCompiler({ fs }, [config], ([project]) =>
    use(new Map(files.map((file) => [file, project.program.getSourceFile(file)])))
  )
}

const withCompiler = (options, configs, use) => {
  const api = new API(options)
  try {
    const snapshot = api.updateSnapshot({ openProjects: configs })
    return use(configs.map((config) => snapshot.getProject(config)))
  } finally {
    api.close()
  }
}

/** `line` counts from 1. */
export const lineAt = (sourceFile, position) => sourceFile.getLineAndCharacterOfPosition(position).line + 1

/** Visits a node and everything below it, parents first. */
export const walk = (node, visit) => {
  visit(node)
  node.forEachChild((child) => {
    walk(child, visit)
    return undefined
  })
}
