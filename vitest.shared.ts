import { fileURLToPath } from "node:url"
import type { ViteUserConfig } from "vitest/config"

const packages = fileURLToPath(new URL("./packages/", import.meta.url))

/** Tests run on the sources, so that a failure points at the line that was written. */
const config: ViteUserConfig = {
  esbuild: { target: "es2022" },
  resolve: {
    alias: [
      { find: /^@effect-ws\/core\/engine$/, replacement: `${packages}core/src/engine/index.ts` },
      { find: /^@effect-ws\/(core|node|eventsource)$/, replacement: `${packages}$1/src/index.ts` },
      { find: /^@effect-ws\/(core|node|eventsource)\/(.+)$/, replacement: `${packages}$1/src/$2.ts` }
    ]
  },
  test: {
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
}
export default config
