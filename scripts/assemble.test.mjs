import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { assemble } from "./assemble.mjs"
import { workspaceRoot } from "./lib/workspace.mjs"

const source = readFileSync(join(workspaceRoot, "packages/core/src/engine/frames.wat"), "utf8")

test("another module is another text", async () => {
  const changed = source.replace("(i32.const 127)", "(i32.const 126)")
  assert.notEqual(changed, source)
  assert.notEqual(await assemble(changed), await assemble(source))
})

test("what is no module is refused", async () => {
  await assert.rejects(assemble(source.replace("(local.get $table)", "(local.get $nothing)")))
  await assert.rejects(assemble(source.replace("(i32.const 127)", "(i64.const 127)")))
})
