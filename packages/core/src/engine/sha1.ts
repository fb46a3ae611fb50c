/**
 * SHA-1 (FIPS 180-4 §6.1.2), because the opening handshake asks for it (RFC 6455 §4.2.2) and every platform's own is either
 * asynchronous or an import. The protocol needs no collision resistance here (RFC 6455 §10.8); do not use it where you do.
 */

/** The message schedule; one for all, since nothing here is interrupted. */
const schedule = new Int32Array(80)

/** The chaining value, likewise. */
const state = new Int32Array(5)

/**
 * The SHA-1 digest of the bytes: 20 new bytes. Inputs may have up to 2^53 bits.
 *
 * @since 0.1.0
 * @category constructors
 */
export const sha1 = (bytes: Uint8Array): Uint8Array => {
  const length = bytes.length
  state[0] = 0x67452301
  state[1] = 0xefcdab89
  state[2] = 0x98badcfe
  state[3] = 0x10325476
  state[4] = 0xc3d2e1f0
  const whole = length - (length % 64)
  for (let at = 0; at < whole; at += 64) {
    for (let i = 0, j = at; i < 16; i++, j += 4) {
      schedule[i] = (bytes[j]! << 24) | (bytes[j + 1]! << 16) | (bytes[j + 2]! << 8) | bytes[j + 3]!
    }
    compress()
  }

  // §5.1.1: a one bit, zeros, and the length in bits as 64 bits fill up the last block, or the last two
  schedule.fill(0, 0, 16)
  for (let i = whole; i < length; i++) schedule[(i - whole) >> 2]! |= bytes[i]! << (24 - ((i & 3) << 3))
  schedule[(length - whole) >> 2]! |= 0x80 << (24 - ((length & 3) << 3))
  if (length - whole >= 56) {
    compress()
    schedule.fill(0, 0, 16)
  }
  schedule[14] = Math.floor(length / 0x20000000)
  schedule[15] = length << 3
  compress()

  const digest = new Uint8Array(20)
  for (let i = 0; i < 20; i++) digest[i] = state[i >> 2]! >> (24 - ((i & 3) << 3))
  return digest
}

/** §6.1.2: takes `schedule[0, 16)` into `state`. */
const compress = (): void => {
  const w = schedule
  for (let i = 16; i < 80; i++) {
    const x = w[i - 3]! ^ w[i - 8]! ^ w[i - 14]! ^ w[i - 16]!
    w[i] = (x << 1) | (x >>> 31)
  }
  let a = state[0]!
  let b = state[1]!
  let c = state[2]!
  let d = state[3]!
  let e = state[4]!
  // four loops, one for each function of §4.1.1 with its constant
  let t = 0
  for (; t < 20; t++) {
    const next = (((a << 5) | (a >>> 27)) + ((b & c) | (~b & d)) + e + 0x5a827999 + w[t]!) | 0
    e = d
    d = c
    c = (b << 30) | (b >>> 2)
    b = a
    a = next
  }
  for (; t < 40; t++) {
    const next = (((a << 5) | (a >>> 27)) + (b ^ c ^ d) + e + 0x6ed9eba1 + w[t]!) | 0
    e = d
    d = c
    c = (b << 30) | (b >>> 2)
    b = a
    a = next
  }
  for (; t < 60; t++) {
    const next = (((a << 5) | (a >>> 27)) + ((b & c) | (b & d) | (c & d)) + e + 0x8f1bbcdc + w[t]!) | 0
    e = d
    d = c
    c = (b << 30) | (b >>> 2)
    b = a
    a = next
  }
  for (; t < 80; t++) {
    const next = (((a << 5) | (a >>> 27)) + (b ^ c ^ d) + e + 0xca62c1d6 + w[t]!) | 0
    e = d
    d = c
    c = (b << 30) | (b >>> 2)
    b = a
    a = next
  }
  state[0]! += a
  state[1]! += b
  state[2]! += c
  state[3]! += d
  state[4]! += e
}
