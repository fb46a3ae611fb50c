/**
 * The conformance suite: what a raw peer sends to an echo application, and what has to come back. Every row follows from the
 * text of RFC 6455; the families are numbered like those of the Autobahn suite, so that results can be compared, and
 * rows beyond it (1.3, 1.4, 7.7.14 to 7.7.16, 7.9.10, 9.9) are ours.
 *
 * The script of a case is a generator, so that the big payloads exist only while it runs. Order is time: a step is
 * carried out when what the steps before it expect has come, and so failing fast is written as a `Close` between two `Send`s.
 */
import { chop, closePayload, concat, encodeFrame, type FrameFields, hex, utf8 } from "./rawFrames.js"

/** The role of the implementation under test. */
export type Role = "client" | "server"

/** What the raw peer does, or waits for, next. */
export type Step =
  /** Sends one piece of the byte stream. */
  | { readonly _tag: "Send"; readonly bytes: Uint8Array }
  /** The echo of a message: the same kind and bytes, in any fragments. */
  | {
      readonly _tag: "Echo"
      readonly kind: "text" | "binary"
      readonly payload: Uint8Array
      readonly optional: boolean
    }
  | { readonly _tag: "Pong"; readonly payload: Uint8Array }
  /** A close frame with this code (`undefined`: without payload), nothing after it, and the end of the transport. */
  | { readonly _tag: "Close"; readonly code: number | undefined }

/** How the raw peer builds frames: masked if the implementation is a server (§5.1). */
export interface Raw {
  readonly role: Role
  readonly frame: (fields: FrameFields) => Uint8Array
  /** The same with the mask the wrong way round. */
  readonly wronglyMasked: (fields: FrameFields) => Uint8Array
}

/** One case. */
export interface Case {
  readonly id: string
  readonly title: string
  /** Where RFC 6455 says so. */
  readonly section: string
  readonly roles: ReadonlyArray<Role>
  /** The limit of messages to run it with; default: that of the implementation, 1 MiB. */
  readonly maxMessageBytes?: number
  /** How many bytes it moves in all, about: to choose how finely they may be cut. */
  readonly bytes: number
  readonly script: (raw: Raw) => Iterable<Step>
}

/** The raw peer's way to build frames, against an implementation with `role`. */
export const makeRaw = (role: Role): Raw => {
  let seed = 0x9e3779b9
  const key = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return Uint8Array.of(seed >>> 24, seed >>> 16, seed >>> 8, seed)
  }
  const masks = role === "server"
  return {
    role,
    frame: (fields) => encodeFrame(fields, masks ? key() : undefined),
    wronglyMasked: (fields) => encodeFrame(fields, masks ? undefined : key())
  }
}

const both: ReadonlyArray<Role> = ["server", "client"]
const noBytes = new Uint8Array(0)
const KiB = 1024
const MiB = 1024 * KiB

// ---- the words of the scripts ------------------------------------------------------------------------------------------------

type Kind = "text" | "binary"
const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
const bytesOf = (payload: string | Uint8Array): Uint8Array => (typeof payload === "string" ? utf8(payload) : payload)

const send = (bytes: Uint8Array): Step => ({ _tag: "Send", bytes })
const echo = (kind: Kind, payload: string | Uint8Array, optional = false): Step => ({
  _tag: "Echo",
  kind,
  payload: bytesOf(payload),
  optional
})
const pong = (payload: string | Uint8Array = noBytes): Step => ({ _tag: "Pong", payload: bytesOf(payload) })
const closed = (code: number | undefined): Step => ({ _tag: "Close", code })

const text = (payload: string | Uint8Array, more: Partial<FrameFields> = {}): FrameFields => ({
  opcode: opcodes.text,
  payload: bytesOf(payload),
  ...more
})
const binary = (payload: Uint8Array, more: Partial<FrameFields> = {}): FrameFields => ({
  opcode: opcodes.binary,
  payload,
  ...more
})
const continuation = (payload: string | Uint8Array, fin: boolean): FrameFields => ({
  opcode: opcodes.continuation,
  payload: bytesOf(payload),
  fin
})
const ping = (payload: string | Uint8Array = noBytes): FrameFields => ({
  opcode: opcodes.ping,
  payload: bytesOf(payload)
})
const close = (payload: Uint8Array = closePayload(1000)): FrameFields => ({ opcode: opcodes.close, payload })

