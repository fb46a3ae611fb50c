/**
 * The opening handshake of RFC 6455 §4 as data, both roles: a server checks a request and formats the response, a client formats
 * a request and checks the response. Nothing here reads, writes, waits or throws; what is wrong is a value with the broken rule.
 *
 * Left to others: cutting bytes into heads (`HttpHead`), judging extensions (`Extension`), random bytes, deadlines.
 * Header text holds one byte per code unit (Latin-1).
 */
import * as base64 from "./base64.js"
import * as Extension from "./Extension.js"
import {
  clip,
  type ExtensionOffer,
  equalsIgnoreCase,
  formatExtensions,
  hasToken,
  isHeaderValue,
  isToken,
  isUnique,
  parseExtensions,
  parseSubprotocols,
  trimSpace
} from "./headerGrammar.js"
import { sha1 } from "./sha1.js"

/**
 * Header values by lower-case name, as `node:http` has them: several of one name are one value, joined by `", "`.
 *
 * @since 0.1.0
 * @category models
 */
export type Headers = Readonly<Record<string, string | undefined>>

/**
 * One header line; the name's case is written as it is.
 *
 * @since 0.1.0
 * @category models
 */
export type HeaderEntry = readonly [name: string, value: string]

/**
 * The version of the protocol that a connection speaks: RFC 6455 has the number 13; 8 is what drafts 08 to 12 of it have; hixie-76 and
 * hixie-75 are the drafts before, by the names that they are known by.
 *
 * @since 0.1.0
 * @category models
 */
export type Version = "13" | "8" | "hixie-76" | "hixie-75"

/**
 * A version that is spoken only where it is switched on.
 *
 * @since 0.1.0
 * @category models
 */
export type Draft = Exclude<Version, "13">

/**
 * A header, a start line field or a status that can't be written, because it is no legal text there, or because the handshake
 * writes that header itself.
 *
 * @since 0.1.0
 * @category errors
 */
export interface FormatError {
  readonly _tag: "FormatError"
  /** The header's name in lower case, or `path`, `status`, `reason`. */
  readonly field: string
  readonly message: string
}

// -----------------------------------------------------------------------------------------------------------------------
// server
// -----------------------------------------------------------------------------------------------------------------------

/**
 * What a request head says, as far as the handshake looks at it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  readonly method: string
  /** `"1.1"`; not checked when it is absent. */
  readonly httpVersion?: string | undefined
  readonly headers: Headers
  readonly limits?: RequestLimits | undefined
  /** Versions besides 13 that are spoken. Default none. Here `"8"` counts; for all of them see `ServerHandshake`. */
  readonly drafts?: ReadonlyArray<Draft> | undefined
}

/**
 * Limits on a request's headers, over which it is answered with 431. Useful behind a parser that has no such limits.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestLimits {
  /** Bytes of all names and values with four more for each line, default 16384. */
  readonly maxHeaderBytes?: number | undefined
  /** Number of headers, those of one name counted once, default 100. */
  readonly maxHeaderCount?: number | undefined
}

/**
 * A request that may be answered with 101.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedRequest {
  readonly _tag: "Accepted"
  /** Goes into {@link acceptKey}. */
  readonly key: string
  /** What the client offers, in its order. */
  readonly subprotocols: ReadonlyArray<string>
  /** What the client offers, in its order; a name may come several times. For `Extension.negotiate`. */
  readonly extensions: ReadonlyArray<ExtensionOffer>
  /** `Origin` as sent; `undefined` when absent, as it is from programs that are no browser. See {@link checkOrigin}. */
  readonly origin: string | undefined
  readonly version: "13" | "8"
}

/**
 * The rules of RFC 6455 §4.2.1 that a request can break; `Origin` is the server's own (§10.2).
 *
 * @since 0.1.0
 * @category models
 */
export type RequestRule =
  | "HeaderBytes"
  | "HeaderCount"
  | "Method"
  | "HttpVersion"
  | "Upgrade"
  | "Connection"
  | "Host"
  | "Version"
  | "VersionDuplicate"
  | "Key"
  | "KeyDuplicate"
  | "OriginDuplicate"
  | "SubprotocolSyntax"
  | "SubprotocolDuplicate"
  | "ExtensionSyntax"
  | "HixieKeys"
  | "Origin"

/**
 * A request that is answered with an error: the whole answer, but for the headers that describe the body.
 *
 * @since 0.1.0
 * @category models
 */
