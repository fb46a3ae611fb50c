/** Each rule of check-imports, broken in a small workspace of its own: the check must name that line and nothing else. */
import assert from "node:assert/strict"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { test } from "node:test"
import { checkImports } from "./check-imports.mjs"

const exportsOf = (extra) => ({
  ".": { types: "./dist/index.d.ts", default: "./dist/index.js" },
  "./package.json": "./package.json",
  "./internal/*": null,
  ...extra,
  "./*": { types: "./dist/*.d.ts", default: "./dist/*.js" }
})

const engineExport = { types: "./dist/engine/index.d.ts", default: "./dist/engine/index.js" }

/** A workspace without a fault. Objects are written as JSON. */
const sound = {
  "package.json": { workspaces: ["packages/core", "packages/node", "packages/eventsource", "examples"] },
  "packages/core/package.json": {
    name: "@effect-ws/core",
    exports: exportsOf({ "./engine": engineExport, "./engine/*": null }),
    peerDependencies: { effect: "*", "@effect/platform": "*" }
  },
  "packages/core/src/index.ts": `export * as Message from "./Message.js"`,
  "packages/core/src/Message.ts": `import { Stream } from "effect"
    import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
    import { Protocol } from "./engine/index.js"
    import { wait } from "./internal/wait.js"
    export const process = (chunk: { Buffer: number }) => [chunk.Buffer, Stream, HttpServerRequest, Protocol, wait]`,
  "packages/core/src/internal/wait.ts": `export const wait = 1`,
  "packages/core/src/engine/index.ts": `export * as Protocol from "./Protocol.js"`,
  "packages/core/src/engine/Protocol.ts": `import type { Frame } from "./Frame.js"
    import { mask } from "./mask.js"
    export type Step = (frame: Frame) => typeof mask`,
  "packages/core/src/engine/Frame.ts": `import type { Opcode } from "./Opcode.js"
    export type Frame = { readonly opcode: Opcode }`,
  "packages/core/src/engine/Opcode.ts": `import type { Frame } from "./Frame.js"
    export type Opcode = Frame["opcode"]`,
  "packages/core/src/engine/mask.ts": `export const mask = 0`,
  "packages/node/package.json": {
    name: "@effect-ws/node",
    exports: exportsOf({}),
    dependencies: { "@effect-ws/core": "*" }
  },
  "packages/node/src/index.ts": `import { createServer } from "node:http"
    import * as Message from "@effect-ws/core/Message"
    import { Protocol } from "@effect-ws/core/engine"
    export const bytes = [Buffer.alloc(1), createServer, Message, Protocol]`,
  "packages/eventsource/package.json": { name: "@effect-ws/eventsource", exports: exportsOf({}), dependencies: {} },
  "packages/eventsource/src/index.ts": `export {}`,
  "examples/package.json": { name: "@effect-ws/examples", private: true, devDependencies: { "@effect-ws/node": "*" } },
  "examples/src/echo.ts": `import { bytes } from "@effect-ws/node"
    console.log(bytes)`
}

const check = (changes) => {
  const root = mkdtempSync(join(tmpdir(), "check-imports-"))
  try {
    for (const [file, content] of Object.entries({ ...sound, ...changes })) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      writeFileSync(join(root, file), typeof content === "string" ? content : JSON.stringify(content))
    }
    return checkImports(root).map(({ file, line, rule }) => `${file}:${line} ${rule}`)
  } finally {
    rmSync(root, { recursive: true })
  }
}

test("a sound workspace has no finding", () => assert.deepEqual(check({}), []))

const core = "packages/core/src"
const node = "packages/node/src"
const eventsource = "packages/eventsource/src"