/** How a sequence of frames is cut: each by itself, all in one piece, or in pieces of so many bytes. */
type Cut = "frames" | "joined" | number

function* sendFrames(raw: Raw, frames: Iterable<FrameFields>, cut: Cut): Generator<Step> {
  if (cut === "frames") for (const fields of frames) yield send(raw.frame(fields))
  else {
    const bytes = concat(Array.from(frames, raw.frame))
    if (cut === "joined") yield send(bytes)
    else for (const piece of chop(bytes, cut)) yield send(piece)
  }
}

/** Says good-bye and sees it answered with the same code (§5.5.1). */
function* goodBye(raw: Raw): Generator<Step> {
  yield send(raw.frame(close()))
  yield closed(1000)
}

const list: Array<Case> = []

interface Facts {
  readonly roles?: ReadonlyArray<Role>
  readonly maxMessageBytes?: number
  readonly bytes?: number
}

const add = (
  id: string,
  section: string,
  title: string,
  script: (raw: Raw) => Iterable<Step>,
  facts: Facts = {}
): void => {
  list.push({ id, section, title, roles: both, bytes: 1 * KiB, script, ...facts })
}

/** Frames that are answered as `answers` says; then the connection still works. */
const fine = (
  id: string,
  section: string,
  title: string,
  frames: () => Iterable<FrameFields>,
  answers: () => Iterable<Step>,
  cut: Cut = "frames",
  facts: Facts = {}
): void =>
  add(
    id,
    section,
    title,
    function* (raw) {
      yield* sendFrames(raw, frames(), cut)
      yield* answers()
      yield* goodBye(raw)
    },
    facts
  )

/** Frames of which the first broken one fails the connection with `code`; `answers` come before that. */
const broken = (
  id: string,
  section: string,
  title: string,
  code: number,
  frames: () => Iterable<FrameFields>,
  answers: () => Iterable<Step> = () => [],
  cut: Cut = "frames",
  facts: Facts = {}
): void =>
  add(
    id,
    section,
    title,
    function* (raw) {
      yield* sendFrames(raw, frames(), cut)
      yield* answers()
      yield closed(code)
    },
    facts
  )

/** Text of exactly so many bytes, all ASCII. */
const asciiOf = (size: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = 0x21 + (i % 89)
  return bytes
}

const bytesFilled = (size: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >>> 8)) & 0xff
  return bytes
}

const payloadOf = (kind: Kind, size: number): Uint8Array => (kind === "text" ? asciiOf(size) : bytesFilled(size))

/** `payload` as fragments of `size` bytes. */
function* fragments(kind: Kind, payload: Uint8Array, size: number): Generator<FrameFields> {
  for (let at = 0; at === 0 || at < payload.length; at += size) {
    const end = Math.min(at + size, payload.length)
    yield {
      opcode: at === 0 ? opcodes[kind] : opcodes.continuation,
      payload: payload.subarray(at, end),
      fin: end === payload.length
    }
  }
}

// ---- 1: framing --------------------------------------------------------------------------------------------------------------

const kinds: ReadonlyArray<readonly [number, Kind]> = [
  [1, "text"],
  [2, "binary"]
]

for (const [number, kind] of kinds) {
  const sizes = [0, 125, 126, 127, 128, 65535, 65536, 65536]
  sizes.forEach((size, i) => {
    const cut = i === 7 ? 997 : "frames"
    fine(
      `1.${number}.${i + 1}`,
      "§5.2",
      `${kind} message of ${size} bytes${i === 7 ? " in pieces of 997" : ""}`,
      () => [{ opcode: opcodes[kind], payload: payloadOf(kind, size) }],
      () => [echo(kind, payloadOf(kind, size))],
      cut,
      { bytes: size + KiB }
    )
  })
}

add("1.3.1", "§5.1", "a data frame with the mask the wrong way round", function* (raw) {
  yield send(raw.wronglyMasked(text("Hello")))
  yield closed(1002)
})
add("1.3.2", "§5.1", "an empty data frame with the mask the wrong way round", function* (raw) {
  yield send(raw.wronglyMasked(text("")))
  yield closed(1002)
})
add("1.3.3", "§5.1", "a ping with the mask the wrong way round", function* (raw) {
  yield send(raw.wronglyMasked(ping("?")))
  yield closed(1002)
})
add("1.3.4", "§5.1", "a close frame with the mask the wrong way round", function* (raw) {
  yield send(raw.wronglyMasked(close()))
  yield closed(1002)
})
add("1.3.5", "§5.1", "a wrong mask shows in the second byte", function* (raw) {
  yield send(raw.wronglyMasked(binary(bytesFilled(70_000))).subarray(0, 2))
  yield closed(1002)
})

