/**
 * Reads the head of an HTTP/1.1 message (RFC 9112 §2 to §5) from bytes, wherever they are cut: a client's handshake response, the
 * answer of a proxy to CONNECT, a request at a bare TCP server.
 *
 * Strict where leniency lets two parsers disagree about one message: line ends are CRLF, no folded lines, no space before the
 * colon, no control characters, one `Host`, one length. One byte decides at a time, in order, so the result does not depend on the
 * chunks, and nothing is kept but the line that is under way and the headers read so far.
 *
 * Bodies are left to others. Text is Latin-1, one code unit per byte.
 */
import type { Headers } from "./Handshake.js"
import { equalsIgnoreCase, isToken, isTokenCode } from "./headerGrammar.js"

/**
 * Limits of a parser.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Bytes of the head: start line, headers, line ends and the empty line. Default 16384. */
  readonly maxHeaderBytes?: number | undefined
  /** Header lines. Default 100. */
  readonly maxHeaderCount?: number | undefined
}

/**
 * What both kinds of head have.
 *
 * @since 0.1.0
 * @category models
 */
export interface Fields {
  readonly httpVersion: "1.0" | "1.1"
  /**
   * By lower-case name; an object without prototype. Several of one name are joined by `", "`, `Cookie` by `"; "`, and equal ones of
   * a response's `Content-Length` are one. For `Set-Cookie`, whose values must not be joined, read `rawHeaders`.
   */
  readonly headers: Headers
  /** Every header line in order, the name as it was written. */
  readonly rawHeaders: ReadonlyArray<readonly [name: string, value: string]>
}

/**
 * The head of a request.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestHead extends Fields {
  readonly method: string
  /** As sent: visible ASCII, any of the four forms of RFC 9112 §3.2. */
  readonly target: string
}

/**
 * The head of a response. Interim ones (100, 102, 103) are heads too: a new parser reads what follows in `rest`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResponseHead extends Fields {
  /** 100 to 599. */
  readonly status: number
  readonly reason: string
}

/**
 * The rules that a head can break.
 *
 * @since 0.1.0
 * @category models
 */
export type Rule =
  | "HeaderBytes"
  | "HeaderCount"
  | "BareLineFeed"
  | "BareCarriageReturn"
  | "ControlCharacter"
  | "StartLine"
  | "HttpVersion"
  | "ObsoleteFold"
  | "SpaceBeforeColon"
  | "HeaderName"
  | "ContentLength"
  | "TransferEncoding"
  | "Host"

/**
 * The bytes so far are no whole head.
 *
 * @since 0.1.0
 * @category models
 */
export interface Incomplete {
  readonly _tag: "Incomplete"
}

/**
 * The head is complete.
 *
 * @since 0.1.0
 * @category models
 */
export interface Head<H> {
  readonly _tag: "Head"
  readonly head: H
  /** The bytes of the last chunk after the head: a view of that chunk, not a copy. */
  readonly rest: Uint8Array
}

/**
 * The head broke a rule.
 *
 * @since 0.1.0
 * @category errors
 */
export interface Failed {
  readonly _tag: "Failed"
  readonly rule: Rule
  readonly message: string
  /** For a request, what to answer: 400, 414, 431 or 505. For a response, its own status, or 0 when that was not read. */
  readonly status: number
}

/**
 * A parser of one head.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpHead<H> {
  /**
   * Takes the next bytes, which stay the caller's (`rest` is a view of them). After the head all bytes come back as `rest`; after a
   * failure the failure comes back.
   */
  readonly push: (chunk: Uint8Array) => Incomplete | Head<H> | Failed
}

const incomplete: Incomplete = { _tag: "Incomplete" }