export interface RejectedRequest {
  readonly _tag: "Rejected"
  readonly rule: RequestRule
  readonly status: 400 | 403 | 405 | 426 | 431
  /** Headers that the status requires, by lower-case name. */
  readonly headers: Readonly<Record<string, string>>
  /** One line of plain text (Latin-1) for the person who wrote the client. */
  readonly body: string
}

/** @internal */
export const rejected = (
  rule: RequestRule,
  status: RejectedRequest["status"],
  body: string,
  headers: Readonly<Record<string, string>> = {}
): RejectedRequest => ({ _tag: "Rejected", rule, status, headers, body })

/**
 * Every rejection by what the RFC says is one constant: a flood of bad requests allocates nothing here.
 *
 * @internal
 */
export const rejections: { readonly [R in Exclude<RequestRule, "Origin">]: RejectedRequest } = {
  HeaderBytes: rejected(
    "HeaderBytes",
    431,
    "The request headers are too large: send fewer or shorter headers and cookies."
  ),
  HeaderCount: rejected("HeaderCount", 431, "The request has too many headers: send fewer."),
  Method: rejected("Method", 405, "A WebSocket is opened with the method GET.", { allow: "GET" }),
  HttpVersion: rejected("HttpVersion", 400, "A WebSocket is opened with HTTP/1.1: check the proxies in between."),
  Upgrade: rejected(
    "Upgrade",
    426,
    "This is a WebSocket endpoint: connect with a WebSocket client (Upgrade: websocket).",
    {
      upgrade: "websocket",
      connection: "Upgrade"
    }
  ),
  Connection: rejected(
    "Connection",
    400,
    'The header "Connection: Upgrade" is missing: check that proxies in between pass it on.'
  ),
  Host: rejected("Host", 400, "The Host header must be there once, with a host name and at most a port."),
  Version: rejected("Version", 426, "This server speaks WebSocket version 13 (Sec-WebSocket-Version: 13).", {
    "sec-websocket-version": "13",
    upgrade: "websocket",
    connection: "Upgrade"
  }),
  VersionDuplicate: rejected("VersionDuplicate", 400, "Sec-WebSocket-Version must be there once, with one version."),
  Key: rejected("Key", 400, "Sec-WebSocket-Key must be 16 random bytes in base64 (24 characters)."),
  KeyDuplicate: rejected("KeyDuplicate", 400, "Sec-WebSocket-Key must be there once."),
  OriginDuplicate: rejected("OriginDuplicate", 400, "Origin must not be there more than once."),
  SubprotocolSyntax: rejected(
    "SubprotocolSyntax",
    400,
    "Sec-WebSocket-Protocol must be a list of tokens: chat.v2, chat.v1"
  ),
  SubprotocolDuplicate: rejected(
    "SubprotocolDuplicate",
    400,
    "Sec-WebSocket-Protocol must not name a subprotocol twice."
  ),
  ExtensionSyntax: rejected(
    "ExtensionSyntax",
    400,
    "Sec-WebSocket-Extensions must be a list of extensions: name; parameter; parameter=value"
  ),
  HixieKeys: rejected(
    "HixieKeys",
    400,
    "Sec-WebSocket-Key1 and Sec-WebSocket-Key2 must each be a number, hidden as the draft hixie-76 says."
  )
}

const versionRejectedBy8 = rejected(
  "Version",
  426,
  "This server speaks WebSocket versions 13 and 8 (Sec-WebSocket-Version: 13).",
  { ...rejections.Version.headers, "sec-websocket-version": "13, 8" }
)

const none: ReadonlyArray<never> = []

/**
 * Whether a request opens a WebSocket, strictly by RFC 6455 §4.2.1: method, HTTP version, `Upgrade`, `Connection`, `Host`, version,
 * key, and the grammar of what is offered. The first broken rule, in this order, is the answer.
 *
 * The origin is given back but not judged, and nothing is chosen from the offers.
 *
 * @since 0.1.0
 * @category server
 */
