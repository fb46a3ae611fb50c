/** Close codes (RFC 6455 §7.4 and the IANA WebSocket Close Code Number Registry). */

export const normal = 1000
export const goingAway = 1001
export const protocolError = 1002
export const unsupportedData = 1003
/** Never on the wire: a close frame without a code was received. */
export const noCode = 1005
/** Never on the wire: the transport was lost before the closing handshake completed. */
export const abnormal = 1006
export const invalidPayload = 1007
export const policyViolation = 1008
export const messageTooBig = 1009
export const mandatoryExtension = 1010
export const internalError = 1011
export const serviceRestart = 1012
export const tryAgainLater = 1013
export const badGateway = 1014

/** The reason shares 125 bytes with the two of the code (§5.5.1). */
export const maxReasonBytes = 123

/**
 * Whether a close frame may carry this code: 1000 to 1003, 1007 to 1014 and 3000 to 4999. 1004 is reserved, 1005, 1006 and
 * 1015 are only for local reports (§7.4.1), the others are unassigned.
 */
export const isSendable = (code: number): boolean =>
  Number.isInteger(code) &&
  ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999))
