/**
 * The opening handshakes of hixie-75 and hixie-76 at the server, as data: draft-hixie-thewebsocketprotocol-75 §4,
 * draft-hixie-thewebsocketprotocol-76 §5. What follows the head of hixie-76's response is the business of `HixieProtocol`.
 */
import { checkUpgrade, type HeaderEntry, type RejectedRequest, type Request, rejections } from "../Handshake.js"
import { trimSpace } from "../headerGrammar.js"

/**
 * A request of one of the drafts, which may be answered with 101.
 *
 * @since 0.1.0
 * @category models
 */
export interface AcceptedRequest {
  readonly _tag: "Accepted"
  readonly version: "hixie-76" | "hixie-75"
  /** The 8 bytes of the keys' numbers, the first half of the challenge; hixie-76 only. */
  readonly keys: Uint8Array | undefined
  /** The one that the client asks for, if it does. The drafts have no list. */
  readonly subprotocols: ReadonlyArray<string>
  /** The drafts have none. */
  readonly extensions: ReadonlyArray<never>
  readonly origin: string | undefined
  readonly host: string
}

/**
 * Which of the two drafts a request speaks: neither if it has a header of later versions.
 *
 * @since 0.1.0
 * @category server
 */
export const versionOf = ({ headers }: Pick<Request, "headers">): "hixie-76" | "hixie-75" | undefined =>
  headers["sec-websocket-version"] !== undefined || headers["sec-websocket-key"] !== undefined
    ? undefined
    : headers["sec-websocket-key1"] !== undefined || headers["sec-websocket-key2"] !== undefined
      ? "hixie-76"
      : "hixie-75"

/**
 * Whether a request opens a connection of this draft.
 *
 * @since 0.1.0
 * @category server
 */
export const checkRequest = (request: Request, version: "hixie-76" | "hixie-75"): AcceptedRequest | RejectedRequest => {
  const rejection = checkUpgrade(request)
  if (rejection !== undefined) return rejection
  const { headers } = request
  let keys: Uint8Array | undefined
  if (version === "hixie-76") {
    const number1 = keyNumber(headers["sec-websocket-key1"])
    const number2 = keyNumber(headers["sec-websocket-key2"])
    if (number1 === undefined || number2 === undefined) return rejections.HixieKeys
    keys = new Uint8Array(8)
    const view = new DataView(keys.buffer)
    view.setUint32(0, number1)
    view.setUint32(4, number2)
  }
  const { origin } = headers
  if (origin?.includes(",")) return rejections.OriginDuplicate
  const subprotocol = headers[version === "hixie-76" ? "sec-websocket-protocol" : "websocket-protocol"]
  return {
    _tag: "Accepted",
    version,
    keys,
    subprotocols: subprotocol === undefined ? [] : [trimSpace(subprotocol)],
    extensions: [],
    origin,
    host: trimSpace(headers.host!)
  }
}

/** hixie-76 §5.2: the digits of the key as one number of 32 bits, divided by the number of spaces, which it is a multiple of. */
const keyNumber = (key: string | undefined): number | undefined => {
  if (key === undefined) return undefined
  let digits = ""
  let spaces = 0
  for (const c of key) {
    if (c >= "0" && c <= "9") digits += c
    else if (c === " ") spaces++
  }
  const number = Number(digits)
  return digits === "" || number > 0xffffffff || spaces === 0 || number % spaces !== 0 ? undefined : number / spaces
}

/**
 * What the 101 says besides.
 *
 * @since 0.1.0
 * @category models
 */
export interface Agreement {
  readonly subprotocol?: string | undefined
  /** The target of the request line: path and query, or an absolute URL. */
  readonly target: string
  /** Whether the client asked for `wss:`; it compares. */
  readonly secure?: boolean | undefined
}

/**
 * The reason phrase of the 101, which clients of hixie-75 compare.
 *
 * @since 0.1.0
 * @category server
 */
export const reasons: { readonly [V in AcceptedRequest["version"]]: string } = {
  "hixie-76": "WebSocket Protocol Handshake",
  "hixie-75": "Web Socket Protocol Handshake"
}

/**
 * The handshake's own headers of the 101. Clients of hixie-75 want these bytes first and in this order.
 *
 * @since 0.1.0
 * @category server
 */
export const responseHeaders = (accepted: AcceptedRequest, agreement: Agreement): ReadonlyArray<HeaderEntry> => {
  const prefix = accepted.version === "hixie-76" ? "Sec-WebSocket-" : "WebSocket-"
  const entries: Array<HeaderEntry> = [
    ["Upgrade", "WebSocket"],
    ["Connection", "Upgrade"]
  ]
  if (accepted.origin !== undefined) entries.push([`${prefix}Origin`, accepted.origin])
  entries.push([`${prefix}Location`, location(accepted, agreement)])
  if (agreement.subprotocol !== undefined) entries.push([`${prefix}Protocol`, agreement.subprotocol])
  return entries
}

const location = ({ host }: AcceptedRequest, { secure, target }: Agreement): string => {
  const path = target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, "")
  return `${secure === true ? "wss" : "ws"}://${host}${path.startsWith("/") ? "" : "/"}${path}`
}