export const checkRequest = (request: Request): AcceptedRequest | RejectedRequest => {
  const headers = request.headers
  const rejection = checkUpgrade(request)
  if (rejection !== undefined) return rejection
  // item 6, before the key: another version may have other keys
  const speaks8 = request.drafts?.includes("8") === true
  const wrongVersion = speaks8 ? versionRejectedBy8 : rejections.Version
  if (headers["sec-websocket-version"] === undefined) return wrongVersion
  const version = trimSpace(headers["sec-websocket-version"])
  if (version !== "13" && !(version === "8" && speaks8)) {
    return version.includes(",") ? rejections.VersionDuplicate : wrongVersion
  }
  // item 5
  const keyHeader = headers["sec-websocket-key"]
  if (keyHeader === undefined) return rejections.Key
  const key = trimSpace(keyHeader)
  if (!isKey(key)) return key.includes(",") ? rejections.KeyDuplicate : rejections.Key
  // item 7; RFC 6454 §7.3: never more than one. No serialised origin has a comma
  const origin = version === "8" ? (headers["sec-websocket-origin"] ?? headers.origin) : headers.origin
  if (origin?.includes(",")) return rejections.OriginDuplicate
  // Drafts 08 to 10 have the one name, 11 and 12 the other, both of them version 8; two answers are none
  if (version === "8" && headers.origin !== undefined && headers.origin !== origin) return rejections.OriginDuplicate
  // item 8
  let subprotocols: ReadonlyArray<string> = none
  const subprotocolHeader = headers["sec-websocket-protocol"]
  if (subprotocolHeader !== undefined) {
    const parsed = parseSubprotocols(subprotocolHeader)
    if (parsed._tag === "Failed") return rejections[parsed.rule]
    subprotocols = parsed.subprotocols
  }
  // item 9
  let extensions: ReadonlyArray<ExtensionOffer> | undefined = none
  const extensionHeader = headers["sec-websocket-extensions"]
  if (extensionHeader !== undefined) {
    extensions = parseExtensions(extensionHeader)
    if (extensions === undefined) return rejections.ExtensionSyntax
  }
  return { _tag: "Accepted", key, subprotocols, extensions, origin, version }
}

/**
 * What all versions have in common: limits, method, HTTP version, `Upgrade`, `Connection`, `Host`.
 *
 * @internal
 */
export const checkUpgrade = (request: Request): RejectedRequest | undefined => {
  const headers = request.headers
  const overLimit = checkLimits(headers, request.limits)
  if (overLimit !== undefined) return overLimit
  // §4.2.1 item 1
  if (request.method !== "GET") return rejections.Method
  if (request.httpVersion !== undefined && !isHttp11OrLater(request.httpVersion)) return rejections.HttpVersion
  // §4.2.1 items 3 and 4, before Host, so that what is no handshake at all is told so
  if (headers.upgrade === undefined || !hasToken(headers.upgrade, "websocket")) return rejections.Upgrade
  if (headers.connection === undefined || !hasToken(headers.connection, "upgrade")) return rejections.Connection
  // item 2
  return headers.host === undefined || !isHost(headers.host) ? rejections.Host : undefined
}

const checkLimits = (headers: Headers, limits: RequestLimits | undefined): RejectedRequest | undefined => {
  const maxBytes = limits?.maxHeaderBytes ?? 16384
  const maxCount = limits?.maxHeaderCount ?? 100
  let bytes = 0
  let count = 0
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined) continue
    // ": " and CRLF
    bytes += name.length + value.length + 4
    count++
  }
  return bytes > maxBytes ? rejections.HeaderBytes : count > maxCount ? rejections.HeaderCount : undefined
}

/** `1.1` and everything above, of the form digit, point, digit (RFC 9112 §2.3). */
const isHttp11OrLater = (version: string): boolean =>
  version === "1.1" ||
  (version.length === 3 &&
    isDigit(version.charCodeAt(0)) &&
    version[1] === "." &&
    isDigit(version.charCodeAt(2)) &&
    version > "1.1")

/**
 * The first of `supported` that the client offers, so the server's preference decides; `undefined` when there is none. Case
 * counts. A function chooses one of those offered; what was not offered is not agreed (RFC 6455 §4.2.2 item 5), and without an offer it
 * is not called.
 *
 * @since 0.1.0
 * @category server
 */
export const selectSubprotocol = (
  offered: ReadonlyArray<string>,
  supported: ReadonlyArray<string> | ((offered: ReadonlyArray<string>) => string | undefined)
): string | undefined => {
  if (offered.length === 0) return undefined
  if (typeof supported === "function") {
    const chosen = supported(offered)
    return chosen !== undefined && offered.includes(chosen) ? chosen : undefined
  }
  for (const subprotocol of supported) if (offered.includes(subprotocol)) return subprotocol
  return undefined
}

