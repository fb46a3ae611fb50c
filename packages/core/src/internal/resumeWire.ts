/**
 * The wire format of resumable sessions, version 1: each message of the connection carries one frame of it. docs/resume.md has it
 * byte by byte.
 *
 *     data     seq [ "," ack ] LF payload                                                     text or binary, as the payload
 *     ack      "A" ack                                                                        text
 *     bye      "B" code SP reason                                                             text
 *     hello    "H1" SP id SP received SP acked SP first SP sent SP ackMessages SP ackBytes    text, the client's first
 *     welcome  "W1" SP status SP id SP received SP acked SP ackMessages SP ackBytes           text, the server's first
 *
 * Numbers are decimal, without sign or leading zeros, at most 2^53 - 1.
 */
import * as CloseCode from "../engine/CloseCode.js"
import { portable } from "../engine/Natives.js"
import type { Message } from "../Message.js"
import type { Position } from "./resumeSession.js"

/** After how many messages or bytes an end wants an acknowledgement. */
export interface AckWish {
  readonly ackMessages: number
  readonly ackBytes: number
}

export interface Hello extends Position, AckWish {
  readonly _tag: "Hello"
  /** `undefined` to begin a session. */
  readonly id: string | undefined
}

export interface Welcome extends AckWish {
  readonly _tag: "Welcome"
  /** `new` as asked; `resumed`; else the old session is over, and this is a new one. */
  readonly status: "new" | "resumed" | "overflow" | "unknown"
  readonly id: string
  readonly received: number
  readonly acked: number
}

export type Frame =
  | { readonly _tag: "Data"; readonly seq: number; readonly ack: number | undefined; readonly payload: Message }
  | { readonly _tag: "Ack"; readonly ack: number }
  | { readonly _tag: "Bye"; readonly code: number; readonly reason: string }
  | Hello
  | Welcome
  | { readonly _tag: "Malformed"; readonly detail: string }

/** Bytes that a data frame has besides its payload, at most. */
export const maxHeaderBytes = 34

const lineFeed = 0x0a

export const formatData = (seq: number, ack: number | undefined, payload: Message): Message => {
  const header = ack === undefined ? `${seq}\n` : `${seq},${ack}\n`
  if (typeof payload === "string") return header + payload
  const bytes = new Uint8Array(header.length + payload.byteLength)
  for (let i = 0; i < header.length; i++) bytes[i] = header.charCodeAt(i)
  bytes.set(payload, header.length)
  return bytes
}

export const formatAck = (ack: number): string => `A${ack}`

export const formatBye = (code: number, reason: string): string => `B${code} ${reason}`

export const formatHello = ({ ackBytes, ackMessages, acked, first, id, received, sent }: Omit<Hello, "_tag">): string =>
  `H1 ${id ?? "-"} ${received} ${acked} ${first} ${sent} ${ackMessages} ${ackBytes}`

export const formatWelcome = ({ ackBytes, ackMessages, acked, id, received, status }: Omit<Welcome, "_tag">): string =>
  `W1 ${status} ${id} ${received} ${acked} ${ackMessages} ${ackBytes}`

const malformed = (detail: string): Frame => ({ _tag: "Malformed", detail })

/** Reads one message. */
export const parse = (message: Message): Frame => {
  const first = typeof message === "string" ? message.charCodeAt(0) : (message[0] ?? 0)
  if (first >= 0x30 && first <= 0x39) return parseData(message)
  if (typeof message !== "string") return malformed("a binary message that is no data frame")
  switch (message[0]) {
    case "A":
      return parseAck(message)
    case "B":
      return parseBye(message)
    case "H":
      return parseHello(message)
    case "W":
      return parseWelcome(message)
    default:
      return malformed("an unknown frame")
  }
}

const dataHeader = /^([1-9]\d{0,15})(?:,(0|[1-9]\d{0,15}))?$/

const parseData = (message: Message): Frame => {
  const end =
    typeof message === "string"
      ? message.slice(0, maxHeaderBytes).indexOf("\n")
      : message.subarray(0, maxHeaderBytes).indexOf(lineFeed)
  if (end < 0) return malformed("a data frame without the end of its header")
  const header = typeof message === "string" ? message.slice(0, end) : String.fromCharCode(...message.subarray(0, end))
  const match = dataHeader.exec(header)
  const seq = Number(match?.[1])
  const ack = match?.[2] === undefined ? undefined : Number(match[2])
  if (!Number.isSafeInteger(seq) || (ack !== undefined && !Number.isSafeInteger(ack))) {
    return malformed("a data frame whose header is not two numbers")
  }
  const payload = typeof message === "string" ? message.slice(end + 1) : message.subarray(end + 1)
  return { _tag: "Data", seq, ack, payload }
}

const parseAck = (message: string): Frame => {
  const ack = natural(message.slice(1))
  return ack === undefined ? malformed("an acknowledgement without its number") : { _tag: "Ack", ack }
}

const parseBye = (message: string): Frame => {
  const match = /^B(\d{4}) (.*)$/s.exec(message)
  const code = Number(match?.[1])
  const reason = match?.[2] ?? ""
  return CloseCode.isSendable(code) && portable.textByteLength(reason) <= CloseCode.maxReasonBytes
    ? { _tag: "Bye", code, reason }
    : malformed("a bye without a close code")
}

const idForm = /^[A-Za-z0-9_-]{16,64}$/

const parseHello = (message: string): Frame => {
  const [version, id, ...rest] = message.slice(0, 256).split(" ")
  if (version !== "H1") return malformed("a hello of another version")
  const [received, acked, first, sent, ackMessages, ackBytes, ...more] = rest.map(natural)
  if (
    id === undefined ||
    (id !== "-" && !idForm.test(id)) ||
    received === undefined ||
    acked === undefined ||
    first === undefined ||
    sent === undefined ||
    ackMessages === undefined ||
    ackBytes === undefined ||
    more.length > 0 ||
    acked > received ||
    first < 1 ||
    first > sent + 1
  ) {
    return malformed("a hello that is not well-formed")
  }
  return {
    _tag: "Hello",
    id: id === "-" ? undefined : id,
    received,
    acked,
    first,
    sent,
    ackMessages,
    ackBytes
  }
}

const parseWelcome = (message: string): Frame => {
  const [version, status, id, ...rest] = message.slice(0, 256).split(" ")
  if (version !== "W1") return malformed("a welcome of another version")
  const [received, acked, ackMessages, ackBytes, ...more] = rest.map(natural)
  if (
    (status !== "new" && status !== "resumed" && status !== "overflow" && status !== "unknown") ||
    id === undefined ||
    !idForm.test(id) ||
    received === undefined ||
    acked === undefined ||
    ackMessages === undefined ||
    ackBytes === undefined ||
    more.length > 0 ||
    acked > received
  ) {
    return malformed("a welcome that is not well-formed")
  }
  return { _tag: "Welcome", status, id, received, acked, ackMessages, ackBytes }
}

const natural = (text: string): number | undefined => {
  if (!/^(?:0|[1-9]\d{0,15})$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}
