/**
 * The parameters of permessage-deflate (RFC 7692 §7.1): what a client offers, what a server answers, and what the client makes of
 * the answer. The transform itself is elsewhere.
 *
 * Window bits are the base-2 logarithm of the LZ77 window in bytes, 8 to 15. "Server" and "client" in a parameter's name say whose
 * compressor it limits, so each limits one direction.
 */
import { type Params, type Refusal, refuse } from "./Extension.js"

/**
 * The extension's name in `Sec-WebSocket-Extensions`.
 *
 * @since 0.1.0
 * @category constants
 */
export const extensionName = "permessage-deflate"

/**
 * The base-2 logarithm of a window's size: 8 is 256 bytes, 15 is 32 KiB.
 *
 * @since 0.1.0
 * @category models
 */
export type WindowBits = 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15

/**
 * What both sides keep to once the handshake is over.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeflateParameters {
  /** Whether the server's compressor begins every message with an empty window. */
  readonly serverNoContextTakeover: boolean
  /** Whether the client's compressor begins every message with an empty window. */
  readonly clientNoContextTakeover: boolean
  /** The largest window of the server's compressor. */
  readonly serverMaxWindowBits: WindowBits
  /** The largest window of the client's compressor. */
  readonly clientMaxWindowBits: WindowBits
}

/**
 * One offer of a client.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeflateOffer {
  /** Demands that the server keeps no window between messages, which saves memory here. Default false. */
  readonly serverNoContextTakeover?: boolean | undefined
  /** Promises to keep no window between messages, which saves memory at both ends. Default false. */
  readonly clientNoContextTakeover?: boolean | undefined
  /** Demands that the server's window is not larger. Default: no limit, 15. */
  readonly serverMaxWindowBits?: WindowBits | undefined
  /** A number promises a window that is not larger, and both it and `true` let the server ask for a smaller one. Default true. */
  readonly clientMaxWindowBits?: WindowBits | boolean | undefined
}

/**
 * What a server wants.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeflateAnswer {
  /** Keeps no window between messages, whether or not the client asks for it. Default false. */
  readonly serverNoContextTakeover?: boolean | undefined
  /** Forbids the client to keep a window between messages. Default false. */
  readonly clientNoContextTakeover?: boolean | undefined
  /** The largest window for what the server sends; the client may ask for a smaller one. Default 15. */
  readonly serverMaxWindowBits?: WindowBits | undefined
  /** The largest window for what the client sends. Below 15 it declines offers that promise neither this nor to obey. Default 15. */
  readonly clientMaxWindowBits?: WindowBits | undefined
}

/**
 * The parameters of an offer as they go into the request.
 *
 * @since 0.1.0
 * @category client
 */
export const formatOffer = (offer: DeflateOffer): Params => {
  const { clientMaxWindowBits = true, serverMaxWindowBits } = offer
  return format(offer, serverMaxWindowBits, clientMaxWindowBits === false ? undefined : clientMaxWindowBits)
}

/**
 * The parameters of a connection by the server's answer to these offers (each from {@link formatOffer} or by hand).
 *
 * The answer does not say which offer it accepts. It is right when it is right for any of them, and when it is for several the
 * promises of all these are kept. {@link Refusal} when a parameter is unknown, comes twice, or has an illegal value or none, when
 * `client_max_window_bits` was not offered, and when what the offer demands is not granted. RFC 7692 §5.1, §7.1.
 *
 * @since 0.1.0
 * @category client
 */
