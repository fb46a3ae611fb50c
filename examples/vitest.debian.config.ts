import { defineConfig, mergeConfig } from "vitest/config"
import shared from "../vitest.shared.js"

/** Not a project of the workspace: `scripts/test-debian.sh` runs it, where the programs are installed. */
export default mergeConfig(
  shared,
  defineConfig({
    test: {
      testTimeout: 60_000,
      name: "debian",
      root: import.meta.dirname,
      include: ["test-debian/**/*.test.ts"],
      globalSetup: ["../scripts/bundle-demo.mjs"],
      fileParallelism: false
    }
  })
)