const lengths: ReadonlyArray<readonly [size: number, bits: 16 | 64]> = [
  [0, 16],
  [125, 16],
  [0, 64],
  [126, 64],
  [65535, 64]
]
lengths.forEach(([size, bits], i) => {
  broken(`1.4.${i + 1}`, "§5.2", `length ${size} written in ${bits} bits`, 1002, () => [
    binary(bytesFilled(size), { lengthBits: bits })
  ])
})
add("1.4.6", "§5.2", "a length with its highest bit set", function* (raw) {
  yield send(raw.frame(binary(noBytes, { announced: 1n << 63n })))
  yield closed(1002)
})
add("1.4.7", "§5.5", "a control frame with the length 0 in 16 bits", function* (raw) {
  yield send(raw.frame({ ...ping(), lengthBits: 16 }))
  yield closed(1002)
})

// ---- 2: pings and pongs -----------------------------------------------------------------------------------------------------

fine(
  "2.1",
  "§5.5.2",
  "ping without payload",
  () => [ping()],
  () => [pong()]
)
fine(
  "2.2",
  "§5.5.3",
  "ping with text",
  () => [ping("Hello, world!")],
  () => [pong("Hello, world!")]
)
const notText = hex("00fffefdfcfb00ff")
fine(
  "2.3",
  "§5.5.3",
  "ping with bytes that are no text",
  () => [ping(notText)],
  () => [pong(notText)]
)
const longest = new Uint8Array(125).fill(0xfe)
fine(
  "2.4",
  "§5.5",
  "ping with 125 bytes",
  () => [ping(longest)],
  () => [pong(longest)]
)
broken("2.5", "§5.5", "ping with 126 bytes", 1002, () => [ping(new Uint8Array(126).fill(0xfe))])
fine(
  "2.6",
  "§5.5",
  "ping with 125 bytes, byte by byte",
  () => [ping(longest)],
  () => [pong(longest)],
  1
)
fine(
  "2.7",
  "§5.5.3",
  "a pong nobody asked for, without payload",
  () => [{ opcode: opcodes.pong }],
  () => []
)
fine(
  "2.8",
  "§5.5.3",
  "a pong nobody asked for",
  () => [{ opcode: opcodes.pong, payload: utf8("unasked") }],
  () => []
)
fine(
  "2.9",
  "§5.5.3",
  "a pong nobody asked for, then a ping",
  () => [{ opcode: opcodes.pong, payload: utf8("unasked") }, ping("asked")],
  () => [pong("asked")]
)
const tenPings = () => Array.from({ length: 10 }, (_, i) => ping(`payload-${i}`))
const tenPongs = () => Array.from({ length: 10 }, (_, i) => pong(`payload-${i}`))
fine("2.10", "§5.5.2", "ten pings", tenPings, tenPongs)
fine("2.11", "§5.5.2", "ten pings, byte by byte", tenPings, tenPongs, 1)

// ---- 3: reserved bits ---------------------------------------------------------------------------------------------------------

const hello = "Hello, world!"
const helloEcho = () => [echo("text", hello)]
broken("3.1", "§5.2", "text with RSV3", 1002, () => [text(hello, { rsv: 1 })])
broken(
  "3.2",
  "§5.2",
  "a message, text with RSV2, a ping",
  1002,
  () => [text(hello), text(hello, { rsv: 2 }), ping()],
  helloEcho
)
broken(
  "3.3",
  "§5.2",
  "a message, text with RSV2 and RSV3, a ping, in one piece",
  1002,
  () => [text(hello), text(hello, { rsv: 3 }), ping()],
  helloEcho,
  "joined"
)
broken(
  "3.4",
  "§5.2",
  "a message, text with RSV1, a ping, byte by byte",
  1002,
  () => [text(hello), text(hello, { rsv: 4 }), ping()],
  helloEcho,
  1
)
broken("3.5", "§5.2", "binary with RSV1 and RSV3", 1002, () => [binary(notText, { rsv: 5 })])
broken("3.6", "§5.2", "ping with RSV1 and RSV2", 1002, () => [{ ...ping(hello), rsv: 6 }])
broken("3.7", "§5.2", "close with RSV1, RSV2 and RSV3", 1002, () => [{ ...close(), rsv: 7 }])