/**
 * A parser for the head of one request or response.
 *
 * @example
 * import { HttpHead } from "@effect-ws/core/engine"
 *
 * const parser = HttpHead.make("response")
 * const result = parser.push(new Uint8Array([72, 84, 84, 80]))
 * if (result._tag === "Head") result.head.status
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = ((kind: "request" | "response", options: Options = {}) =>
  new Parser(kind === "request", options.maxHeaderBytes ?? 16384, options.maxHeaderCount ?? 100)) as {
  (kind: "request", options?: Options): HttpHead<RequestHead>
  (kind: "response", options?: Options): HttpHead<ResponseHead>
}

/**
 * The bytes of a head's text (as `Handshake` formats it): Latin-1, one byte per code unit.
 *
 * @since 0.1.0
 * @category constructors
 */
export const encode = (text: string): Uint8Array => {
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes
}

type StartLine =
  | { readonly httpVersion: "1.0" | "1.1"; readonly method: string; readonly target: string }
  | { readonly httpVersion: "1.0" | "1.1"; readonly status: number; readonly reason: string }

class Parser implements HttpHead<StartLine & Fields> {
  /** The line under way, when it began in an earlier chunk; without its CR. Grows by doubling, up to the limit. */
  private line: Uint8Array = new Uint8Array(0)
  private lineLength = 0
  /** Whether the last byte was a CR, which only an LF may follow. */
  private carriageReturn = false
  private bytesLeft: number
  private emptyLineAllowed: boolean
  private start: StartLine | undefined
  private readonly headers: Record<string, string> = Object.create(null)
  private readonly rawHeaders: Array<readonly [string, string]> = []
  private end: { readonly _tag: "Head"; readonly head: StartLine & Fields } | Failed | undefined

  constructor(
    private readonly request: boolean,
    private readonly maxHeaderBytes: number,
    private readonly maxHeaderCount: number
  ) {
    this.bytesLeft = maxHeaderBytes
    this.emptyLineAllowed = request
  }

  push(chunk: Uint8Array): Incomplete | Head<StartLine & Fields> | Failed {
    if (this.end !== undefined) return this.end._tag === "Failed" ? this.end : { ...this.end, rest: chunk }
    const limit = Math.min(chunk.length, this.bytesLeft)
    let lineStart = 0
    for (let at = 0; at < limit; at++) {
      const byte = chunk[at]!
      if (this.carriageReturn) {
        // RFC 9112 §2.2: a CR that no LF follows is invalid
        if (byte !== 0x0a) return this.fail("BareCarriageReturn", "a CR is not followed by LF")
        this.carriageReturn = false
        const result =
          this.lineLength === 0 ? this.endLine(chunk, lineStart, at - 1) : this.endKept(chunk, lineStart, at - 1)
        if (result !== undefined) {
          return result._tag === "Failed" ? result : { ...result, rest: chunk.subarray(at + 1) }
        }
        lineStart = at + 1
      } else if (byte === 0x0d) {
        this.carriageReturn = true
      } else if (byte === 0x0a) {
        return this.fail("BareLineFeed", "an LF does not follow a CR")
      } else if ((byte < 0x20 && byte !== 0x09) || byte === 0x7f) {
        return this.fail("ControlCharacter", `control character 0x${byte.toString(16).padStart(2, "0")}`)
      }
    }
    this.bytesLeft -= limit
    if (limit < chunk.length) return this.failBytes()
    this.keep(chunk, lineStart, this.carriageReturn ? limit - 1 : limit)
    return incomplete
  }

  /** Keeps a part of the line for the next chunk. What is kept stays under `maxHeaderBytes`, since `push` read no more. */
  private keep(chunk: Uint8Array, from: number, to: number): void {
    if (to <= from) return
    const length = this.lineLength + to - from
    if (length > this.line.length) {
      const larger = new Uint8Array(Math.min(Math.max(2 * this.line.length, length, 128), this.maxHeaderBytes))
      larger.set(this.line.subarray(0, this.lineLength))
      this.line = larger
    }
    if (to - from === 1) this.line[this.lineLength] = chunk[from]!
    else this.line.set(chunk.subarray(from, to), this.lineLength)
    this.lineLength = length
  }

