/** One connection of the load generator: a plain TCP socket, the opening handshake, the closing handshake. */
import type { Socket } from "node:net"
import { open, readBuffer } from "./socket.js"
import { headerOf, maskedFrame, type Opening, refusalOf } from "./wire.js"

export interface Client {
  readonly socket: Socket
  /** The value of `Sec-WebSocket-Extensions` in the server's acceptance. */
  extensions: string | undefined
  /** Gets what comes after the opening handshake; the buffer is written over after the call. */
  onBytes: (chunk: Buffer, count: number) => void
  /** The TCP connection ended, in whatever way. */
  onEnd: (cause: Error | undefined) => void
}

/** RFC 6455 §5.5.1: code 1000. */
export const closeFrame = maskedFrame(0x88, Buffer.from([0x03, 0xe8]))

/** RFC 6455 §5.5.3: a pong that no ping asked for. */
export const pongFrame = maskedFrame(0x8a, Buffer.alloc(0))

/**
 * Connects and sends the opening handshake. `onOpen` runs once the server accepted it, before bytes that came with the
 * acceptance go to `onBytes`. An exception of `onOpen`, `onBytes`, and a refusal, destroy the socket with that error.
 */
export const connect = (port: number, opening: Opening, onOpen: (client: Client) => void): Client => {
  const socket = open(port, opening.request, {
    onHead: (head) => {
      const refusal = refusalOf(head, opening)
      if (refusal !== undefined) throw new Error(`opening handshake: ${refusal}`)
      client.extensions = headerOf(head, "sec-websocket-extensions")
      onOpen(client)
    },
    onBody: (from, to) => client.onBytes(from === 0 ? readBuffer : readBuffer.subarray(from, to), to - from),
    onEnd: (cause) => client.onEnd(cause)
  })
  const client: Client = { socket, extensions: undefined, onBytes: () => {}, onEnd: () => {} }
  return client
}