/**
 * Which pages may connect, by the `Origin` header that browsers send (RFC 6455 §10.2).
 *
 * - `"same"`: pages that came from this host and port. TLS is not compared, since a proxy may have ended it.
 * - `"any"`: all.
 * - a list: an origin as browsers send it (`"https://example.com"`), a host with any scheme (`"example.com"`,
 *   `"localhost:5173"`), `"null"` (sandboxed pages and files), or `"same"`. Only what is listed.
 * - a predicate of the header's value.
 *
 * @since 0.1.0
 * @category models
 */
export type OriginPolicy = "same" | "any" | ReadonlyArray<string> | ((origin: string) => boolean)

/**
 * Whether the policy lets this origin in. No origin is fine: whatever is no browser can claim any.
 *
 * `host` is the request's `Host`. Where a port is absent it is the default of the origin's scheme; names compare without case.
 * An origin of another scheme than `http`, `https`, `ws`, `wss` is never `"same"`, nor is `"null"`.
 *
 * @since 0.1.0
 * @category server
 */
export const checkOrigin = (origin: string | undefined, host: string | undefined, policy: OriginPolicy): boolean => {
  if (origin === undefined || policy === "any") return true
  if (policy === "same") return isSameHost(origin, host)
  if (typeof policy === "function") return policy(origin)
  return policy.some((entry) => {
    if (entry === "same") return isSameHost(origin, host)
    return entry === origin || (entry.includes("://") ? isSameOrigin(origin, entry) : isSameHost(origin, entry))
  })
}

interface Authority {
  readonly name: string
  /** -1: absent. */
  readonly port: number
}

const isSameHost = (origin: string, host: string | undefined): boolean => {
  if (host === undefined) return false
  const left = parseOrigin(origin)
  const right = parseAuthority(host)
  if (left === undefined || right === undefined || left.defaultPort === -1) return false
  return left.name === right.name && left.port === (right.port === -1 ? left.defaultPort : right.port)
}

const isSameOrigin = (origin: string, entry: string): boolean => {
  const left = parseOrigin(origin)
  const right = parseOrigin(entry.endsWith("/") ? entry.slice(0, -1) : entry)
  if (left === undefined || right === undefined) return false
  return left.scheme === right.scheme && left.name === right.name && left.port === right.port
}

/** RFC 6454 §6.2: scheme, `://`, host, and a port unless it is the default. */
const parseOrigin = (
  origin: string
): (Authority & { readonly scheme: string; readonly defaultPort: number }) | undefined => {
  const end = origin.indexOf("://")
  if (end < 1) return undefined
  const authority = parseAuthority(origin.slice(end + 3))
  if (authority === undefined) return undefined
  const scheme = origin.slice(0, end).toLowerCase()
  const defaultPort = scheme === "http" || scheme === "ws" ? 80 : scheme === "https" || scheme === "wss" ? 443 : -1
  return { scheme, name: authority.name, port: authority.port === -1 ? defaultPort : authority.port, defaultPort }
}

/** RFC 9110 §7.2: `uri-host [ ":" port ]`; the host not empty, IPv6 in brackets. */
const parseAuthority = (text: string): Authority | undefined => {
  const bracket = text.charCodeAt(0) === 0x5b ? text.indexOf("]") : 0
  if (bracket === -1) return undefined
  let end = bracket === 0 ? 0 : bracket + 1
  if (bracket === 0) {
    while (end < text.length && isHostCode(text.charCodeAt(end))) end++
  } else {
    if (bracket === 1) return undefined
    for (let i = 1; i < bracket; i++)
      if (!isHostCode(text.charCodeAt(i)) && text.charCodeAt(i) !== 0x3a) return undefined
  }
  if (end === 0 || (end < text.length && text.charCodeAt(end) !== 0x3a)) return undefined
  // RFC 3986 §3.2.3: the port may be empty, which is the default
  let port = -1
  for (let i = end + 1; i < text.length; i++) {
    if (!isDigit(text.charCodeAt(i))) return undefined
    port = (port === -1 ? 0 : port * 10) + text.charCodeAt(i) - 0x30
    if (port > 65535) return undefined
  }
  return { name: text.slice(0, end).toLowerCase(), port }
}

/** Whether the text is a `Host` value. Without comma, which RFC 3986 allows, since several headers are joined by it. */
const isHost = (text: string): boolean => parseAuthority(trimSpace(text)) !== undefined

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39

