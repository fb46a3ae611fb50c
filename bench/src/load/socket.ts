/** What all connections of the load generator have in common: a plain TCP socket, a request, the head of the response. */
import { connect as connectTcp, type Socket } from "node:net"

/**
 * One buffer for the reads of all connections: each read is handled before the next one begins. Large, so that a big
 * message does not take a system call per 64 KiB.
 */
export const readBuffer = Buffer.alloc(512 * 1024)

/** Who reads a response. What they throw destroys the socket, and is the cause of its end. */
export interface Reader {
  /** The head, with the line end of its last header. */
  readonly onHead: (head: string) => void
  /** What comes after it: `from` to `to` of {@link readBuffer}. */
  readonly onBody: (from: number, to: number) => void
  /** The TCP connection ended, in whatever way. */
  readonly onEnd: (cause: Error | undefined) => void
}

/** Connects and sends `request`. */
export const open = (port: number, request: string | Buffer, { onBody, onEnd, onHead }: Reader): Socket => {
  let head: string | undefined = ""
  const receive = (count: number): void => {
    if (head === undefined) return onBody(0, count)
    const before = head.length
    head += readBuffer.toString("latin1", 0, count)
    const end = head.indexOf("\r\n\r\n")
    if (end < 0) return
    onHead(head.slice(0, end + 2))
    head = undefined
    const used = end + 4 - before
    if (used < count) onBody(used, count)
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
  let cause: Error | undefined
  socket.on("error", (error) => {
    cause = error
  })
  socket.on("close", () => onEnd(cause))
  socket.write(request)
  return socket
}
