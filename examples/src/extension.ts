/**
 * An extension of one's own: every message is encrypted with a key that both sides have, before it is compressed or framed.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto"
import { createServer } from "node:http"
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { WebSocketClient, WebSocketRoute } from "@effect-ws/core"
import { type Extension, Rule } from "@effect-ws/core/engine"
import { NodeWebSocketClient, NodeWebSocketServer } from "@effect-ws/node"
import { Console, Effect, Layer, Stream } from "effect"

// #region extension
/** Messages as AES-256-GCM makes them: 12 bytes of nonce, 16 of tag, then the ciphertext. */
const sealed = (secret: string): Extension.Extension => {
  const key = createHash("sha256").update(secret).digest()
  const open: Extension.Open = () => ({
    encode: ({ payload }) => {
      const nonce = randomBytes(12)
      const cipher = createCipheriv("aes-256-gcm", key, nonce)
      const text = Buffer.concat([cipher.update(payload), cipher.final()])
      return { payload: Buffer.concat([nonce, cipher.getAuthTag(), text]), rsv: 0 }
    },
    decode: ({ payload }) => {
      try {
        const cipher = createDecipheriv("aes-256-gcm", key, payload.subarray(0, 12))
        cipher.setAuthTag(payload.subarray(12, 28))
        return Buffer.concat([cipher.update(payload.subarray(28)), cipher.final()])
      } catch {
        return Rule.violation("ExtensionData", "not sealed with our key")
      }
    }
  })
  // Without a reserved bit it sees every message, so that none passes as plain text.
  return {
    name: "x-sealed",
    rsv: 0,
    offer: () => [[]],
    accept: () => open,
    negotiate: () => ({ params: [], open })
  }
}
// #endregion

// #region use
const Echo = WebSocketRoute.layer("/echo", { extensions: [sealed("of both sides")] }, (socket) =>
  Stream.run(socket.messages, socket.sink)
)

const visit = (url: string, secret: string) =>
  Effect.gen(function* () {
    const socket = yield* WebSocketClient.connect(url, { extensions: [sealed(secret)] })
    yield* Console.log(`agreed on ${socket.extensions.map(({ name }) => name).join(", ")}`)
    yield* socket.send("hello")
    yield* Console.log(`echoed: ${yield* socket.take}`)
  }).pipe(
    Effect.scoped,
    Effect.catchTag("ConnectionClosed", (closed) => Console.log(`closed with ${closed.code}: ${closed.reason}`))
  )
// #endregion

const Server = HttpLayerRouter.serve(Echo, { disableLogger: true }).pipe(
  Layer.provideMerge(NodeWebSocketServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

const program = HttpServer.addressFormattedWith((address) =>
  Effect.zipRight(visit(`${address}/echo`, "of both sides"), visit(`${address}/echo`, "of a stranger"))
)

program.pipe(Effect.provide([Server, NodeWebSocketClient.layer]), NodeRuntime.runMain)
