import { EventEmitter } from "node:events"
import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { fromNode, type NodeResponse } from "../src/internal/outlet.js"

/** A response that holds more than its network takes. */
class FullResponse extends EventEmitter {
  readonly socket = null
  readonly writableLength = 100_000
  readonly writableNeedDrain = true
  readonly writableEnded = false
  destroyed = false
  destroy() {
    this.destroyed = true
  }
}

describe("to break a response that is not written yet", () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  const rows: ReadonlyArray<readonly [string, (response: FullResponse) => unknown]> = [
    ["until it is", (response) => response.emit("drain")],
    ["until the client has left", (response) => response.emit("close")],
    ["five seconds at most", () => vi.advanceTimersByTime(5000)]
  ]
  for (const [name, happens] of rows) {
    it(`waits ${name}, and leaves no timer and no listener behind`, () => {
      const response = new FullResponse()
      let times = 0
      fromNode(response as unknown as NodeResponse).abort(() => times++)
      assert.strictEqual(times, 0)
      happens(response)
      assert.strictEqual(times, 1)
      assert.isTrue(response.destroyed)
      assert.strictEqual(vi.getTimerCount(), 0)
      assert.deepStrictEqual(response.eventNames(), [])
    })
  }
})
