/**
 * Dialing on Node: TCP, Unix sockets, TLS, proxies by CONNECT. Every socket belongs to the Scope from the moment it exists, with
 * its listeners attached in the same turn, so that no event of it is missed and nothing stays behind.
 */
import * as Http from "node:http"
import * as Net from "node:net"
import type * as NodeStream from "node:stream"
import * as Tls from "node:tls"
import type { Headers } from "@effect/platform"
import type { WebSocketClient } from "@effect-ws/core"
import { WebSocketError } from "@effect-ws/core"
import { HttpBody, HttpHead } from "@effect-ws/core/engine"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as NodeTransport from "../NodeTransport.js"
import type { DialOptions, ProxyOptions } from "../NodeWebSocketClient.js"

type Phase = "Dial" | "Tls" | "Proxy"
type Target = WebSocketClient.Target
type Dialed<A> = Effect.Effect<A, WebSocketError.HandshakeError, Scope.Scope>

/** Bytes of a proxy's refusal that are kept for the error. */
const maxBodyBytes = 64 * 1024

/** The dialer for `options`. */
export const dialer =
  (options: DialOptions): WebSocketClient.Dialer =>
  (target) =>
    Effect.flatMap(proxyOf(options, target), (proxy) =>
      Effect.map(proxy === undefined ? direct(options, target) : tunnelled(options, proxy, target), (socket) =>
        NodeTransport.fromDuplex(socket)
      )
    )

/** The dialer that takes one stream which is there already, with TLS over it where the target asks for that. */
export const duplexDialer =
  (
    duplex: NodeStream.Duplex,
    head: Uint8Array | undefined,
    tls: Tls.ConnectionOptions | undefined
  ): WebSocketClient.Dialer =>
  (target) =>
    Effect.flatMap(
      Effect.acquireRelease(
        Effect.sync(() => duplex.on("error", ignore)),
        () => Effect.sync(() => duplex.destroy())
      ),
      () => {
        if (!target.secure) return Effect.succeed(NodeTransport.fromDuplex(duplex, head))
        if (head !== undefined && head.length > 0) duplex.unshift(head)
        return Effect.map(encrypted(duplex, target, tls), (socket) => NodeTransport.fromDuplex(socket))
      }
    )

// ---- sockets -----------------------------------------------------------------------------------------------------------

const direct = (options: DialOptions, target: Target): Dialed<NodeStream.Duplex> => {
  const socketPath = options.socketPath ?? target.socketPath
  const address = socketPath === undefined ? { host: target.hostname, port: target.port } : { path: socketPath }
  const name = socketPath ?? target.url.host
  return target.secure
    ? socket(target, name, () =>
        Tls.connect({ ...options.tcp, ...tlsOptions(target.hostname, options.tls), ...address })
      )
    : socket(target, name, () => Net.connect({ ...options.tcp, ...address }))
}

/** TLS over a stream that is open. */
const encrypted = (
  stream: NodeStream.Duplex,
  { enter, hostname }: { readonly enter: (phase: Phase) => void; readonly hostname: string },
  tls: Tls.ConnectionOptions | undefined
): Dialed<NodeStream.Duplex> =>
  Effect.suspend(() => {
    enter("Tls")
    return socket(
      { enter, phase: "Tls" },
      hostname,
      // `host` is what the certificate must name where there is no server name, for addresses.
      () => Tls.connect({ ...tlsOptions(hostname, tls), socket: stream, host: hostname })
    )
  })

const tlsOptions = (hostname: string, options: Tls.ConnectionOptions | undefined): Tls.ConnectionOptions => {
  // RFC 6066 §3: addresses are no server names
  const servername = Net.isIP(hostname) === 0 ? { servername: hostname } : undefined
  const { host, path, port, socket, ...rest } = options ?? {}
  return { ...servername, ...rest }
}

/** A socket that is connected, by TLS too if it is a TLS socket. */
const socket = (
  { enter, phase }: { readonly enter: (phase: Phase) => void; readonly phase?: Phase },
  name: string,
  make: () => Net.Socket
): Dialed<Net.Socket> =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.try({
        try: () => new Opening(make(), name, phase ?? "Dial", enter),
        catch: (cause) => failed(phase ?? "Dial", `${name} can't be dialed with these options`, cause)
      }),
      (opening) => opening.destroyed
    ),
    (opening) => opening.ready
  )

/** A socket on its way. */
class Opening {
  private result: Effect.Effect<Net.Socket, WebSocketError.HandshakeError> | undefined
  private resume: ((effect: Effect.Effect<Net.Socket, WebSocketError.HandshakeError>) => void) | undefined

  constructor(
    private readonly socket: Net.Socket,
    private readonly name: string,
    private phase: Phase,
    private readonly enter: (phase: Phase) => void
  ) {
    socket.on("error", this.onError)
    socket.on("close", this.onClose)
    socket.on("connect", this.onConnect)
    if (socket instanceof Tls.TLSSocket) socket.on("secureConnect", this.onReady)
  }

  private readonly onConnect = (): void => {
    if (!(this.socket instanceof Tls.TLSSocket)) return this.onReady()
    this.phase = "Tls"
    this.enter("Tls")
  }