/** What is written into which file, and what the check must say. */
const rows = [
  ["the engine imports effect", `${core}/engine/mask.ts`, `import "effect"`, "engine-alone"],
  [
    "the engine imports a type of effect",
    `${core}/engine/mask.ts`,
    `export type { Effect } from "effect"`,
    "engine-alone"
  ],
  ["the engine imports the layer above it", `${core}/engine/mask.ts`, `import "../internal/wait.js"`, "engine-alone"],
  [
    "the engine imports a Node module",
    `${core}/engine/mask.ts`,
    `export const z = import("node:zlib")`,
    "engine-alone"
  ],
  ["bytes import the codec", `${core}/engine/mask.ts`, `import type { Frame } from "./Frame.js"`, "engine-layers"],
  [
    "bytes import the protocol",
    `${core}/engine/mask.ts`,
    `export type S = import("./Protocol.js").Step`,
    "engine-layers"
  ],
  ["the codec imports the protocol", `${core}/engine/Frame.ts`, `export * from "./Protocol.js"`, "engine-layers"],
  [
    "the engine imports its own index",
    `${core}/engine/Protocol.ts`,
    `export type * from "./index.js"`,
    "engine-layers"
  ],
  ["an engine file of no layer", `${core}/engine/Novel.ts`, `import "./Frame.js"`, "engine-layers"],
  ["core imports a Node module", `${core}/Message.ts`, `import * as http from "node:http"`, "portable"],
  ["core imports a Node module by its bare name", `${core}/Message.ts`, `import "fs"`, "portable"],
  ["core uses Buffer", `${core}/Message.ts`, "export const empty = Buffer.alloc(0)", "portable"],
  ["core names the type Buffer", `${core}/Message.ts`, "export type Bytes = Buffer | string", "portable"],
  ["core uses process", `${core}/internal/wait.ts`, "export const argv = { process }", "portable"],
  [
    "core reaches for globalThis.process",
    `${core}/Message.ts`,
    "export const p = (globalThis as any).process",
    "portable"
  ],
  ["core indexes globalThis", `${core}/Message.ts`, `export const p = globalThis["Buffer"]`, "portable"],
  ["core declares Node's global", `${core}/Message.ts`, "declare const process: unknown", "portable"],
  ["core asks for Node's types", `${core}/Message.ts`, `/// <reference types="node" />`, "portable"],
  ["core imports node", `${core}/Message.ts`, `import "@effect-ws/node"`, "packages"],
  ["eventsource imports node", `${eventsource}/index.ts`, `import "@effect-ws/node"`, "packages"],
  ["node imports eventsource", `${node}/index.ts`, `import "@effect-ws/eventsource"`, "packages"],
  ["a package that no table allows", `${core}/Message.ts`, `import "ws"`, "packages"],
  ["an allowed package that is not declared", `${eventsource}/index.ts`, `import "@effect-ws/core"`, "packages"],
  ["an example imports what it does not declare", "examples/src/echo.ts", `import "@effect-ws/core"`, "packages"],
  ["a package imports itself by name", `${node}/index.ts`, `import "@effect-ws/node"`, "published"],
  ["a relative import into another package", `${node}/index.ts`, `import "../../core/src/index.js"`, "published"],
  [
    "an example imports a package by its path",
    "examples/src/echo.ts",
    `import "../../packages/node/src/index.js"`,
    "published"
  ],
  ["a relative import of nothing", `${node}/index.ts`, `import "./absent.js"`, "published"],
  ["an internal module of another package", `${node}/index.ts`, `import "@effect-ws/core/internal/wait"`, "published"],
  ["a closed folder of another package", `${node}/index.ts`, `import "@effect-ws/core/engine/mask"`, "published"],
  ["a module that another package lacks", `${node}/index.ts`, `import "@effect-ws/core/Absent"`, "published"],
  [
    "an augmented module that is not published",
    `${node}/index.ts`,
    `declare module "@effect-ws/core/Absent" {}`,
    "published"
  ],
  ["a module that imports itself", `${core}/internal/wait.ts`, `import * as self from "./wait.js"`, "cycles"]
]

for (const [name, file, text, rule] of rows) {
  test(`${rule}: ${name}`, () => {
    const before = rule === "cycles" || rule === "engine-layers" ? "" : (sound[file] ?? "")
    const line = rule === "portable" && text.startsWith("///") ? 1 : before === "" ? 1 : before.split("\n").length + 1
    const content = line === 1 ? `${text}\n${before}` : `${before}\n${text}`
    assert.deepEqual(check({ [file]: content }), [`${file}:${line} ${rule}`])
  })
}

test("cycles: three modules in a circle, reported once", () => {
  const circle = (to) => `import * as next from "./${to}.js"\nexport { next }`
  const files = { "A.ts": circle("B"), "B.ts": circle("C"), "C.ts": circle("A") }
  const changes = Object.fromEntries(Object.entries(files).map(([file, text]) => [`${node}/${file}`, text]))
  assert.deepEqual(check(changes), [`${node}/C.ts:1 cycles`])
})

test("exports: each target is a module of src, types beside code", () => {
  const manifest = (exports) => ({ ...sound["packages/node/package.json"], exports: exportsOf(exports) })
  const target = (types, code) => ({ "./Extra": { types, default: code } })
  const finding = ["packages/node/package.json:1 exports"]
  assert.deepEqual(check({ "packages/node/package.json": manifest(target("./dist/X.d.ts", "./dist/X.js")) }), finding)
  assert.deepEqual(
    check({ "packages/node/package.json": manifest(target("./dist/index.d.ts", "./dist/X.js")) }),
    finding
  )
  assert.deepEqual(check({ "packages/node/package.json": manifest({ "./Extra": "./dist/index.js" }) }), finding)
  assert.deepEqual(
    check({ "packages/node/package.json": manifest(target("./dist/index.d.ts", "./dist/index.js")) }),
    []
  )
})
