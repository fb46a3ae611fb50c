/** The checks of bundle-size on small programs: what a browser can load passes, what it can't is named. */
import assert from "node:assert/strict"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { test } from "node:test"
import { formatTable, measure, tableProblem, withTable } from "./bundle-size.mjs"

const measured = async (files, lean) => {
  const root = mkdtempSync(join(tmpdir(), "bundle-size-"))
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      writeFileSync(join(root, file), text)
    }
    return await measure("./page.mjs", root, lean)
  } finally {
    rmSync(root, { recursive: true })
  }
}

const handshake = {
  "packages/core/dist/engine/Handshake.js": "export const offer = () => console.log('an offer')",
  "packages/core/dist/engine/utf8.js": "export const isValid = () => console.log('valid')"
}

test("a program that browsers can load has sizes and no problem", async () => {
  const { problems, sizes } = await measured({
    ...handshake,
    "page.mjs": `import { isValid } from "./packages/core/dist/engine/utf8.js"
      import { offer } from "./packages/core/dist/engine/Handshake.js"
      isValid(new ArrayBuffer(1), { process: 1 }.process)`
  })
  assert.deepEqual(problems, [])
  assert.equal(sizes.length, 4)
  for (const size of sizes) assert.ok(size > 0)
})

const bad = [
  ["a module of Node's", { "page.mjs": `import "node:net"` }, /Could not resolve "node:net"/],
  ["one without its prefix", { "page.mjs": `import * as fs from "fs"\nfs.read()` }, /Could not resolve "fs"/],
  ["Buffer", { "page.mjs": "Buffer.from('x')" }, /^uses Buffer of Node$/],
  [
    "process, though asked for",
    { "page.mjs": "typeof process === 'object' && process.exit()" },
    /^uses process of Node$/
  ],
  [
    "what a browser has no use for",
    { ...handshake, "page.mjs": `import { offer } from "./packages/core/dist/engine/Handshake.js"\noffer()` },
    /^holds packages\/core\/dist\/engine\/Handshake\.js/
  ]
]
for (const [name, files, problem] of bad) {
  test(`named: ${name}`, async () => {
    const { problems } = await measured(files)
    assert.equal(problems.length, 1)
    assert.match(problems[0], problem)
  })
}

test("the table: what it states is compared, and replaced", () => {
  const rows = [
    { name: "one", sizes: [10_000, 5000, 1000, 500] },
    { name: "two", sizes: [200_000, 60_000, 20_000, 8000] }
  ]
  const stating = (rows) => `before\n<!-- bundles -->\n${formatTable(rows)}\n<!-- /bundles -->\nafter`
  assert.equal(tableProblem(stating(rows), rows), undefined)
  const [one, two] = rows
  assert.match(tableProblem(stating([one]), rows), /1 bundles of 2/)
  assert.match(tableProblem(stating([two, one]), rows), /"two" where "one" is next/)
  const grown = [one, { ...two, sizes: [200_000, 60_000, 20_000, 8500] }]
  assert.match(tableProblem(stating(rows), grown), /states 8\.0 kB for "two", which has 8\.5 kB/)
  assert.equal(tableProblem(withTable(stating(rows), grown), grown), undefined)
  assert.match(tableProblem("no table", rows), /has no table/)
})
