/** What tests of transports share. */
import type { Transport, WebSocketError } from "@effect-ws/core"

/** Writes down what a transport says, one entry a call. */
export class Recorder implements Transport.Listener {
  readonly events: Array<string> = []
  readonly chunks: Array<Uint8Array> = []
  error: WebSocketError.TransportError | undefined
  onData(chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.events.push(`data ${chunk.join(",")}`)
  }
  onDrain(): void {
    this.events.push("drain")
  }
  onEnd(): void {
    this.events.push("end")
  }
  onClose(error: WebSocketError.TransportError | undefined): void {
    this.error = error
    this.events.push("close")
  }
}

/** Receives everything in the same memory, so many bytes at a time whether or not it is paused meanwhile, and writes over it afterwards. */
export const lending = (transport: Transport.Transport, bytes = 0x10000): Transport.Transport => {
  const memory = new Uint8Array(bytes)
  return {
    ...transport,
    open: (listener) =>
      transport.open({
        onData: (chunk) => {
          for (let at = 0; at < chunk.length; at += bytes) {
            const size = Math.min(bytes, chunk.length - at)
            memory.set(chunk.subarray(at, at + size))
            listener.onLent!(memory.subarray(0, size))
            memory.fill(0xee)
          }
        },
        onDrain: () => listener.onDrain(),
        onEnd: () => listener.onEnd(),
        onClose: (error) => listener.onClose(error)
      })
  }
}

export const bytes = (...all: ReadonlyArray<number>) => Uint8Array.from(all)
