/**
 * The least that Node needs to do: `node:net`, a hand-cut opening handshake, and framing without any rule of the
 * protocol checked. What one read brought is answered by one write. An upper bound, not a server.
 */
import { createServer, type Socket } from "node:net"
import { acceptanceOf, unmaskInPlace, writeHeader } from "../load/wire.js"
import { listen } from "./harness.js"

const members = new Set<Socket>()

const server = createServer({ noDelay: true }, (socket) => {
  let open = false
  let isBroadcast = false
  let head = ""
  /** A frame that is still incomplete, in a buffer which holds all of it as soon as its length is known. */
  let rest: Buffer | undefined
  let restBytes = 0

  const send = (bytes: Buffer): void => {
    if (isBroadcast) for (const member of members) member.write(bytes)
    else socket.write(bytes)
  }

  /** Answers all whole frames of `chunk` and returns where the first incomplete one starts. */
  const answer = (chunk: Buffer): number => {
    let out: Buffer | undefined
    let outBytes = 0
    let at = 0
    while (chunk.length - at >= 6) {
      const total = frameBytes(chunk, at)
      if (total === undefined || chunk.length - at < total) break
      const first = chunk[at]!
      const payloadBytes = total - headerBytesOf(chunk[at + 1]!)
      const payloadAt = at + total - payloadBytes
      unmaskInPlace(chunk, payloadAt, payloadBytes, chunk.readInt32LE(payloadAt - 4))
      at += total
      if (first === 0x88) {
        if (out !== undefined) send(out.subarray(0, outBytes))
        socket.end(Buffer.concat([Buffer.of(0x88, payloadBytes), chunk.subarray(payloadAt, payloadAt + payloadBytes)]))
        return chunk.length
      }
      if (first === 0x8a) continue
      // Unmasked frames are four bytes shorter than they came, so the chunk's length is enough for all of them.
      out ??= Buffer.allocUnsafe(chunk.length)
      outBytes = writeHeader(out, outBytes, first, payloadBytes)
      outBytes += chunk.copy(out, outBytes, payloadAt, payloadAt + payloadBytes)
    }
    if (out !== undefined) send(out.subarray(0, outBytes))
    return at
  }

  const keep = (chunk: Buffer): void => {
    const total = chunk.length >= 14 ? frameBytes(chunk, 0) : undefined
    rest = Buffer.allocUnsafe(Math.max(total ?? 0, chunk.length))
    restBytes = chunk.copy(rest)
  }

  const onFrames = (chunk: Buffer): void => {
    if (rest !== undefined) {
      const missing = Math.min(rest.length - restBytes, chunk.length)
      if (missing > 0) {
        restBytes += chunk.copy(rest, restBytes, 0, missing)
        if (restBytes < rest.length) return
        const whole = rest
        rest = undefined
        answer(whole)
        chunk = chunk.subarray(missing)
      } else {
        chunk = Buffer.concat([rest, chunk])
        rest = undefined
      }
    }
    const end = answer(chunk)
    if (end < chunk.length) keep(chunk.subarray(end))
  }

  const onHead = (chunk: Buffer): void => {
    head += chunk.toString("latin1")
    const end = head.indexOf("\r\n\r\n")
    if (end < 0) return
    socket.write(acceptanceOf(head))
    open = true
    isBroadcast = head.startsWith("GET /broadcast")
    if (isBroadcast) members.add(socket)
    const frames = head.slice(end + 4)
    head = ""
    if (frames.length > 0) onFrames(Buffer.from(frames, "latin1"))
  }

  socket.on("data", (chunk: Buffer) => (open ? onFrames(chunk) : onHead(chunk)))
  socket.on("error", () => socket.destroy())
  socket.on("close", () => members.delete(socket))
})
listen(server)

/** Header bytes of a masked frame, by its second byte. */
const headerBytesOf = (second: number): number => {
  const short = second & 0x7f
  return short < 126 ? 6 : short === 126 ? 8 : 14
}

/** Bytes of the masked frame at `at`, or `undefined` while its header is incomplete. */
const frameBytes = (chunk: Buffer, at: number): number | undefined => {
  const second = chunk[at + 1]!
  const headerBytes = headerBytesOf(second)
  if (chunk.length - at < headerBytes) return undefined
  if (headerBytes === 6) return 6 + (second & 0x7f)
  return headerBytes === 8 ? 8 + chunk.readUInt16BE(at + 2) : 14 + chunk.readUInt32BE(at + 6)
}
