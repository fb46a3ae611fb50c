/** Base64 with padding (RFC 4648 §4), for the key and the accept value of the opening handshake (RFC 6455 §4). */

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

/** The six bits of each character, 0xff for what is not in the alphabet. */
const sextets = new Uint8Array(128).fill(0xff)
for (let i = 0; i < alphabet.length; i++) sextets[alphabet.charCodeAt(i)] = i

/** The six bits that a UTF-16 code unit stands for, 0 to 63; 0xff when it is outside the alphabet (`=` too). */
export const sextet = (code: number): number => (code < 128 ? sextets[code]! : 0xff)

/**
 * The bytes as base64 text, padded to a multiple of four characters.
 *
 * @since 0.1.0
 * @category constructors
 */
export const encode = (bytes: Uint8Array): string => {
  const length = bytes.length
  const whole = length - (length % 3)
  let text = ""
  for (let i = 0; i < whole; i += 3) {
    const bits = (bytes[i]! << 16) | (bytes[i + 1]! << 8) | bytes[i + 2]!
    text += alphabet[bits >> 18]! + alphabet[(bits >> 12) & 63]! + alphabet[(bits >> 6) & 63]! + alphabet[bits & 63]!
  }
  if (length - whole === 1) {
    const bits = bytes[whole]! << 4
    return `${text}${alphabet[bits >> 6]}${alphabet[bits & 63]}==`
  }
  if (length - whole === 2) {
    const bits = (bytes[whole]! << 10) | (bytes[whole + 1]! << 2)
    return `${text}${alphabet[bits >> 12]}${alphabet[(bits >> 6) & 63]}${alphabet[bits & 63]}=`
  }
  return text
}

/**
 * The bytes that the text stands for, or `undefined` when it is not canonical base64.
 *
 * Strict: no white space, no URL alphabet, padding required and only at the end, unused bits zero (RFC 4648 §3.5); so
 * each value has one text, and `encode` gives it back.
 *
 * @since 0.1.0
 * @category constructors
 */
export const decode = (text: string): Uint8Array | undefined => {
  const length = text.length
  if (length % 4 !== 0) return undefined
  const padding = length === 0 || text[length - 1] !== "=" ? 0 : text[length - 2] === "=" ? 2 : 1
  const characters = length - padding
  const bytes = new Uint8Array((length / 4) * 3 - padding)
  let pending = 0
  let pendingBits = 0
  let at = 0
  for (let i = 0; i < characters; i++) {
    const bits = sextet(text.charCodeAt(i))
    if (bits === 0xff) return undefined
    pending = ((pending << 6) | bits) & 0xfff
    pendingBits += 6
    if (pendingBits >= 8) {
      pendingBits -= 8
      bytes[at++] = pending >> pendingBits
    }
  }
  return (pending & ((1 << pendingBits) - 1)) === 0 ? bytes : undefined
}
