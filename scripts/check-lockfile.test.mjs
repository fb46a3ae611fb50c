import assert from "node:assert/strict"
import { test } from "node:test"
import { boundToHost, completed, missingOptional } from "./check-lockfile.mjs"

test("hosts: only paths within the workspace may be resolved", () => {
  const lock = {
    packages: {
      "node_modules/own": { resolved: "packages/own", link: true },
      "node_modules/a": { resolved: "https://host.example/a.tgz" },
      "node_modules/b": { resolved: "git+ssh://git@host.example/b.git" },
      "node_modules/c": { version: "1.0.0" }
    }
  }
  assert.equal(boundToHost(lock, "fund=false\n").length, 2)
  assert.deepEqual(
    boundToHost({ packages: {} }, "registry=https://host.example\n@x:registry=https://host.example").length,
    2
  )
})

test("native builds: those that are missing are added once, in order, with their platform", () => {
  const native = "node_modules/native"
  const optionalDependencies = {
    "native-linux-x64-musl": "1.2.3",
    "@n/win32-arm64": "1.2.3",
    "native-linux-x64-gnu": "1.2.3"
  }
  const lock = {
    packages: {
      "": { name: "root" },
      [native]: { version: "1.2.3", dev: true, license: "MIT", optionalDependencies },
      "node_modules/native-linux-x64-gnu": { version: "1.2.3", integrity: "sha512-x" }
    }
  }
  assert.deepEqual(
    missingOptional(lock).map(({ name }) => name),
    ["native-linux-x64-musl", "@n/win32-arm64"]
  )
  const { packages } = completed(lock)
  assert.deepEqual(Object.keys(packages), [
    "",
    "node_modules/@n/win32-arm64",
    native,
    "node_modules/native-linux-x64-gnu",
    "node_modules/native-linux-x64-musl"
  ])
  assert.deepEqual(packages["node_modules/native-linux-x64-musl"], {
    version: "1.2.3",
    cpu: ["x64"],
    os: ["linux"],
    libc: ["musl"],
    dev: true,
    license: "MIT",
    optional: true
  })
  assert.deepEqual(completed({ packages }).packages, packages)
})
