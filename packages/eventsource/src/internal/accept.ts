/**
 * What a request says about event streams, in `Accept` (RFC 9110 §12.5.1) and `Last-Event-ID`.
 */

/** The quality of the most specific range that matches `text/event-stream`; undefined where none does. */
export const quality = (accept: string): { readonly exact: boolean; readonly q: number } | undefined => {
  let best: { readonly exact: boolean; readonly q: number; readonly rank: number } | undefined
  for (const range of accept.split(",")) {
    const [type, ...parameters] = range.split(";").map((part) => part.trim().toLowerCase())
    const rank = type === "text/event-stream" ? 3 : type === "text/*" ? 2 : type === "*/*" ? 1 : 0
    if (rank === 0 || (best !== undefined && best.rank > rank)) continue
    const weight = parameters.find((parameter) => parameter.startsWith("q="))
    const q = weight === undefined ? 1 : Number(weight.slice(2))
    best = { exact: rank === 3, q: Number.isNaN(q) ? 1 : q, rank }
  }
  return best
}

/**
 * Header values are bytes, which platforms hand over as one character each; a last event ID is UTF-8 (WHATWG HTML §9.2.3).
 */
export const decodeHeader = (value: string): string => {
  let ascii = true
  for (let index = 0; index < value.length; index++) {
    const unit = value.charCodeAt(index)
    if (unit > 0xff) return value
    if (unit > 0x7f) ascii = false
  }
  if (ascii) return value
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(
      Uint8Array.from(value, (character) => character.charCodeAt(0))
    )
  } catch {
    return value
  }
}

/** The other way round. */
export const encodeHeader = (value: string): string => {
  let header = ""
  for (const byte of new TextEncoder().encode(value)) header += String.fromCharCode(byte)
  return header
}
