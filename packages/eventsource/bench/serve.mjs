/**
 * Serving: fan-out to many subscribers, firehose to one, memory for each subscriber; against hand-written `node:http`.
 * Servers run in child processes, readers in this one; rounds alternate; medians.
 *
 *     npx tsc -b && node packages/eventsource/bench/serve.mjs [fanout|firehose|memory] [rounds]
 */
import { fork } from "node:child_process"
import http from "node:http"
import net from "node:net"
import { fileURLToPath } from "node:url"

const self = fileURLToPath(import.meta.url)
const data = "x".repeat(128)

async function serve(kind, size) {
  let publish
  let count
  const server = { node: nodeServer, ours: oursServer }[kind]
  ;({ publish, count } = await server(size, (port) => process.send({ port })))
  process.on("message", async (message) => {
    if (message === "memory") {
      for (let i = 0; i < 4; i++) {
        globalThis.gc()
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      const { rss, heapUsed, external } = process.memoryUsage()
      process.send({ rss, heap: heapUsed + external, subscribers: await count() })
    } else if (message === "cpu") {
      const { system, user } = process.cpuUsage()
      process.send(user + system)
    } else if (message.publish > 0) publish(message.publish, message.inFlight)
  })
}

function nodeServer(size, listening) {
  const subscribers = new Set()
  const server = http.createServer((request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
    if (request.url === "/firehose") {
      const text = `data: ${"x".repeat(size)}\n\n`
      const run = () => {
        while (response.write(text));
        response.once("drain", run)
      }
      response.on("close", () => response.removeAllListeners("drain"))
      run()
    } else {
      response.write(":\n\n")
      subscribers.add(response)
      response.on("close", () => subscribers.delete(response))
    }
  })
  server.listen(0, () => listening(server.address().port))
  return {
    count: () => subscribers.size,
    publish: (events, inFlight) => {
      let n = 0
      const run = () => {
        for (let i = 0; i < inFlight && n < events; i++, n++) {
          const text = `event: tick\nid: ${n}\ndata: ${data}\n\n`
          for (const response of subscribers) response.write(text)
        }
        if (n < events) setImmediate(run)
      }
      run()
    }
  }
}

async function oursServer(size, listening) {
  const { HttpLayerRouter, HttpServer } = await import("@effect/platform")
  const { NodeHttpServer } = await import("@effect/platform-node")
  const { Effect, Layer, Stream, Chunk } = await import("effect")
  const { EventBroadcast, EventStreamRoute, ServerSentEvent } = await import("../dist/index.js")
  const broadcast = Effect.runSync(EventBroadcast.make())
  const event = ServerSentEvent.make({ data: "x".repeat(size) })
  const routes = Layer.mergeAll(
    EventStreamRoute.layer("/sse", { slowReader: "drop", maxBufferedBytes: 2 ** 30 }, () => broadcast.subscribe()),
    EventStreamRoute.layer("/firehose", {}, () =>
      Stream.forever(Stream.fromChunk(Chunk.fromIterable(Array(16).fill(event))))
    )
  )
  const log = Layer.effectDiscard(Effect.map(HttpServer.HttpServer, (server) => listening(server.address.port)))
  Effect.runFork(
    Layer.launch(
      Layer.mergeAll(HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }), log).pipe(
        Layer.provide(NodeHttpServer.layer(http.createServer, { port: 0 }))
      )
    )
  )
  return {
    count: () => Effect.runSync(broadcast.subscribers),
    publish: (events, inFlight) => {
      let n = 0
      const run = () => {
        for (let i = 0; i < inFlight && n < events; i++, n++) {
          Effect.runSync(broadcast.publish(ServerSentEvent.make({ event: "tick", id: String(n), data })))
        }
        if (n < events) setImmediate(run)
      }
      run()
    }
  }
}

