/**
 * The grammar of header values: tokens, lists and quoted strings (RFC 9110 §5.6), subprotocol lists and extension lists
 * (RFC 6455 §4.3 and §9.1), and which names and values may stand in a header at all.
 *
 * Strings are header text with one code unit per byte (Latin-1). Every parser reads its input once, from left to right; what
 * breaks the grammar gives `undefined`. Which headers there must be is decided in `Handshake`.
 */

/** Character classes of the code units 0 to 255, as bits. */
const tokenClass = 1
const textClass = 2

const classes = new Uint8Array(256)
// RFC 9110 §5.5: field-vchar (visible ASCII and obs-text), space and tab
for (let i = 0x20; i < 0x100; i++) if (i !== 0x7f) classes[i] = textClass
classes[0x09] = textClass
// RFC 9110 §5.6.2
for (const c of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  classes[c.charCodeAt(0)]! |= tokenClass
}

/** Whether the code unit or byte may stand in a token. */
export const isTokenCode = (code: number): boolean => code < 256 && (classes[code]! & tokenClass) !== 0

/** Whether the code unit or byte may stand in a header value: no control characters but the tab. */
const isTextCode = (code: number): boolean => code < 256 && (classes[code]! & textClass) !== 0

const isSpaceCode = (code: number): boolean => code === 0x20 || code === 0x09

/**
 * Whether the text is a token: one or more letters, digits and ``!#$%&'*+-.^_`|~``. Header names, methods, subprotocols and
 * extension names are tokens. RFC 9110 §5.6.2.
 *
 * @since 0.1.0
 * @category guards
 */
export const isToken = (text: string): boolean => text.length !== 0 && tokenEnd(text, 0) === text.length

/**
 * Whether the text may be a header value: bytes 0x20 to 0x7e, 0x80 to 0xff, and tabs. So neither CR, LF nor NUL, nor anything
 * that one byte per character can't hold. RFC 9110 §5.5.
 *
 * @since 0.1.0
 * @category guards
 */
export const isHeaderValue = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) if (!isTextCode(text.charCodeAt(i))) return false
  return true
}

/**
 * The tokens of a comma-separated list, in order and as written; empty elements are left out (RFC 9110 §5.6.1.2), so an empty
 * text gives an empty list. `undefined` when an element is not a token.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseTokenList = (text: string): ReadonlyArray<string> | undefined => {
  const tokens: Array<string> = []
  let at = 0
  for (;;) {
    at = skipSpace(text, at)
    if (at === text.length) return tokens
    const end = tokenEnd(text, at)
    if (end !== at) tokens.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (at === text.length) return tokens
    if (text.charCodeAt(at) !== 0x2c) return undefined
    at++
  }
}

/**
 * Whether a comma-separated list has this element, whatever the case of ASCII letters. The other elements need not be tokens
 * (`Upgrade: HTTP/2.0, websocket` is a legal list of protocols). `token` must be in lower case.
 *
 * @since 0.1.0
 * @category parsing
 */
export const hasToken = (text: string, token: string): boolean => {
  let at = 0
  for (;;) {
    at = skipSpace(text, at)
    if (startsWithToken(text, at, token)) {
      const end = skipSpace(text, at + token.length)
      if (end === text.length || text.charCodeAt(end) === 0x2c) return true
    }
    const comma = text.indexOf(",", at)
    if (comma === -1) return false
    at = comma + 1
  }
}

/**
 * What {@link parseSubprotocols} found.
 *
 * @since 0.1.0
 * @category models
 */
export type Subprotocols =
  | { readonly _tag: "Parsed"; readonly subprotocols: ReadonlyArray<string> }
  | { readonly _tag: "Failed"; readonly rule: "SubprotocolSyntax" | "SubprotocolDuplicate" }

/**
 * The subprotocols of a `Sec-WebSocket-Protocol` request header, in the client's order and as written (their case counts): one
 * or more tokens, none twice. RFC 6455 §4.1 item 10 and §4.3.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseSubprotocols = (text: string): Subprotocols => {
  const subprotocols = parseTokenList(text)
  if (subprotocols === undefined || subprotocols.length === 0) return { _tag: "Failed", rule: "SubprotocolSyntax" }
  return isUnique(subprotocols) ? { _tag: "Parsed", subprotocols } : { _tag: "Failed", rule: "SubprotocolDuplicate" }
}

/**
 * Whether no element occurs twice. Case counts.
 *
 * @since 0.1.0
 * @category guards
 */
export const isUnique = (list: ReadonlyArray<string>): boolean => list.length < 2 || new Set(list).size === list.length

