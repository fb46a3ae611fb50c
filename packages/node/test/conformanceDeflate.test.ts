/**
 * The compression families of the conformance suite, numbered like those of the Autobahn suite (12: message sizes, kinds and fragments, 13:
 * parameters), over the in-memory transport and for both roles. The raw peer compresses by Node's public streams, so that it
 * shares nothing with what is tested. Sizes and parameters are Autobahn's; the number of messages is ours.
 */
import * as Zlib from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { DeflateParameters, Extension } from "@effect-ws/core/engine"
import { PermessageDeflate } from "@effect-ws/node"
import { Effect, Stream } from "effect"
import { facingWith, noise, prose } from "./deflateSupport.js"

type Params = Extension.Params
const param = (name: string, value: string | true = true) => ({ name, value })
const noTakeover = param("server_no_context_takeover")
const windowBits = (bits: number) => param("server_max_window_bits", String(bits))

/** Family 13: what the peer asks of us. */
const families: ReadonlyArray<readonly [id: string, title: string, offers: ReadonlyArray<Params>]> = [
  ["12.1", "as both like it", [[]]],
  ["13.1", "client_max_window_bits is offered", [[param("client_max_window_bits")]]],
  ["13.2", "no context takeover", [[noTakeover, param("client_no_context_takeover")]]],
  ["13.3", "a window of 2^9", [[windowBits(9)]]],
  ["13.4", "a window of 2^15", [[windowBits(15)]]],
  ["13.5", "no context takeover, a window of 2^9", [[noTakeover, windowBits(9)]]],
  ["13.6", "no context takeover, a window of 2^15", [[noTakeover, windowBits(15)]]],
  ["13.7", "the first offer can't be met", [[windowBits(16)], [noTakeover, windowBits(9)], [noTakeover], []]]
]

const sizes = [16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072]
const kinds: Readonly<Record<string, (size: number, seed: number) => string | Buffer>> = {
  JSON: prose,
  "text of all planes": (size, seed) => "aé€😀 ".repeat(size / 11 + 1).slice(seed % 5 === 3 ? 5 : seed % 3, size / 2.2),
  noise: (size, seed) => noise(size, seed + 1),
  zeros: (size) => Buffer.alloc(size)
}
const count = 6

/** One direction of the raw peer's compression, by a stream of Node's. */
class Flow {
  private stream: Zlib.DeflateRaw | Zlib.InflateRaw | undefined

  constructor(
    private readonly create: () => Zlib.DeflateRaw | Zlib.InflateRaw,
    private readonly keeps: boolean
  ) {}

  async pass(input: Uint8Array): Promise<Buffer> {
    this.stream ??= this.create()
    const { stream } = this
    const pieces: Array<Buffer> = []
    const take = (piece: Buffer) => void pieces.push(piece)
    stream.on("data", take)
    stream.write(input)
    await new Promise<void>((resolve) => stream.flush(Zlib.constants.Z_SYNC_FLUSH, () => resolve()))
    stream.off("data", take)
    if (!this.keeps) this.close()
    return Buffer.concat(pieces)
  }

  close(): void {
    this.stream?.close()
    this.stream = undefined
  }
}

const tail = Buffer.from([0, 0, 0xff, 0xff])

const agreed = (role: "client" | "server", offers: ReadonlyArray<Params>) => {
  const extension = PermessageDeflate.make({ threshold: 0 })
  const name = DeflateParameters.extensionName
  if (role === "server") {
    return Extension.negotiate(
      [extension],
      offers.map((params) => ({ name, params }))
    )
  }
  // As a server, the peer answers with what it would ask for; our offer has no limit for its window.
  const granted = offers[offers.length - 1]!.filter(({ name }) => name !== "client_max_window_bits")
  const accepted = Extension.accept(Extension.offer([extension]), [{ name, params: granted }])
  if ("_tag" in accepted) throw new Error(accepted.message)
  return accepted
}

describe("conformance of compression", () => {
  for (const role of ["server", "client"] as const) {
    for (const [id, title, offers] of families) {
      for (const [kind, make] of Object.entries(kinds)) {
        it.scopedLive(`${id} ${title}: ${kind}, ${role}`, () =>
          Effect.gen(function* () {
            const extensions = agreed(role, offers)
            const { params } = extensions[0]!
            const has = (name: string) => params.some((param) => param.name === name)
            const ours = role === "server" ? "server" : "client"
            const theirs = role === "server" ? "client" : "server"
            const bits = Number(params.find(({ name }) => name === "server_max_window_bits")?.value ?? 15)
            const peer = yield* facingWith(extensions, { role })
            yield* Effect.fork(Effect.ignore(Stream.run(peer.socket.messages, peer.socket.sink)))
            const outgoing = new Flow(
              () => Zlib.createDeflateRaw({ windowBits: role === "client" ? bits : 15 }),
              !has(`${theirs}_no_context_takeover`)
            )
            const incoming = new Flow(
              () => Zlib.createInflateRaw({ windowBits: role === "server" ? bits : 15 }),
              !has(`${ours}_no_context_takeover`)
            )
            for (const size of sizes) {
              for (let i = 0; i < count; i++) {
                const message = make(size, i)
                const bytes = Buffer.from(message as string)
                const payload = (yield* Effect.promise(() => outgoing.pass(bytes))).subarray(0, -4)
                const opcode = typeof message === "string" ? 1 : 2
                // Whole at first, then in fragments of 256 bytes to 1 KiB.
                const fragment = i < 2 ? payload.length : 256 * i
                const fragments = Math.max(1, Math.ceil(payload.length / fragment))
                yield* peer.send(
                  ...Array.from({ length: fragments }, (_, n) => ({
                    opcode: n === 0 ? opcode : 0,
                    rsv: n === 0 ? 4 : 0,
                    fin: n === fragments - 1,
                    payload: payload.subarray(n * fragment, (n + 1) * fragment)
                  }))
                )
                const echo = (yield* peer.frame)!
                assert.deepInclude(echo, { opcode, fin: true, rsv: 4 })
                const expanded = yield* Effect.promise(() => incoming.pass(Buffer.concat([echo.payload, tail])))
                assert.isTrue(bytes.equals(expanded), `${size} bytes, number ${i}`)
              }
            }
            outgoing.close()
            incoming.close()
          })
        )
      }
    }
  }
})
