/**
 * permessage-deflate (RFC 7692): messages compressed with DEFLATE. Off until it is registered: `extensions: [PermessageDeflate.small]` on a
 * route or in a client's options.
 *
 * What it costs and saves is in docs/compression.md. Messages up to 32 KiB are compressed and decompressed at once (less than a
 * millisecond), larger ones on the thread pool; messages keep their order, and pongs do not wait.
 *
 * @since 0.1.0
 */
import * as Zlib from "node:zlib"
import * as Engine from "@effect-ws/core/engine"
import {
  type Compressor,
  type Decompressor,
  Deflater,
  type DeflateSettings,
  type Failure,
  Inflater,
  OneShotDeflater,
  OneShotInflater,
  persistent
} from "./internal/zlib.js"

const { DeflateParameters, Rule } = Engine
const { directionFrom, extensionName, zlibWindowBits } = DeflateParameters
/** RFC 7692 §6: RSV1 marks a compressed message. */
const rsv1 = 0x40

/**
 * The base-2 logarithm of a window's size: 8 is 256 bytes, 15 is 32 KiB.
 *
 * @since 0.1.0
 * @category models
 */
export type WindowBits = Engine.DeflateParameters.WindowBits

/**
 * Options of {@link make}. "Server" and "client" say whose compressor is limited, whichever role we have.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** 0 (stored) to 9 (smallest). Default 6. Level 1 takes less time for large messages, for about a fifth more bytes. */
  readonly level?: number | undefined
  /** 1 to 9: our compressor's tables take 2^(memLevel + 9) bytes, and at least 64 KiB with zlib as Node builds it. Default 8. */
  readonly memLevel?: number | undefined
  /** Default `"default"`. */
  readonly strategy?: "default" | "filtered" | "huffman" | "rle" | "fixed" | undefined
  /**
   * Bytes of a whole message below which it is sent as it is; 0 compresses every message. `sendWith` says otherwise for single ones.
   * Default 1024.
   */
  readonly threshold?: number | undefined
  /** The server's compressor forgets each message: more bytes, no memory, and a broadcast compresses once. Default false. */
  readonly serverNoContextTakeover?: boolean | undefined
  /** The client's compressor forgets each message. Default false. */
  readonly clientNoContextTakeover?: boolean | undefined
  /** The largest window of the server's compressor. Default 15. */
  readonly serverMaxWindowBits?: WindowBits | undefined
  /** The largest window of the client's compressor. A server with less than 15 declines clients that can't be limited. Default 15. */
  readonly clientMaxWindowBits?: WindowBits | undefined
  /**
   * Connections that may keep contexts between messages at a time; more of them are agreed on without, so that memory stays bounded. Default
   * 1024.
   */
  readonly maxContexts?: number | undefined
}

const strategies = {
  default: Zlib.constants.Z_DEFAULT_STRATEGY,
  filtered: Zlib.constants.Z_FILTERED,
  huffman: Zlib.constants.Z_HUFFMAN_ONLY,
  rle: Zlib.constants.Z_RLE,
  fixed: Zlib.constants.Z_FIXED
} as const

/**
 * The extension with these options; a value that is out of range is a `RangeError`.
 *
 * As a client it offers what it wants and, where that might be too much to ask, permessage-deflate without demands after it.
 *
 * @example
 * import { WebSocketRoute } from "@effect-ws/core"
 * import { PermessageDeflate } from "@effect-ws/node"
 * import { Stream } from "effect"
 *
 * const Feed = WebSocketRoute.layer(
 *   "/feed",
 *   { extensions: [PermessageDeflate.make({ level: 1, serverNoContextTakeover: true })] },
 *   (socket) => Stream.run(socket.messages, socket.sink)
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Engine.Extension.Extension => {
  const { level = 6, memLevel = 8, strategy = "default", threshold = 1024, maxContexts = 1024 } = options
  integer("level", level, 0, 9)
  integer("memLevel", memLevel, 1, 9)
  integer("serverMaxWindowBits", options.serverMaxWindowBits ?? 15, 8, 15)
  integer("clientMaxWindowBits", options.clientMaxWindowBits ?? 15, 8, 15)
  if (!(strategy in strategies)) throw new RangeError(`strategy is one of ${Object.keys(strategies).join(", ")}`)
  if (!(threshold >= 0)) throw new RangeError(`threshold is a number of bytes, not ${threshold}`)
  if (!(maxContexts >= 0)) throw new RangeError(`maxContexts is a number of connections, not ${maxContexts}`)
  const settings: Settings = { level, memLevel, strategy: strategies[strategy], threshold }
  const contexts: Contexts = { open: 0, max: persistent ? maxContexts : 0 }
  const { clientMaxWindowBits = 15, serverMaxWindowBits = 15 } = options
  const takeover = () => {
    const full = contexts.open >= contexts.max
    return {
      serverNoContextTakeover: full || options.serverNoContextTakeover === true,
      clientNoContextTakeover: full || options.clientNoContextTakeover === true
    }
  }
  const opening =
    (parameters: Engine.DeflateParameters.DeflateParameters): Engine.Extension.Open =>
    ({ role }) =>
      new Session(role, parameters, settings, contexts)
  return {
    name: extensionName,
    rsv: rsv1,
    offer: () => {
      const wanted = takeover()
      const first = DeflateParameters.formatOffer({
        ...wanted,
        clientMaxWindowBits: clientMaxWindowBits === 15 ? true : clientMaxWindowBits,
        serverMaxWindowBits: serverMaxWindowBits === 15 ? undefined : serverMaxWindowBits
      })
      const { clientNoContextTakeover } = wanted
      return serverMaxWindowBits < 15 || wanted.serverNoContextTakeover
        ? [first, DeflateParameters.formatOffer({ clientNoContextTakeover })]
        : [first]
    },
    accept: (answer, offers) => {
      const parameters = DeflateParameters.accept(answer, offers)
      return "_tag" in parameters ? parameters : opening(parameters)
    },
    negotiate: (offers) => {
      const agreed = DeflateParameters.negotiate(offers, { ...takeover(), serverMaxWindowBits, clientMaxWindowBits })
      return agreed === undefined ? undefined : { params: agreed.params, open: opening(agreed.parameters) }
    }
  }
}

const integer = (name: string, value: number, least: number, most: number): void => {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} is a whole number from ${least} to ${most}, not ${value}`)
  }
}

/**
 * Windows of 1 KiB, kept between messages: about 18 KiB a connection (measured). Ours is kept as plain bytes, which are compressed again before each
 * message; that takes about as long as another KiB of message. JSON messages of 763 bytes became 24 % with it, and 19 % with {@link full}.
 *
 * @since 0.1.0
 * @category presets
 */
