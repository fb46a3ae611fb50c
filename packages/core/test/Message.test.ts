import { assert, describe, it } from "@effect/vitest"
import { Message } from "@effect-ws/core"

describe("Message", () => {
  const bytes = new Uint8Array([1, 2])
  const rows: ReadonlyArray<readonly [string, Message.Message, Message.Kind]> = [
    ["a string is text", "x", "text"],
    ["the empty string too", "", "text"],
    ["bytes are binary", bytes, "binary"],
    ["no bytes too", new Uint8Array(0), "binary"],
    ["a subclass too", Buffer.from("x"), "binary"]
  ]
  for (const [what, message, kind] of rows) {
    it(`${what} (RFC 6455 §5.6)`, () => {
      assert.strictEqual(Message.kind(message), kind)
      assert.strictEqual(Message.isText(message), kind === "text")
      assert.strictEqual(Message.isBinary(message), kind === "binary")
      const seen = Message.match(message, { text: (text) => ["text", text], binary: (all) => ["binary", all] })
      assert.deepStrictEqual(seen, [kind, message])
    })
  }
})
