/**
 * The WebAssembly module of the engine, as text in a source file: made from frames.wat by `--write`, else compared with it.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import makeWabt from "wabt"
import { workspaceRoot } from "./lib/workspace.mjs"

const folder = join(workspaceRoot, "packages/core/src/engine")

/** The source file for a module in the text format; throws where that is wrong. */
export const assemble = async (text) => {
  const wabt = await makeWabt()
  const module = wabt.parseWat("frames.wat", text, { simd: true })
  try {
    module.validate()
    const base64 = Buffer.from(module.toBinary({}).buffer).toString("base64")
    return `/** frames.wat, assembled by scripts/assemble.mjs, in base64. */\nexport const framesModule =\n  "${base64}"\n`
  } finally {
    module.destroy()
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const target = join(folder, "framesModule.ts")
  const wanted = await assemble(readFileSync(join(folder, "frames.wat"), "utf8"))
  if (process.argv.includes("--write")) writeFileSync(target, wanted)
  else if (readFileSync(target, "utf8") !== wanted) {
    console.error("framesModule.ts is not what frames.wat says: node scripts/assemble.mjs --write")
    process.exitCode = 1
  }
}
