/** How conversations end without both close frames. */
import * as CloseCode from "./CloseCode.js"
import type { CloseFrame, CloseInfo } from "./Protocol.js"
import { describe, type Violation } from "./Rule.js"

/** The transport was lost before any close frame (RFC 6455 §7.1.5). */
export const lost: CloseInfo = {
  code: CloseCode.abnormal,
  reason: "",
  clean: false,
  initiator: "transport",
  sent: undefined,
  received: undefined,
  violation: undefined
}

/** The peer broke a rule, and we said so with `sent` if we could (§7.1.7). */
export const failure = (broken: Violation, sent: CloseFrame | undefined): CloseInfo => ({
  code: broken.code,
  reason: describe(broken),
  clean: false,
  initiator: "local",
  sent,
  received: undefined,
  violation: broken
})
