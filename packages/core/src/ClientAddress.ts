/**
 * Who a client is behind proxies: its address, and whether it speaks TLS, from `X-Forwarded-For` and its companions or from
 * `Forwarded` (RFC 7239). Only what trusted proxies wrote is believed: the list is read from its right end, where the nearest proxy
 * writes, up to the first address that is no trusted proxy. What stands left of it the client may have made up.
 *
 * @since 0.1.0
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Option from "effect/Option"

/**
 * Which proxies are believed, and what they write.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The proxies: IPv4 and IPv6 addresses and networks (`"10.0.0.0/8"`, `"::1"`, `"fd00::/8"`), or a predicate. The predicate alone
   * can trust a peer without an address (`undefined`): a Unix socket, but also a TCP connection that is gone.
   */
  readonly trusted: ReadonlyArray<string> | ((address: string | undefined) => boolean)
  /**
   * The header that the proxies write: `"x-forwarded-for"` (with `X-Forwarded-Proto` and `X-Forwarded-Host`), the default, or
   * `"forwarded"`. The other one is ignored, since a proxy lets pass what it does not know.
   */
  readonly header?: "x-forwarded-for" | "forwarded" | undefined
}

/**
 * What the server sees itself.
 *
 * @since 0.1.0
 * @category models
 */
export interface Peer {
  readonly remoteAddress: string | undefined
  /** Whether the peer speaks TLS to this server. */
  readonly secure: boolean
  /** By lower-case name; several of one name joined by commas. */
  readonly headers: Readonly<Record<string, string | undefined>>
}

/**
 * What is known of a client.
 *
 * @since 0.1.0
 * @category models
 */
export interface Client {
  /**
   * Without port and brackets, IPv4-mapped IPv6 as IPv4. `undefined` if a trusted proxy does not say (`unknown`, an obfuscated
   * name) or what it says is malformed: it is not the proxy's own address then.
   */
  readonly address: string | undefined
  /** Whether the client itself speaks TLS, as far as trusted proxies say; without them, whether the peer does. */
  readonly secure: boolean
  /** The host that the client asked for. */
  readonly host: string | undefined
  /** The trusted proxies between, the nearest first. */
  readonly proxies: ReadonlyArray<string>
}

/**
 * Finds out who clients are.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientAddress {
  /** The client of a request. What other middleware has put in place of the peer's address does not count. */
  readonly of: (request: HttpServerRequest.HttpServerRequest) => Client
  /** The same from plain values, for servers of another kind. */
  readonly resolve: (peer: Peer) => Client
}

/**
 * Prepares for one set of proxies; make it once. An entry of `trusted` that is no address or network is a defect.
 *
 * @example
 * import { HttpServerRequest } from "@effect/platform"
 * import { ClientAddress, WebSocketRoute } from "@effect-ws/core"
 *
 * const clients = ClientAddress.make({ trusted: ["127.0.0.1", "::1", "10.0.0.0/8"] })
 *
 * const WhoAmI = WebSocketRoute.layer("/who", {}, (socket, { request }) => {
 *   const { address, secure } = clients.of(request)
 *   return socket.send(`${address ?? "somebody"} over ${secure ? "wss" : "ws"}`)
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): ClientAddress => {
  const isTrusted = trust(options.trusted)
  const hopsOf = options.header === "forwarded" ? forwardedHops : xForwardedHops
  const resolve = (peer: Peer): Client => {
    let address = peer.remoteAddress === undefined ? undefined : plain(peer.remoteAddress)
    let { secure } = peer
    let host = peer.headers.host
    const proxies: Array<string> = []
    if (!isTrusted(address)) return { address, secure, host, proxies }
    for (const hop of hopsOf(peer.headers)) {
      if (hop.address !== null) {
        if (address !== undefined) proxies.push(address)
        address = hop.address
      }
      secure = hop.secure ?? secure
      host = hop.host ?? host
      if (hop.address == null || !isTrusted(hop.address)) break
    }
    return { address, secure, host, proxies }
  }
  return { resolve, of: (request) => resolve(peerOf(request)) }
}

const peerOf = (request: HttpServerRequest.HttpServerRequest): Peer => {
  // Node's request; a web `Request` has a whole URL instead.
  const source = request.source as {
    readonly socket?: { readonly remoteAddress?: string; readonly encrypted?: boolean }
    readonly url?: string
  }
  return {
    remoteAddress:
      source.socket === undefined ? Option.getOrUndefined(request.remoteAddress) : source.socket.remoteAddress,
    secure: source.socket === undefined ? /^https:/i.test(source.url ?? "") : source.socket.encrypted === true,
    headers: request.headers
  }
}

// ---- what proxies say ---------------------------------------------------------------------------------------------------

/** What one proxy wrote of whom it had the request from. */
interface Hop {
  /** `undefined` if it can't be told, `null` if the proxy writes no addresses at all. */
  readonly address: string | undefined | null
  readonly secure: boolean | undefined
  readonly host: string | undefined
}

const unknownHop: Hop = { address: undefined, secure: undefined, host: undefined }

const listOf = (header: string | undefined): ReadonlyArray<string> =>
  header === undefined ? [] : header.split(",").map((entry) => entry.trim())

/** The nearest proxy's first. */
const xForwardedHops = (headers: Peer["headers"]): ReadonlyArray<Hop> => {
  const addresses = listOf(headers["x-forwarded-for"])
  const protocols = listOf(headers["x-forwarded-proto"])
  const hosts = listOf(headers["x-forwarded-host"])
  // Some proxies append to the companions, some write one value. Counted from the right, where a trusted proxy wrote; never further to
  // the left than the address that goes with it.
  const at = (list: ReadonlyArray<string>, hop: number) => list[Math.max(0, list.length - 1 - hop)]
  const hopAt = (address: Hop["address"], hop: number): Hop => ({
    address,
    secure: isSecureProtocol(at(protocols, hop)),
    host: at(hosts, hop) || undefined
  })
  if (addresses.length === 0) return [hopAt(null, 0)]
  return [...addresses].reverse().map((entry, hop) => hopAt(nodeAddress(entry), hop))
}