/**
 * One element of `Sec-WebSocket-Extensions`: a name with its parameters, in order. A parameter that is repeated is repeated
 * here; `true` is the value of one without a value. Names keep their case.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExtensionOffer {
  readonly name: string
  readonly params: ReadonlyArray<{ readonly name: string; readonly value: string | true }>
}

/**
 * The elements of `Sec-WebSocket-Extensions`, in order; the same name may come several times, as alternatives.
 *
 * White space is allowed around every separator, and list elements may be empty as long as one is not. A quoted value must be a
 * token when it is unquoted. RFC 6455 §9.1.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseExtensions = (text: string): ReadonlyArray<ExtensionOffer> | undefined => {
  const offers: Array<ExtensionOffer> = []
  let at = skipSpace(text, 0)
  while (at < text.length) {
    if (text.charCodeAt(at) === 0x2c) {
      at = skipSpace(text, at + 1)
      continue
    }
    let end = tokenEnd(text, at)
    if (end === at) return undefined
    const name = text.slice(at, end)
    const params: Array<{ name: string; value: string | true }> = []
    at = skipSpace(text, end)
    while (at < text.length && text.charCodeAt(at) === 0x3b) {
      at = skipSpace(text, at + 1)
      end = tokenEnd(text, at)
      if (end === at) return undefined
      const param = text.slice(at, end)
      at = skipSpace(text, end)
      if (at === text.length || text.charCodeAt(at) !== 0x3d) {
        params.push({ name: param, value: true })
        continue
      }
      at = skipSpace(text, at + 1)
      end = text.charCodeAt(at) === 0x22 ? quotedEnd(text, at) : tokenEnd(text, at)
      if (end === at) return undefined
      const value = text.charCodeAt(at) === 0x22 ? unquote(text.slice(at + 1, end - 1)) : text.slice(at, end)
      if (!isToken(value)) return undefined
      params.push({ name: param, value })
      at = skipSpace(text, end)
    }
    if (at < text.length && text.charCodeAt(at) !== 0x2c) return undefined
    offers.push({ name, params })
  }
  return offers.length === 0 ? undefined : offers
}

/**
 * The text of `Sec-WebSocket-Extensions` for these offers, which {@link parseExtensions} reads back. `undefined` when there is
 * none, or when a name or a value is not a token.
 *
 * @since 0.1.0
 * @category formatting
 */
export const formatExtensions = (offers: ReadonlyArray<ExtensionOffer>): string | undefined => {
  let text = ""
  for (const { name, params } of offers) {
    if (!isToken(name)) return undefined
    text += text === "" ? name : `, ${name}`
    for (const param of params) {
      if (!isToken(param.name)) return undefined
      text += `; ${param.name}`
      if (param.value === true) continue
      if (!isToken(param.value)) return undefined
      text += `=${param.value}`
    }
  }
  return text === "" ? undefined : text
}

/** Whether both are equal but for the case of ASCII letters. `lower` must be in lower case. */
export const equalsIgnoreCase = (text: string, lower: string): boolean =>
  text.length === lower.length && startsWithToken(text, 0, lower)

/** The text without spaces and tabs at its ends. */
export const trimSpace = (text: string): string => {
  const start = skipSpace(text, 0)
  let end = text.length
  while (end > start && isSpaceCode(text.charCodeAt(end - 1))) end--
  return start === 0 && end === text.length ? text : text.slice(start, end)
}

/** What a peer sent, short enough for a message. */
export const clip = (value: string): string => (value.length > 100 ? `${value.slice(0, 100)}...` : value)

const skipSpace = (text: string, at: number): number => {
  while (at < text.length && isSpaceCode(text.charCodeAt(at))) at++
  return at
}

/** The end of the token that starts here, which is here when there is none. */
const tokenEnd = (text: string, at: number): number => {
  while (at < text.length && isTokenCode(text.charCodeAt(at))) at++
  return at
}

/** Whether `lower` stands here, in either case. */
const startsWithToken = (text: string, at: number, lower: string): boolean => {
  if (at + lower.length > text.length) return false
  for (let i = 0; i < lower.length; i++) {
    const code = text.charCodeAt(at + i)
    if ((code >= 0x41 && code <= 0x5a ? code | 0x20 : code) !== lower.charCodeAt(i)) return false
  }
  return true
}

/** The position after the quoted string that starts here, which is here when it has no end. RFC 9110 §5.6.4. */
const quotedEnd = (text: string, start: number): number => {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) return at + 1
    if (code === 0x5c) at++
  }
  return start
}

/** RFC 9110 §5.6.4: a backslash stands for the character after it. */
const unquote = (text: string): string => {
  if (!text.includes("\\")) return text
  let value = ""
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) === 0x5c) at++
    value += text.charAt(at)
  }
  return value
}
