import * as CloseCode from "../engine/CloseCode.js"
import type { CloseInfo } from "../engine/Protocol.js"

/** How a conversation ends whose transport was lost. RFC 6455 §7.1.5. */
export const lost: CloseInfo = {
  code: CloseCode.abnormal,
  reason: "",
  clean: false,
  initiator: "transport",
  sent: undefined,
  received: undefined,
  violation: undefined
}
