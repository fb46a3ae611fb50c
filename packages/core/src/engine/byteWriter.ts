/**
 * Where frames are written before they leave: small ones one behind the other into a slab that all connections of a
 * thread share, large payloads as pieces of their own. One turn's output of a connection is then one piece, hence one
 * system call (a pipelined echo does 20 times ws that way, with a write per frame 1.4 times).
 */
import { type Natives, portable, view } from "./Natives.js"

/** Bytes; a piece of output never spans two slabs. */
const slabBytes = 64 * 1024

/** The most that {@link ByteWriter.reserve} gives; what is larger is memory of its own, for {@link ByteWriter.push}. */
export const maxReserveBytes = slabBytes / 2

/** A slab and how much of it is taken; shared by the writers made with it. @since 0.1.0 */
export interface Slab {
  readonly natives: Natives
  bytes: Uint8Array<ArrayBuffer>
  /** That of `bytes`: V8 takes 60 nanoseconds to tell it. */
  memory: ArrayBuffer
  position: number
  /** Where the last piece that was taken begins, while it ends at `position`; else -1. */
  lastTaken: number
  /**
   * Who took it, and alone may release it. It stays here until the next `take`: one writer per slab, which holds no memory but its own
   * and no connection. To forget it sooner would cost every write a store.
   */
  lastTaker: ByteWriter | undefined
}

/** A slab; make one per thread and platform. @since 0.1.0 */
export const makeSlab = (natives: Natives): Slab => {
  const bytes = natives.allocate(slabBytes)
  return { natives, bytes, memory: bytes.buffer, position: 0, lastTaken: -1, lastTaker: undefined }
}

/** The slab of engines that are made without a platform. @since 0.1.0 */
export const portableSlab: Slab = makeSlab(portable)

const nothing = new Uint8Array(0)

/**
 * Collects the output of one connection. `reserve` gives the place where to write, `advance` says how much was
 * written, `take` gives all of it in order. A writer without output refers to no slab, so that an idle connection pins none.
 *
 * @since 0.1.0
 */
export class ByteWriter {
  /** The memory that `reserve` gave an offset into. */
  target: Uint8Array<ArrayBuffer> = nothing
  /** Bytes not yet taken. */
  size = 0
  private readonly slab: Slab
  private start = 0
  private end = 0
  private pieces: Array<Uint8Array> | undefined

  constructor(slab: Slab) {
    this.slab = slab
  }

  get natives(): Natives {
    return this.slab.natives
  }

  /** Makes room for `length` contiguous bytes (at most {@link maxReserveBytes}) and gives the offset in `target` where they begin. */
  reserve(length: number): number {
    const slab = this.slab
    const fits = slab.position + length <= slabBytes
    if (fits && this.end === slab.position && this.target === slab.bytes) return this.end
    this.closePiece()
    if (!fits) {
      slab.bytes = slab.natives.allocate(slabBytes)
      slab.memory = slab.bytes.buffer
      slab.position = 0
    }
    slab.lastTaken = -1
    this.target = slab.bytes
    this.start = this.end = slab.position
    return this.end
  }

  /** `length` bytes were written where `reserve` said. */
  advance(length: number): void {
    this.end += length
    this.slab.position = this.end
    this.size += length
  }

  /** Appends bytes of the caller's as they are; they must not change until they are written. */
  push(bytes: Uint8Array): void {
    this.closePiece()
    this.pieces ??= []
    this.pieces.push(bytes)
    this.size += bytes.length
  }

  /** All output since the last `take`, in order. */
  take(): Array<Uint8Array> {
    const pieces = this.pieces
    this.size = 0
    this.slab.lastTaken = -1
    if (pieces === undefined) {
      if (this.end === this.start) {
        this.target = nothing
        return []
      }
      const piece = this.piece()
      if (this.target === this.slab.bytes && this.slab.position === this.end) {
        this.slab.lastTaken = this.start
        this.slab.lastTaker = this
      }
      this.start = this.end
      this.target = nothing
      return [piece]
    }
    this.closePiece()
    this.pieces = undefined
    this.target = nothing
    return pieces
  }

  /**
   * Nobody reads what the last `take` gave any more (say it at once or never). If it was one piece, the next writer gets
   * the same memory, which is still in the processor's cache; if another writer used the slab since, nothing happens.
   */
  release(): void {
    const slab = this.slab
    if (slab.lastTaken >= 0 && slab.lastTaker === this) {
      slab.position = slab.lastTaken
      slab.lastTaken = -1
    }
  }

  private closePiece(): void {
    if (this.end > this.start) {
      this.pieces ??= []
      this.pieces.push(this.piece())
      this.start = this.end
    }
  }

  private piece(): Uint8Array<ArrayBuffer> {
    const { end, slab, start, target } = this
    return target === slab.bytes
      ? new Uint8Array(slab.memory, target.byteOffset + start, end - start)
      : view(target, start, end)
  }
}