// ---- 4: reserved opcodes ------------------------------------------------------------------------------------------------------

for (const [number, first] of [
  [1, 3],
  [2, 11]
] as const) {
  const unknown = (i: number, payload?: string): FrameFields => ({
    opcode: first + i,
    ...(payload === undefined ? {} : { payload: utf8(payload) })
  })
  const what = number === 1 ? "non-control" : "control"
  broken(`4.${number}.1`, "§5.2", `reserved ${what} opcode ${first}`, 1002, () => [unknown(0)])
  broken(`4.${number}.2`, "§5.2", `reserved ${what} opcode ${first + 1} with a payload`, 1002, () => [
    unknown(1, "reserved")
  ])
  broken(
    `4.${number}.3`,
    "§5.2",
    `a message, reserved ${what} opcode ${first + 2}, a ping`,
    1002,
    () => [text(hello), unknown(2), ping()],
    helloEcho
  )
  broken(
    `4.${number}.4`,
    "§5.2",
    `a message, reserved ${what} opcode ${first + 3} with a payload, a ping, in one piece`,
    1002,
    () => [text(hello), unknown(3, hello), ping()],
    helloEcho,
    "joined"
  )
  broken(
    `4.${number}.5`,
    "§5.2",
    `a message, reserved ${what} opcode ${first + 4} with a payload, a ping, byte by byte`,
    1002,
    () => [text(hello), unknown(4, hello), ping()],
    helloEcho,
    1
  )
}

// ---- 5: fragmentation ---------------------------------------------------------------------------------------------------------

broken("5.1", "§5.5", "ping in two fragments", 1002, () => [
  { ...ping("frag"), fin: false },
  continuation("ment", true)
])
broken("5.2", "§5.5", "pong in two fragments", 1002, () => [
  { opcode: opcodes.pong, payload: utf8("frag"), fin: false },
  continuation("ment", true)
])
const twoFragments = () => [text("fragment1", { fin: false }), continuation("fragment2", true)]
const twoEcho = () => [echo("text", "fragment1fragment2")]
fine("5.3", "§5.4", "text in two fragments, in one piece", twoFragments, twoEcho, "joined")
fine("5.4", "§5.4", "text in two fragments", twoFragments, twoEcho)
fine("5.5", "§5.4", "text in two fragments, byte by byte", twoFragments, twoEcho, 1)
const pingBetween = () => [text("fragment1", { fin: false }), ping("ping payload"), continuation("fragment2", true)]
const pingBetweenAnswers = () => [pong("ping payload"), echo("text", "fragment1fragment2")]
fine(
  "5.6",
  "§5.4",
  "text in two fragments with a ping between, in one piece",
  pingBetween,
  pingBetweenAnswers,
  "joined"
)
fine("5.7", "§5.4", "text in two fragments with a ping between", pingBetween, pingBetweenAnswers)
fine("5.8", "§5.4", "text in two fragments with a ping between, byte by byte", pingBetween, pingBetweenAnswers, 1)
const cuts: ReadonlyArray<readonly [Cut, string]> = [
  ["joined", ", in one piece"],
  ["frames", ""],
  [1, ", byte by byte"]
]
cuts.forEach(([cut, how], i) => {
  broken(
    `5.${9 + i}`,
    "§5.4",
    `a last continuation of nothing, then text${how}`,
    1002,
    () => [continuation("no start", true), text(hello)],
    () => [],
    cut
  )
  broken(
    `5.${12 + i}`,
    "§5.4",
    `a continuation of nothing, then text${how}`,
    1002,
    () => [continuation("no start", false), text(hello)],
    () => [],
    cut
  )
})
broken(
  "5.15",
  "§5.4",
  "text in two fragments, a continuation of nothing, text",
  1002,
  () => [...twoFragments(), continuation("fragment3", false), text("fragment4")],
  twoEcho
)
const twice = (fin: boolean) => () =>
  [1, 2].flatMap((i) => [
    continuation(`no start ${i}`, fin),
    text(`fragment${i}`, { fin: false }),
    continuation(`end ${i}`, true)
  ])