  /** The end of a line which began in an earlier chunk. */
  private endKept(chunk: Uint8Array, from: number, to: number) {
    this.keep(chunk, from, to)
    const length = this.lineLength
    this.lineLength = 0
    return this.endLine(this.line, 0, length)
  }

  /** Takes the line `bytes[from, to)`, which has no control characters. */
  private endLine(bytes: Uint8Array, from: number, to: number) {
    if (this.start !== undefined) return to > from ? this.headerLine(bytes, from, to) : this.endHead(this.start)
    // RFC 9112 §2.2: a server should ignore an empty line before the request line; one
    if (to <= from && this.emptyLineAllowed) {
      this.emptyLineAllowed = false
      return undefined
    }
    return this.request ? this.requestLine(text(bytes, from, to)) : this.statusLine(text(bytes, from, to))
  }

  /** RFC 9112 §3: `method SP request-target SP HTTP-version`. */
  private requestLine(line: string): Failed | undefined {
    const first = line.indexOf(" ")
    const last = line.lastIndexOf(" ")
    const method = line.slice(0, Math.max(first, 0))
    const target = line.slice(first + 1, last)
    const protocol = line.slice(last + 1)
    if (first === last || !isToken(method) || !isTarget(target) || !isProtocol(protocol)) {
      return this.fail("StartLine", "the request line is not: method, space, target, space, HTTP/1.1")
    }
    const httpVersion = version(protocol)
    if (httpVersion === undefined) return this.fail("HttpVersion", `${protocol} is not HTTP/1.1`, 505)
    this.start = { httpVersion, method, target }
    return undefined
  }

  /**
   * RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`. We let the second space be absent where the reason is, as
   * proxies do that answer CONNECT.
   */
  private statusLine(line: string): Failed | undefined {
    const protocol = line.slice(0, 8)
    const digits = line.slice(9, 12)
    const status = isDigits(digits) ? Number(digits) : 0
    if (
      !isProtocol(protocol) ||
      line[8] !== " " ||
      status < 100 ||
      status > 599 ||
      (line.length > 12 && line[12] !== " ")
    ) {
      return this.fail("StartLine", "the status line is not: HTTP/1.1, space, three digits, space, reason")
    }
    const httpVersion = version(protocol)
    if (httpVersion === undefined) return this.fail("HttpVersion", `${protocol} is not HTTP/1.1`)
    this.start = { httpVersion, status, reason: line.slice(13) }
    return undefined
  }

  /** RFC 9112 §5: `field-name ":" OWS field-value OWS`. */
  private headerLine(bytes: Uint8Array, from: number, to: number): Failed | undefined {
    if (isSpace(bytes[from]!)) return this.fail("ObsoleteFold", "a header line begins with a space")
    let colon = from
    while (colon < to && isTokenCode(bytes[colon]!)) colon++
    if (colon === from || colon === to || bytes[colon] !== 0x3a) {
      return colon > from && colon < to && isSpace(bytes[colon]!)
        ? this.fail("SpaceBeforeColon", "a space follows a header name")
        : this.fail("HeaderName", "a header line does not begin with a name and a colon")
    }
    if (this.rawHeaders.length >= this.maxHeaderCount) {
      return this.fail("HeaderCount", `more than ${this.maxHeaderCount} headers`, 431)
    }
    let start = colon + 1
    while (start < to && isSpace(bytes[start]!)) start++
    while (to > start && isSpace(bytes[to - 1]!)) to--
    const rawName = text(bytes, from, colon)
    const name = rawName.toLowerCase()
    const value = text(bytes, start, to)
    this.rawHeaders.push([rawName, value])
    const before = this.headers[name]
    if (name === "content-length") {
      // RFC 9112 §6.3: one length; the same one several times may be refused too, and is in a request, which others may have read
      // before. A response with it is taken.
      if (!isDigits(value)) return this.fail("ContentLength", "Content-Length is not a number")
      if (before !== undefined && (this.request || before !== value)) {
        return this.fail("ContentLength", "Content-Length is there twice")
      }
      this.headers[name] = value
    } else if (before === undefined) {
      this.headers[name] = value
    } else if (name === "host" && this.request) {
      return this.fail("Host", "Host is there more than once")
    } else {
      this.headers[name] = before + (name === "cookie" ? "; " : ", ") + value
    }
    return undefined
  }

