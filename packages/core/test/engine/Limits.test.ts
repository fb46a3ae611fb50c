import { assert, it } from "@effect/vitest"
import * as Limits from "../../src/engine/Limits.js"

it("the defaults are the documented ones", () => {
  assert.deepStrictEqual(Limits.defaults, {
    maxMessageBytes: 1024 * 1024,
    maxPendingPongs: 60,
    maxQueuedMessages: 16,
    maxQueuedBytes: 1024 * 1024
  })
})
