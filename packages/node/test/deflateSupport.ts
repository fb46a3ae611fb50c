/** What the tests of compression share. */
import { syncBuiltinESMExports } from "node:module"
import Zlib from "node:zlib"
import { type Connection, Connection as Connections, TestTransport, type Transport } from "@effect-ws/core"
import { Extension } from "@effect-ws/core/engine"
import { Effect, Queue } from "effect"
import { encodeFrame, type FrameFields, FrameReader, type RawFrame } from "../../core/test/conformance/rawFrames.js"

/** Bytes that do not compress, the same in every run. */
export const noise = (length: number, seed = 1): Buffer => {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let i = 0; i < length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state
  }
  return bytes
}

/** Text of so many bytes that compresses as JSON does. */
export const prose = (length: number, seed = 0): string => {
  let text = ""
  for (let i = seed; text.length < length; i++)
    text += `{"id":${i},"name":"item ${(i * 7919) % 1000}","tags":["a","b"]},`
  return text.slice(0, length)
}

/** What both sides have when these extensions meet. */
export const agree = (server: ReadonlyArray<Extension.Extension>, client: ReadonlyArray<Extension.Extension>) => {
  const offered = Extension.offer(client)
  const agreed = Extension.negotiate(server, offered)
  const accepted = Extension.accept(offered, agreed)
  if ("_tag" in accepted) throw new Error(accepted.message)
  return { server: agreed, client: accepted }
}

export interface PairOptions extends TestTransport.Options {
  readonly server: ReadonlyArray<Extension.Extension>
  readonly client?: ReadonlyArray<Extension.Extension>
  readonly options?: Connection.Options
}

/** Two connections in memory that agreed on what these extensions agree on. */
export const connected = ({ client, options, server, ...line }: PairOptions) =>
  Effect.suspend(() => {
    const agreed = agree(server, client ?? server)
    const both = { heartbeat: false, ...options } as const
    return TestTransport.connections({
      ...line,
      client: { ...both, extensions: agreed.client },
      server: { ...both, extensions: agreed.server }
    })
  })

/** The other end of a connection, in the hands of a test. */
export interface RawPeer {
  readonly socket: Connection.Connection
  readonly transport: TestTransport.TestTransport
  readonly send: (...frames: ReadonlyArray<FrameFields>) => Effect.Effect<void>
  readonly bytes: (bytes: Uint8Array) => Effect.Effect<void>
  /** The next frame, `undefined` at the end. */
  readonly frame: Effect.Effect<RawFrame | undefined>
  /** The code of the close frame that comes next. */
  readonly closeCode: Effect.Effect<number>
}

const key = Uint8Array.of(1, 2, 3, 4)

/** A connection with `role` that agreed on these extensions, and its peer. */
export const facing = (extensions: ReadonlyArray<Extension.Extension>, options: FacingOptions = {}) =>
  facingWith(extensions.length === 0 ? [] : agree(extensions, extensions)[options.role ?? "server"], options)

export interface FacingOptions extends Connection.Options {
  readonly role?: "client" | "server"
  readonly chunking?: TestTransport.Chunking
}

/** {@link facing} with what was agreed on. */
export const facingWith = (agreed: ReadonlyArray<Extension.Agreed>, options: FacingOptions = {}) =>
  Effect.gen(function* () {
    const { chunking, role = "server", ...rest } = options
    const [near, far] = yield* TestTransport.pair({ chunking })
    const socket = yield* Connections.make(near, { heartbeat: false, ...rest, role, extensions: agreed })
    // The peer does not take part in a closing handshake that a test leaves open.
    yield* Effect.addFinalizer(() => near.cut)
    const frames = yield* Queue.unbounded<RawFrame | undefined>()
    const reader = new FrameReader()
    const listener: Transport.Listener = {
      onData: (chunk) => {
        reader.push(chunk)
        for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.unsafeOffer(frame)
      },
      onDrain: () => {},
      onEnd: () => void frames.unsafeOffer(undefined),
      onClose: () => void frames.unsafeOffer(undefined)
    }
    far.open(listener)
    const bytes = (bytes: Uint8Array) => Effect.sync(() => void far.write([bytes]))
    const frame = Queue.take(frames)
    const peer: RawPeer = {
      socket,
      transport: far,
      bytes,
      send: (...all) =>
        bytes(Buffer.concat(all.map((fields) => encodeFrame(fields, role === "server" ? key : undefined)))),
      frame,
      closeCode: Effect.map(frame, (frame) => {
        if (frame?.opcode !== 8) throw new Error(`no close frame but ${frame === undefined ? "the end" : frame.opcode}`)
        return frame.payload.length === 0 ? 1005 : frame.payload[0]! * 256 + frame.payload[1]!
      })
    }
    return peer
  })

/** The payload of a compressed message (RFC 7692 §7.2.1), by Node's own function. */
export const compressed = (message: string | Uint8Array, options: Zlib.ZlibOptions = {}): Buffer =>
  Zlib.deflateRawSync(message, { finishFlush: Zlib.constants.Z_SYNC_FLUSH, ...options }).subarray(0, -4)

/** The message behind such a payload, by Node's own function. */
export const expanded = (payload: Uint8Array, windowBits = 15): Buffer =>
  Zlib.inflateRawSync(Buffer.concat([payload, Buffer.from([0, 0, 0xff, 0xff])]), {
    windowBits,
    finishFlush: Zlib.constants.Z_SYNC_FLUSH
  })

interface Handle {
  write(...args: Array<unknown>): unknown
}

interface Context {
  readonly _handle: (Handle & { writeSync(...args: Array<unknown>): unknown }) | null
  readonly _writeState: Uint32Array
}

const made: Array<Context> = []
let outputBytes = 0
let waiting: Array<() => void> = []

const watch = (context: Context): void => {
  made.push(context)
  const handle = context._handle!
  const { write, writeSync } = handle
  handle.writeSync = (...args: Array<unknown>) => {
    writeSync.apply(handle, args)
    outputBytes += (args[6] as number) - context._writeState[0]!
  }
  handle.write = (...args: Array<unknown>) => {
    outputBytes += args[6] as number
    write.apply(handle, args)
    const resuming = waiting
    waiting = []
    for (const resume of resuming) resume()
  }
}

const watched =
  <O, S>(create: (options?: O) => S) =>
  (options?: O): S => {
    const stream = create(options)
    watch(stream as never)
    return stream
  }

Object.defineProperties(Zlib, {
  createDeflateRaw: { value: watched(Zlib.createDeflateRaw), configurable: true, enumerable: true },
  createInflateRaw: { value: watched(Zlib.createInflateRaw), configurable: true, enumerable: true }
})
syncBuiltinESMExports()

const openNow = () => made.filter(({ _handle }) => _handle !== null).length

/** zlib's contexts since a moment: how many were made, how many more are open, and how much room for output they were given. */
export class Contexts {
  private readonly madeBefore = made.length
  private readonly openBefore = openNow()
  private readonly outputBefore = outputBytes

  get made(): number {
    return made.length - this.madeBefore
  }

  get open(): number {
    return openNow() - this.openBefore
  }

  get outputBytes(): number {
    return outputBytes - this.outputBefore
  }

  /** Waits for the next step of any context on the thread pool to begin. */
  readonly started: Effect.Effect<void> = Effect.async((resume) => {
    waiting.push(() => resume(Effect.void))
  })

  static readonly follow = Effect.sync(() => new Contexts())
}
