/** One connection of the load generator: a plain TCP socket, the opening handshake, the closing handshake. */
import { connect as connectTcp, type Socket } from "node:net"
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
 * One buffer for the reads of all connections: each read is handled before the next one begins. Large, so that a big
 * message does not take a system call per 64 KiB.
 */
const readBuffer = Buffer.alloc(512 * 1024)

/**
 * Connects and sends the opening handshake. `onOpen` runs once the server accepted it, before bytes that came with the
 * acceptance go to `onBytes`. An exception of `onOpen`, `onBytes`, and a refusal, destroy the socket with that error.
 */
export const connect = (port: number, opening: Opening, onOpen: (client: Client) => void): Client => {
  let head: string | undefined = ""
  const receive = (count: number): void => {
    if (head === undefined) {
      client.onBytes(readBuffer, count)
      return
    }
    const before = head.length
    head += readBuffer.toString("latin1", 0, count)
    const end = head.indexOf("\r\n\r\n")
    if (end < 0) return
    const refusal = refusalOf(head.slice(0, end + 2), opening)
    if (refusal !== undefined) throw new Error(`opening handshake: ${refusal}`)
    client.extensions = headerOf(head.slice(0, end + 2), "sec-websocket-extensions")
    head = undefined
    onOpen(client)
    const used = end + 4 - before
    if (used < count) client.onBytes(readBuffer.subarray(used, count), count - used)
  }
  const socket = connectTcp({
    port,
    host: "127.0.0.1",
    noDelay: true,
    onread: {
      buffer: readBuffer,
      // Without the readable stream's own buffering; the types want a result, `true` goes on reading.
      callback: (count) => {
        try {
          receive(count)
        } catch (error) {
          socket.destroy(error instanceof Error ? error : new Error(String(error)))
        }
        return true
      }
    }
  })
  const client: Client = { socket, extensions: undefined, onBytes: () => {}, onEnd: () => {} }
  let cause: Error | undefined
  socket.on("error", (error) => {
    cause = error
  })
  socket.on("close", () => client.onEnd(cause))
  socket.write(opening.request)
  return client
}
