/** What comes over a stream while a request waits for its answer. */
import type { Duplex } from "node:stream"

/** Bytes that are read ahead of the answer; the end of a client that sent more is noticed after the answer. */
const maxEarlyBytes = 0x10000

/**
 * A stream tells its end when everything before it was read, so whoever decides for longer than a turn of the event loop reads ahead from
 * then on.
 */
export class ReadAhead {
  private readonly early: Array<Buffer> = []
  private bytes = 0
  private state: "scheduled" | "reading" | "stopped" = "scheduled"

  constructor(private readonly stream: Duplex) {
    process.nextTick(start, this)
  }

  start(): void {
    const { state, stream } = this
    if (state === "stopped" || stream.writableEnded || stream.destroyed) return
    this.state = "reading"
    stream.on("data", this.collect)
    // One that was paused by whoever read before does not flow by itself.
    stream.resume()
  }

  private readonly collect = (chunk: Buffer): void => {
    // Refused meanwhile: what comes now is dropped
    if (this.stream.writableEnded) return
    this.early.push(chunk)
    this.bytes += chunk.length
    if (this.bytes >= maxEarlyBytes) this.stream.pause()
  }

  /** For the one who takes the stream over: `head` and what was read behind it. */
  stop(head: Uint8Array): Uint8Array {
    const { early, state, stream } = this
    this.state = "stopped"
    if (state !== "reading") return head
    stream.off("data", this.collect)
    stream.pause()
    return early.length === 0 ? head : Buffer.concat([head, ...early])
  }
}

const start = (ahead: ReadAhead): void => ahead.start()
