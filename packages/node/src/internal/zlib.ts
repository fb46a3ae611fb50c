/**
 * Raw DEFLATE (RFC 1951) for permessage-deflate: contexts that live as long as a connection, driven in one synchronous pass for
 * small inputs and on the thread pool for large ones.
 *
 * Node's public API hands every write to the thread pool. Measured (Node 20, 22 and 24 alike, level 6, memory level 8, JSON; microseconds
 * per message, context reset before each):
 *
 *     bytes            128    1024   16384   1 MiB
 *     deflate, sync    3.4     6.7     109   22000
 *     deflate, pool    113     124     135   24000
 *     one-shot sync    9.6    13.0     123   22000
 *     inflate, sync    0.4     2.4      21    1350
 *
 * So a pass is synchronous up to {@link syncBytes}, which takes less than a millisecond, and goes to the thread pool above it, where the
 * hop costs little. The synchronous pass needs what lies under Node's streams (`_handle.writeSync`, which Node's own synchronous
 * functions use); {@link persistent} says whether it is there and works. Without it every message has a context of its own.
 */
import * as Zlib from "node:zlib"

/** Bytes of input up to which a pass is synchronous. */
export const syncBytes = 32 * 1024

/** Bytes of output after which inflating leaves the event loop to others: about a millisecond. */
const syncOutputBytes = 512 * 1024

/** Bytes that one step of the thread pool gives. */
const poolStepBytes = 64 * 1024

const { Z_SYNC_FLUSH } = Zlib.constants

/** What the end of a message leaves out (RFC 7692 §7.2.1). */
const tail = Uint8Array.of(0, 0, 0xff, 0xff)

/** Output of synchronous passes; a result is a view of it until the next pass. */
const scratch = Buffer.allocUnsafeSlow(64 * 1024)

/** Parameters of zlib's `deflateInit2`. */
export interface DeflateSettings {
  readonly level: number
  readonly memLevel: number
  readonly strategy: number
  readonly windowBits: number
}

/** Why there is no result: the data is not DEFLATE, or more than was allowed. */
export type Failure = "invalid" | "too big"

interface Handle {
  readonly writeSync: (
    flush: number,
    input: Uint8Array,
    inputOffset: number,
    inputLength: number,
    output: Uint8Array,
    outputOffset: number,
    outputLength: number
  ) => void
  onerror: (message: string, errno: number, code: string) => void
  readonly reset: () => void
}

/** What Node's zlib streams are made of. */
interface Internals {
  readonly _handle: Handle | null
  /** Bytes left of the output and of the input after a step. */
  readonly _writeState: Uint32Array
  readonly _processChunk: (chunk: Uint8Array, flush: number, done: () => void) => void
  _chunkSize: number
  _outBuffer: Uint8Array
  _outOffset: number
  push: (chunk: Uint8Array | null) => boolean
  readonly close: () => void
}

/** Streams are made with the smallest buffer that Node allows; the thread pool gets a real one while it works. */
const chunkSize = 64

/** One zlib stream: a pass of several steps at a time. After `close` nothing is called any more. */
class Context {
  /** Output of the pass so far, besides what lies in `scratch`. */
  private pieces: Array<Uint8Array> | undefined
  private length = 0
  private inScratch = 0
  private failed = false
  private stream: Internals | undefined
  private done: ((consumed: number) => void) | undefined
  private limit = 0
  private pooledBytes = 0

  constructor(stream: Zlib.DeflateRaw | Zlib.InflateRaw) {
    const internals = stream as unknown as Internals
    this.stream = internals
    internals._handle!.onerror = () => {
      this.failed = true
      this.finishPooled(-1)
    }
    internals.push = (chunk) => this.pushed(chunk)
  }

  get isClosed(): boolean {
    return this.stream === undefined
  }

  /** Begins a pass; `output` counts as given already. */
  begin(output?: Uint8Array): void {
    this.pieces = output === undefined || output.length === 0 ? undefined : [output]
    this.length = output?.length ?? 0
    this.inScratch = 0
    this.failed = false
  }

  reset(): void {
    this.stream?._handle?.reset()
  }