broken("5.16", "§5.4", "twice: a continuation of nothing, then text in two fragments", 1002, twice(false))
broken("5.17", "§5.4", "twice: a last continuation of nothing, then text in two fragments", 1002, twice(true))
broken("5.18", "§5.4", "a fragment, then a whole message before the last fragment", 1002, () => [
  text("fragment1", { fin: false }),
  text("fragment2")
])
const fiveFragments = (from: number, to: number): Array<FrameFields> =>
  [1, 2, 3, 4, 5]
    .slice(from, to)
    .map((i) => (i === 1 ? text("fragment1", { fin: false }) : continuation(`fragment${i}`, i === 5)))
const fiveEcho = echo("text", "fragment1fragment2fragment3fragment4fragment5")
add(
  "5.19",
  "§5.4",
  "text in five fragments with pings between, each answered before the next fragment",
  function* (raw) {
    yield* sendFrames(raw, [...fiveFragments(0, 2), ping("first")], "frames")
    yield pong("first")
    yield* sendFrames(raw, [...fiveFragments(2, 4), ping("second")], "frames")
    yield pong("second")
    yield* sendFrames(raw, fiveFragments(4, 5), "frames")
    yield fiveEcho
    yield* goodBye(raw)
  }
)
fine(
  "5.20",
  "§5.4",
  "text in five fragments with pings between, in one piece",
  () => [...fiveFragments(0, 2), ping("first"), ...fiveFragments(2, 4), ping("second"), ...fiveFragments(4, 5)],
  () => [pong("first"), pong("second"), fiveEcho],
  "joined"
)

// ---- 6: UTF-8 (§5.6, §8.1, RFC 3629) ------------------------------------------------------------------------------------------

const textFine = (id: string, title: string, payload: Uint8Array): void =>
  fine(
    id,
    "§8.1",
    title,
    () => [text(payload)],
    () => [echo("text", payload)]
  )
const textBroken = (id: string, title: string, payload: Uint8Array): void =>
  broken(id, "§8.1", title, 1007, () => [text(payload)])

fine(
  "6.1.1",
  "§5.6",
  "empty text",
  () => [text("")],
  () => [echo("text", "")]
)
fine(
  "6.1.2",
  "§5.4",
  "text in three empty fragments",
  () => [text("", { fin: false }), continuation("", false), continuation("", true)],
  () => [echo("text", "")]
)
fine(
  "6.1.3",
  "§5.4",
  "text in three fragments, the first and the last empty",
  () => [text("", { fin: false }), continuation("middle", false), continuation("", true)],
  () => [echo("text", "middle")]
)
const mixed = "Grüße: κόσμε, 日本語, 🎉!"
textFine("6.2.1", "text with code points of one to four bytes", utf8(mixed))
fine(
  "6.2.2",
  "§5.4",
  "the same in two fragments, cut between code points",
  () => [text("Grüße: κόσ", { fin: false }), continuation("με, 日本語, 🎉!", true)],
  () => [echo("text", mixed)]
)
fine(
  "6.2.3",
  "§5.4",
  "the same in fragments of one byte",
  () => fragments("text", utf8(mixed), 1),
  () => [echo("text", mixed)]
)
const kosme = utf8("κόσμε")
fine(
  "6.2.4",
  "§5.4",
  "κόσμε in fragments of one byte",
  () => fragments("text", kosme, 1),
  () => [echo("text", kosme)]
)
const surrogateInside = concat([kosme, hex("eda080"), utf8("edited")])
textBroken("6.3.1", "text with a surrogate", surrogateInside)
broken("6.3.2", "§8.1", "the same in fragments of one byte", 1007, () => fragments("text", surrogateInside, 1))

