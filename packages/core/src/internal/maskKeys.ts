/** Masking keys: unpredictable (RFC 6455 §5.3), drawn from the platform's generator 1024 at a time. */
const keys = new Int32Array(1024)
let next = keys.length

/** The next key; never 0, which would leave the payload as it is. */
export const nextMaskKey = (): number => {
  if (next === keys.length) {
    globalThis.crypto.getRandomValues(keys)
    next = 0
  }
  const key = keys[next]!
  keys[next++] = 0
  return key === 0 ? nextMaskKey() : key
}