  /**
   * Appends what `input` gives, until there are more than `limit` bytes of output. Gives how much was consumed, which is less than all
   * at the limit or when the DEFLATE stream ended; -1 when the data is not DEFLATE.
   */
  step(input: Uint8Array, limit: number): number {
    const { _handle: handle, _writeState: state } = this.stream!
    const end = input.length
    let at = 0
    for (;;) {
      if (this.inScratch === scratch.length) this.spill()
      const room = scratch.length - this.inScratch
      handle!.writeSync(Z_SYNC_FLUSH, input, at, end - at, scratch, this.inScratch, room)
      if (this.failed) return -1
      const left = state[0]!
      this.inScratch += room - left
      this.length += room - left
      at = end - state[1]!
      if (left !== 0 || this.length > limit) return at
    }
  }

  /** {@link step} on the thread pool. */
  stepPooled(input: Uint8Array, limit: number, done: (consumed: number) => void): void {
    this.spill()
    const stream = this.stream!
    this.limit = limit
    this.done = done
    stream._chunkSize = poolStepBytes
    stream._outBuffer = Buffer.allocUnsafe(poolStepBytes)
    stream._outOffset = 0
    this.pooledBytes = input.length
    // Called when all input is consumed; a stream that ends before pushes `null` and, depending on Node's version, calls too.
    stream._processChunk(input, Z_SYNC_FLUSH, () => this.finishPooled(this.pooledConsumed))
  }

  private get pooledConsumed(): number {
    return this.stream === undefined ? 0 : this.pooledBytes - this.stream._writeState[1]!
  }

  private pushed(chunk: Uint8Array | null): boolean {
    if (this.done === undefined || this.stream === undefined) return false
    if (chunk !== null) {
      this.pieces ??= []
      this.pieces.push(chunk)
      this.length += chunk.length
      if (this.length <= this.limit) return true
    }
    const consumed = this.pooledConsumed
    // Node is in the middle of its own step.
    process.nextTick(() => this.finishPooled(consumed))
    return false
  }

  private finishPooled(consumed: number): void {
    const { done, stream } = this
    if (done === undefined || stream === undefined) return
    this.done = undefined
    stream._chunkSize = chunkSize
    stream._outBuffer = Buffer.allocUnsafeSlow(chunkSize)
    stream._outOffset = 0
    done(consumed)
  }

  get outputLength(): number {
    return this.length
  }

  /** Moves output out of `scratch`. */
  spill(): void {
    if (this.inScratch === 0) return
    this.pieces ??= []
    this.pieces.push(Buffer.from(scratch.subarray(0, this.inScratch)))
    this.inScratch = 0
  }

  /** The output of the pass without its last `drop` bytes, until the next pass of any context. */
  take(drop: number): Uint8Array {
    const length = this.length - drop
    if (this.pieces === undefined) return scratch.subarray(0, length)
    this.spill()
    const { pieces } = this
    this.pieces = undefined
    return pieces.length === 1 ? pieces[0]!.subarray(0, length) : Buffer.concat(pieces, length)
  }

  close(): void {
    const { stream } = this
    this.stream = undefined
    this.done = undefined
    this.pieces = undefined
    stream?.close()
  }
}

/** Contexts without a past, which whoever has none of its own takes for one message. */
class Pool {
  private readonly idle: Array<Context> = []
  private running = 0
  private waiting: Array<() => void> = []

  constructor(private readonly create: () => Context) {}

  acquire(): Context {
    const context = this.idle.pop() ?? this.create()
    context.reset()
    return context
  }

  release(context: Context): void {
    if (this.idle.length < maxIdle) this.idle.push(context)
    else context.close()
  }

  /** Runs `job` when fewer than {@link maxRunning} are on the thread pool; it ends with `finished`. */
  run(job: () => void): void {
    if (this.running === maxRunning) {
      this.waiting.push(job)
      return
    }
    this.running++
    job()
  }

  finished(): void {
    const next = this.waiting.shift()
    if (next === undefined) this.running--
    else next()
  }
}

const maxIdle = 2
/** libuv's threads; more contexts would only take memory. */
const maxRunning = 4

const pools = new Map<string, Pool>()

const poolOf = (key: string, create: () => Context): Pool => {
  let pool = pools.get(key)
  if (pool === undefined) {
    pool = new Pool(create)
    pools.set(key, pool)
  }
  return pool
}

const newDeflate = (settings: DeflateSettings): Context =>
  new Context(Zlib.createDeflateRaw({ ...settings, chunkSize, flush: Z_SYNC_FLUSH }))

const newInflate = (windowBits: number, dictionary?: Uint8Array): Context =>
  new Context(
    Zlib.createInflateRaw({
      windowBits,
      chunkSize,
      flush: Z_SYNC_FLUSH,
      ...(dictionary === undefined ? {} : { dictionary })
    })
  )