export const small: Engine.Extension.Extension = make({ memLevel: 3, serverMaxWindowBits: 10, clientMaxWindowBits: 10 })

/**
 * zlib's defaults: windows of 32 KiB, memory level 8, level 6, kept between messages: about 230 KiB a connection (measured; `ws` takes as
 * much).
 *
 * @since 0.1.0
 * @category presets
 */
export const full: Engine.Extension.Extension = make()

interface Settings {
  readonly level: number
  readonly memLevel: number
  readonly strategy: number
  readonly threshold: number
}

interface Contexts {
  open: number
  readonly max: number
}

class Session implements Engine.Extension.Session {
  readonly encodeKey: string | undefined
  private readonly keeps: boolean
  private readonly outgoing: Engine.DeflateParameters.DeflateDirection
  private readonly incoming: Engine.DeflateParameters.DeflateDirection
  private compressor: Compressor | undefined
  private decompressor: Decompressor | undefined
  private closed = false

  constructor(
    role: Engine.Protocol.Role,
    parameters: Engine.DeflateParameters.DeflateParameters,
    private readonly settings: Settings,
    private readonly contexts: Contexts
  ) {
    this.outgoing = directionFrom(role, parameters)
    this.incoming = directionFrom(role === "server" ? "client" : "server", parameters)
    this.keeps = this.outgoing.contextTakeover || this.incoming.contextTakeover
    if (this.keeps) contexts.open++
    const { level, memLevel, strategy, threshold } = settings
    this.encodeKey = this.outgoing.contextTakeover
      ? undefined
      : `${level} ${memLevel} ${strategy} ${threshold} ${this.outgoing.windowBits}`
  }

  takes(message: string | Uint8Array, _isText: boolean, compress: boolean | undefined): boolean {
    if (compress !== undefined) return compress
    const { threshold } = this.settings
    if (typeof message !== "string" || message.length >= threshold) return message.length >= threshold
    return message.length * 3 >= threshold && Buffer.byteLength(message) >= threshold
  }

  encode(
    { compress, payload }: Engine.Extension.Outgoing,
    done: (result: Engine.Extension.Encoded) => void
  ): Engine.Extension.Encoded | undefined {
    this.compressor ??= this.newCompressor()
    const result = this.compressor.deflate(payload, (result) => done(this.encoded(payload, compress, result)))
    return result === undefined ? undefined : this.encoded(payload, compress, result)
  }

  private encoded(payload: Uint8Array, compress: boolean | undefined, result: Uint8Array): Engine.Extension.Encoded {
    // A message that grew is better sent as it is, if no later one refers to it and nobody wants it compressed.
    const mayStay = !this.outgoing.contextTakeover && compress !== true && this.settings.threshold > 0
    return mayStay && result.length >= payload.length ? { payload, rsv: 0 } : { payload: result, rsv: rsv1 }
  }

  decode(
    { maxBytes, payload, rsv }: Engine.Extension.Incoming,
    done: (result: Uint8Array | Engine.Rule.Violation) => void
  ): Uint8Array | Engine.Rule.Violation | undefined {
    if ((rsv & rsv1) === 0) return payload
    this.decompressor ??= this.newDecompressor()
    const result = this.decompressor.inflate(payload, maxBytes, (result) => done(decoded(result, maxBytes)))
    return result === undefined ? undefined : decoded(result, maxBytes)
  }

  private newCompressor(): Compressor {
    const { level, memLevel, strategy } = this.settings
    const { contextTakeover, windowBits } = this.outgoing
    const settings: DeflateSettings = { level, memLevel, strategy, windowBits: zlibWindowBits(windowBits) }
    return persistent ? new Deflater(settings, contextTakeover) : new OneShotDeflater(settings)
  }

  private newDecompressor(): Decompressor {
    const { contextTakeover, windowBits } = this.incoming
    const bits = zlibWindowBits(windowBits)
    return persistent ? new Inflater(bits, contextTakeover) : new OneShotInflater(bits)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    if (this.keeps) this.contexts.open--
    this.compressor?.close()
    this.decompressor?.close()
  }
}

const decoded = (result: Uint8Array | Failure, maxBytes: number): Uint8Array | Engine.Rule.Violation => {
  if (typeof result !== "string") return result
  return result === "too big"
    ? Rule.violation("MessageTooBig", `more than ${maxBytes} bytes when decompressed`)
    : Rule.violation("ExtensionData", "not DEFLATE")
}
