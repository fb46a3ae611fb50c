import { assert, describe, it } from "@effect/vitest"
import { Upgrade } from "@effect-ws/core"

describe("isWebSocket", () => {
  const rows: ReadonlyArray<
    readonly [what: string, request: Parameters<typeof Upgrade.isWebSocket>[0], expected: boolean]
  > = [
    ["a handshake", { method: "GET", headers: { upgrade: "websocket", connection: "Upgrade" } }, true],
    ["in any case", { method: "GET", headers: { upgrade: "WebSocket", connection: "upgrade" } }, true],
    [
      "tokens in lists (RFC 9110 §7.6.1, §7.8)",
      { method: "GET", headers: { upgrade: "h2c, websocket", connection: "keep-alive, Upgrade" } },
      true
    ],
    ["headers as arrays", { method: "GET", headers: { upgrade: ["websocket"], connection: ["a", "upgrade"] } }, true],
    ["an ordinary request", { method: "GET", headers: {} }, false],
    ["another protocol", { method: "GET", headers: { upgrade: "h2c", connection: "Upgrade" } }, false],
    ["a part of a token", { method: "GET", headers: { upgrade: "websockets", connection: "Upgrade" } }, false],
    ["no Connection: Upgrade", { method: "GET", headers: { upgrade: "websocket", connection: "close" } }, false],
    ["another method", { method: "POST", headers: { upgrade: "websocket", connection: "Upgrade" } }, false]
  ]
  for (const [what, request, expected] of rows)
    it(what, () => assert.strictEqual(Upgrade.isWebSocket(request), expected))
})
