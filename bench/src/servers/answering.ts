/**
 * What clients are measured against: costs less than any echo, so that it does not limit them. It knows from its argument (a `ClientRow` as
 * JSON) what clients send in rotation, and answers each frame with the bytes that an echo would have. It checks the payloads of each
 * connection's first rotation; afterwards only where frames begin.
 */
import { createServer } from "node:net"
import * as Exchange from "../load/Exchange.js"
import { acceptanceOf, unmaskInPlace } from "../load/wire.js"
import type { ClientRow } from "../rows.js"
import { listen } from "./harness.js"

const row = JSON.parse(process.argv[2]!) as ClientRow
const exchange = Exchange.make(Math.max(2, row.inFlight), row.payloadBytes, row.binary)
const { requestBytes, responseBytes, responses, slots } = exchange
const [first, second] = exchange.requests
const twice = Buffer.concat([responses, responses])
const rotation = slots * requestBytes
const headerBytes = requestBytes - row.payloadBytes

/** Whether `frames` are one rotation. */
const isRotation = (frames: Buffer): boolean => {
  for (let slot = 0; slot < slots; slot++) {
    const at = slot * requestBytes + headerBytes
    unmaskInPlace(frames, at, row.payloadBytes, frames.readInt32LE(at - 4))
    const end = (slot + 1) * responseBytes
    if (frames.compare(responses, end - row.payloadBytes, end, at, at + row.payloadBytes) !== 0) return false
  }
  return true
}

const server = createServer({ noDelay: true }, (socket) => {
  let head: string | undefined = ""
  /** The first rotation, as far as it came. */
  let seen: Buffer | undefined = Buffer.allocUnsafeSlow(rotation)
  let seenBytes = 0
  /** Bytes left of the frame under way, and whether it is a message. */
  let left = 0
  let isMessage = false
  let firstByte: number | undefined
  let slot = 0

  const look = (chunk: Buffer): void => {
    seenBytes += chunk.copy(seen!, seenBytes)
    if (seenBytes < rotation) return
    if (!isRotation(seen!)) socket.destroy()
    seen = undefined
  }

  const onFrames = (chunk: Buffer): void => {
    if (seen !== undefined) look(chunk)
    let messages = 0
    let at = 0
    while (at < chunk.length) {
      if (left === 0) {
        firstByte ??= chunk[at++]!
        if (at === chunk.length) break
        const secondByte = chunk[at++]!
        isMessage = firstByte === first && secondByte === second
        // A ping is a sign of life and so are the answers.
        if (!isMessage && firstByte !== 0x89 && firstByte !== 0x8a) return void socket.destroy()
        left = (isMessage ? requestBytes : 6 + (secondByte & 0x7f)) - 2
        firstByte = undefined
      }
      const count = Math.min(left, chunk.length - at)
      left -= count
      at += count
      if (left === 0 && isMessage) messages++
    }
    for (; messages > 0; ) {
      const count = Math.min(messages, slots)
      socket.write(twice.subarray(slot * responseBytes, (slot + count) * responseBytes))
      slot = (slot + count) % slots
      messages -= count
    }
  }

  socket.on("data", (chunk: Buffer) => {
    if (head === undefined) return onFrames(chunk)
    head += chunk.toString("latin1")
    const end = head.indexOf("\r\n\r\n")
    if (end < 0) return
    socket.write(acceptanceOf(head))
    const frames = Buffer.from(head.slice(end + 4), "latin1")
    head = undefined
    if (frames.length > 0) onFrames(frames)
  })
  socket.on("error", () => socket.destroy())
})
listen(server)
