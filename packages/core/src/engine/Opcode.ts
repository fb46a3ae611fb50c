/** Opcodes (RFC 6455 §5.2, §11.8) and the bits around them in the first byte of a frame. */

/** A fragment after the first. @since 0.1.0 */
export const continuation = 0x0
/** A text message, or its first fragment. @since 0.1.0 */
export const text = 0x1
/** A binary message, or its first fragment. @since 0.1.0 */
export const binary = 0x2
/** Closing handshake (§5.5.1). @since 0.1.0 */
export const close = 0x8
/** Asks for a pong (§5.5.2). @since 0.1.0 */
export const ping = 0x9
/** Answers a ping, or is sent unasked (§5.5.3). @since 0.1.0 */
export const pong = 0xa

/** The last fragment of a message. @since 0.1.0 */
export const finBit = 0x80
/** Reserved bits; RSV1 belongs to permessage-deflate when it is negotiated (RFC 7692 §6). @since 0.1.0 */
export const rsv1 = 0x40
/** Reserved bit that no registered extension uses. @since 0.1.0 */
export const rsv2 = 0x20
/** Reserved bit that no registered extension uses. @since 0.1.0 */
export const rsv3 = 0x10
/** All three reserved bits. @since 0.1.0 */
export const reservedBits = 0x70
/** Set in the second byte when the payload is masked. @since 0.1.0 */
export const maskBit = 0x80

/** §5.5: "All control frames MUST have a payload length of 125 bytes or less". @since 0.1.0 */
export const maxControlPayloadBytes = 125