const tooLarge = hex("f4908080")
add(
  "6.4.1",
  "§8.1",
  "fails at the fragment with the bad code point, before the last fragment is sent",
  function* (raw) {
    yield send(raw.frame(text(kosme, { fin: false })))
    yield send(raw.frame(continuation(tooLarge, false)))
    yield closed(1007)
    yield send(raw.frame(continuation("edited", true)))
  }
)
add(
  "6.4.2",
  "§8.1",
  "fails at the byte that makes the code point too large, in a fragment of its own",
  function* (raw) {
    yield send(raw.frame(text(concat([kosme, tooLarge.subarray(0, 1)]), { fin: false })))
    yield send(raw.frame(continuation(tooLarge.subarray(1, 2), false)))
    yield closed(1007)
    yield send(raw.frame(continuation("edited", true)))
  }
)
const withTooLarge = concat([kosme, tooLarge, utf8("edited")])
const inOneFrame = (cut: number) =>
  function* (raw: Raw): Generator<Step> {
    const frame = raw.frame(text(withTooLarge))
    const payloadAt = frame.length - withTooLarge.length
    yield send(frame.slice(0, payloadAt + kosme.length))
    yield send(frame.slice(payloadAt + kosme.length, payloadAt + kosme.length + cut))
    yield closed(1007)
    yield send(frame.slice(payloadAt + kosme.length + cut))
  }
add("6.4.3", "§8.1", "fails at the bad code point inside a frame, before the rest of the frame is sent", inOneFrame(4))
add("6.4.4", "§8.1", "fails at the byte that makes the code point too large, inside a frame", inOneFrame(2))

textFine("6.5.1", "κόσμε with an accent of two bytes", utf8("κ\u03ccσμε"))
textFine("6.5.2", "κόσμε with an accent of three bytes", utf8("κ\u1f79σμε"))
textFine("6.5.3", "a byte order mark is a character", utf8("\ufeffκόσμε"))
textFine("6.5.4", "NUL is a character", utf8("a\u0000b"))
textFine("6.5.5", "combining marks and joined emoji", utf8("e\u0301 👩‍👩‍👧‍👦"))

const accent = utf8("κ\u1f79σμε")
const ends = [2, 5, 7, 9, 11]
for (let length = 1; length <= accent.length; length++) {
  const prefix = accent.subarray(0, length)
  if (ends.includes(length)) textFine(`6.6.${length}`, `the first ${length} bytes of κόσμε: whole code points`, prefix)
  else textBroken(`6.6.${length}`, `the first ${length} bytes of κόσμε: the last code point is cut`, prefix)
}

/** Rows of hexadecimal digits, numbered from 1. */
const rows = (
  family: string,
  row: (id: string, title: string, payload: Uint8Array) => void,
  title: string,
  sequences: ReadonlyArray<string>
): void => sequences.forEach((digits, i) => row(`${family}.${i + 1}`, `${title}: ${digits}`, hex(digits)))