  private readonly onReady = (): void => this.settle(Effect.succeed(this.socket))

  private readonly onError = (cause: Error): void => {
    const code = (cause as { readonly code?: unknown }).code
    const why = typeof code === "string" ? ` (${code})` : ""
    const detail = this.phase === "Tls" ? `no TLS connection with ${this.name}` : `${this.name} can't be reached`
    this.settle(Effect.fail(failed(this.phase, detail + why, cause)))
  }

  private readonly onClose = (): void =>
    this.settle(Effect.fail(failed(this.phase, `${this.name} ended the connection`, undefined)))

  private settle(result: Effect.Effect<Net.Socket, WebSocketError.HandshakeError>): void {
    const { socket } = this
    socket.off("close", this.onClose)
    socket.off("connect", this.onConnect)
    socket.off("secureConnect", this.onReady)
    // Until the transport listens, and for what comes after the socket was destroyed.
    socket.on("error", ignore)
    socket.off("error", this.onError)
    this.result = result
    this.resume?.(result)
  }

  get ready(): Effect.Effect<Net.Socket, WebSocketError.HandshakeError> {
    return Effect.async((resume) => {
      if (this.result !== undefined) return resume(this.result)
      this.resume = resume
      return Effect.sync(() => {
        this.resume = undefined
      })
    })
  }

  /** Waits until the socket is gone. */
  get destroyed(): Effect.Effect<void> {
    return Effect.async((resume) => {
      const { socket } = this
      if (socket.closed) return resume(Effect.void)
      socket.once("close", () => resume(Effect.void))
      socket.destroy()
    })
  }
}

const ignore = (): void => {}

const failed = (phase: "Request" | Phase, detail: string, cause: unknown): WebSocketError.HandshakeError =>
  new WebSocketError.HandshakeError({ phase, reason: phase === "Request" ? "Invalid" : "Failed", detail, cause })

// ---- proxies -----------------------------------------------------------------------------------------------------------

interface Proxy {
  readonly hostname: string
  readonly port: number
  readonly secure: boolean
  readonly tls: Tls.ConnectionOptions | undefined
  /** Header lines after the handshake's own, each with its line end. */
  readonly headerLines: string
}

const proxyOf = (
  options: DialOptions,
  target: Target
): Effect.Effect<Proxy | undefined, WebSocketError.HandshakeError> =>
  Effect.suspend(() => {
    const { proxy } = options
    if (proxy === undefined || target.socketPath !== undefined || options.socketPath !== undefined)
      return Effect.succeed(undefined)
    if (proxy !== "environment") return parseProxy(isProxyOptions(proxy) ? proxy : { url: proxy })
    const url = environmentProxy(target, process.env)
    return url === undefined ? Effect.succeed(undefined) : parseProxy({ url })
  })

const isProxyOptions = (proxy: string | URL | ProxyOptions): proxy is ProxyOptions =>
  typeof proxy === "object" && !(proxy instanceof URL)

const parseProxy = (options: ProxyOptions): Effect.Effect<Proxy, WebSocketError.HandshakeError> =>
  Effect.try({
    try: () => {
      const url = new URL(options.url)
      if (url.protocol !== "http:" && url.protocol !== "https:")
        throw new Error(`${url.protocol} is no scheme of a proxy`)
      const secure = url.protocol === "https:"
      return {
        hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
        port: url.port === "" ? (secure ? 443 : 80) : Number(url.port),
        secure,
        tls: options.tls,
        headerLines: headerLines(options.headers, credentials(options, url))
      }
    },
    catch: (cause) => failed("Request", "the proxy's URL, credentials or headers are not valid", cause)
  })

/** RFC 7617: Basic credentials of the option, else of the URL, which are percent-encoded there. */
const credentials = ({ credentials }: ProxyOptions, { password, username }: URL): string | undefined => {
  if (credentials === undefined && username === "" && password === "") return undefined
  const user = credentials?.username ?? decodeURIComponent(username)
  // §2: the first colon ends the user name
  if (user.includes(":")) throw new Error("a user name has no colon")
  const secret = credentials?.password ?? decodeURIComponent(password)
  return `Basic ${Buffer.from(`${user}:${secret}`).toString("base64")}`
}

const headerLines = (headers: Headers.Input | undefined, authorization: string | undefined): string => {
  const input = headers ?? {}
  const list = Symbol.iterator in input ? [...(input as Iterable<readonly [string, string]>)] : Object.entries(input)
  let lines = ""
  let authorized = false
  for (const [name, values] of list) {
    for (const value of values === undefined ? [] : typeof values === "string" ? [values] : values) {
      Http.validateHeaderName(name)
      Http.validateHeaderValue(name, value)
      authorized ||= name.toLowerCase() === "proxy-authorization"
      lines += `${name}: ${value}\r\n`
    }
  }
  return authorization === undefined || authorized ? lines : `${lines}Proxy-Authorization: ${authorization}\r\n`
}

