/**
 * Decoding a feed of 64 MiB in chunks of 64 KiB: our decoder and eventsource-parser, in alternating rounds; medians of the
 * processor time, which other work on the machine changes least.
 *
 *     npx tsc -b && node packages/eventsource/bench/decode.mjs [MiB] [rounds]
 */
import { createParser } from "eventsource-parser"
import { Decoder } from "../dist/codec/index.js"

const mebibytes = Number(process.argv[2] ?? 64)
const rounds = Number(process.argv[3] ?? 5)
const chunkBytes = 64 * 1024

const feeds = {
  "small events": (n) => `id: ${n}\nevent: tick\ndata: {"n":${n},"at":"2024-05-01T12:00:00.000Z"}\n\n`,
  "data only": (n) => `data: {"id":"chatcmpl-${n}","choices":[{"index":0,"delta":{"content":" hello"}}]}\n\n`,
  "small, CRLF": (n) => `id: ${n}\r\nevent: tick\r\ndata: {"n":${n},"at":"2024-05-01T12:00:00.000Z"}\r\n\r\n`,
  "small, CR": (n) => `id: ${n}\revent: tick\rdata: {"n":${n},"at":"2024-05-01T12:00:00.000Z"}\r\r`,
  "tiny, CRLF": (n) => `id: ${n}\r\nevent: tick\r\ndata: {"n":${n}}\r\n\r\n`,
  "small, not ASCII": (n) => `id: ${n}\nevent: tick\ndata: {"n":${n},"text":"héllo wörld ✓"}\n\n`,
  "16 KiB events": (n) => `id: ${n}\ndata: ${"x".repeat(16 * 1024)}\n\n`,
  "16 KiB, CRLF": (n) => `id: ${n}\r\ndata: ${"x".repeat(16 * 1024)}\r\n\r\n`,
  "1 MiB events": (n) => `id: ${n}\ndata: ${"x".repeat(1024 * 1024 - 64)}\n\n`
}

/** Chunks of a feed, and the number of its events. */
const chunksOf = (event) => {
  const parts = []
  let length = 0
  let count = 0
  while (length < mebibytes * 1024 * 1024) {
    const bytes = Buffer.from(event(count++))
    parts.push(bytes)
    length += bytes.length
  }
  // What follows ends the last line: a CR at the very end might be half a line break.
  parts.push(Buffer.from(":"))
  const whole = new Uint8Array(Buffer.concat(parts))
  const chunks = []
  for (let at = 0; at < whole.length; at += chunkBytes) chunks.push(whole.slice(at, at + chunkBytes))
  return { chunks, count }
}

const ours = (chunks) => {
  const decoder = new Decoder({ maxLineBytes: 2 ** 24, maxEventBytes: 2 ** 24 })
  let events = 0
  for (const chunk of chunks) {
    for (const item of decoder.push(chunk)) if (item._tag === "Event") events++
  }
  return events
}

const theirs = (chunks) => {
  let events = 0
  const decoder = new TextDecoder()
  const parser = createParser({ onEvent: () => events++ })
  for (const chunk of chunks) parser.feed(decoder.decode(chunk, { stream: true }))
  return events
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]

for (const [name, event] of Object.entries(feeds)) {
  const { chunks, count } = chunksOf(event)
  const times = { ours: [], theirs: [] }
  for (let round = -1; round < rounds; round++) {
    for (const [who, run] of round % 2 === 0
      ? [
          ["ours", ours],
          ["theirs", theirs]
        ]
      : [
          ["theirs", theirs],
          ["ours", ours]
        ]) {
      const begun = process.cpuUsage()
      const events = run(chunks)
      const { system, user } = process.cpuUsage(begun)
      const elapsed = (system + user) / 1000
      if (events !== count) throw new Error(`${who} decoded ${events} of ${count} events of "${name}"`)
      if (round >= 0) times[who].push(elapsed)
    }
  }
  const a = median(times.ours)
  const b = median(times.theirs)
  console.log(
    `${name.padEnd(18)} ours ${a.toFixed(0).padStart(6)} ms   eventsource-parser ${b.toFixed(0).padStart(6)} ms   ratio ${(b / a).toFixed(2)}`
  )
}