  /** The empty line: what can only be judged when all headers are known. */
  private endHead(start: StartLine) {
    const headers = this.headers
    if (this.request) {
      // RFC 9112 §3.2
      if (headers.host === undefined && start.httpVersion === "1.1") return this.fail("Host", "Host is missing")
      // RFC 9112 §6.1: the two ways of telling where the body ends, of which another parser may take the other
      const encoding = headers["transfer-encoding"]
      if (encoding !== undefined) {
        if (headers["content-length"] !== undefined) {
          return this.fail("TransferEncoding", "both Transfer-Encoding and Content-Length are there")
        }
        const last = encoding.slice(encoding.lastIndexOf(",") + 1)
        if (start.httpVersion === "1.0" || !equalsIgnoreCase(last.trim(), "chunked")) {
          return this.fail("TransferEncoding", "Transfer-Encoding does not end with chunked, or is in HTTP/1.0")
        }
      }
    }
    this.line = new Uint8Array(0)
    this.end = { _tag: "Head", head: { ...start, headers, rawHeaders: this.rawHeaders } }
    return this.end
  }

  private failBytes(): Failed {
    // RFC 9112 §3: a request line that is too long has its own status
    const status = this.start === undefined ? 414 : 431
    return this.fail("HeaderBytes", "the head is longer than the limit", status)
  }

  private fail(rule: Rule, message: string, status = 400): Failed {
    if (!this.request) status = this.start !== undefined && "status" in this.start ? this.start.status : 0
    this.line = new Uint8Array(0)
    this.end = { _tag: "Failed", rule, message, status }
    return this.end
  }
}

const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x09

const isDigits = (digits: string): boolean => {
  for (let i = 0; i < digits.length; i++) if (digits.charCodeAt(i) < 0x30 || digits.charCodeAt(i) > 0x39) return false
  return digits.length !== 0
}

/** Visible ASCII. */
const isTarget = (target: string): boolean => {
  for (let i = 0; i < target.length; i++) if (target.charCodeAt(i) <= 0x20 || target.charCodeAt(i) >= 0x7f) return false
  return target.length !== 0
}

/** RFC 9112 §2.3: `HTTP/` in capitals, digit, point, digit. */
const isProtocol = (protocol: string): boolean =>
  protocol.length === 8 &&
  protocol.startsWith("HTTP/") &&
  isDigits(protocol[5]!) &&
  protocol[6] === "." &&
  isDigits(protocol[7]!)

const version = (protocol: string): "1.0" | "1.1" | undefined =>
  protocol === "HTTP/1.1" ? "1.1" : protocol === "HTTP/1.0" ? "1.0" : undefined

/**
 * Bytes as Latin-1. Not by TextDecoder, which takes "latin1" for windows-1252. Adding up is faster than one call up to some 16 bytes
 * (Node 20: 5 bytes 48 against 98 ns, 20 bytes 267 against 203); pieces, because the number of arguments is limited.
 */
const text = (bytes: Uint8Array, from: number, to: number): string => {
  let result = ""
  for (; to - from > 16; from += Math.min(4096, to - from)) {
    const piece = bytes.subarray(from, Math.min(from + 4096, to)) as ArrayLike<number>
    result += String.fromCharCode.apply(null, piece as Array<number>)
  }
  for (; from < to; from++) result += String.fromCharCode(bytes[from]!)
  return result
}