/** Final blocks in one message; whoever sends more means harm, since each costs a context. RFC 7692 §7.2.3.4 has one. */
const maxFinalBlocks = 16

/** Compresses the messages of one sender, one at a time. */
export interface Compressor {
  /**
   * The message as RFC 7692 §7.2.1 has it: flushed, without the last four bytes. On loan until the next call of anything here; or
   * `undefined`, and `done` is called unless it was closed meanwhile.
   */
  readonly deflate: (payload: Uint8Array, done: (result: Uint8Array) => void) => Uint8Array | undefined
  readonly close: () => void
}

/** Decompresses the messages of one sender, one at a time. */
export interface Decompressor {
  /** The message behind `payload` (§7.2.2), at most `maxBytes` of it; given as by {@link Compressor}. After a failure, `close` it. */
  readonly inflate: (
    payload: Uint8Array,
    maxBytes: number,
    done: (result: Uint8Array | Failure) => void
  ) => Uint8Array | Failure | undefined
  readonly close: () => void
}

/** A context of one's own, and its end, which may come while it is on the thread pool. */
abstract class Owner {
  protected context: Context | undefined
  protected closed = false
  /** Whether a pass is on the thread pool. */
  protected pooled = false

  constructor(protected readonly pool: Pool) {}

  close(): void {
    if (this.closed) return
    this.closed = true
    // A borrowed context comes back by itself.
    if (this.context === undefined) return
    this.context.close()
    if (this.pooled) this.pool.finished()
  }
}

/** With `takeover` it has a context of its own, from the first message to `close`; without it one is borrowed for each message. */
export class Deflater extends Owner implements Compressor {
  /** The window, where it is kept in place of a context. */
  private readonly window: Buffer | undefined
  private windowLength = 0

  constructor(
    private readonly settings: DeflateSettings,
    private readonly takeover: boolean
  ) {
    const { level, memLevel, strategy, windowBits } = settings
    super(poolOf(`deflate ${level} ${memLevel} ${strategy} ${windowBits}`, () => newDeflate(settings)))
    this.window = takeover && windowBits <= replayedWindowBits ? Buffer.allocUnsafeSlow(1 << windowBits) : undefined
  }

  deflate(payload: Uint8Array, done: (result: Uint8Array) => void): Uint8Array | undefined {
    if (payload.length > syncBytes) {
      this.pool.run(() => this.start(payload, done))
      return undefined
    }
    const context = this.borrow()
    context.begin()
    context.step(payload, Number.POSITIVE_INFINITY)
    this.slide(payload)
    const result = withoutTail(context)
    this.giveBack(context)
    return result
  }

  private start(payload: Uint8Array, done: (result: Uint8Array) => void): void {
    if (this.closed) return this.pool.finished()
    const context = this.borrow()
    this.pooled = true
    context.begin()
    context.stepPooled(payload, Number.POSITIVE_INFINITY, () => {
      this.pooled = false
      this.pool.finished()
      this.slide(payload)
      const result = withoutTail(context)
      this.giveBack(context)
      if (!this.closed) done(result)
    })
  }

  private borrow(): Context {
    if (this.takeover && this.window === undefined) {
      this.context ??= newDeflate(this.settings)
      return this.context
    }
    const context = this.pool.acquire()
    if (this.windowLength > 0) {
      // What comes out is what the peer has already; what stays inside is the past that messages may refer to.
      context.begin()
      context.step(this.window!.subarray(0, this.windowLength), Number.POSITIVE_INFINITY)
    }
    return context
  }

  /** The window moves on over a message. */
  private slide(payload: Uint8Array): void {
    const { window } = this
    if (window === undefined) return
    const size = window.length
    if (payload.length >= size) {
      window.set(payload.subarray(payload.length - size))
      this.windowLength = size
      return
    }
    const kept = Math.min(this.windowLength, size - payload.length)
    window.copyWithin(0, this.windowLength - kept, this.windowLength)
    window.set(payload, kept)
    this.windowLength = kept + payload.length
  }

  private giveBack(context: Context): void {
    if (context !== this.context) this.pool.release(context)
  }
}

/**
 * Windows up to 1 KiB are kept as bytes and compressed again before each message, in a borrowed context. Node's zlib has tables of 64 KiB and
 * more in each context, whatever the memory level; this takes 1 KiB a connection, for about as much work as another KiB to compress.
 */
const replayedWindowBits = 10

const emptyBlock = Uint8Array.of(0)