/** RFC 3986 §3.2.2 reg-name: unreserved, `%` and sub-delims; without the comma. */
const hostClass = new Uint8Array(128)
for (const c of "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~%!$&'()*+;=") {
  hostClass[c.charCodeAt(0)] = 1
}
const isHostCode = (code: number): boolean => code < 128 && hostClass[code] === 1

/**
 * What a server agrees to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Agreement {
  /** From {@link AcceptedRequest}. */
  readonly key: string
  readonly subprotocol?: string | undefined
  /** From `Extension.negotiate`, in the order in which they apply to a message that is sent. */
  readonly extensions?: ReadonlyArray<ExtensionOffer> | undefined
}

/**
 * The handshake's own headers of the 101 response, in order (RFC 6455 §4.2.2 item 5).
 *
 * {@link FormatError} when the subprotocol or a part of an extension is not a token.
 *
 * @since 0.1.0
 * @category server
 */
export const responseHeaders = (agreement: Agreement): ReadonlyArray<HeaderEntry> | FormatError => {
  const entries: Array<HeaderEntry> = [
    ["Upgrade", "websocket"],
    ["Connection", "Upgrade"],
    ["Sec-WebSocket-Accept", acceptKey(agreement.key)]
  ]
  if (agreement.subprotocol !== undefined) {
    if (!isToken(agreement.subprotocol)) return badSubprotocol
    entries.push(["Sec-WebSocket-Protocol", agreement.subprotocol])
  }
  if (agreement.extensions !== undefined && agreement.extensions.length !== 0) {
    const extensions = formatExtensions(agreement.extensions)
    if (extensions === undefined) return badExtensions
    entries.push(["Sec-WebSocket-Extensions", extensions])
  }
  return entries
}

/**
 * The whole 101 response for a request: the handshake's own headers, then `headers`. To be written as Latin-1.
 *
 * {@link FormatError} as for {@link responseHeaders} and {@link formatResponse}, and when `headers` has one of the handshake's own
 * or one that describes a body, which a 101 does not have (RFC 9110 §8.6, RFC 9112 §6.1).
 *
 * @since 0.1.0
 * @category server
 */
export const formatAccept = (
  agreement: Agreement,
  headers: Headers | ReadonlyArray<HeaderEntry> = none
): string | FormatError => {
  const { extensions, key, subprotocol } = agreement
  const entries = entriesOf(headers)
  // Nothing but the key to write is what most are: an opening handshake costs 4 % less than with a list of headers.
  if (subprotocol === undefined && !extensions?.length && entries.length === 0) {
    return `${plainHead}${acceptKey(key)}\r\n\r\n`
  }
  const all = withOwn(responseHeaders(agreement), entries)
  return "_tag" in all ? all : formatResponse(101, "Switching Protocols", all)
}

/** A 101 up to the accept key. */
const plainHead =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "

/**
 * The handshake's own headers, and the application's, none of which may be one of the handshake's.
 *
 * @internal
 */
export const withOwn = (
  own: ReadonlyArray<HeaderEntry> | FormatError,
  entries: ReadonlyArray<HeaderEntry>
): ReadonlyArray<HeaderEntry> | FormatError => {
  if ("_tag" in own) return own
  for (const [name] of entries) if (isReserved(name.toLowerCase())) return reserved(name)
  return [...own, ...entries]
}

/**
 * The whole answer to a request that was rejected, after which the server closes the transport.
 *
 * @since 0.1.0
 * @category server
 */
export const formatReject = (rejection: RejectedRequest): string => {
  const { connection, ...headers } = rejection.headers
  let text = `HTTP/1.1 ${rejection.status} ${reasons[rejection.status]}\r\n`
  text += `Connection: ${connection === undefined ? "close" : `${connection}, close`}\r\n`
  for (const name in headers) text += `${name}: ${headers[name]}\r\n`
  // the body is Latin-1, so its length is that of the text
  return `${text}Content-Type: text/plain\r\nContent-Length: ${rejection.body.length}\r\n\r\n${rejection.body}`
}

const reasons: { readonly [S in RejectedRequest["status"]]: string } = {
  400: "Bad Request",
  403: "Forbidden",
  405: "Method Not Allowed",
  426: "Upgrade Required",
  431: "Request Header Fields Too Large"
}

