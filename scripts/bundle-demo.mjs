/** Bundles the script of the demo's page: examples/src/demo/page to examples/dist/demo/app.js. Needs built packages. */
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"
import { workspaceRoot } from "./lib/workspace.mjs"

/** Rejects with what esbuild says about the sources. Vitest runs it before the tests that start the demo. */
export const setup = async () => {
  await build({
    entryPoints: [join(workspaceRoot, "examples/src/demo/page/main.ts")],
    outfile: join(workspaceRoot, "examples/dist/demo/app.js"),
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    logLevel: "silent"
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await setup()
  } catch (error) {
    console.error(`The script of the demo's page can't be bundled: ${error.message}`)
    process.exitCode = 1
  }
}
