import { once } from "node:events"
import { readFileSync } from "node:fs"
import * as Http from "node:http"
import * as Https from "node:https"
import { createRequire } from "node:module"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { Duplex } from "node:stream"
import type * as Tls from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { type Connection, WebSocketClient, type WebSocketError } from "@effect-ws/core"
import { Handshake } from "@effect-ws/core/engine"
import { NodeWebSocketClient } from "@effect-ws/node"
import { Chunk, Deferred, Effect, Exit, Fiber, type Scope, Stream, TestClock } from "effect"
import * as Undici from "undici"
import { WebSocketServer, WebSocket as Ws } from "ws"
import { environmentProxy } from "../src/internal/dial.js"

// ---- servers --------------------------------------------------------------------------------------------------------------

const fixture = (name: string) => readFileSync(new URL(`./fixtures/${name}`, import.meta.url))
const authority = fixture("authority.crt")
const serverTls = { cert: fixture("server.crt"), key: fixture("server.key") }

interface Listening {
  readonly port: number
  /** Sockets that are open at the server's end. */
  readonly sockets: Set<Duplex>
  /** Waits until there are as many. */
  readonly count: (sockets: number) => Effect.Effect<void>
}

/** Listens on a free port of the loopback (or on `path`) for the Scope. */
const listen = (server: Net.Server, path?: string): Effect.Effect<Listening, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<Duplex>()
    const waiting = new Set<() => void>()
    const changed = () => {
      for (const check of waiting) check()
    }
    server.on("connection", (socket: Net.Socket) => {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => {
        sockets.delete(socket)
        changed()
      })
      changed()
    })
    yield* Effect.acquireRelease(
      Effect.promise(async () => {
        if (path === undefined) server.listen(0, "127.0.0.1")
        else server.listen(path)
        await once(server, "listening")
      }),
      () =>
        Effect.promise(async () => {
          for (const socket of sockets) socket.destroy()
          server.close()
          await once(server, "close")
        })
    )
    const count = (wanted: number) =>
      Effect.async<void>((resume) => {
        const check = () => {
          if (sockets.size !== wanted) return
          waiting.delete(check)
          resume(Effect.void)
        }
        waiting.add(check)
        check()
      })
    const address = server.address()
    return { port: typeof address === "object" && address !== null ? address.port : 0, sockets, count }
  })

const require = createRequire(import.meta.url)
interface Emitter {
  on(event: string, listener: (event: { readonly data: string | Buffer }) => void): void
}
type Faye = new (
  request: Http.IncomingMessage,
  socket: Duplex,
  head: Buffer,
  protocols?: Array<string>
) => Emitter & { send(data: string | Buffer): void; close(code: number, reason: string): void }
const Faye = require("faye-websocket") as Faye
const Driver = require("websocket-driver") as {
  http(
    request: Http.IncomingMessage,
    options?: { protocols?: Array<string> }
  ): {
    readonly io: Duplex
    readonly messages: Emitter
    on(event: string, listener: (event: { readonly data: string | Buffer }) => void): void
    start(): void
    text(data: string): void
    binary(data: Buffer): void
    close(reason: string, code: number): void
  }
}

type Upgrade = (request: Http.IncomingMessage, socket: Duplex, head: Buffer) => void

/** Echo servers; the text "bye" makes them close with 4001, "done". */
const echoes: Readonly<Record<"ws" | "faye-websocket" | "websocket-driver", Upgrade>> = {
  ws: (() => {
    const server = new WebSocketServer({
      noServer: true,
      handleProtocols: (offered) => (offered.has("v1") ? "v1" : false)
    })
    return (request, socket, head) =>
      server.handleUpgrade(request, socket, head, (peer) =>
        peer.on("message", (data, binary) => {
          if (String(data) === "bye") peer.close(4001, "done")
          else peer.send(data, { binary })
        })
      )
  })(),
  "faye-websocket": (request, socket, head) => {
    const peer = new Faye(request, socket, head, ["v1"])
    peer.on("message", ({ data }) => (data === "bye" ? peer.close(4001, "done") : peer.send(data)))
  },
  "websocket-driver": (request, socket, head) => {
    const driver = Driver.http(request, { protocols: ["v1"] })
    driver.io.write(head)
    socket.pipe(driver.io).pipe(socket)
    driver.on("message", ({ data }) => {
      if (data === "bye") driver.close("done", 4001)
      else if (typeof data === "string") driver.text(data)
      else driver.binary(data)
    })
    // The driver leaves the end of the socket to its user.
    driver.on("close", () => socket.end())
    driver.start()
  }
}

const webServer = (upgrade: Upgrade, secure: boolean, tls: Tls.TlsOptions = {}): Http.Server => {
  const server = secure ? Https.createServer({ ...serverTls, ...tls }) : Http.createServer()
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => {})
    upgrade(request, socket, head)
  })
  return server
}