/**
 * A response head with these headers, in order, up to and with the empty line. To be written as Latin-1.
 *
 * {@link FormatError} when the status is not an integer from 100 to 599, or when the reason, a name or a value is no legal text in
 * its place: there is no way to smuggle a line break in.
 *
 * @since 0.1.0
 * @category server
 */
export const formatResponse = (
  status: number,
  reason: string,
  entries: ReadonlyArray<HeaderEntry>
): string | FormatError => {
  if (!Number.isInteger(status) || status < 100 || status > 599) {
    return formatError("status", "a status is an integer from 100 to 599")
  }
  if (!isHeaderValue(reason)) return formatError("reason", "a reason phrase has no control characters")
  return formatHeaders(`HTTP/1.1 ${status} ${reason}\r\n`, entries)
}

// -----------------------------------------------------------------------------------------------------------------------
// client
// -----------------------------------------------------------------------------------------------------------------------

/**
 * What a client asks for.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientRequest {
  /** Path and query as they go on the wire: begins with `/`, percent-encoded, without fragment. */
  readonly path: string
  /** Host, with the port unless it is the default. */
  readonly host: string
  /** From {@link makeKey}. */
  readonly key: string
  /** In order of preference; tokens, none twice. */
  readonly subprotocols: ReadonlyArray<string>
  /** From `Extension.offer`. */
  readonly extensions?: ReadonlyArray<ExtensionOffer> | undefined
  readonly origin?: string | undefined
  /** Default 13; in version 8 the origin is `Sec-WebSocket-Origin` (drafts 08 to 10). */
  readonly version?: 13 | 8 | undefined
  /** More headers. `Host` replaces `host` here; the handshake's other headers are refused. */
  readonly headers: Headers | ReadonlyArray<HeaderEntry>
}

/**
 * The `Sec-WebSocket-Key` for 16 random bytes, which must be new for every connection (RFC 6455 §4.1 item 7). With any other
 * number of bytes it is no key, and {@link formatRequest} says so.
 *
 * @since 0.1.0
 * @category client
 */
export const makeKey = (random16: Uint8Array): string => base64.encode(random16)

/**
 * The request that opens a WebSocket (RFC 6455 §4.1), up to and with the empty line. To be written as Latin-1.
 *
 * {@link FormatError} when a part is no legal text in its place, when a subprotocol comes twice, or when `headers` has one of the
 * handshake's own (but `Host`), a second `Origin`, or one that describes a body.
 *
 * @since 0.1.0
 * @category client
 */
export const formatRequest = (request: ClientRequest): string | FormatError => {
  if (!isPath(request.path)) {
    return formatError("path", "a path begins with / and has only visible ASCII characters, no fragment")
  }
  if (!isKey(request.key)) return formatError("sec-websocket-key", "a key is 16 bytes in base64")
  let host: string | undefined
  const others: Array<HeaderEntry> = []
  for (const entry of entriesOf(request.headers)) {
    const name = entry[0].toLowerCase()
    if (name === "host") {
      if (host !== undefined) return formatError("host", "Host is given twice")
      host = entry[1]
    } else if (name === "origin" && request.origin !== undefined) {
      return formatError("origin", "Origin is given twice")
    } else if (isReserved(name)) {
      return reserved(name)
    } else {
      others.push(entry)
    }
  }
  host ??= request.host
  if (parseAuthority(host) === undefined) return formatError("host", "Host is a host name and at most a port")
  const entries: Array<HeaderEntry> = [
    ["Host", host],
    ["Upgrade", "websocket"],
    ["Connection", "Upgrade"],
    ["Sec-WebSocket-Key", request.key],
    ["Sec-WebSocket-Version", `${request.version ?? 13}`]
  ]
  if (request.subprotocols.length !== 0) {
    if (!request.subprotocols.every(isToken)) return badSubprotocol
    if (!isUnique(request.subprotocols)) return formatError("sec-websocket-protocol", "a subprotocol is given twice")
    entries.push(["Sec-WebSocket-Protocol", request.subprotocols.join(", ")])
  }
  if (request.extensions !== undefined && request.extensions.length !== 0) {
    const extensions = formatExtensions(request.extensions)
    if (extensions === undefined) return badExtensions
    entries.push(["Sec-WebSocket-Extensions", extensions])
  }
  if (request.origin !== undefined) {
    entries.push([request.version === 8 ? "Sec-WebSocket-Origin" : "Origin", request.origin])
  }
  for (const entry of others) entries.push(entry)
  return formatHeaders(`GET ${request.path} HTTP/1.1\r\n`, entries)
}

