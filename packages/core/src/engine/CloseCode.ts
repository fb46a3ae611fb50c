/** Close codes (RFC 6455 §7.4 and the IANA WebSocket Close Code Number Registry). @since 0.1.0 */

export const normal = 1000
/** Going away. @since 0.1.0 */
export const goingAway = 1001
/** Protocol error. @since 0.1.0 */
export const protocolError = 1002
/** Unsupported data. @since 0.1.0 */
export const unsupportedData = 1003
/** Never on the wire: a close frame without a code was received. @since 0.1.0 */
export const noCode = 1005
/** Never on the wire: the transport was lost before the closing handshake completed. @since 0.1.0 */
export const abnormal = 1006
/** Invalid payload. @since 0.1.0 */
export const invalidPayload = 1007
/** Policy violation. @since 0.1.0 */
export const policyViolation = 1008
/** Message too big. @since 0.1.0 */
export const messageTooBig = 1009
/** Mandatory extension. @since 0.1.0 */
export const mandatoryExtension = 1010
/** Internal error. @since 0.1.0 */
export const internalError = 1011
/** Service restart. @since 0.1.0 */
export const serviceRestart = 1012
/** Try again later. @since 0.1.0 */
export const tryAgainLater = 1013
/** Bad gateway. @since 0.1.0 */
export const badGateway = 1014

/** The reason shares 125 bytes with the two of the code (§5.5.1). @since 0.1.0 */
export const maxReasonBytes = 123

/**
 * Whether a close frame may carry this code: 1000 to 1003, 1007 to 1014 and 3000 to 4999. 1004 is reserved, 1005, 1006 and
 * 1015 are only for local reports (§7.4.1), the others are unassigned.
 *
 * @since 0.1.0
 */
export const isSendable = (code: number): boolean =>
  Number.isInteger(code) &&
  ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999))