/**
 * `HTTPS_PROXY` for `wss:`, `HTTP_PROXY` for `ws:`, unless `NO_PROXY` names the host: `*`, or names divided by commas or spaces, each
 * with its subdomains, and a port if only that is meant. Lower-case names count first.
 */
export const environmentProxy = (
  { hostname, port, secure }: Pick<Target, "hostname" | "port" | "secure">,
  environment: Readonly<Record<string, string | undefined>>
): string | undefined => {
  const read = (name: string) => environment[name.toLowerCase()] || environment[name] || undefined
  const host = hostname.toLowerCase()
  for (const entry of (read("NO_PROXY") ?? "").toLowerCase().split(/[\s,]+/)) {
    if (entry === "") continue
    if (entry === "*") return undefined
    const [, name = "", onlyPort] = /^\[?(.*?)\]?(?::(\d+))?$/.exec(Net.isIP(entry) === 6 ? `[${entry}]` : entry) ?? []
    const domain = name.replace(/^\*?\./, "")
    if (onlyPort !== undefined && Number(onlyPort) !== port) continue
    if (host === domain || host.endsWith(`.${domain}`)) return undefined
  }
  return read(secure ? "HTTPS_PROXY" : "HTTP_PROXY")
}

const tunnelled = (options: DialOptions, proxy: Proxy, target: Target): Dialed<NodeStream.Duplex> => {
  const name = `the proxy ${authority(proxy)}`
  const address = { host: proxy.hostname, port: proxy.port }
  const toProxy = proxy.secure
    ? socket(target, name, () => Tls.connect({ ...options.tcp, ...tlsOptions(proxy.hostname, proxy.tls), ...address }))
    : socket(target, name, () => Net.connect({ ...options.tcp, ...address }))
  return Effect.flatMap(toProxy, (stream) => {
    const through = Effect.as(askProxy(stream, name, proxy, target), stream)
    return target.secure ? Effect.flatMap(through, (stream) => encrypted(stream, target, options.tls)) : through
  })
}

const authority = ({ hostname, port }: { readonly hostname: string; readonly port: number }): string =>
  `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`

/** RFC 9110 §9.3.6: after a 2xx answer to CONNECT the stream leads to the target. */
const askProxy = (
  stream: NodeStream.Duplex,
  name: string,
  proxy: Proxy,
  target: Target
): Effect.Effect<void, WebSocketError.HandshakeError> =>
  Effect.async((resume) => {
    target.enter("Proxy")
    let parser = HttpHead.make("response")
    let refusal: { readonly head: HttpHead.ResponseHead; readonly body: HttpBody.HttpBody } | undefined

    const settle = (result: Effect.Effect<void, WebSocketError.HandshakeError>): void => {
      stop()
      resume(result)
    }
    const fail = (reason: "Failed" | "Invalid", detail: string, cause?: unknown): void =>
      settle(Effect.fail(new WebSocketError.HandshakeError({ phase: "Proxy", reason, detail, cause })))
    const refuse = ({ body, head: { headers, reason, status } }: NonNullable<typeof refusal>): void => {
      const detail = `${name} answered with status ${status}${reason === "" ? "" : ` ${reason}`}`
      const text = body.text()
      settle(
        Effect.fail(
          new WebSocketError.HandshakeError({ phase: "Proxy", reason: "Refused", detail, status, headers, body: text })
        )
      )
    }

    const onData = (chunk: Uint8Array): void => {
      if (refusal !== undefined) {
        if (refusal.body.push(chunk)) refuse(refusal)
        return
      }
      const result = parser.push(chunk)
      if (result._tag === "Incomplete") return
      if (result._tag === "Failed") return fail("Invalid", `${name} did not answer in HTTP/1.1: ${result.message}`)
      const { head, rest } = result
      if (head.status < 200) {
        parser = HttpHead.make("response")
        if (rest.length > 0) onData(rest)
      } else if (head.status < 300) {
        settle(Effect.void)
        if (rest.length > 0) stream.unshift(rest)
      } else {
        refusal = { head, body: HttpBody.make(head, maxBodyBytes) }
        if (refusal.body.push(rest)) refuse(refusal)
      }
    }
    const onEnd = (): void => {
      if (refusal === undefined) fail("Failed", `${name} ended the connection before it answered`)
      else refuse(refusal)
    }
    const onError = (cause: unknown): void => {
      if (refusal === undefined) fail("Failed", `${name} was lost before it answered`, cause)
      else refuse(refusal)
    }
    const stop = (): void => {
      stream.off("data", onData)
      stream.off("end", onEnd)
      stream.off("close", onEnd)
      stream.off("error", onError)
      // Bytes that follow wait for who comes next.
      stream.pause()
    }

    if (stream.destroyed)
      return resume(Effect.fail(failed("Proxy", `${name} was lost before it was asked`, stream.errored)))
    stream.on("data", onData)
    stream.on("end", onEnd)
    stream.on("close", onEnd)
    stream.on("error", onError)
    const host = authority(target)
    stream.write(`CONNECT ${host} HTTP/1.1\r\nHost: ${host}\r\n${proxy.headerLines}\r\n`, "latin1")
    return Effect.sync(stop)
  })