/**
 * What a response head says, and what the client had asked for.
 *
 * @since 0.1.0
 * @category models
 */
export interface Response {
  readonly status: number
  /** `"1.1"`; not checked when it is absent. */
  readonly httpVersion?: string | undefined
  readonly headers: Headers
  /** The key of the request. */
  readonly key: string
  readonly offeredSubprotocols: ReadonlyArray<string>
  /** From `Extension.offer`, as in the request. */
  readonly offeredExtensions: ReadonlyArray<Extension.Offered>
}

/**
 * A response after which both speak WebSocket.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedResponse {
  readonly _tag: "Accepted"
  /** `undefined` when the server chose none, which RFC 6455 allows even when some were offered. */
  readonly subprotocol: string | undefined
  /** What the server agrees to, in its order, and the client's extensions accepted; for `Extension.open`. */
  readonly extensions: ReadonlyArray<Extension.Agreed>
}

/**
 * The rules of RFC 6455 §4.1 that a response can break.
 *
 * @since 0.1.0
 * @category models
 */
export type ResponseRule =
  | "Status"
  | "HttpVersion"
  | "Upgrade"
  | "Connection"
  | "Accept"
  | "AcceptDuplicate"
  | "SubprotocolSyntax"
  | "SubprotocolDuplicate"
  | "SubprotocolNotOffered"
  | "ExtensionSyntax"
  | Extension.Unacceptable["rule"]

/**
 * A response that opens nothing; the client closes the transport.
 *
 * @since 0.1.0
 * @category errors
 */
export interface RejectedResponse {
  readonly _tag: "Rejected"
  readonly rule: ResponseRule
  readonly message: string
  /** The status of the response. */
  readonly status: number
}

/**
 * Whether the response opens the WebSocket that was asked for: RFC 6455 §4.1, the six checks of the response, in order.
 *
 * @since 0.1.0
 * @category client
 */
export const checkResponse = (response: Response): AcceptedResponse | RejectedResponse => {
  const { headers, status } = response
  const reject = (rule: ResponseRule, message: string): RejectedResponse => ({
    _tag: "Rejected",
    rule,
    message,
    status
  })

  // check 1
  if (status !== 101) return reject("Status", `the server answered with status ${status} instead of 101`)
  if (response.httpVersion !== undefined && !isHttp11OrLater(response.httpVersion)) {
    return reject("HttpVersion", `the server answered with HTTP/${response.httpVersion} instead of HTTP/1.1`)
  }
  // check 2: one value, where a request may have a list
  if (headers.upgrade === undefined || !equalsIgnoreCase(trimSpace(headers.upgrade), "websocket")) {
    return reject("Upgrade", `the response has ${shown("Upgrade", headers.upgrade)} instead of websocket`)
  }
  // check 3
  if (headers.connection === undefined || !hasToken(headers.connection, "upgrade")) {
    return reject("Connection", `the response has ${shown("Connection", headers.connection)} instead of Upgrade`)
  }
  // check 4
  const accept = headers["sec-websocket-accept"]
  if (accept === undefined || trimSpace(accept) !== acceptKey(response.key)) {
    return accept?.includes(",")
      ? reject("AcceptDuplicate", "Sec-WebSocket-Accept is there more than once")
      : reject("Accept", `the response has ${shown("Sec-WebSocket-Accept", accept)}, which does not answer the key`)
  }
  // check 5
  let extensions: ReadonlyArray<Extension.Agreed> = none
  const extensionHeader = headers["sec-websocket-extensions"]
  if (extensionHeader !== undefined) {
    const answers = parseExtensions(extensionHeader)
    if (answers === undefined) {
      return reject("ExtensionSyntax", `${shown("Sec-WebSocket-Extensions", extensionHeader)} is no list of extensions`)
    }
    const agreed = Extension.accept(response.offeredExtensions, answers)
    if ("_tag" in agreed) return reject(agreed.rule, agreed.message)
    extensions = agreed
  }
  // check 6
  const subprotocolHeader = headers["sec-websocket-protocol"]
  if (subprotocolHeader === undefined) return { _tag: "Accepted", subprotocol: undefined, extensions }
  const subprotocol = trimSpace(subprotocolHeader)
  if (!isToken(subprotocol)) {
    return subprotocol.includes(",")
      ? reject("SubprotocolDuplicate", `the server chose more than one subprotocol: ${clip(subprotocol)}`)
      : reject("SubprotocolSyntax", `${shown("Sec-WebSocket-Protocol", subprotocol)} is no token`)
  }
  if (!response.offeredSubprotocols.includes(subprotocol)) {
    return reject("SubprotocolNotOffered", `the server chose a subprotocol that was not offered: ${clip(subprotocol)}`)
  }
  return { _tag: "Accepted", subprotocol, extensions }
}