async function main() {
  const what = process.argv[2] ?? "fanout"
  const rounds = Number(process.argv[3] ?? 3)
  const runs = {
    fanout: () => fanout(1),
    "fanout, CPU": () => fanout(1, true),
    "fanout in eights": () => fanout(8),
    firehose: () => firehose(128),
    "firehose 16 KiB": () => firehose(16384),
    memory
  }
  for (const [name, run] of Object.entries(runs)) {
    if (!name.startsWith(what)) continue
    const measure = run()
    const results = { node: [], ours: [] }
    for (let round = 0; round < rounds; round++) {
      for (const kind of round % 2 === 0 ? ["node", "ours"] : ["ours", "node"])
        results[kind].push(await withServer(kind, measure))
    }
    const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]
    const a = median(results.ours)
    const b = median(results.node)
    console.log(`${name.padEnd(18)} ours ${a.toFixed(1)} node:http ${b.toFixed(1)} ratio ${(a / b).toFixed(2)}`)
  }
}

async function withServer(kind, { size, measure }) {
  const child = fork(self, ["server", kind, String(size)], {
    execArgv: ["--expose-gc"],
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  const message = () => new Promise((resolve) => child.once("message", resolve))
  try {
    const { port } = await message()
    return await measure(port, async (value) => {
      child.send(value)
      return typeof value === "string" ? message() : undefined
    })
  } finally {
    child.kill()
  }
}

/** A raw reader: sends the request and counts bytes. */
const reader = (port, path, onData) =>
  new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () =>
      socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n`)
    )
    socket.once("data", () => resolve(socket))
    socket.on("data", onData)
    socket.on("error", reject)
  })

const open = async (port, count, onData) => {
  const sockets = []
  while (sockets.length < count) {
    sockets.push(...(await Promise.all(Array.from({ length: 50 }, () => reader(port, "/sse", onData)))))
  }
  return sockets
}

/** Thousands of deliveries to 1000 subscribers: a second, or, as one reader may be slower, a second of the server's CPU. */
function fanout(inFlight, cpu = false) {
  const subscribers = 1000
  const events = 300 * (inFlight > 1 ? 4 : 1)
  return {
    size: 0,
    measure: async (port, tell) => {
      let seen = 0
      let done
      // Every event ends with data and a blank line: count those.
      const finished = new Promise((resolve) => (done = resolve))
      const sockets = await open(port, subscribers, (chunk) => {
        for (let at = chunk.indexOf("data: "); at !== -1; at = chunk.indexOf("data: ", at + 6)) seen++
        if (seen >= subscribers * events * 0.995) done()
      })
      const used = await tell("cpu")
      const begun = performance.now()
      tell({ publish: events, inFlight })
      await finished
      const elapsed = cpu ? ((await tell("cpu")) - used) / 1000 : performance.now() - begun
      for (const socket of sockets) socket.destroy()
      return (subscribers * events) / elapsed
    }
  }
}

/** MiB a second to one reader. */
function firehose(size) {
  return {
    size,
    measure: async (port) => {
      let bytes = 0
      const socket = await reader(port, "/firehose", (chunk) => (bytes += chunk.length))
      await new Promise((resolve) => setTimeout(resolve, 300))
      bytes = 0
      const begun = performance.now()
      await new Promise((resolve) => setTimeout(resolve, 1500))
      const rate = bytes / 1048.576 / (performance.now() - begun)
      socket.destroy()
      return rate
    }
  }
}

/** KB of heap for each of 2000 subscribers at rest. */
function memory() {
  return {
    size: 0,
    measure: async (port, tell) => {
      const warm = await open(port, 100, () => {})
      for (const socket of warm) socket.destroy()
      const before = await tell("memory")
      const sockets = await open(port, 2000, () => {})
      const after = await tell("memory")
      for (const socket of sockets) socket.destroy()
      return (after.rss - before.rss) / 1000 / sockets.length
    }
  }
}

if (process.argv[2] === "server") await serve(process.argv[3], Number(process.argv[4]))
else await main()
