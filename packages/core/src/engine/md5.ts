/**
 * MD5 (RFC 1321 §3), because the handshake of hixie-76 asks for it. It proves there that a server read the request, nothing more:
 * do not use it where anything depends on it.
 */

/** RFC 1321 §3.4: the integer part of 4294967296 times abs(sin(i + 1)). */
const sines = Int32Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 0x100000000) | 0)

/** Bits by which each step rotates, four for each round. */
const rotations = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21]

/**
 * The MD5 digest of the bytes: 16 new bytes. Inputs may have up to 2^53 bits.
 *
 * @since 0.1.0
 * @category constructors
 */
export const md5 = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  // §3.1 and §3.2: a one bit, zeros, and the length in bits as 64 bits, low word first
  const padded = new DataView(new ArrayBuffer(((bytes.length + 8) >> 6) * 64 + 64))
  new Uint8Array(padded.buffer).set(bytes)
  padded.setUint8(bytes.length, 0x80)
  padded.setUint32(padded.byteLength - 8, bytes.length << 3, true)
  padded.setUint32(padded.byteLength - 4, Math.floor(bytes.length / 0x20000000), true)
  const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476)
  for (let at = 0; at < padded.byteLength; at += 64) compress(state, padded, at)
  const digest = new DataView(new ArrayBuffer(16))
  for (let i = 0; i < 4; i++) digest.setInt32(4 * i, state[i]!, true)
  return new Uint8Array(digest.buffer)
}

/** §3.4: takes the 64 bytes at `at` into `state`. */
const compress = (state: Int32Array, block: DataView, at: number): void => {
  let [a, b, c, d] = state as unknown as [number, number, number, number]
  for (let i = 0; i < 64; i++) {
    const round = i >> 4
    let mixed: number
    let word: number
    if (round === 0) {
      mixed = (b & c) | (~b & d)
      word = i
    } else if (round === 1) {
      mixed = (d & b) | (~d & c)
      word = 5 * i + 1
    } else if (round === 2) {
      mixed = b ^ c ^ d
      word = 3 * i + 5
    } else {
      mixed = c ^ (b | ~d)
      word = 7 * i
    }
    const sum = (a + mixed + sines[i]! + block.getInt32(at + 4 * (word & 15), true)) | 0
    const bits = rotations[4 * round + (i & 3)]!
    a = d
    d = c
    c = b
    b = (b + ((sum << bits) | (sum >>> (32 - bits)))) | 0
  }
  state[0]! += a
  state[1]! += b
  state[2]! += c
  state[3]! += d
}
