/** The rules that a peer can break after the opening handshake, each with the close code it leads to. */
import * as CloseCode from "./CloseCode.js"

const define = <const R extends Record<string, { code: number; section: string; says: string }>>(rules: R) => rules

/** Every rule, with its close code, the section it comes from and a sentence for people. @since 0.1.0 */
export const rules = define({
  ReservedBits: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.2",
    says: "a reserved bit is set that no extension uses"
  },
  ReservedOpcode: { code: CloseCode.protocolError, section: "RFC 6455 §5.2", says: "reserved opcode" },
  FragmentedControl: { code: CloseCode.protocolError, section: "RFC 6455 §5.5", says: "fragmented control frame" },
  ControlTooLong: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.5",
    says: "control frame longer than 125 bytes"
  },
  MaskRequired: { code: CloseCode.protocolError, section: "RFC 6455 §5.1", says: "a client must mask its frames" },
  MaskForbidden: { code: CloseCode.protocolError, section: "RFC 6455 §5.1", says: "a server must not mask its frames" },
  LengthNotMinimal: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.2",
    says: "payload length not encoded in the fewest bytes"
  },
  LengthHighBit: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.2",
    says: "the highest bit of a 64-bit payload length is set"
  },
  UnexpectedContinuation: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.4",
    says: "continuation without a message to continue"
  },
  ExpectedContinuation: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.4",
    says: "new message before the last one ended"
  },
  ClosePayload: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §5.5.1",
    says: "close frame with a payload of one byte"
  },
  InvalidCloseCode: {
    code: CloseCode.protocolError,
    section: "RFC 6455 §7.4",
    says: "close code that must not be sent"
  },
  InvalidCloseReason: { code: CloseCode.invalidPayload, section: "RFC 6455 §5.5.1", says: "close reason is not UTF-8" },
  InvalidText: { code: CloseCode.invalidPayload, section: "RFC 6455 §8.1", says: "text is not UTF-8" },
  MessageTooBig: { code: CloseCode.messageTooBig, section: "RFC 6455 §10.4", says: "message too big" },
  TooManyPings: {
    code: CloseCode.policyViolation,
    section: "RFC 6455 §5.5.2",
    says: "too many pings waiting for their pong"
  },
  ExtensionData: {
    code: CloseCode.invalidPayload,
    section: "RFC 7692 §7.2.2",
    says: "an extension could not decode the payload"
  },
  ExtensionFailure: { code: CloseCode.internalError, section: "RFC 6455 §7.4.1", says: "an extension failed" }
})

/** The name of a rule. @since 0.1.0 */
export type Rule = keyof typeof rules

/** A rule that the peer broke: the close code that answers it, and what was seen. @since 0.1.0 */
export interface Violation {
  readonly _tag: "Violation"
  readonly rule: Rule
  readonly code: number
  readonly detail: string
}

/** A violation of `rule`; `detail` says what was seen. @since 0.1.0 */
export const violation = (rule: Rule, detail = ""): Violation => ({
  _tag: "Violation",
  rule,
  code: rules[rule].code,
  detail
})

/** `rule` in words, with what was seen. @since 0.1.0 */
export const describe = (self: Violation): string =>
  `${rules[self.rule].says}${self.detail === "" ? "" : ` (${self.detail})`}, ${rules[self.rule].section}`
