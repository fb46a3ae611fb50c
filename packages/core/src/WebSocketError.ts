/**
 * What can go wrong, by whose fault it is: the handshake, the network, the peer, or the end of the conversation. Each tag
 * is something a caller would handle differently; inside a tag a `reason` or `rule` says which.
 *
 *     HandshakeError      no connection came about (status, headers and body of the refusal, or the phase that failed)
 *     ConnectionClosed    the conversation ended: both close frames, or 1006 with the TransportError that cut it
 *     ProtocolError       the peer broke a rule of RFC 6455
 *     HeartbeatTimeout    the peer stopped answering
 *     MessageError        a message does not fit its contract, with the field
 *     ResumeGap           a resumable session could not be continued (the cause of a ConnectionClosed)
 *     ResumeViolation     the peer broke a rule of resumable sessions (the cause of a ConnectionClosed)
 *     TransportError      what the network said (the cause of the others)
 *
 * Breaking a rule that the types could not express (a close code of 1005, a ping of 200 bytes) is a defect.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as ParseResult from "effect/ParseResult"
import type { CloseInfo } from "./engine/Protocol.js"
import { describe, type Rule, rules, type Violation } from "./engine/Rule.js"

export type {
  /**
   * A close frame: its code, `undefined` when it has none (RFC 6455 §5.5.1), and its reason.
   *
   * @since 0.1.0
   * @category models
   */
  CloseFrame,
  /**
   * How a connection ended: code and reason, who began, whether both close frames passed, what was sent and received.
   *
   * @since 0.1.0
   * @category models
   */
  CloseInfo
} from "./engine/Protocol.js"
export type {
  /**
   * The name of a rule that a peer can break.
   *
   * @since 0.1.0
   * @category models
   */
  Rule
} from "./engine/Rule.js"

/**
 * The network failed: a reset, a failed write, a TLS error. `cause` is the platform's own error.
 *
 * @since 0.1.0
 * @category errors
 */
export class TransportError extends Data.TaggedError("TransportError")<{
  readonly reason: "Read" | "Write" | "Reset" | "Dial"
  readonly cause: unknown
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return `the transport failed (${this.reason}): ${causeMessage(this.cause)}`
  }
}

/**
 * The conversation is over. `info` has the code (the peer's, 1005 for none, 1006 if the transport was lost), the reason,
 * both close frames and who began. RFC 6455 §7.1.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConnectionClosed extends Data.TaggedError("ConnectionClosed")<{
  readonly info: CloseInfo
  readonly cause?: TransportError | ResumeGap | ResumeViolation | undefined
}> {
  /** @since 0.1.0 */
  get code(): number {
    return this.info.code
  }
  /** @since 0.1.0 */
  get reason(): string {
    return this.info.reason
  }
  /** @since 0.1.0 */
  override get message(): string {
    const { code, initiator, reason } = this.info
    const by = initiator === "transport" ? "the transport was lost" : `closed by the ${initiator} side`
    return `${by}: code ${code}${reason === "" ? "" : `, "${reason}"`}${this.cause ? `; ${this.cause.message}` : ""}`
  }
}

/**
 * The peer broke a rule of RFC 6455 and was told so with `code`.
 *
 * @since 0.1.0
 * @category errors
 */
export class ProtocolError extends Data.TaggedError("ProtocolError")<{
  readonly rule: Rule
  /** The close code that was sent. */
  readonly code: number
  /** What was seen. */
  readonly detail: string
}> {
  /** @since 0.1.0 */
  static fromViolation(violation: Violation): ProtocolError {
    return new ProtocolError({ rule: violation.rule, code: violation.code, detail: violation.detail })
  }
  /** The section of the RFC that states the rule. @since 0.1.0 */
  get section(): string {
    return rules[this.rule].section
  }
  /** @since 0.1.0 */
  override get message(): string {
    return `the peer broke a rule: ${describe({ _tag: "Violation", rule: this.rule, code: this.code, detail: this.detail })}`
  }
}

/**
 * No byte came within `timeout` of a heartbeat's ping; the transport was cut.
 *
 * @since 0.1.0
 * @category errors
 */
export class HeartbeatTimeout extends Data.TaggedError("HeartbeatTimeout")<{
  readonly timeout: Duration.Duration
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return "the peer did not answer the heartbeat's ping"
  }
}

/**
 * No connection came about.
 *
 * `phase` says how far it got: `Dial` (TCP or Unix socket), `Tls`, `Proxy` (CONNECT), `Request` (options that can't be sent),
 * `Response` (waiting for the 101 or its contents). `reason` is `Timeout` when the phase took too long, `Refused` for an
 * HTTP answer other than 101 (see `status`, `headers` and up to 64 KiB of `body`), `Invalid` when a rule of RFC 6455 §4 was
 * broken, `Failed` when the network or the platform failed (see `cause`).
 *
 * @since 0.1.0
 * @category errors
 */
