import { assert, describe, it } from "@effect/vitest"
import * as CloseCode from "../../src/engine/CloseCode.js"

describe("CloseCode.isSendable (RFC 6455 §7.4, IANA registry)", () => {
  const sendable = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
  for (const code of sendable) it(`${code} may be sent`, () => assert.isTrue(CloseCode.isSendable(code)))

  const never: ReadonlyArray<readonly [code: number, why: string]> = [
    [-1, "no code"],
    [0, "§7.4.2: 0 to 999 are not used"],
    [999, "§7.4.2: 0 to 999 are not used"],
    [1004, "§7.4.1: reserved"],
    [1005, "§7.4.1: no code was received"],
    [1006, "§7.4.1: no close frame was received"],
    [1015, "§7.4.1: the TLS handshake failed"],
    [1016, "unassigned"],
    [2999, "§7.4.2: for the protocol and extensions"],
    [5000, "§7.4.2: ends at 4999"],
    [65535, "§7.4.2: ends at 4999"],
    [1000.5, "no integer"],
    [Number.NaN, "no number"]
  ]
  for (const [code, why] of never) it(`${code}: ${why}`, () => assert.isFalse(CloseCode.isSendable(code)))
})