const withoutTail = (context: Context): Uint8Array =>
  // A flush after a flush with nothing between gives nothing: an empty message is an empty block.
  context.outputLength <= tail.length ? emptyBlock : context.take(tail.length)

/** The message that is decompressed. */
interface Inflating {
  context: Context
  finalBlocks: number
  readonly maxBytes: number
  readonly done: (result: Uint8Array | Failure) => void
}

/** See {@link Deflater} for `takeover`. */
export class Inflater extends Owner implements Decompressor {
  constructor(
    private readonly windowBits: number,
    private readonly takeover: boolean
  ) {
    super(poolOf(`inflate ${windowBits}`, () => newInflate(windowBits)))
  }

  inflate(
    payload: Uint8Array,
    maxBytes: number,
    done: (result: Uint8Array | Failure) => void
  ): Uint8Array | Failure | undefined {
    // Not DEFLATE in the letter (§7.2.3.6 has a byte); it would spoil the context, and what is meant is clear.
    if (payload.length === 0) return noBytes
    if (payload.length > syncBytes) {
      this.pool.run(() => this.startPooled(this.begin(maxBytes, done), payload))
      return undefined
    }
    const message = this.begin(maxBytes, done)
    const limit = Math.min(maxBytes, syncOutputBytes)
    let input = payload
    for (;;) {
      const consumed = message.context.step(input, limit)
      if (message.context.outputLength > limit && limit < maxBytes && consumed >= 0) {
        const rest = input.subarray(consumed)
        // It may have to wait, while other contexts write to the scratch memory.
        message.context.spill()
        this.pool.run(() => this.startPooled(message, rest))
        return undefined
      }
      const result = this.advance(message, input, consumed)
      if (result instanceof Uint8Array || typeof result === "string") return result
      input = input.subarray(consumed)
    }
  }

  private begin(maxBytes: number, done: (result: Uint8Array | Failure) => void): Inflating {
    let context: Context
    if (this.takeover) {
      this.context ??= newInflate(this.windowBits)
      context = this.context
    } else context = this.pool.acquire()
    context.begin()
    return { context, finalBlocks: 0, maxBytes, done }
  }

  private startPooled(message: Inflating, input: Uint8Array): void {
    if (this.closed) {
      message.context.close()
      return this.pool.finished()
    }
    this.pooled = true
    message.context.stepPooled(input, message.maxBytes, (consumed) => {
      this.pooled = false
      if (this.closed) {
        message.context.close()
        return this.pool.finished()
      }
      const result = this.advance(message, input, consumed)
      if (result === undefined) return this.startPooled(message, input.subarray(consumed))
      this.pool.finished()
      message.done(result)
    })
  }

  /** After a step that consumed so much of `input`: the result, or `undefined` when the rest is to follow in a new context. */
  private advance(message: Inflating, input: Uint8Array, consumed: number): Uint8Array | Failure | undefined {
    const { context, maxBytes } = message
    if (consumed < 0) return this.failed(context, "invalid")
    if (context.outputLength > maxBytes) return this.failed(context, "too big")
    if (consumed < input.length) {
      // §7.2.3.4: a final block ends the DEFLATE stream, not the message.
      if (++message.finalBlocks > maxFinalBlocks) return this.failed(context, "invalid")
      message.context = this.renewed(context, Buffer.from(context.take(0)))
      return undefined
    }
    const consumedTail = context.step(tail, maxBytes)
    if (consumedTail < 0 || (consumedTail > 0 && consumedTail < tail.length)) return this.failed(context, "invalid")
    if (context.outputLength > maxBytes) return this.failed(context, "too big")
    const result = context.take(0)
    if (!this.takeover) {
      // One that was renewed keeps the message as its dictionary, which `reset` would give to a stranger.
      if (message.finalBlocks === 0) this.pool.release(context)
      else context.close()
    } else if (consumedTail === 0) {
      const own = Buffer.from(result)
      this.renewed(context, own)
      return own
    }
    return result
  }

  /**
   * A context in the place of one whose stream ended, for which this message is the past. What lies before it is lost: zlib
   * does not give its window away. No sender is known that goes on referring to it.
   */
  private renewed(context: Context, output: Uint8Array): Context {
    context.close()
    const renewed = newInflate(this.windowBits, output.length === 0 ? undefined : output.subarray(-0x8000))
    renewed.begin(output)
    if (this.takeover) this.context = renewed
    return renewed
  }

  private failed(context: Context, failure: Failure): Failure {
    context.close()
    if (this.takeover) this.context = undefined
    return failure
  }
}

