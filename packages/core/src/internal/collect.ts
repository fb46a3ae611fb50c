/** Messages that are sent in fragments where there are none: their pieces are collected. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Kind, Message } from "../Message.js"

/** The whole message; more than `maxSize` bytes is a defect. */
export const collect = <E, R>(
  kind: Kind,
  pieces: Stream.Stream<Message, E, R>,
  maxSize: number
): Effect.Effect<Message, E, R> =>
  Effect.suspend(() => {
    const collected: Array<Message> = []
    let size = 0
    const each = (piece: Message): Effect.Effect<void> => {
      if ((kind === "text") !== (typeof piece === "string")) {
        return Effect.dieMessage(`a ${kind} message is made of ${kind === "text" ? "strings" : "Uint8Arrays"}`)
      }
      size += piece.length
      if (size > maxSize) return Effect.dieMessage(`sendFragments collects at most ${maxSize} bytes here`)
      collected.push(piece)
      return Effect.void
    }
    return Effect.map(Stream.runForEach(pieces, each), () => {
      if (kind === "text") return collected.join("")
      const whole = new Uint8Array(size)
      let offset = 0
      for (const piece of collected as Array<Uint8Array>) {
        whole.set(piece, offset)
        offset += piece.length
      }
      return whole
    })
  })
