/** `NodeWebSocketClient` through proxies that others wrote: tinyproxy and squid. */
import { createHash } from "node:crypto"
import type * as Http from "node:http"
import * as Https from "node:https"
import { assert, describe, it } from "@effect/vitest"
import { WebSocketRoute } from "@effect-ws/core"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Effect, type Scope, Stream } from "effect"
import { certificate, daemon, folder, freePort, serve, write } from "./support.js"

const user = { username: "ada", password: "lovelace" }

/** Starts a proxy that wants credentials and leads to the ports `targets` alone. */
type Start = (port: number, targets: ReadonlyArray<number>) => Effect.Effect<void, never, Scope.Scope>

const tinyproxy: Start = (port, targets) =>
  Effect.gen(function* () {
    const config = `
      Port ${port}
      Listen 127.0.0.1
      Allow 127.0.0.1
      LogLevel Critical
      BasicAuth ${user.username} ${user.password}
      ${targets.map((target) => `ConnectPort ${target}`).join("\n")}
    `
    yield* daemon(port, "tinyproxy", ["-d", "-c", write(yield* folder, "tinyproxy.conf", config)])
  })

const squid: Start = (port, targets) =>
  Effect.gen(function* () {
    const place = yield* folder
    const hash = createHash("md5").update(user.password).digest("hex")
    const users = write(place, "users", `${user.username}:${hash}\n`)
    const config = `
      http_port 127.0.0.1:${port}
      visible_hostname localhost
      pid_filename none
      access_log none
      cache_log ${place}/cache.log
      coredump_dir ${place}
      pinger_enable off
      netdb_filename none
      cache deny all
      auth_param basic program /usr/lib/squid/basic_ncsa_auth ${users}
      auth_param basic children 1
      acl users proxy_auth REQUIRED
      acl targets port ${targets.join(" ")}
      http_access deny !targets
      http_access allow users
      http_access deny all
    `
    yield* daemon(port, "squid", ["-N", "-f", write(place, "squid.conf", config)])
  })

const Echo = WebSocketRoute.layer("/echo", {}, (socket) => Stream.run(socket.messages, socket.sink))

const secureServer = () =>
  Https.createServer({ cert: certificate("server.crt"), key: certificate("server.key") }) as Http.Server

/** A plain and a secure server which the proxy leads to, and a third which it does not. */
const behind = (start: Start) =>
  Effect.gen(function* () {
    const port = yield* freePort
    const [plain, secure, other] = yield* Effect.all([serve(Echo), serve(Echo, { server: secureServer }), serve(Echo)])
    yield* start(port, [plain.port, secure.port])
    return {
      proxy: `http://127.0.0.1:${port}`,
      plain: `ws://127.0.0.1:${plain.port}/echo`,
      secure: `wss://127.0.0.1:${secure.port}/echo`,
      other: `ws://127.0.0.1:${other.port}/echo`
    }
  })

const tls = { ca: certificate("authority.crt") }

for (const [name, start] of [
  ["tinyproxy", tinyproxy],
  ["squid", squid]
] as const) {
  describe(name, () => {
    it.scopedLive("leads to plain and secure servers, and carries what both ends say", () =>
      Effect.gen(function* () {
        const { plain, proxy, secure } = yield* behind(start)
        const inUrl = new URL(proxy)
        inUrl.username = user.username
        inUrl.password = encodeURIComponent(user.password)
        for (const options of [{ url: proxy, credentials: user }, inUrl]) {
          for (const url of [plain, secure]) {
            const socket = yield* NodeWebSocketClient.connect(url, { proxy: options, tls })
            for (const message of ["hello", "x".repeat(0x100000)]) {
              yield* socket.send(message)
              assert.strictEqual(yield* socket.take, message)
            }
            assert.deepInclude(yield* socket.close(1000), { code: 1000, clean: true })
          }
        }
      })
    )

    it.scopedLive("its refusals are HandshakeErrors with its status, headers and body", () =>
      Effect.gen(function* () {
        const { other, plain, proxy, secure } = yield* behind(start)
        const wrong = { username: "ada", password: "wrong" }
        const rows: ReadonlyArray<readonly [url: string, credentials: typeof user | undefined, status: number]> = [
          [other, user, 403],
          [plain, undefined, 407],
          [secure, undefined, 407],
          [plain, wrong, name === "squid" ? 407 : 401]
        ]
        for (const [url, credentials, status] of rows) {
          const error = yield* Effect.flip(
            NodeWebSocketClient.connect(url, { proxy: { url: proxy, credentials }, tls })
          )
          assert.deepInclude(error, { phase: "Proxy", reason: "Refused", status })
          assert.match(error.body!, /<html/i)
          if (status === 407) assert.match(error.headers!["proxy-authenticate"]!, /^Basic /)
        }
      })
    )
  })
}