export const accept = (answer: Params, offers: ReadonlyArray<Params>): DeflateParameters | Refusal => {
  const answered = parse(answer, false)
  if (typeof answered === "string") return refuse(answered)
  let problem = "nothing was offered"
  let matches = false
  let clientNoContextTakeover = answered.clientNoContextTakeover
  let clientMaxWindowBits = bitsOf(answered.clientMaxWindowBits)
  // The first offer is the one that the user wants most, so its problem is what is told.
  for (let i = offers.length - 1; i >= 0; i--) {
    const offered = match(answered, offers[i]!)
    if (typeof offered === "string") {
      problem = offered
      continue
    }
    matches = true
    // §7.1.1.2 and §7.1.2.2: the server may count on both promises without repeating them.
    clientNoContextTakeover ||= offered.clientNoContextTakeover
    clientMaxWindowBits = smaller(clientMaxWindowBits, bitsOf(offered.clientMaxWindowBits))
  }
  if (!matches) return refuse(problem)
  return {
    serverNoContextTakeover: answered.serverNoContextTakeover,
    clientNoContextTakeover,
    serverMaxWindowBits: bitsOf(answered.serverMaxWindowBits),
    clientMaxWindowBits
  }
}

/** The offer, or why the answer does not accept it. */
const match = (answered: Parsed, params: Params): Parsed | string => {
  const offered = parse(params, true)
  if (typeof offered === "string") return offered
  // §7.1.1.1: the server may volunteer, but not drop what it is asked for
  if (offered.serverNoContextTakeover && !answered.serverNoContextTakeover) {
    return "server_no_context_takeover is demanded but not granted"
  }
  // §7.1.2.1: "with the same or smaller value as the offer"; not offered, any value will do
  const { clientMaxWindowBits, serverMaxWindowBits } = answered
  if (offered.serverMaxWindowBits !== undefined) {
    if (serverMaxWindowBits === undefined) return "server_max_window_bits is demanded but not granted"
    if (serverMaxWindowBits > offered.serverMaxWindowBits) {
      return `server_max_window_bits=${serverMaxWindowBits} is more than the ${offered.serverMaxWindowBits} offered`
    }
  }
  // §7.1.2.2: only when offered; a value above the one that was promised asks for nothing
  return clientMaxWindowBits !== undefined && offered.clientMaxWindowBits === undefined
    ? "client_max_window_bits was not offered"
    : offered
}

/**
 * The answer to the first of the offers that can be met, with the parameters of the connection; `undefined` when there is none.
 *
 * An offer with a parameter that is unknown, comes twice, or has an illegal value or none is passed over (RFC 7692 §7.1), and so is
 * one that leaves the client's window larger than the server wants. `server_max_window_bits` is only answered when it was offered,
 * since some clients fail otherwise: a window that is smaller than the client expects needs no word.
 *
 * @since 0.1.0
 * @category server
 */
export const negotiate = (
  offers: ReadonlyArray<Params>,
  wanted: DeflateAnswer
): { readonly params: Params; readonly parameters: DeflateParameters } | undefined => {
  const wantedClientBits = wanted.clientMaxWindowBits ?? 15
  for (const params of offers) {
    const offered = parse(params, true)
    if (typeof offered === "string") continue
    // §7.1.2.2: the answer must not have it when the offer has not
    if (wantedClientBits < 15 && offered.clientMaxWindowBits === undefined) continue
    const parameters: DeflateParameters = {
      serverNoContextTakeover: offered.serverNoContextTakeover || wanted.serverNoContextTakeover === true,
      clientNoContextTakeover: offered.clientNoContextTakeover || wanted.clientNoContextTakeover === true,
      serverMaxWindowBits: smaller(wanted.serverMaxWindowBits ?? 15, bitsOf(offered.serverMaxWindowBits)),
      clientMaxWindowBits: smaller(wantedClientBits, bitsOf(offered.clientMaxWindowBits))
    }
    const answersClientBits = typeof offered.clientMaxWindowBits === "number" || wantedClientBits < 15
    return {
      params: format(
        parameters,
        offered.serverMaxWindowBits === undefined ? undefined : parameters.serverMaxWindowBits,
        answersClientBits ? parameters.clientMaxWindowBits : undefined
      ),
      parameters
    }
  }
  return undefined
}

/**
 * How one endpoint compresses or decompresses.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeflateDirection {
  readonly windowBits: WindowBits
  /** Whether the window is kept between messages. */
  readonly contextTakeover: boolean
}

/**
 * How messages from this role are compressed, and decompressed by the other.
 *
 * @since 0.1.0
 * @category models
 */
