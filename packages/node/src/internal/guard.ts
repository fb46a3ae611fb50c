/** Streams of upgrade requests that nobody has taken over yet. */
import type { Duplex } from "node:stream"

/**
 * Until somebody takes the stream, Node's own listeners are gone from it: a reset must not end the process, nor a client that leaves
 * keep it.
 */
export const guard = (stream: Duplex): Duplex => stream.on("error", ignore).on("end", abandon).on("finish", linger)

/** For the one who takes the stream over. */
export const unguard = (stream: Duplex): void => {
  stream.off("error", ignore)
  stream.off("end", abandon)
  stream.off("finish", linger)
}

const ignore = () => {}

/** A client that ends its side before it has an answer does not wait for one: its request is interrupted. */
function abandon(this: Duplex): void {
  if (!this.writableEnded) this.destroy()
}

const lingerMillis = 2000

/**
 * A refused request has its answer. The rest of what the client sends is dropped, so that it sees the answer and not a reset;
 * one that does not end its side is cut after a while. (Node leaves upgraded sockets half open.)
 */
export function linger(this: Duplex): void {
  if (this.destroyed) return
  this.resume()
  const timer = setTimeout(() => this.destroy(), lingerMillis)
  this.once("close", () => clearTimeout(timer))
}

export const shuttingDown = "The server is shutting down.\n"

/** Answers 503. */
export const refuse = (stream: Duplex): void => {
  stream.end(formatAnswer("503 Service Unavailable", shuttingDown, "Retry-After: 1\r\n"))
}

/** A whole response; `body` is ASCII. */
export const formatAnswer = (status: string, body: string, headers = ""): string =>
  `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\n${headers}Connection: close\r\n\r\n${body}`
