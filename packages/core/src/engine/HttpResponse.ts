/**
 * Whole HTTP/1.1 responses after which the connection ends: what a server says that was asked for something else than a WebSocket,
 * or does not want to open one.
 */
import { entriesOf, type FormatError, formatResponse, type HeaderEntry, type Headers } from "./Handshake.js"
import { encode as encodeHead } from "./HttpHead.js"
import { portable } from "./Natives.js"

/**
 * A response. `Content-Length` and `Connection: close` are added to its headers; a text is `text/plain` unless they say something
 * else.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpResponse {
  /** 200 to 599. */
  readonly status: number
  /** Default: the usual one of the status. */
  readonly reason?: string | undefined
  readonly headers?: Headers | ReadonlyArray<HeaderEntry> | undefined
  /** A string is sent as UTF-8. */
  readonly body?: string | Uint8Array | undefined
}

/** Headers that say where the message ends, which is ours to say. */
const framing: ReadonlySet<string> = new Set(["connection", "content-length", "transfer-encoding"])

/**
 * The bytes of a response to a request with this method. RFC 9110 §8.6, §9.3.2, §15.3.5, §15.4.5: none of a body where there is none
 * by definition.
 *
 * `FormatError` when the status is not from 200 to 599, when the reason or a header is no legal text, or when a header is one that
 * is added here.
 *
 * @since 0.1.0
 * @category constructors
 */
export const encode = (response: HttpResponse, method: string): Uint8Array | FormatError => {
  const { body = "", status } = response
  if (status < 200) return { _tag: "FormatError", field: "status", message: "a response has a status from 200 on" }
  const entries = entriesOf(response.headers ?? []).slice()
  for (const [name] of entries) {
    const field = name.toLowerCase()
    if (framing.has(field)) return { _tag: "FormatError", field, message: `${name} can't be given` }
  }
  const size = typeof body === "string" ? portable.textByteLength(body) : body.length
  if (typeof body === "string" && size > 0 && !entries.some(([name]) => name.toLowerCase() === "content-type")) {
    entries.push(["Content-Type", "text/plain; charset=utf-8"])
  }
  const hasBody = status !== 204 && status !== 304
  if (hasBody) entries.push(["Content-Length", String(size)])
  entries.push(["Connection", "close"])
  const text = formatResponse(status, response.reason ?? reasons[status] ?? "", entries)
  if (typeof text !== "string") return text
  const head = encodeHead(text)
  if (!hasBody || method === "HEAD" || size === 0) return head
  const bytes = new Uint8Array(head.length + size)
  bytes.set(head)
  if (typeof body === "string") portable.writeText(body, bytes, head.length)
  else bytes.set(body, head.length)
  return bytes
}

/** RFC 9110 §15; RFC 6585. */
const reasons: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  410: "Gone",
  413: "Content Too Large",
  414: "URI Too Long",
  426: "Upgrade Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported"
}