// ---- without what lies under Node's streams ------------------------------------------------------------------------------

/** {@link Deflater} without takeover, by Node's public functions. */
export class OneShotDeflater implements Compressor {
  private closed = false

  constructor(private readonly settings: DeflateSettings) {}

  deflate(payload: Uint8Array, done: (result: Uint8Array) => void): Uint8Array | undefined {
    const options = { ...this.settings, finishFlush: Z_SYNC_FLUSH }
    if (payload.length <= syncBytes) return stripped(Zlib.deflateRawSync(payload, options))
    Zlib.deflateRaw(payload, options, (_, result) => {
      if (!this.closed) done(stripped(result))
    })
    return undefined
  }

  close(): void {
    this.closed = true
  }
}

const stripped = (flushed: Uint8Array): Uint8Array => flushed.subarray(0, flushed.length - tail.length)

/** {@link Inflater} without takeover, by Node's public functions. */
export class OneShotInflater implements Decompressor {
  private closed = false

  constructor(private readonly windowBits: number) {}

  inflate(
    payload: Uint8Array,
    maxBytes: number,
    done: (result: Uint8Array | Failure) => void
  ): Uint8Array | Failure | undefined {
    const input = Buffer.concat([payload, tail])
    if (payload.length > syncBytes) {
      this.inflateLater(input, noBytes, 0, maxBytes, done)
      return undefined
    }
    let output: Buffer = noBytes
    for (let at = 0, streams = 0; at < payload.length || streams === 0; streams++) {
      if (streams > maxFinalBlocks) return "invalid"
      try {
        const { buffer, engine } = Zlib.inflateRawSync(
          input.subarray(at),
          this.options(output, maxBytes)
        ) as unknown as Info
        if (output.length + buffer.length > maxBytes) return "too big"
        output = streams === 0 ? buffer : Buffer.concat([output, buffer])
        at += engine.bytesWritten
      } catch (cause) {
        return failureOf(cause)
      }
    }
    return output
  }

  private inflateLater(
    input: Buffer,
    output: Buffer,
    streams: number,
    maxBytes: number,
    done: (result: Uint8Array | Failure) => void
  ): void {
    Zlib.inflateRaw(input, this.options(output, maxBytes), (cause, result) => {
      if (this.closed) return
      if (cause !== null) return done(failureOf(cause))
      const { buffer, engine } = result as unknown as Info
      const length = output.length + buffer.length
      if (length > maxBytes) return done("too big")
      const all = streams === 0 ? buffer : Buffer.concat([output, buffer])
      const rest = input.subarray(engine.bytesWritten)
      if (rest.length <= tail.length) return done(all)
      if (streams === maxFinalBlocks) return done("invalid")
      this.inflateLater(rest, all, streams + 1, maxBytes, done)
    })
  }

  /** For what follows `output`: a final block ends the DEFLATE stream, not the message (RFC 7692 §7.2.3.4). */
  private options(output: Buffer, maxBytes: number): Zlib.ZlibOptions {
    const options = {
      windowBits: this.windowBits,
      finishFlush: Z_SYNC_FLUSH,
      maxOutputLength: Math.max(1, maxBytes - output.length),
      info: true
    }
    return output.length === 0 ? options : { ...options, dictionary: output.subarray(-0x8000) }
  }

  close(): void {
    this.closed = true
  }
}

/** What Node's functions give with `info`. */
interface Info {
  readonly buffer: Buffer
  readonly engine: { readonly bytesWritten: number }
}

const noBytes = Buffer.alloc(0)

const failureOf = (cause: unknown): Failure =>
  (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE" ? "too big" : "invalid"

/** Whether contexts can outlive a message here: what Node has under its streams is as it was in Node 20 to 24. */
export const persistent: boolean = (() => {
  try {
    const deflater = new Deflater({ level: 6, memLevel: 8, strategy: 0, windowBits: 15 }, true)
    const inflater = new Inflater(15, true)
    const message = Buffer.from("Whether a context is kept shows in the second message. ")
    let works = true
    let last = Number.POSITIVE_INFINITY
    for (let i = 0; i < 2; i++) {
      const compressed = Buffer.from(deflater.deflate(message, ignore)!)
      works &&= compressed.length < last
      last = compressed.length
      const result = inflater.inflate(compressed, message.length, ignore)
      works &&= result instanceof Uint8Array && message.equals(result)
    }
    deflater.close()
    inflater.close()
    return works
  } catch {
    return false
  }
})()

function ignore(): void {}
