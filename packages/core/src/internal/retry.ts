/**
 * Which ends of a connection a client tries again after, and when the server says so.
 */
import { type ConnectionClosed, type ConnectionError, HandshakeError, type MessageError } from "../WebSocketError.js"

/** Close codes after which the same would happen again, or which say that all is done. */
const finalCloseCodes: ReadonlySet<number> = new Set([
  1000, // the purpose was fulfilled
  1002, // we broke the protocol
  1003, // we sent what the server does not take
  1007, // we sent what is not consistent
  1008, // we broke a policy
  1009, // we sent too much at once
  1010, // an extension is missing
  3000, // unauthorized (IANA)
  3003 // forbidden (IANA)
])

export const isRetryable = (error: unknown): boolean => {
  if (typeof error !== "object" || error === null || !("_tag" in error)) return true
  switch (error._tag) {
    case "HandshakeError":
      return isRetryableHandshake(error as HandshakeError)
    case "ConnectionClosed":
      return isRetryableClose(error as ConnectionClosed)
    case "ProtocolError" satisfies ConnectionError["_tag"]:
    case "MessageError" satisfies MessageError["_tag"]:
      return false
    default:
      return true
  }
}

/** A gap is told: whoever wants to go on after it says so (`onGap`, `retryable`). */
const isRetryableClose = ({ cause, code }: ConnectionClosed): boolean =>
  !finalCloseCodes.has(code) && cause?._tag !== "ResumeGap"

/** Answers that may be others a moment later: 408, 425, 429, and 5xx but for 501 and 505. */
const isRetryableHandshake = ({ phase, reason, status = 0 }: HandshakeError): boolean => {
  if (phase === "Request" || reason === "Invalid") return false
  if (reason !== "Refused") return true
  return status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 501 && status !== 505)
}

/** The wait that `Retry-After` asks for, in milliseconds (RFC 9110 §10.2.3: seconds or a date). */
export const retryAfterMillis = (error: unknown, now: number): number | undefined => {
  if (!(error instanceof HandshakeError) || error.reason !== "Refused") return undefined
  const value = error.headers?.["retry-after"]?.trim()
  if (value === undefined) return undefined
  if (/^\d+$/.test(value)) return Number(value) * 1000
  // A date begins with the name of its day; Date.parse takes much else.
  const date = /^[A-Z][a-z]{2,8},? /.test(value) ? Date.parse(value) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
