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

export const bytes = (...all: ReadonlyArray<number>) => Uint8Array.from(all)