export const directionFrom = (role: "client" | "server", parameters: DeflateParameters): DeflateDirection =>
  role === "client"
    ? { windowBits: parameters.clientMaxWindowBits, contextTakeover: !parameters.clientNoContextTakeover }
    : { windowBits: parameters.serverMaxWindowBits, contextTakeover: !parameters.serverNoContextTakeover }

/**
 * The window bits to give to zlib: 9 for 8, which it does not take for raw deflate.
 *
 * That needs no refusal of 8. A larger window decompresses what was made with a smaller one, and a compressor with 9 refers at
 * most 250 bytes back (zlib keeps 262 of its window's bytes as lookahead), so that a window of 256 bytes decompresses what it
 * made; a test shows it for every level and strategy.
 *
 * @since 0.1.0
 * @category constants
 */
export const zlibWindowBits = (bits: WindowBits): WindowBits => (bits === 8 ? 9 : bits)

/** A list of parameters that is right by itself; `true` is a parameter without a value. */
interface Parsed {
  readonly serverNoContextTakeover: boolean
  readonly clientNoContextTakeover: boolean
  readonly serverMaxWindowBits: WindowBits | undefined
  readonly clientMaxWindowBits: WindowBits | true | undefined
}

/** What the list says, or what is wrong with it. Names and values are tokens, so they may be shown; long ones are cut. */
const parse = (params: Params, isOffer: boolean): Parsed | string => {
  const parsed: { -readonly [K in keyof Parsed]: Parsed[K] } = {
    serverNoContextTakeover: false,
    clientNoContextTakeover: false,
    serverMaxWindowBits: undefined,
    clientMaxWindowBits: undefined
  }
  for (const { name, value } of params) {
    const flag =
      name === "server_no_context_takeover"
        ? "serverNoContextTakeover"
        : name === "client_no_context_takeover"
          ? "clientNoContextTakeover"
          : undefined
    if (flag !== undefined) {
      if (value !== true) return `${name} takes no value: ${value.slice(0, 20)}`
      if (parsed[flag]) return `${name} comes twice`
      parsed[flag] = true
      continue
    }
    const isClients = name === "client_max_window_bits"
    if (!isClients && name !== "server_max_window_bits") return `unknown parameter ${name.slice(0, 50)}`
    if ((isClients ? parsed.clientMaxWindowBits : parsed.serverMaxWindowBits) !== undefined)
      return `${name} comes twice`
    const bits = value === true ? undefined : parseBits(value)
    if (value !== true && bits === undefined) return `${name} is 8 to 15 in decimal digits, not ${value.slice(0, 20)}`
    if (value === true && !(isClients && isOffer)) return `${name} needs a value`
    if (isClients) parsed.clientMaxWindowBits = bits ?? true
    else parsed.serverMaxWindowBits = bits
  }
  return parsed
}

/** §7.1.2: "a decimal integer value without leading zeroes between 8 to 15 inclusive". */
const parseBits = (value: string): WindowBits | undefined =>
  /^(?:[89]|1[0-5])$/.test(value) ? (Number(value) as WindowBits) : undefined

const bitsOf = (bits: WindowBits | true | undefined): WindowBits => (typeof bits === "number" ? bits : 15)

const smaller = (a: WindowBits, b: WindowBits): WindowBits => (a < b ? a : b)

const format = (
  takeover: {
    readonly serverNoContextTakeover?: boolean | undefined
    readonly clientNoContextTakeover?: boolean | undefined
  },
  serverBits: WindowBits | undefined,
  clientBits: WindowBits | true | undefined
): Params => {
  const params: Array<Params[number]> = []
  if (takeover.serverNoContextTakeover === true) params.push({ name: "server_no_context_takeover", value: true })
  if (takeover.clientNoContextTakeover === true) params.push({ name: "client_no_context_takeover", value: true })
  if (serverBits !== undefined) params.push({ name: "server_max_window_bits", value: String(serverBits) })
  if (clientBits !== undefined) {
    params.push({ name: "client_max_window_bits", value: clientBits === true ? true : String(clientBits) })
  }
  return params
}