rows("6.7", textFine, "the first sequence of each length", ["00", "c280", "e0a080", "f0908080"])
rows("6.8", textBroken, "the first sequence of five and six bytes", ["f888808080", "fc8480808080"])
rows("6.9", textFine, "the last sequence of each length", ["7f", "dfbf", "efbfbf", "f48fbfbf"])
rows("6.10", textBroken, "the last sequence of longer patterns", ["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"])
rows("6.11", textFine, "next to a boundary", ["ed9fbf", "ee8080", "efbfbd", "f48fbfbf"])
textBroken("6.11.5", "behind the last boundary: f4908080", hex("f4908080"))
const everyContinuation = Array.from({ length: 64 }, (_, i) => (0x80 + i).toString(16)).join("")
rows("6.12", textBroken, "continuation bytes without a start", [
  "80",
  "bf",
  "80bf",
  "80bf80",
  "80bf80bf",
  "80bf80bf80",
  "80bf80bf80bf",
  everyContinuation
])
const lonely = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${(from + i).toString(16)}20`).join("")
rows("6.13", textBroken, "starts without continuation, each before a space", [
  lonely(0xc0, 0xdf),
  lonely(0xe0, 0xef),
  lonely(0xf0, 0xf7),
  lonely(0xf8, 0xfb),
  lonely(0xfc, 0xfd)
])
const incomplete = ["c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"]
rows("6.14", textBroken, "the last continuation is missing", incomplete)
rows("6.15", textBroken, "all of these one behind the other", [incomplete.join("")])
rows("6.16", textBroken, "bytes that are nowhere in UTF-8", ["fe", "ff", "fefeffff"])
rows("6.17", textBroken, "a slash in too many bytes", ["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"])
rows("6.18", textBroken, "the last in too many bytes", ["c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"])
rows("6.19", textBroken, "NUL in too many bytes", ["c080", "e08080", "f0808080", "f880808080", "fc8080808080"])
rows("6.20", textBroken, "a surrogate", ["eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"])
rows("6.21", textBroken, "a surrogate pair", [
  "eda080edb080",
  "eda080edbfbf",
  "edadbfedb080",
  "edadbfedbfbf",
  "edae80edb080",
  "edae80edbfbf",
  "edafbfedb080",
  "edafbfedbfbf"
])
const encoded = (codePoint: number): string =>
  Array.from(utf8(String.fromCodePoint(codePoint)), (byte) => byte.toString(16).padStart(2, "0")).join("")
const nonCharacters = Array.from({ length: 17 }, (_, plane) => [
  plane * 0x10000 + 0xfffe,
  plane * 0x10000 + 0xffff
]).flat()
rows("6.22", textFine, "a non-character is a code point", nonCharacters.map(encoded))
const specials = [0xfff9, 0xfffa, 0xfffb, 0xfffc, 0xfffd, 0xfffe, 0xffff]
rows("6.23", textFine, "a special", specials.map(encoded))

// ---- 7: closing ---------------------------------------------------------------------------------------------------------------

broken(
  "7.1.1",
  "§5.5.1",
  "a message, then close: the message is answered first",
  1000,
  () => [text(hello), close()],
  helloEcho
)
broken("7.1.2", "§5.5.1", "two close frames", 1000, () => [close(), close()])
broken("7.1.3", "§5.5.1", "close, then a ping that is not answered", 1000, () => [close(), ping()])
broken("7.1.4", "§5.5.1", "close, then a message that is not answered", 1000, () => [close(), text(hello)])
broken("7.1.5", "§5.4", "close between two fragments", 1000, () => [
  text("fragment1", { fin: false }),
  close(),
  continuation("fragment2", true)
])
broken(
  "7.1.6",
  "§5.5.1",
  "256 KiB of text, close, a ping; whether the text is answered is free",
  1000,
  () => [text(asciiOf(256 * KiB)), close(), ping()],
  () => [echo("text", asciiOf(256 * KiB), true)],
  "frames",
  { bytes: 256 * KiB }
)
add("7.3.1", "§5.5.1", "close without payload", function* (raw) {
  yield send(raw.frame(close(noBytes)))
  yield closed(undefined)
})
broken("7.3.2", "§5.5.1", "close with one byte", 1002, () => [close(hex("03"))])
broken("7.3.3", "§5.5.1", "close with a code", 1000, () => [close()])
broken("7.3.4", "§5.5.1", "close with a code and a reason", 1000, () => [close(closePayload(1000, hello))])
broken("7.3.5", "§5.5.1", "close with the longest reason, 123 bytes", 1000, () => [
  close(closePayload(1000, "*".repeat(123)))
])
broken("7.3.6", "§5.5", "close with a reason of 124 bytes", 1002, () => [close(closePayload(1000, "*".repeat(124)))])
broken("7.5.1", "§5.5.1", "close with a reason that is not UTF-8", 1007, () => [
  close(closePayload(1000, surrogateInside))
])
const goodCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013, 1014]
goodCodes.forEach((code, i) => {
  broken(`7.7.${i + 1}`, "§7.4", `close with ${code}, which is answered with the same`, code, () => [
    close(closePayload(code))
  ])
})
const badCodes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015]
badCodes.forEach((code, i) => {
  broken(`7.9.${i + 1}`, "§7.4", `close with ${code}, which nobody may send`, 1002, () => [close(closePayload(code))])
})
broken("7.13.1", "§7.4.2", "close with 5000", 1002, () => [close(closePayload(5000))])
broken("7.13.2", "§7.4.2", "close with 65535", 1002, () => [close(closePayload(65535))])

// ---- 9: limits and sizes --------------------------------------------------------------------------------------------------------

const raised = 16 * MiB
const sizeName = (size: number): string =>
  size >= MiB ? `${size / MiB} MiB` : size >= KiB ? `${size / KiB} KiB` : `${size} bytes`

for (const [number, kind] of kinds) {
  ;[64 * KiB, 256 * KiB, MiB, 4 * MiB, 8 * MiB, 16 * MiB].forEach((size, i) => {
    fine(
      `9.${number}.${i + 1}`,
      "§5.2",
      `${kind} message of ${sizeName(size)}`,
      () => [{ opcode: opcodes[kind], payload: payloadOf(kind, size) }],
      () => [echo(kind, payloadOf(kind, size))],
      "frames",
      { maxMessageBytes: raised, bytes: size }
    )
  })
  ;[64, 256, KiB, 4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, MiB, 4 * MiB].forEach((size, i) => {
    fine(
      `9.${number + 2}.${i + 1}`,
      "§5.4",
      `${kind} message of 4 MiB in fragments of ${sizeName(size)}`,
      () => fragments(kind, payloadOf(kind, 4 * MiB), size),
      () => [echo(kind, payloadOf(kind, 4 * MiB))],
      64 * KiB,
      { maxMessageBytes: raised, bytes: 4 * MiB }
    )
  })
  ;[64, 128, 256, 512, KiB, 2 * KiB].forEach((size, i) => {
    fine(
      `9.${number + 4}.${i + 1}`,
      "§5.2",
      `${kind} message of 1 MiB in pieces of ${sizeName(size)}`,
      () => [{ opcode: opcodes[kind], payload: payloadOf(kind, MiB) }],
      () => [echo(kind, payloadOf(kind, MiB))],
      size,
      { maxMessageBytes: raised, bytes: MiB }
    )
  })
  ;[0, 16, 64, 256, KiB, 4 * KiB].forEach((size, i) => {
    add(
      `9.${number + 6}.${i + 1}`,
      "§5.6",
      `1000 ${kind} messages of ${sizeName(size)}, each answered before the next`,
      function* (raw) {
        const payload = payloadOf(kind, size)
        for (let count = 0; count < 1000; count++) {
          yield send(raw.frame({ opcode: opcodes[kind], payload }))
          yield echo(kind, payload)
        }
        yield* goodBye(raw)
      },
      { bytes: 1000 * size }
    )
  })
}

const limit = 64 * KiB
const atLimit: Facts = { maxMessageBytes: limit, bytes: limit }
fine(
  "9.9.1",
  "§10.4",
  "a message as long as the limit",
  () => [binary(bytesFilled(limit))],
  () => [echo("binary", bytesFilled(limit))],
  "frames",
  atLimit
)
add(
  "9.9.2",
  "§10.4",
  "a message one byte longer fails when its length is known, before the payload is sent",
  function* (raw) {
    yield send(raw.frame(binary(noBytes, { announced: BigInt(limit + 1) })))
    yield closed(1009)
  },
  atLimit
)
fine(
  "9.9.3",
  "§10.4",
  "fragments that are as long as the limit together",
  () => fragments("binary", bytesFilled(limit), 1000),
  () => [echo("binary", bytesFilled(limit))],
  "joined",
  atLimit
)
add(
  "9.9.4",
  "§10.4",
  "fragments that are one byte longer together fail at the header of the last",
  function* (raw) {
    yield send(raw.frame(binary(bytesFilled(limit), { fin: false })))
    yield send(raw.frame({ ...continuation(noBytes, true), announced: 1n }))
    yield closed(1009)
  },
  atLimit
)
add(
  "9.9.5",
  "§10.4",
  "the longest length that can be written",
  function* (raw) {
    yield send(raw.frame(text(noBytes, { announced: (1n << 63n) - 1n })))
    yield closed(1009)
  },
  atLimit
)

// ---- 10: many small fragments ---------------------------------------------------------------------------------------------------

fine(
  "10.1.1",
  "§5.4",
  "text of 64 KiB in fragments of 1300 bytes",
  () => fragments("text", asciiOf(64 * KiB), 1300),
  () => [echo("text", asciiOf(64 * KiB))],
  "frames",
  { bytes: 64 * KiB }
)
fine(
  "10.1.2",
  "§5.4",
  "text of 64 KiB in fragments of one byte",
  () => fragments("text", asciiOf(64 * KiB), 1),
  () => [echo("text", asciiOf(64 * KiB))],
  16 * KiB,
  { bytes: 512 * KiB }
)
fine(
  "10.1.3",
  "§5.4",
  "20,000 empty fragments around one byte",
  function* () {
    yield binary(noBytes, { fin: false })
    for (let i = 0; i < 10_000; i++) yield continuation(noBytes, false)
    yield continuation(hex("2a"), false)
    for (let i = 0; i < 10_000; i++) yield continuation(noBytes, false)
    yield continuation(noBytes, true)
  },
  () => [echo("binary", hex("2a"))],
  16 * KiB,
  { bytes: 120 * KiB }
)

/** All cases, in the order of their numbers within each family. */
export const cases: ReadonlyArray<Case> = list
