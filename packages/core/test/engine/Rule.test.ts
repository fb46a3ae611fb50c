import { assert, describe, it } from "@effect/vitest"
import * as CloseCode from "../../src/engine/CloseCode.js"
import * as Rule from "../../src/engine/Rule.js"

describe("Rule", () => {
  for (const [name, { code, section, says }] of Object.entries(Rule.rules)) {
    it(`${name} has a code that may be sent, a section and a sentence that fits in a close reason`, () => {
      assert.isTrue(CloseCode.isSendable(code))
      assert.match(section, /^RFC \d+ §[\d.]+$/)
      assert.isAtMost(new TextEncoder().encode(`${says}, ${section}`).length, CloseCode.maxReasonBytes)
    })
  }

  it("a violation has the code of its rule and reads as a sentence", () => {
    const broken = Rule.violation("ReservedOpcode", "opcode 0x3")
    assert.deepStrictEqual(broken, { _tag: "Violation", rule: "ReservedOpcode", code: 1002, detail: "opcode 0x3" })
    assert.strictEqual(Rule.describe(broken), "reserved opcode (opcode 0x3), RFC 6455 §5.2")
    assert.strictEqual(Rule.describe(Rule.violation("InvalidText")), "text is not UTF-8, RFC 6455 §8.1")
  })

  /** §7.4.1: which code says what. */
  const codes: ReadonlyArray<readonly [Rule.Rule, number]> = [
    ["InvalidText", 1007],
    ["InvalidCloseReason", 1007],
    ["ExtensionData", 1007],
    ["TooManyPings", 1008],
    ["MessageTooBig", 1009],
    ["ExtensionFailure", 1011]
  ]
  it("everything that is not listed is 1002", () => {
    for (const [name, { code }] of Object.entries(Rule.rules)) {
      assert.strictEqual(code, codes.find(([rule]) => rule === name)?.[1] ?? 1002, name)
    }
  })
})
