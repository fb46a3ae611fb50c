/** The checks of check-docs on small workspaces of their own: what is right passes, what is wrong is named. */
import assert from "node:assert/strict"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { test } from "node:test"
import { checkDocstrings, checkExamples, checkLinks, checkQuotes } from "./check-docs.mjs"
import { workspaceRoot } from "./lib/workspace.mjs"

const inWorkspace = (files, use) => {
  const root = mkdtempSync(join(tmpdir(), "check-docs-"))
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      writeFileSync(join(root, file), text)
    }
    return use(root)
  } finally {
    rmSync(root, { recursive: true })
  }
}

test("links: to files, folders, headings and other sites", () => {
  const text = [
    "[a](docs/a.md) [b](docs/) [c](docs/a.md#one--two-1) [d](#top) [e](https://example.com/x) ![f](docs/a.md)",
    "`[not](a-link)` and [g][ref]",
    "",
    "[ref]: docs/a.md",
    "```",
    "[not](a-link)",
    "```",
    "# Top"
  ].join("\n")
  inWorkspace({ "README.md": text, "docs/a.md": "# One: `two`\n# One & two\n# One & two\n" }, (root) => {
    assert.deepEqual(checkLinks(root), [])
  })
})

test("links: broken ones are named with their line", () => {
  const text = "[a](absent.md)\n\n[b](#nowhere) [c](../outside.md)\n[ref]: gone.md\n[d](../../outside.md)\n# Top"
  inWorkspace({ "docs/a.md": text, "package.json": "{}" }, (root) => {
    assert.deepEqual(checkLinks(root), [
      "docs/a.md:1: link absent.md: leads nowhere",
      "docs/a.md:3: link #nowhere: has no such heading",
      "docs/a.md:3: link ../outside.md: leads nowhere",
      "docs/a.md:4: link gone.md: leads nowhere",
      "docs/a.md:5: link ../../outside.md: leads out of the repository"
    ])
  })
})

const example = ["const before = 0", "// #region main", "  const a = 1", "", "    a + 1", "// #endregion", ""].join(
  "\n"
)
const quote = (code, name = "main") =>
  `# Text\n\n<!-- example: src/a.ts#${name} -->\n\`\`\`ts\n${code}\`\`\`\n\nMore.\n`

test("quotes: a block that equals its region passes, another is replaced by --write", () => {
  const right = quote("const a = 1\n\n  a + 1\n")
  inWorkspace({ "README.md": right, "src/a.ts": example }, (root) => assert.deepEqual(checkQuotes(root), []))
  inWorkspace({ "README.md": quote("const a = $1\n"), "src/a.ts": example }, (root) => {
    assert.match(checkQuotes(root).join("\n"), /^README\.md:3: example src\/a\.ts#main differs/)
    assert.deepEqual(checkQuotes(root, true), [])
    assert.equal(readFileSync(join(root, "README.md"), "utf8"), right)
  })
})

test("quotes: an unknown region and a comment without a block are named", () => {
  inWorkspace({ "README.md": quote("", "other"), "src/a.ts": example }, (root) => {
    assert.match(checkQuotes(root).join("\n"), /src\/a\.ts#other does not exist/)
  })
  inWorkspace({ "README.md": "<!-- example: src/a.ts#main -->\n\nText\n", "src/a.ts": example }, (root) => {
    assert.equal(checkQuotes(root).length, 1)
  })
})

const project = (source) => ({
  "package.json": JSON.stringify({ workspaces: ["packages/core"] }),
  "packages/core/package.json": JSON.stringify({
    name: "core",
    exports: { "./internal/*": null, "./*": { types: "./dist/*.d.ts", default: "./dist/*.js" } }
  }),
  "packages/core/tsconfig.json": JSON.stringify({
    compilerOptions: { module: "nodenext", types: [] },
    include: ["src"]
  }),
  ...source
})

test("docstrings: every published symbol needs one with @since, through re-exports too", () => {
  const documented = "/**\n * Text.\n *\n * @since 0.1.0\n */\n"
  const files = project({
    "packages/core/src/index.ts": `export * as A from "./A.js"\nexport { hidden } from "./internal/b.js"`,
    "packages/core/src/A.ts": `${documented}export const a = 1\n/** Text. */\nexport const noSince = 1\nexport type None = 1`,
    "packages/core/src/internal/b.ts": "export const hidden = 1\nexport const unpublished = 1\n",
    "packages/core/src/C.ts": "/** @internal */\nexport const ours = 1\n"
  })
  inWorkspace(files, (root) => {
    assert.deepEqual(checkDocstrings(root), {
      problems: [
        "packages/core/src/A.ts:8: noSince has no @since",
        "packages/core/src/A.ts:9: None has no docstring",
        "packages/core/src/internal/b.ts:1: hidden has no docstring"
      ],
      count: 4
    })
  })
})

test("examples: those that do not compile are named at their line of the source", () => {
  const source = [
    "/**",
    " * Text.",
    " *",
    " * @example",
    " * const right: number = 1",
    " *",
    " * @example a fenced one",
    " * ```ts",
    " * // a comment",
    " * const wrong: string = 1",
    " * ```",
    " * @since 0.1.0",
    " */",
    "export const a = 1"
  ]
  inWorkspace(project({ "packages/core/src/A.ts": source.join("\n") }), (root) => {
    mkdirSync(join(root, "node_modules"))
    for (const name of ["typescript", "@types", "@typescript", "undici-types"]) {
      symlinkSync(join(workspaceRoot, "node_modules", name), join(root, "node_modules", name))
    }
    const { problems, count } = checkExamples(root)
    assert.equal(count, 2)
    assert.equal(problems.length, 1)
    assert.match(problems[0], /^packages\/core\/src\/A\.ts:10: error TS2322/)
  })
})