/** A server which answers the head of every request with what `answer` gives; nothing for `undefined`. */
const rawServer = (answer: (request: string, socket: Net.Socket) => string | undefined): Net.Server =>
  Net.createServer((socket) => {
    let request = ""
    socket.on("data", function take(chunk) {
      request += chunk.toString("latin1")
      if (!request.endsWith("\r\n\r\n")) return
      socket.off("data", take)
      const reply = answer(request, socket)
      if (reply !== undefined) socket.write(reply, "latin1")
    })
  })

const accept = (request: string): string =>
  `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${Handshake.acceptKey(
    /^Sec-WebSocket-Key: (.*)\r$/im.exec(request)![1]!
  )}\r\n\r\n`

const failure = (effect: Effect.Effect<unknown, WebSocketError.HandshakeError, Scope.Scope>) =>
  Effect.flip(Effect.scoped(effect))

const trusting = { tls: { ca: authority } }

const echoed = (socket: Connection.Connection, text: string) => Effect.zipRight(socket.send(text), socket.take)

/** Where a Unix socket may be; Linux, macOS: at most some 100 bytes. */
const socketPath = (name: string) => Path.join(Os.tmpdir(), `effect-ws-${process.pid}-${name}.sock`)

describe("NodeWebSocketClient", () => {
  describe("echo with real servers", () => {
    const rows = (["ws", "faye-websocket", "websocket-driver"] as const).flatMap((peer) =>
      ([false, true] as const).map((secure) => ({ peer, scheme: secure ? "wss" : "ws", secure }))
    )
    it.scoped.each(rows)("$peer over $scheme", ({ peer, scheme, secure }) =>
      Effect.gen(function* () {
        const { count, port } = yield* listen(webServer(echoes[peer], secure))
        const program = Effect.gen(function* () {
          const socket = yield* WebSocketClient.connect(`${scheme}://localhost:${port}/chat?a=b`, {
            subprotocols: ["v2", "v1"],
            headers: { "x-token": "t" },
            maxMessageBytes: 4 * 1024 * 1024
          })
          assert.strictEqual(socket.subprotocol, "v1")
          const messages = [
            "",
            "héllo €𝄞",
            new Uint8Array(0),
            new Uint8Array([1, 2, 3]),
            "x".repeat(70000),
            new Uint8Array(1 << 20).fill(7)
          ]
          yield* Effect.fork(socket.sendAll(messages))
          const received = yield* Stream.runCollect(Stream.take(socket.messages, messages.length))
          const plain = Chunk.toReadonlyArray(received).map((m) => (typeof m === "string" ? m : Uint8Array.from(m)))
          assert.deepStrictEqual(plain, messages)
          yield* socket.ping()
          yield* socket.send("bye")
          const info = yield* socket.closed
          assert.deepStrictEqual([info.code, info.reason, info.initiator, info.clean], [4001, "done", "remote", true])
          const other = yield* WebSocketClient.connect(`${scheme}://localhost:${port}/`)
          const closed = yield* other.close(4000, "enough")
          assert.deepStrictEqual([closed.initiator, closed.clean, closed.received?.code], ["local", true, 4000])
        })
        yield* program.pipe(Effect.scoped, Effect.provide(NodeWebSocketClient.layerWith(trusting)))
        yield* count(0)
      })
    )

    it.scoped("the layer without options", () =>
      Effect.gen(function* () {
        const { port } = yield* listen(webServer(echoes.ws, false))
        const socket = yield* Effect.provide(
          WebSocketClient.connect(`ws://127.0.0.1:${port}`),
          NodeWebSocketClient.layer
        )
        assert.strictEqual(yield* echoed(socket, "a"), "a")
      })
    )

    it.scoped("the origin, headers and credentials arrive", () =>
      Effect.gen(function* () {
        const seen = yield* Deferred.make<Http.IncomingHttpHeaders>()
        const { port } = yield* listen(
          webServer((request, socket, head) => {
            Effect.runSync(Deferred.succeed(seen, request.headers))
            echoes.ws(request, socket, head)
          }, false)
        )
        yield* NodeWebSocketClient.connect(`ws://a%40b:c@localhost:${port}/`, {
          origin: "https://example.org",
          headers: { cookie: "s=1" }
        })
        const headers = yield* Deferred.await(seen)
        assert.strictEqual(headers.origin, "https://example.org")
        assert.strictEqual(headers.cookie, "s=1")
        assert.strictEqual(headers.authorization, `Basic ${Buffer.from("a@b:c").toString("base64")}`)
        assert.strictEqual(headers.host, `localhost:${port}`)
      })
    )
  })

  describe("TLS", () => {
    it.scoped("certificates are verified: table", () =>
      Effect.gen(function* () {
        const good = yield* listen(webServer(echoes.ws, true))
        const expired = yield* listen(webServer(echoes.ws, true, { cert: fixture("expired.crt") }))
        const plain = yield* listen(webServer(echoes.ws, false))
        const here: Net.LookupFunction = (_name, options, done) =>
          options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4)
        const rows: ReadonlyArray<readonly [url: string, options: NodeWebSocketClient.DialOptions, code: string]> = [
          [`wss://localhost:${good.port}`, {}, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
          [`wss://wrong.example:${good.port}`, { ...trusting, tcp: { lookup: here } }, "ERR_TLS_CERT_ALTNAME_INVALID"],
          [`wss://localhost:${expired.port}`, trusting, "CERT_HAS_EXPIRED"],
          [
            `wss://localhost:${good.port}`,
            { tls: { ca: authority, maxVersion: "TLSv1.1", minVersion: "TLSv1.1" } },
            "ERR_SSL_"
          ],
          [`wss://localhost:${plain.port}`, trusting, "ERR_SSL_"]
        ]
        for (const [url, options, code] of rows) {
          const error = yield* failure(NodeWebSocketClient.connect(url, options))
          assert.deepStrictEqual([error.phase, error.reason], ["Tls", "Failed"], error.message)
          assert.include(`${error.detail} ${(error.cause as { code?: string }).code}`, code)
        }
        yield* Effect.all([good.count(0), expired.count(0), plain.count(0)])
      })
    )

    it.scoped("server names: the URL's host, an option, and none for addresses (RFC 6066 §3)", () =>
      Effect.gen(function* () {
        const names: Array<string | false | null> = []
        const server = webServer(echoes.ws, true)
        server.on("secureConnection", (socket: Tls.TLSSocket) => names.push(socket.servername))
        const { port } = yield* listen(server)
        yield* NodeWebSocketClient.connect(`wss://localhost:${port}`, trusting)
        yield* NodeWebSocketClient.connect(`wss://127.0.0.1:${port}`, trusting)
        yield* NodeWebSocketClient.connect(`wss://127.0.0.1:${port}`, {
          tls: { ca: authority, servername: "localhost" }
        })
        yield* NodeWebSocketClient.connect(`wss://localhost:${port}`, {
          tls: { rejectUnauthorized: false, servername: "other.example" }
        })
        assert.deepStrictEqual(names, ["localhost", false, "localhost", "other.example"])
      })
    )

    it.scoped("client certificates", () =>
      Effect.gen(function* () {
        const { port } = yield* listen(
          webServer(echoes.ws, true, { requestCert: true, rejectUnauthorized: true, ca: authority })
        )
        const url = `wss://localhost:${port}`
        const tls = { ca: authority, cert: fixture("client.crt"), key: fixture("client.key") }
        const socket = yield* NodeWebSocketClient.connect(url, { tls })
        assert.strictEqual(yield* echoed(socket, "a"), "a")
        // TLS 1.3 lets the client believe that all is well, until it reads.
        const error = yield* failure(NodeWebSocketClient.connect(url, trusting))
        assert.strictEqual(error.reason, "Failed")
      })
    )

    it.effect("options that tls.connect throws at", () =>
      Effect.gen(function* () {
        const error = yield* failure(NodeWebSocketClient.connect("wss://localhost:1", { tls: { ciphers: "nonsense" } }))
        assert.deepStrictEqual([error.phase, error.reason], ["Dial", "Failed"])
      })
    )
  })

  describe("a server that can't be reached", () => {
    it.scoped("refused, no such name, no such socket, lost before the answer", () =>
      Effect.gen(function* () {
        // A port that was free a moment ago
        const { port } = yield* Effect.scoped(listen(Net.createServer()))
        const reset = yield* listen(rawServer((_, socket) => void socket.resetAndDestroy()))
        const ended = yield* listen(rawServer((_, socket) => void socket.end()))
        const refused = yield* listen(
          rawServer(() => "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nnope")
        )
        const hangsUp = yield* listen(Net.createServer((socket) => socket.resume().end()))
        const noName: Net.LookupFunction = (name, _, done) =>
          done(Object.assign(new Error(`no ${name}`), { code: "ENOTFOUND" }), [])
        const rows: ReadonlyArray<
          readonly [
            url: string,
            options: NodeWebSocketClient.DialOptions,
            phase: string,
            reason: string,
            detail: RegExp
          ]
        > = [
          [`ws://127.0.0.1:${port}`, {}, "Dial", "Failed", /ECONNREFUSED/],
          [`ws://localhost:${port}`, {}, "Dial", "Failed", /ECONNREFUSED/],
          [`wss://127.0.0.1:${port}`, {}, "Dial", "Failed", /ECONNREFUSED/],
          ["ws://nowhere.invalid", { tcp: { lookup: noName } }, "Dial", "Failed", /ENOTFOUND/],
          [`ws+unix:${socketPath("none")}:/`, {}, "Dial", "Failed", /ENOENT/],
          [`ws://127.0.0.1:${reset.port}`, {}, "Response", "Failed", /was lost/],
          [`ws://127.0.0.1:${ended.port}`, {}, "Response", "Failed", /ended/],
          [`ws://127.0.0.1:${refused.port}`, {}, "Response", "Refused", /401 No/],
          [`wss://127.0.0.1:${hangsUp.port}`, {}, "Tls", "Failed", /ECONNRESET/]
        ]
        for (const [url, options, phase, reason, detail] of rows) {
          const error = yield* failure(NodeWebSocketClient.connect(url, options))
          assert.deepStrictEqual([error.phase, error.reason], [phase, reason], error.message)
          assert.match(error.detail, detail)
          if (reason === "Refused") {
            assert.deepStrictEqual(
              [error.status, error.headers?.["www-authenticate"], error.body],
              [401, "Basic", "nope"]
            )
          }
        }
        yield* Effect.all([reset, ended, refused, hangsUp].map(({ count }) => count(0)))
      })
    )
  })

  describe("other ways to a server", () => {
    it.scoped("Unix sockets: ws+unix:, the option, and TLS over one", () =>
      Effect.gen(function* () {
        const plain = socketPath("plain")
        const secure = socketPath("tls")
        const seen: Array<string | undefined> = []
        const note: Upgrade = (request, socket, head) => {
          seen.push(`${request.headers.host}${request.url}`)
          echoes.ws(request, socket, head)
        }
        yield* listen(webServer(note, false), plain)
        yield* listen(webServer(note, true), secure)
        const sockets = yield* Effect.all([
          NodeWebSocketClient.connect(`ws+unix:${plain}:/a?b`),
          NodeWebSocketClient.connect("ws://example.com/c", { socketPath: plain, proxy: "http://127.0.0.1:1" }),
          NodeWebSocketClient.connect("wss://localhost/d", { ...trusting, socketPath: secure })
        ])
        for (const socket of sockets) assert.strictEqual(yield* echoed(socket, "a"), "a")
        assert.deepStrictEqual(seen, ["localhost/a?b", "example.com/c", "localhost/d"])
      })
    )

    it.scoped("a given stream, with bytes that were read from it already, and TLS over it", () =>
      Effect.gen(function* () {
        const early = new TextEncoder().encode("HTTP/1.1 103 Early Hints\r\n\r\n")
        for (const secure of [false, true]) {
          const { count, port } = yield* listen(webServer(echoes.ws, secure))
          const stream = Net.connect(port, "127.0.0.1")
          yield* Effect.scoped(
            Effect.gen(function* () {
              const url = `${secure ? "wss" : "ws"}://localhost/`
              const socket = yield* NodeWebSocketClient.connectDuplex(
                stream,
                secure ? { url, ...trusting } : { url, head: early }
              )
              assert.strictEqual(yield* echoed(socket, "a"), "a")
            })
          )
          assert.isTrue(stream.destroyed)
          yield* count(0)
        }
      })
    )

    it.effect("a given stream is destroyed when opening fails, at the URL too", () =>
      Effect.gen(function* () {
        for (const [url, reply] of [
          ["nowhere", ""],
          ["ws://a/", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"],
          ["ws://a/", "SSH-2.0\r\n"],
          ["wss://a/", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"]
        ] as const) {
          const stream = new Duplex({
            read() {},
            write(_chunk, _encoding, done) {
              done()
              this.push(reply)
            }
          })
          yield* failure(NodeWebSocketClient.connectDuplex(stream, { url }))
          assert.isTrue(stream.destroyed)
        }
      })
    )

    it.scoped("redirects, from one server to another and to TLS", () =>
      Effect.gen(function* () {
        const seen: Array<string | undefined> = []
        const target = yield* listen(
          webServer((request, socket, head) => {
            seen.push(request.headers.authorization, request.url)
            echoes.ws(request, socket, head)
          }, true)
        )
        const first = yield* listen(
          rawServer(
            () => `HTTP/1.1 308 Moved\r\nLocation: https://localhost:${target.port}/x\r\nContent-Length: 9\r\n\r\n`
          )
        )
        const socket = yield* NodeWebSocketClient.connect(`ws://u:p@localhost:${first.port}`, {
          ...trusting,
          followRedirects: true
        })
        assert.strictEqual(yield* echoed(socket, "a"), "a")
        assert.deepStrictEqual(seen, [undefined, "/x"])
        yield* first.count(0)
      })
    )
  })

  describe("proxies", () => {
    interface Asked {
      readonly line: string | undefined
      readonly headers: Http.IncomingHttpHeaders
    }
    /** A proxy that tunnels to the loopback whatever the name; `answer` may say something else. */
    const proxyServer = (
      secure: boolean,
      asked: Array<Asked>,
      answer = "HTTP/1.1 200 Connection established\r\n\r\n"
    ) => {
      const server = secure ? Https.createServer(serverTls) : Http.createServer()
      server.on("connect", (request: Http.IncomingMessage, socket: Duplex, head: Buffer) => {
        asked.push({ line: request.url, headers: request.headers })
        socket.on("error", () => {})
        if (!answer.startsWith("HTTP/1.1 2")) return socket.end(answer)
        const upstream = Net.connect(Number(/\d+$/.exec(request.url!)![0]), "127.0.0.1", () => {
          socket.write(answer, "latin1")
          upstream.write(head)
          upstream.pipe(socket).pipe(upstream)
        })
        upstream.on("error", () => socket.destroy())
        upstream.on("close", () => socket.destroy())
        socket.on("close", () => upstream.destroy())
      })
      return server
    }

    const rows = [false, true].flatMap((secureProxy) =>
      [false, true].map((secure) => ({
        secureProxy,
        secure,
        what: `${secure ? "wss" : "ws"} by ${secureProxy ? "https" : "http"} proxy`
      }))
    )
    it.scoped.each(rows)("$what", ({ secure, secureProxy }) =>
      Effect.gen(function* () {
        const asked: Array<Asked> = []
        const target = yield* listen(webServer(echoes.ws, secure))
        const proxy = yield* listen(proxyServer(secureProxy, asked))
        const url = `${secure ? "wss" : "ws"}://localhost:${target.port}/x`
        yield* Effect.scoped(
          Effect.gen(function* () {
            const socket = yield* NodeWebSocketClient.connect(url, {
              ...trusting,
              proxy: {
                url: `${secureProxy ? "https" : "http"}://us%40er:p%C3%A4ss@localhost:${proxy.port}`,
                headers: { "X-Proxy": ["1", "2"] },
                tls: { ca: authority }
              }
            })
            assert.strictEqual(yield* echoed(socket, "x".repeat(100_000)), "x".repeat(100_000))
          })
        )
        assert.strictEqual(asked.length, 1)
        assert.strictEqual(asked[0]!.line, `localhost:${target.port}`)
        assert.strictEqual(asked[0]!.headers.host, `localhost:${target.port}`)
        assert.strictEqual(asked[0]!.headers["x-proxy"], "1, 2")
        const basic = `Basic ${Buffer.from("us@er:päss").toString("base64")}`
        assert.strictEqual(asked[0]!.headers["proxy-authorization"], basic)
        yield* Effect.all([proxy.count(0), target.count(0)])
      })
    )

    it.scoped("credentials by option, and a header instead of them", () =>
      Effect.gen(function* () {
        const asked: Array<Asked> = []
        const target = yield* listen(webServer(echoes.ws, false))
        const proxy = yield* listen(proxyServer(false, asked))
        const url = `http://a:b@localhost:${proxy.port}`
        const credentials = { username: "%", password: "c:d" }
        yield* NodeWebSocketClient.connect(`ws://localhost:${target.port}`, { proxy: { url, credentials } })
        const headers = [["Proxy-Authorization", "Bearer t"]] as const
        yield* NodeWebSocketClient.connect(`ws://localhost:${target.port}`, { proxy: { url, credentials, headers } })
        assert.deepStrictEqual(
          asked.map(({ headers }) => headers["proxy-authorization"]),
          [`Basic ${Buffer.from("%:c:d").toString("base64")}`, "Bearer t"]
        )
      })
    )

    it.scoped("bytes that follow the proxy's answer are kept, plain and under TLS", () =>
      Effect.gen(function* () {
        const early = "HTTP/1.1 103 Early Hints\r\n\r\n"
        const target = yield* listen(webServer(echoes.ws, false))
        const proxy = yield* listen(proxyServer(false, [], `HTTP/1.1 200 OK\r\n\r\n${early}`))
        const socket = yield* NodeWebSocketClient.connect(`ws://localhost:${target.port}`, {
          proxy: `http://localhost:${proxy.port}`
        })
        assert.strictEqual(yield* echoed(socket, "a"), "a")
        // What is no TLS must be seen by TLS, which fails then; were it lost, this would succeed.
        const secure = yield* listen(webServer(echoes.ws, true))
        const error = yield* failure(
          NodeWebSocketClient.connect(`wss://localhost:${secure.port}`, {
            ...trusting,
            proxy: `http://localhost:${proxy.port}`
          })
        )
        assert.deepStrictEqual([error.phase, error.reason], ["Tls", "Failed"])
      })
    )

    const answers: ReadonlyArray<
      readonly [what: string, answer: string, reason: string, status: number | undefined, body: string | undefined]
    > = [
      [
        "407 with a body",
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nwho",
        "Refused",
        407,
        "who"
      ],
      [
        "502 until the end",
        "HTTP/1.0 502 Bad Gateway\r\nProxy-Authenticate: Basic\r\n\r\nno such host",
        "Refused",
        502,
        "no such host"
      ],
      [
        "a redirect is a refusal",
        "HTTP/1.1 302 x\r\nProxy-Authenticate: Basic\r\nLocation: http://a/\r\n\r\n",
        "Refused",
        302,
        ""
      ],
      ["no HTTP", "SOCKS?\r\n", "Invalid", undefined, undefined],
      ["nothing", "", "Failed", undefined, undefined]
    ]
    it.scoped.each(answers)("refusals show what the proxy said: %s", ([, answer, reason, status, body]) =>
      Effect.gen(function* () {
        const proxy = yield* listen(proxyServer(false, [], answer))
        const error = yield* failure(
          NodeWebSocketClient.connect("wss://localhost:1/", { proxy: `http://u:p@localhost:${proxy.port}` })
        )
        assert.deepStrictEqual([error.phase, error.reason, error.status, error.body], ["Proxy", reason, status, body])
        if (status !== undefined) assert.strictEqual(error.headers?.["proxy-authenticate"], "Basic")
        assert.notInclude(error.message, "u:p")
        yield* proxy.count(0)
      })
    )

    it.effect("what is no proxy fails in phase Request", () =>
      Effect.gen(function* () {
        const proxies: ReadonlyArray<string | NodeWebSocketClient.ProxyOptions> = [
          "nowhere",
          "socks5://localhost",
          "http://%E0%A4%A@localhost",
          "http://a%3Ab:c@localhost",
          { url: "http://localhost", headers: { "a b": "c" } },
          { url: "http://localhost", headers: { a: "b\r\nc: d" } }
        ]
        for (const proxy of proxies) {
          const error = yield* failure(NodeWebSocketClient.connect("ws://localhost:1", { proxy }))
          assert.deepStrictEqual([error.phase, error.reason], ["Request", "Invalid"])
        }
      })
    )

    it.scoped("the proxy is not there, and its certificate is not trusted", () =>
      Effect.gen(function* () {
        const { port } = yield* Effect.scoped(listen(Net.createServer()))
        const none = yield* failure(NodeWebSocketClient.connect("ws://a/", { proxy: `http://127.0.0.1:${port}` }))
        assert.deepStrictEqual([none.phase, none.reason], ["Dial", "Failed"])
        assert.match(none.detail, /proxy/)
        const proxy = yield* listen(proxyServer(true, []))
        const untrusted = yield* failure(
          NodeWebSocketClient.connect("ws://a/", { ...trusting, proxy: `https://localhost:${proxy.port}` })
        )
        assert.deepStrictEqual([untrusted.phase, untrusted.reason], ["Tls", "Failed"])
        assert.match(untrusted.detail, /proxy/)
      })
    )

    const environments: ReadonlyArray<
      readonly [target: string, environment: Record<string, string>, proxy: string | undefined]
    > = [
      ["wss://a", {}, undefined],
      ["wss://a", { HTTPS_PROXY: "http://p" }, "http://p"],
      ["ws://a", { HTTPS_PROXY: "http://p" }, undefined],
      ["ws://a", { HTTP_PROXY: "http://p", HTTPS_PROXY: "http://q" }, "http://p"],
      ["ws://a", { HTTP_PROXY: "http://p", http_proxy: "http://q" }, "http://q"],
      ["ws://a", { HTTP_PROXY: "" }, undefined],
      ["ws://a", { HTTP_PROXY: "http://p", NO_PROXY: "*" }, undefined],
      ["ws://a.b", { HTTP_PROXY: "http://p", NO_PROXY: "x, a.b" }, undefined],
      ["ws://c.a.b", { HTTP_PROXY: "http://p", NO_PROXY: "x a.b" }, undefined],
      ["ws://c.a.b", { HTTP_PROXY: "http://p", no_proxy: ".a.b" }, undefined],
      ["ws://c.a.b", { HTTP_PROXY: "http://p", no_proxy: "*.A.b" }, undefined],
      ["ws://ca.b", { HTTP_PROXY: "http://p", NO_PROXY: "a.b" }, "http://p"],
      ["ws://a:81", { HTTP_PROXY: "http://p", NO_PROXY: "a:81" }, undefined],
      ["ws://a:82", { HTTP_PROXY: "http://p", NO_PROXY: "a:81" }, "http://p"],
      ["ws://127.0.0.1", { HTTP_PROXY: "http://p", NO_PROXY: "localhost,127.0.0.1" }, undefined],
      ["ws://[::1]", { HTTP_PROXY: "http://p", NO_PROXY: "::1" }, undefined],
      ["ws://[::1]:81", { HTTP_PROXY: "http://p", NO_PROXY: "[::1]:81" }, undefined]
    ]
    it.each(environments)("environment: %s %o", (url, environment, proxy) => {
      const { hostname, port, protocol } = new URL(url)
      const secure = protocol === "wss:"
      const target = { hostname: hostname.replace(/^\[|\]$/g, ""), secure, port: Number(port || (secure ? 443 : 80)) }
      assert.strictEqual(environmentProxy(target, environment), proxy)
    })

    it.scoped("the environment on request, read at every connect", () =>
      Effect.gen(function* () {
        const asked: Array<Asked> = []
        const target = yield* listen(webServer(echoes.ws, false))
        const proxy = yield* listen(proxyServer(false, asked))
        const before = { ...process.env }
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            process.env = before
          })
        )
        process.env = { ...before, http_proxy: `http://localhost:${proxy.port}`, no_proxy: "" }
        const client = NodeWebSocketClient.make({ proxy: "environment" })
        yield* client.connect(`ws://localhost:${target.port}`)
        assert.strictEqual(asked.length, 1)
        process.env = { ...process.env, no_proxy: "localhost" }
        yield* client.connect(`ws://localhost:${target.port}`)
        assert.strictEqual(asked.length, 1)
      })
    )
  })

  describe("deadlines and interruption, at every phase", () => {
    /** What makes a client hang in a phase: the URL and options, and a way to know that it does. */
    const hanging = (phase: "Dial" | "Tls" | "Proxy" | "ProxyTls" | "Response" | "Body") =>
      Effect.gen(function* () {
        const asked = yield* Deferred.make<void>()
        const tell = () => void Effect.runSync(Deferred.succeed(asked, undefined))
        const server =
          phase === "Response" || phase === "Body" || phase === "Proxy"
            ? rawServer(() => {
                tell()
                return phase === "Body" ? "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nlater" : undefined
              })
            : Net.createServer((socket) => socket.once("data", tell))
        const { count, port } = yield* listen(server)
        const here = `127.0.0.1:${port}`
        const [url, options]: readonly [string, NodeWebSocketClient.DialOptions] =
          phase === "Dial"
            ? ["ws://a/", { tcp: { lookup: () => tell() } }]
            : phase === "Tls"
              ? [`wss://${here}`, {}]
              : phase === "Proxy"
                ? ["wss://a/", { proxy: `http://${here}` }]
                : phase === "ProxyTls"
                  ? ["wss://a/", { proxy: `https://${here}` }]
                  : [`ws://${here}`, {}]
        return { connect: NodeWebSocketClient.connect(url, options), asked: Deferred.await(asked), count }
      })

    const phases = ["Dial", "Tls", "Proxy", "ProxyTls", "Response", "Body"] as const

    it.scoped.each(phases)("interruption in phase %s leaves no socket", (phase) =>
      Effect.gen(function* () {
        const { asked, connect, count } = yield* hanging(phase)
        const before = process.getActiveResourcesInfo().filter((name) => name !== "TCPSocketWrap").length
        const fiber = yield* Effect.fork(Effect.scoped(connect))
        yield* asked
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        yield* count(0)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        const left = process.getActiveResourcesInfo().filter((name) => name !== "TCPSocketWrap").length
        assert.isAtMost(left, before)
      })
    )

    it.scoped.each(phases)("a timeout in phase %s names it and leaves no socket", (phase) =>
      Effect.gen(function* () {
        const { asked, connect, count } = yield* hanging(phase)
        const fiber = yield* Effect.fork(failure(connect))
        yield* asked
        // Whatever the server wrote at once has come.
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(() => setImmediate(resolve))))
        yield* TestClock.adjust("10 seconds")
        const error = yield* Fiber.join(fiber)
        if (phase === "Body")
          assert.deepStrictEqual([error.reason, error.status, error.body], ["Refused", 503, "later"])
        else assert.deepStrictEqual([error.phase, error.reason], [phase === "ProxyTls" ? "Tls" : phase, "Timeout"])
        yield* count(0)
      })
    )
  })

  describe("nothing stays behind", () => {
    it.scoped("after a thousand connections of every fate", () =>
      Effect.gen(function* () {
        const good = yield* listen(webServer(echoes.ws, false))
        const bad = yield* listen(
          rawServer((request, socket) => {
            const kind = Number(/GET \/(\d+)/.exec(request)![1]) % 4
            if (kind === 0) return "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
            if (kind === 1) return "garbage\r\n\r\n"
            if (kind === 2) return void socket.resetAndDestroy()
            // An unmasked frame that breaks a rule (RSV1), right behind the 101
            return `${accept(request)}\xc1\x00`
          })
        )
        const resources = () => process.getActiveResourcesInfo().length
        const once = (i: number) =>
          Effect.scoped(
            Effect.gen(function* () {
              const healthy = i % 5 === 0
              const socket = yield* NodeWebSocketClient.connect(`ws://127.0.0.1:${healthy ? good.port : bad.port}/${i}`)
              if (healthy) yield* echoed(socket, "a")
              else yield* Effect.ignore(socket.take)
            })
          ).pipe(Effect.exit)
        // Once, so that what is made lazily is there.
        yield* Effect.forEach([0, 1, 2, 3, 4, 7], once)
        yield* Effect.all([good.count(0), bad.count(0)])
        const before = resources()
        const exits = yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, i) => i),
          once,
          { concurrency: 20 }
        )
        assert.strictEqual(exits.length, 1000)
        assert.isTrue(exits.every((exit, i) => Exit.isSuccess(exit) === (i % 5 === 0 || i % 4 === 3)))
        yield* Effect.all([good.count(0), bad.count(0)])
        assert.isAtMost(resources(), before)
      })
    )
  })

  describe("the platform's own WebSocket: real classes", () => {
    const classes: ReadonlyArray<readonly [name: string, webSocket: WebSocketClient.WebSocketConstructor]> = [
      ["undici", Undici.WebSocket],
      ["ws", Ws]
    ]

    it.scopedLive.each(classes)("%s: both kinds, order, subprotocol, the peer's close", ([, webSocket]) =>
      Effect.gen(function* () {
        const { count, port } = yield* listen(webServer(echoes.ws, false))
        const program = Effect.gen(function* () {
          const url = `ws://127.0.0.1:${port}/`
          const socket = yield* WebSocketClient.connect(url, { subprotocols: ["v1"] })
          assert.strictEqual(socket.subprotocol, "v1")
          const messages = [
            "",
            "héllo €𝄞",
            new Uint8Array([1, 2, 3]),
            new Uint8Array(100_000).fill(7),
            ...Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? `${i}` : new Uint8Array([i & 0xff])))
          ]
          yield* Effect.fork(Stream.run(Stream.fromIterable(messages), socket.sink))
          const received = yield* Stream.runCollect(Stream.take(socket.messages, messages.length))
          assert.deepStrictEqual(Chunk.toReadonlyArray(received), messages)
          yield* socket.send("bye")
          const error = yield* Effect.flip(socket.take)
          assert.strictEqual(error._tag === "ConnectionClosed" && error.code, 4001)
          const info = yield* socket.closed
          assert.deepStrictEqual([info.reason, info.initiator, info.clean], ["done", "remote", true])
          const other = yield* WebSocketClient.connect(url)
          const closed = yield* other.close(4000, "enough")
          assert.deepStrictEqual([closed.code, closed.initiator, closed.clean], [4000, "local", true])
        })
        yield* program.pipe(Effect.scoped, Effect.provide(WebSocketClient.layerConstructor(webSocket)))
        yield* count(0)
      })
    )

    it.scopedLive.each(classes)("%s: refusals, nobody there, bad subprotocols, interruption, abort", ([, webSocket]) =>
      Effect.gen(function* () {
        const { port } = yield* Effect.scoped(listen(Net.createServer()))
        const refusing = yield* listen(rawServer(() => "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"))
        for (const at of [port, refusing.port]) {
          const error = yield* failure(WebSocketClient.connectGlobal(`ws://127.0.0.1:${at}/`, { webSocket }))
          assert.deepStrictEqual([error.phase, error.reason], ["Response", "Failed"])
        }
        const twice = WebSocketClient.connectGlobal("ws://a/", { webSocket, subprotocols: ["a", "a"] })
        assert.deepStrictEqual((yield* failure(twice)).phase, "Request")

        const asked = yield* Deferred.make<void>()
        const silent = yield* listen(rawServer(() => void Effect.runSync(Deferred.succeed(asked, undefined))))
        const connecting = WebSocketClient.connectGlobal(`ws://127.0.0.1:${silent.port}/`, { webSocket })
        const fiber = yield* Effect.fork(Effect.scoped(connecting))
        yield* Deferred.await(asked)
        yield* Fiber.interrupt(fiber)
        yield* silent.count(0)

        const echo = yield* listen(webServer(echoes.ws, false))
        const socket = yield* WebSocketClient.connectGlobal(`ws://127.0.0.1:${echo.port}/`, { webSocket })
        yield* socket.abort
        assert.strictEqual((yield* socket.closed).code, 1006)
        yield* echo.count(0)
      })
    )

    it.scopedLive.each(classes)("%s: send waits for a peer that does not read", ([, webSocket]) =>
      Effect.gen(function* () {
        let peer: Ws | undefined
        let bytes = 0
        const server = new WebSocketServer({ noServer: true })
        const { port } = yield* listen(
          webServer((request, socket, head) => {
            server.handleUpgrade(request, socket, head, (accepted) => {
              peer = accepted
              peer.pause()
              peer.on("message", (data: Buffer) => {
                bytes += data.length
              })
            })
          }, false)
        )
        const socket = yield* WebSocketClient.connectGlobal(`ws://127.0.0.1:${port}/`, { webSocket })
        const message = new Uint8Array(256 * 1024)
        let sent = 0
        // Until the kernel's buffers are full too
        while (yield* socket.trySend(message)) {
          sent++
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        }
        const waiting = yield* Effect.fork(socket.send(message))
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        assert.strictEqual((yield* Fiber.poll(waiting))._tag, "None")
        peer!.resume()
        yield* Fiber.join(waiting)
        yield* socket.close()
        assert.strictEqual(bytes, (sent + 1) * message.length)
      })
    )
  })
})