const isSecureProtocol = (protocol: string | undefined): boolean | undefined =>
  protocol === undefined || protocol === "" ? undefined : /^(?:https|wss)$/i.test(protocol)

/** RFC 7239 §4. A malformed header tells nothing at all: a quote that a client opens would swallow what the proxies add. */
const forwardedHops = ({ forwarded }: Peer["headers"]): ReadonlyArray<Hop> => {
  if (forwarded === undefined) return []
  const hops: Array<Hop> = []
  let pairs = new Map<string, string>()
  let position = 0
  while (position <= forwarded.length) {
    forwardedPair.lastIndex = position
    const match = forwardedPair.exec(forwarded)
    if (match === null) return [unknownHop]
    const [, name, token, quoted, end] = match
    if (name !== undefined) {
      const key = name.toLowerCase()
      // §4: no parameter twice in one element
      if (pairs.has(key)) return [unknownHop]
      pairs.set(key, token ?? quoted!.replace(/\\(.)/gs, "$1"))
    }
    if (end !== ";") {
      if (pairs.size > 0) hops.push(hopOf(pairs))
      pairs = new Map()
    }
    position = forwardedPair.lastIndex
    if (end === "") break
  }
  return hops.reverse()
}

/** `[ token "=" value ]` with what ends it. */
const forwardedPair = /[ \t]*(?:([!#$%&'*+.^_`|~\w-]+)=(?:([!#$%&'*+.^_`|~\w-]+)|"((?:[^"\\]|\\.)*)"))?[ \t]*(;|,|$)/gsy

const hopOf = (pairs: ReadonlyMap<string, string>): Hop => ({
  address: nodeAddress(pairs.get("for") ?? ""),
  secure: isSecureProtocol(pairs.get("proto")),
  host: pairs.get("host")
})

/** The address of `1.2.3.4`, `1.2.3.4:80`, `[::1]`, `[::1]:80` or `::1`; RFC 7239 §6. */
const nodeAddress = (node: string): string | undefined => {
  const bracketed = /^\[([^\]]*)\](?::[\w.-]+)?$/.exec(node)?.[1]
  const bare = bracketed ?? (/^[\d.]+:[\w.-]+$/.test(node) ? node.slice(0, node.indexOf(":")) : node)
  return parse(bare) === undefined ? undefined : plain(bare)
}

// ---- addresses -----------------------------------------------------------------------------------------------------------

/** Without zone, and IPv4-mapped IPv6 (RFC 4291 §2.5.5.2) as IPv4. */
const plain = (address: string): string => {
  const [withoutZone = ""] = address.split("%")
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(withoutZone)?.[1] ?? withoutZone
}

const trust = (trusted: Options["trusted"]): ((address: string | undefined) => boolean) => {
  if (typeof trusted === "function") return trusted
  const networks = trusted.map(network)
  return (address) => {
    const bits = address === undefined ? undefined : parse(address)
    return bits !== undefined && networks.some(({ prefix, shift }) => bits >> shift === prefix)
  }
}

/** Of an address or CIDR (RFC 4632 §3.1, RFC 4291 §2.3) what its members have in common. */
const network = (text: string): { readonly prefix: bigint; readonly shift: bigint } => {
  const [address = "", length, ...rest] = text.split("/")
  const bits = parse(address)
  const size = address.includes(":") ? 128 : 32
  const common = length === undefined ? size : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN
  if (bits === undefined || rest.length > 0 || !(common <= size)) {
    throw new TypeError(`${JSON.stringify(text)} is no IP address or network`)
  }
  const shift = BigInt(size - common)
  return { prefix: bits >> shift, shift }
}

/** The 128 bits of an address; IPv4 as its mapped IPv6. */
const parse = (text: string): bigint | undefined => {
  const [address = ""] = text.split("%")
  const v4 = parse4(address)
  if (v4 !== undefined) return (0xffffn << 32n) | v4
  if (!address.includes(":")) return undefined
  const halves = address.split("::")
  if (halves.length > 2) return undefined
  const [left, right] = [groups(halves[0]!), groups(halves[1] ?? "")]
  if (left === undefined || right === undefined) return undefined
  const missing = 8 - left.length - right.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  return [...left, ...Array<bigint>(missing).fill(0n), ...right].reduce((bits, group) => (bits << 16n) | group, 0n)
}

/** The 16-bit groups of one side of `::`, of which the last may be an IPv4 address. */
const groups = (side: string): ReadonlyArray<bigint> | undefined => {
  if (side === "") return []
  const result: Array<bigint> = []
  const parts = side.split(":")
  for (const [index, part] of parts.entries()) {
    const v4 = index === parts.length - 1 ? parse4(part) : undefined
    if (v4 !== undefined) result.push(v4 >> 16n, v4 & 0xffffn)
    else if (/^[\da-f]{1,4}$/i.test(part)) result.push(BigInt(`0x${part}`))
    else return undefined
  }
  return result
}

const parse4 = (text: string): bigint | undefined => {
  if (!/^(?:(?:0|[1-9]\d{0,2})(?:\.|$)){4}$/.test(text) || text.endsWith(".")) return undefined
  const bytes = text.split(".").map(Number)
  return bytes.every((byte) => byte <= 0xff) ? BigInt(bytes.reduce((bits, byte) => bits * 256 + byte, 0)) : undefined
}