const shown = (name: string, value: string | undefined): string =>
  value === undefined ? `no ${name}` : `${name}: ${clip(value)}`

// -----------------------------------------------------------------------------------------------------------------------
// both
// -----------------------------------------------------------------------------------------------------------------------

/** RFC 6455 §1.3. */
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

/** The 60 bytes that are digested for every handshake: a key and, from here on, the GUID. */
const keyAndGuid = new Uint8Array(24 + guid.length)
for (let i = 0; i < guid.length; i++) keyAndGuid[24 + i] = guid.charCodeAt(i)

/**
 * The `Sec-WebSocket-Accept` that answers a key of 24 characters (RFC 6455 §4.2.2 item 5.4). About 1 microsecond.
 *
 * @since 0.1.0
 * @category both
 */
export const acceptKey = (key: string): string => {
  for (let i = 0; i < 24; i++) keyAndGuid[i] = key.charCodeAt(i)
  return base64.encode(sha1(keyAndGuid))
}

/**
 * Whether the text is a `Sec-WebSocket-Key`: 24 characters, the canonical base64 of 16 bytes (RFC 6455 §4.2.1 item 5).
 *
 * @since 0.1.0
 * @category both
 */
export const isKey = (text: string): boolean => {
  if (text.length !== 24 || text.charCodeAt(22) !== 0x3d || text.charCodeAt(23) !== 0x3d) return false
  for (let i = 0; i < 21; i++) if (base64.sextet(text.charCodeAt(i)) === 0xff) return false
  // the last character holds two bits of the 128, and four that must be zero; 0xff fails too
  return (base64.sextet(text.charCodeAt(21)) & 0b1111) === 0
}

/** Request targets in origin form (RFC 9112 §3.2.1); RFC 6455 §3: no fragment. */
const isPath = (text: string): boolean => {
  if (text.charCodeAt(0) !== 0x2f) return false
  for (let i = 1; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code <= 0x20 || code >= 0x7f || code === 0x23) return false
  }
  return true
}

/**
 * Headers that the handshake writes itself, and those of a body, which no handshake has. `name` is in lower case.
 *
 * @internal
 */
export const isReserved = (name: string): boolean =>
  name === "upgrade" ||
  name === "connection" ||
  name === "content-length" ||
  name === "transfer-encoding" ||
  name.startsWith("sec-websocket-") ||
  // hixie-75
  name === "websocket-origin" ||
  name === "websocket-location" ||
  name === "websocket-protocol"

const formatHeaders = (startLine: string, entries: ReadonlyArray<HeaderEntry>): string | FormatError => {
  let text = startLine
  for (const [name, value] of entries) {
    if (!isToken(name)) return formatError(name.toLowerCase(), "a header name is a token")
    if (!isHeaderValue(value)) {
      return formatError(name.toLowerCase(), `the value of ${name} has a control character or one beyond Latin-1`)
    }
    text += `${name}: ${value}\r\n`
  }
  return `${text}\r\n`
}

/** @internal */
export const entriesOf = (headers: Headers | ReadonlyArray<HeaderEntry>): ReadonlyArray<HeaderEntry> => {
  if (isEntries(headers)) return headers
  const entries: Array<HeaderEntry> = []
  for (const name of Object.keys(headers)) {
    const value = headers[name]
    if (value !== undefined) entries.push([name, value])
  }
  return entries
}

const isEntries = (headers: Headers | ReadonlyArray<HeaderEntry>): headers is ReadonlyArray<HeaderEntry> =>
  Array.isArray(headers)

const formatError = (field: string, message: string): FormatError => ({ _tag: "FormatError", field, message })

/** @internal */
export const reserved = (name: string): FormatError =>
  formatError(name.toLowerCase(), `${name} can't be given: the handshake writes it, or has no use for it`)

const badSubprotocol = formatError("sec-websocket-protocol", "a subprotocol is a token")
const badExtensions = formatError("sec-websocket-extensions", "names, parameters and values of extensions are tokens")