export class HandshakeError extends Data.TaggedError("HandshakeError")<{
  readonly phase: "Dial" | "Tls" | "Proxy" | "Request" | "Response"
  readonly reason: "Timeout" | "Refused" | "Invalid" | "Failed"
  readonly detail: string
  readonly url?: string | undefined
  readonly status?: number | undefined
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined
  readonly body?: string | undefined
  readonly cause?: unknown
}> {
  /** @since 0.1.0 */
  override get message(): string {
    const at = this.url === undefined ? "" : ` with ${this.url}`
    const cause = this.cause === undefined ? "" : `: ${causeMessage(this.cause)}`
    return `opening handshake${at} failed (${this.phase}, ${this.reason}): ${this.detail}${cause}`
  }
}

/**
 * A message does not fit its contract. `reason` is `Kind` for text where bytes were expected or the other way round, `Undecodable`
 * for what the codec can't read (text that is no JSON), `Mismatch` for a value that the schema refuses; then `path` names the
 * field and `cause` has all that the schema said. `Unencodable` is a message of our own that does not fit: sending it is a defect.
 *
 * `detail` may quote the message; it is never sent to the peer.
 *
 * @since 0.1.0
 * @category errors
 */
export class MessageError extends Data.TaggedError("MessageError")<{
  readonly reason: "Kind" | "Undecodable" | "Mismatch" | "Unencodable"
  /** The way from the message to the field, empty for the message itself. */
  readonly path: ReadonlyArray<PropertyKey>
  readonly detail: string
  readonly cause?: ParseResult.ParseError | undefined
}> {
  /** The close code for it: 1003, 1007 or 1008 (RFC 6455 §7.4.1); 1011 for a message of our own. */
  get code(): number {
    return messageErrorCodes[this.reason]
  }
  /** The field as text, `items[0].name`; empty for the message itself. */
  get field(): string {
    return this.path.reduce<string>(
      (text, key) => (typeof key === "number" ? `${text}[${key}]` : `${text}${text === "" ? "" : "."}${String(key)}`),
      ""
    )
  }
  /** @since 0.1.0 */
  override get message(): string {
    const at = this.path.length === 0 ? "" : ` at ${this.field}`
    return `a message does not fit its contract (${this.reason}${at}): ${this.detail}`
  }
}

const messageErrorCodes = { Kind: 1003, Undecodable: 1007, Mismatch: 1008, Unencodable: 1011 } as const

/**
 * A resumable session ended before all was delivered, so that messages may be missing. It is the `cause` of the
 * `ConnectionClosed` (code 1006) with which the connection ends, and what `onGap` gets.
 *
 * - `Expired`: no transport came back within `ttl` (server);
 * - `Evicted`: more than `maxDetached` sessions had no transport, and this was the oldest (server);
 * - `Overflow`: a store gave up messages that the other end had not got (both ends);
 * - `Unknown`: the server does not know the session: expired, evicted, restarted without its store, of another route or owner (client);
 * - `Ended`: the server ended the session before it had taken all that was sent (client);
 * - `Store`: what a `KeyValueStore` kept of the session can't be read or written (both).
 *
 * @since 0.1.0
 * @category errors
 */
export class ResumeGap extends Data.TaggedError("ResumeGap")<{
  readonly reason: "Expired" | "Evicted" | "Overflow" | "Unknown" | "Ended" | "Store"
  /** Messages that were received in this session. */
  readonly received: number
  /** Messages that were sent in this session. */
  readonly sent: number
  /** Those of them, still encoded, that the store had and the peer did not acknowledge: they may or may not have been taken. */
  readonly unacknowledged: ReadonlyArray<string | Uint8Array>
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return `the session can't be continued (${this.reason}): ${this.unacknowledged.length} messages were not acknowledged`
  }
}

/**
 * The peer sent what is no frame of a resumable session, or not in this place. It was told so with 1002.
 *
 * @since 0.1.0
 * @category errors
 */
export class ResumeViolation extends Data.TaggedError("ResumeViolation")<{
  readonly detail: string
}> {
  /** @since 0.1.0 */
  override get message(): string {
    return `not the protocol of resumable sessions: ${this.detail}`
  }
}

/**
 * How `messages` and `take` fail: the end of the conversation, a broken rule, a dead peer.
 *
 * @since 0.1.0
 * @category errors
 */
export type ConnectionError = ConnectionClosed | ProtocolError | HeartbeatTimeout

const causeMessage = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
