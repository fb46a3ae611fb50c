/**
 * Memory per connection with permessage-deflate: the server's resident set between 100 and 1000 connections which have echoed three
 * messages of 2 KiB each, for our settings and for ws.
 *
 *     npm run build && node scripts/deflate-memory.mjs [VARIANT...]
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { HttpLayerRouter } from "@effect/platform"
import { WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketServer, PermessageDeflate } from "@effect-ws/node"
import { Effect, Layer } from "effect"
import { WebSocketServer, WebSocket as Ws } from "ws"

const alone = { serverNoContextTakeover: true, clientNoContextTakeover: true }
/** What a server is made of: our extension's options, or those of ws. */
const variants = {
  "ours: off": { ours: undefined },
  "ours: small": { ours: PermessageDeflate.small },
  "ours: full": { ours: PermessageDeflate.full },
  "ours: no takeover": { ours: PermessageDeflate.make(alone) },
  "ws: off": { ws: false },
  "ws: default": { ws: true },
  "ws: no takeover": { ws: alone }
}

const connections = { few: 100, many: 1000 }

/** Listens and tells the port, then its resident set whenever asked. */
const serve = async (variant) => {
  const http = createServer()
  if ("ws" in variant) {
    new WebSocketServer({ server: http, perMessageDeflate: variant.ws }).on("connection", (peer) =>
      peer.on("message", (data, binary) => peer.send(data, { binary }))
    )
    http.listen(0, "127.0.0.1")
  } else {
    const extensions = variant.ours === undefined ? [] : [variant.ours]
    const route = WebSocketRoute.each("/", { extensions }, (message, socket) => socket.send(message))
    const served = HttpLayerRouter.serve(route, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provide(NodeWebSocketServer.layer(() => http, { port: 0, host: "127.0.0.1" }))
    )
    Effect.runFork(Layer.launch(served))
  }
  if (!http.listening) await once(http, "listening")
  process.on("message", async () => {
    for (let i = 0; i < 3; i++) {
      globalThis.gc()
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    process.send(process.memoryUsage().rss)
  })
  process.send(http.address().port)
}

const rows = Array.from({ length: 20 }, (_, i) => ({
  id: i,
  name: `a name ${i * 7919}`,
  tags: ["one", "two"],
  price: i / 7
}))
const message = JSON.stringify(rows).slice(0, 2048)

const open = async (port, sockets, count) => {
  while (sockets.length < count) {
    const socket = new Ws(`ws://127.0.0.1:${port}/`, { perMessageDeflate: { threshold: 0 } })
    await once(socket, "open")
    for (let i = 0; i < 3; i++) {
      socket.send(message)
      await once(socket, "message")
    }
    sockets.push(socket)
  }
}

const measure = async (name) => {
  const child = fork(fileURLToPath(import.meta.url), [], {
    execArgv: ["--expose-gc"],
    env: { ...process.env, VARIANT: name }
  })
  const [port] = await once(child, "message")
  const resident = async () => {
    child.send("how much?")
    return (await once(child, "message"))[0]
  }
  const sockets = []
  await open(port, sockets, connections.few)
  const before = await resident()
  await open(port, sockets, connections.many)
  const after = await resident()
  for (const socket of sockets) socket.terminate()
  child.kill()
  return (after - before) / (connections.many - connections.few)
}

if (process.env.VARIANT !== undefined) await serve(variants[process.env.VARIANT])
else {
  const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(variants)
  for (const name of names)
    console.log(`${name.padEnd(20)} ${((await measure(name)) / 1024).toFixed(0).padStart(6)} KiB`)
}
