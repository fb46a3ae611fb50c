/**
 * Where a client goes and what it says there: URLs, credentials, headers and redirects, before any byte moves.
 */
import type { Headers as PlatformHeaders } from "@effect/platform"
import * as base64 from "../engine/base64.js"
import * as Extension from "../engine/Extension.js"
import * as Handshake from "../engine/Handshake.js"
import { HandshakeError } from "../WebSocketError.js"
import type { Request } from "./clientHandshake.js"

/** What a URL says, and what goes out because of it. Header names are in lower case. */
export interface Place {
  /** Scheme `ws:`, `wss:` or `ws+unix:`, no credentials. */
  readonly url: URL
  readonly secure: boolean
  readonly socketPath: string | undefined
  readonly host: string
  readonly path: string
  readonly headers: ReadonlyArray<Handshake.HeaderEntry>
}

/** What the options say about the request. */
export interface Wishes {
  readonly subprotocols?: ReadonlyArray<string> | undefined
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  readonly headers?: PlatformHeaders.Input | undefined
  readonly origin?: string | undefined
  readonly version?: 13 | 8 | undefined
}

const schemes: { readonly [scheme: string]: "ws:" | "wss:" | undefined } = {
  "ws:": "ws:",
  "wss:": "wss:",
  // The WebSocket standard takes them, and redirects name them.
  "http:": "ws:",
  "https:": "wss:"
}

/** A URL for errors: without credentials and query, which may be secrets. */
export const shown = (url: URL): string => `${url.protocol}//${url.host}${url.pathname}`

const invalid = (detail: string, url?: URL): HandshakeError =>
  new HandshakeError({
    phase: "Request",
    reason: "Invalid",
    detail,
    url: url === undefined ? undefined : shown(url)
  })

/** Where the user wants to go. */
export const place = (url: string | URL, wishes: Wishes): Place | HandshakeError => {
  const parsed = parse(url)
  return parsed instanceof HandshakeError ? parsed : placeAt(parsed, entries(wishes.headers))
}

const parse = (url: string | URL, base?: string): URL | HandshakeError => {
  try {
    return new URL(url, base)
  } catch {
    return invalid("the URL is not valid")
  }
}

const placeAt = (url: URL, headers: ReadonlyArray<Handshake.HeaderEntry>): Place | HandshakeError => {
  // RFC 6455 §3; `href` shows an empty fragment too
  if (url.href.includes("#")) return invalid("the URL has a fragment", url)
  if (url.protocol === "ws+unix:") return unixPlace(url, headers)
  const scheme = schemes[url.protocol]
  if (scheme === undefined) return invalid("the URL's scheme is none of ws:, wss:, http:, https:, ws+unix:", url)
  const authorization = credentials(url)
  if (authorization instanceof HandshakeError) return authorization
  url.protocol = scheme
  url.username = url.password = ""
  return {
    url,
    secure: scheme === "wss:",
    socketPath: undefined,
    host: url.host,
    path: url.pathname + url.search,
    headers:
      // An Authorization that was given counts more.
      authorization === undefined || headers.some(([name]) => name === "authorization")
        ? headers
        : [...headers, ["authorization", authorization]]
  }
}

/** `ws+unix:/path/of/socket:/request/path?query`; a colon in the socket's path is written as %3A. */
const unixPlace = (url: URL, headers: ReadonlyArray<Handshake.HeaderEntry>): Place | HandshakeError => {
  const at = url.pathname.indexOf(":")
  const socketPath = decode(at < 0 ? url.pathname : url.pathname.slice(0, at))
  if (socketPath === undefined || socketPath === "" || socketPath === "/" || url.host !== "") {
    return invalid("the URL names no socket (ws+unix:/path/of/socket:/request/path)", url)
  }
  const path = (at < 0 ? "" : url.pathname.slice(at + 1)) || "/"
  return { url, secure: false, socketPath, host: "localhost", path: path + url.search, headers }
}

/** RFC 7617: Basic credentials from the URL, percent-decoded. */
const credentials = (url: URL): string | undefined | HandshakeError => {
  if (url.username === "" && url.password === "") return undefined
  const basic = basicCredentials(url.username, url.password)
  return basic ?? invalid("the URL's credentials are not percent-encoded UTF-8, or its user name has a colon", url)
}

/** `Basic ...` for percent-encoded credentials; `undefined` when they can't be. */
const basicCredentials = (username: string, password: string): string | undefined => {
  const user = decode(username)
  const secret = decode(password)
  // §2: the first colon ends the user name
  if (user === undefined || secret === undefined || user.includes(":")) return undefined
  return `Basic ${base64.encode(new TextEncoder().encode(`${user}:${secret}`))}`
}

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

const entries = (input: PlatformHeaders.Input | undefined): ReadonlyArray<Handshake.HeaderEntry> => {
  if (input === undefined) return []
  const list = Symbol.iterator in input ? [...(input as Iterable<readonly [string, string]>)] : Object.entries(input)
  return list.flatMap(
    ([name, value]): Array<Handshake.HeaderEntry> =>
      value === undefined
        ? []
        : [
            [
              name.toLowerCase(),
              typeof value === "string" ? value : value.join(name.toLowerCase() === "cookie" ? "; " : ", ")
            ]
          ]
  )
}

/** The request for a place, with a new key. */
export const request = (place: Place, wishes: Wishes, redirectable: boolean): Request | HandshakeError => {
  const subprotocols = wishes.subprotocols ?? []
  const misuse = Extension.misuse(wishes.extensions ?? [])
  if (misuse !== undefined) return invalid(misuse, place.url)
  const extensions = Extension.offer(wishes.extensions ?? [])
  const key = Handshake.makeKey(globalThis.crypto.getRandomValues(new Uint8Array(16)))
  const text = Handshake.formatRequest({
    path: place.path,
    host: place.host,
    key,
    subprotocols,
    extensions,
    origin: wishes.origin,
    version: wishes.version,
    headers: place.headers
  })
  if (typeof text !== "string") return invalid(`${text.message} (${text.field})`, place.url)
  return { text, key, subprotocols, extensions, redirectable }
}

/**
 * Where a redirect leads. On a change of host (port included) and from `wss:` to `ws:` the credentials stay behind: `Authorization`,
 * `Cookie` and those of the URL; on a change of host a given `Host` too. A Unix socket is never where a redirect leads to.
 */
export const redirected = (from: Place, location: string): Place | HandshakeError => {
  const base = new URL(`${from.secure ? "https" : "http"}://${from.host}${from.path}`)
  const url = parse(location, base.href)
  if (url instanceof HandshakeError) return invalid("the redirect's Location is no valid URL", from.url)
  const scheme = schemes[url.protocol]
  if (scheme === undefined) return invalid(`a redirect to the scheme ${url.protocol} is not followed`, from.url)
  const otherHost = url.host !== base.host
  const downgrade = from.secure && scheme !== "wss:"
  const headers = from.headers.filter(
    ([name]) =>
      !((otherHost || downgrade) && (name === "authorization" || name === "cookie")) && !(otherHost && name === "host")
  )
  const next = placeAt(url, headers)
  if (next instanceof HandshakeError) return next
  // The same host on a Unix socket is on that socket still.
  return otherHost || from.socketPath === undefined ? next : { ...next, socketPath: from.socketPath }
}
