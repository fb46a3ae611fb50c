/**
 * Finding and unmasking frames by WebAssembly, 16 bytes at a time: the ordinary case of {@link FrameDecoder}, whole messages that lie in
 * the received chunk, and nothing else. `frames.wat` is the source.
 *
 * It works in memory of its own, so the platform has to receive there. (Nanoseconds per payload of 128 B, 1 KiB and 16 KiB, Node 20:
 * unmasked here 18, 35 and 344, by `applyMask` 51, 195 and 2,095.)
 */
import * as Base64 from "./base64.js"
import { framesModule } from "./framesModule.js"

/** Places in `memory` are bytes from its beginning. @since 0.1.0 */
export interface FrameScanner {
  readonly memory: ArrayBuffer
  /** Where to receive; free for whatever the platform does with it. */
  readonly input: Uint8Array<ArrayBuffer>
  /** For payloads that lie elsewhere, a piece at a time; what is in it is nobody's. */
  readonly scratch: Uint8Array<ArrayBuffer>
  /** What `scan` found, two numbers per frame: where its payload begins, and `length * 4 + (text ? 2 : 0) + (ASCII ? 1 : 0)`. */
  readonly table: Int32Array
  /** XORs the bytes in `[at, end)` with `key` as `applyMask` does. 0 if all are ASCII afterwards. */
  readonly mask: (at: number, end: number, key: number) => number
  /**
   * Unmasks the frames in `[at, end)` and gives their number, until they are `maxFrames` (or as many as the table has room for) or
   * have `maxBytes` or more, and before the first one that is not a whole message of at most `maxMessageBytes`, is not minimal or not
   * complete, has a length in 64 bits, reserved bits, or its mask bit not as in `maskBit`.
   */
  readonly scan: (
    at: number,
    end: number,
    maxFrames: number,
    maxBytes: number,
    maxMessageBytes: number,
    maskBit: number
  ) => number
}

// The parts of the memory, one behind the other; `frames.wat` says how much there is.
const inputBytes = 128 * 1024
const scratchBytes = 16 * 1024
const tableFrames = 4 * 1024

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer }
  readonly mask: FrameScanner["mask"]
  readonly scan: (...args: [...Parameters<FrameScanner["scan"]>, table: number]) => number
}

/** A scanner, or `undefined` where there is no WebAssembly with SIMD or it may not be used. Make one per thread. @since 0.1.0 */
export const makeFrameScanner = (): FrameScanner | undefined => {
  let exports: Exports
  try {
    const module = new WebAssembly.Module(Base64.decode(framesModule) as Uint8Array<ArrayBuffer>)
    exports = new WebAssembly.Instance(module).exports as unknown as Exports
  } catch {
    return undefined
  }
  const { memory, mask, scan } = exports
  const tableAt = inputBytes + scratchBytes
  return {
    memory: memory.buffer,
    input: new Uint8Array(memory.buffer, 0, inputBytes),
    scratch: new Uint8Array(memory.buffer, inputBytes, scratchBytes),
    table: new Int32Array(memory.buffer, tableAt, tableFrames * 2),
    mask,
    scan: (at, end, maxFrames, maxBytes, maxMessageBytes, maskBit) =>
      scan(
        at,
        end,
        Math.min(maxFrames, tableFrames),
        Math.min(maxBytes, 0x7fffffff),
        Math.min(maxMessageBytes, 0x7fffffff),
        maskBit,
        tableAt
      )
  }
}
