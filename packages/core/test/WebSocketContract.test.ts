/** Contracts: the request they make, and connections whose messages have types. */
import { assert, describe, it } from "@effect/vitest"
import {
  type Message,
  MessagePack,
  TestTransport,
  WebSocketClient,
  WebSocketContract,
  WebSocketError
} from "@effect-ws/core"
import { Chunk, Context, Effect, Exit, Fiber, Schema, Stream } from "effect"

class Said extends Schema.TaggedClass<Said>()("said", {
  text: Schema.String.pipe(Schema.maxLength(10)),
  at: Schema.optional(Schema.DateFromString)
}) {}
const Move = Schema.TaggedStruct("move", { points: Schema.Array(Schema.Struct({ x: Schema.Number })) })
const ClientMessage = Schema.Union(Said, Move)
const ServerMessage = Schema.Struct({ n: Schema.BigInt })

const Chat = WebSocketContract.make("/chat", { incoming: ClientMessage, outgoing: ServerMessage })

/** Both ends of a contract, and the plain ones underneath. */
const ends = <P, U, H, In, Out, R>(
  contract: WebSocketContract.WebSocketContract<P, U, H, In, Out, R>,
  options: {
    readonly onInvalid?: WebSocketContract.OnInvalid<In, Out>
    readonly chunking?: TestTransport.Chunking
  } = {}
) =>
  Effect.gen(function* () {
    const line = yield* TestTransport.connections({
      chunking: options.chunking ?? "together",
      server: { heartbeat: false },
      client: { heartbeat: false }
    })
    const server = yield* contract.server(line.server, options.onInvalid)
    const client = yield* contract.client(line.client)
    return { client, server, plain: line.client }
  })

describe("messages", () => {
  const said = new Said({ text: "hi", at: new Date(86_400_000) })
  const move = Move.make({ points: [{ x: 1 }, { x: 2 }] })

  for (const codec of [WebSocketContract.json, MessagePack.codec]) {
    for (const chunking of ["together", "every byte", 7] as const) {
      it.scoped(`pass in both directions: ${codec.name}, chunks ${chunking}`, () =>
        Effect.gen(function* () {
          const contract = WebSocketContract.make("/", { incoming: ClientMessage, outgoing: ServerMessage, codec })
          const { client, server } = yield* ends(contract, { chunking })
          yield* client.send(said)
          yield* client.sendAll([move, said])
          yield* Stream.run(Stream.make(move, said), client.sink)
          assert.isTrue(yield* client.trySend(move))
          assert.deepStrictEqual(yield* server.take, said)
          const rest = yield* server.messages.pipe(Stream.take(5), Stream.runCollect)
          assert.deepStrictEqual(Chunk.toReadonlyArray(rest), [move, said, move, said, move])
          yield* server.send({ n: 2n ** 64n })
          assert.deepStrictEqual(yield* client.take, { n: 2n ** 64n })
          const got: Array<bigint> = []
          const reading = yield* Effect.fork(client.runForEach(({ n }) => void got.push(n)))
          yield* server.sendAll([{ n: 1n }, { n: 2n }])
          yield* server.close()
          yield* Fiber.join(reading)
          assert.deepStrictEqual(got, [1n, 2n])
        })
      )
    }
  }

  it.scoped("raw: the schema's encoded side is the message", () =>
    Effect.gen(function* () {
      const contract = WebSocketContract.make("/", {
        incoming: Schema.NumberFromString,
        outgoing: Schema.Uint8ArrayFromSelf,
        codec: WebSocketContract.raw
      })
      const { client, plain, server } = yield* ends(contract)
      yield* client.send(42)
      assert.strictEqual(yield* server.take, 42)
      yield* server.send(Uint8Array.of(1, 2))
      assert.deepStrictEqual(yield* plain.take, Uint8Array.of(1, 2))
    })
  )

  it.scoped("without a schema they pass as they are", () =>
    Effect.gen(function* () {
      const { client, server } = yield* ends(WebSocketContract.make("/", { outgoing: ServerMessage }))
      const anything: Message.Message = "not JSON"
      yield* client.send(anything)
      yield* Stream.run(Stream.make(Uint8Array.of(1)), client.sink)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(server.messages, 2))), [
        "not JSON",
        Uint8Array.of(1)
      ])
    })
  )

  it.scoped("schemas may need services, and time", () =>
    Effect.gen(function* () {
      class Names extends Context.Tag("Names")<Names, ReadonlyMap<number, string>>() {}
      const Name = Schema.transformOrFail(Schema.Number, Schema.String, {
        strict: true,
        decode: (id) => Effect.map(Effect.zipLeft(Names, Effect.yieldNow()), (names) => names.get(id) ?? "?"),
        encode: (name) => Effect.map(Names, (names) => [...names].find(([, other]) => other === name)?.[0] ?? -1)
      })
      const contract = WebSocketContract.make("/", { incoming: Name, outgoing: Name })
      const { client, server } = yield* ends(contract).pipe(Effect.provideService(Names, new Map([[7, "seven"]])))
      yield* client.sendAll(["seven", "eight"])
      yield* client.send("seven")
      yield* Stream.run(Stream.make("seven"), client.sink)
      assert.strictEqual(yield* server.take, "seven")
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(server.messages, 3))), [
        "?",
        "seven",
        "seven"
      ])
      const got: Array<string> = []
      const reading = yield* Effect.fork(server.runForEach((name) => void got.push(name)))
      assert.isTrue(yield* client.trySend("seven"))
      yield* client.close()
      yield* Fiber.join(reading)
      assert.deepStrictEqual(got, ["seven"])
    })
  )

  const unsendable: ReadonlyArray<readonly [string, unknown, string]> = [
    ["a value that the schema refuses", { _tag: "move", points: [{ x: 1 }, { x: "2" }] }, "points[1].x"],
    ["a value of another type", 7, ""]
  ]
  for (const [what, value, field] of unsendable) {
    it.scoped(`${what} is a defect of the sender, and nothing is sent`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* ends(Chat)
        for (const send of [client.send(value as never), client.sendAll([said, value as never])]) {
          const exit = yield* Effect.exit(send)
          assert.isTrue(Exit.isFailure(exit) && exit.cause._tag === "Die")
          const error = (exit as any).cause.defect as WebSocketError.MessageError
          assert.deepInclude(error, { _tag: "MessageError", reason: "Unencodable" })
          assert.strictEqual(error.field, field)
        }
        yield* client.send(move)
        assert.deepStrictEqual(yield* server.take, move)
      })
    )
  }
})

describe("a message that does not fit", () => {
  const good = '{"_tag":"said","text":"ok"}'
  const cases: ReadonlyArray<
    readonly [
      string,
      Message.Message,
      WebSocketError.MessageError["reason"],
      number,
      ReadonlyArray<PropertyKey>,
      string
    ]
  > = [
    ["bytes", Uint8Array.of(1), "Kind", 1003, [], "only text messages are understood"],
    ["text that is no JSON", "{", "Undecodable", 1007, [], "not JSON"],
    ["another type", "7", "Mismatch", 1008, [], "the message does not fit"],
    ["a field", '{"_tag":"said","text":7}', "Mismatch", 1008, ["text"], "does not fit: text"],
    ["a filter", '{"_tag":"said","text":"longer than ten"}', "Mismatch", 1008, ["text"], "does not fit: text"],
    [
      "a nested field",
      '{"_tag":"move","points":[{"x":1},{"x":null}]}',
      "Mismatch",
      1008,
      ["points", 1, "x"],
      "does not fit: points[1].x"
    ]
  ]
  for (const [what, message, reason, code, path, closeReason] of cases) {
    const check = (error: WebSocketError.MessageError | WebSocketError.ConnectionError) => {
      assert.instanceOf(error, WebSocketError.MessageError)
      assert.deepInclude(error, { reason, code })
      assert.deepStrictEqual((error as WebSocketError.MessageError).path, path)
    }
    it.scoped(`${what}: closes with ${code}, after the messages before it`, () =>
      Effect.gen(function* () {
        const { plain, server } = yield* ends(Chat)
        yield* plain.sendAll([good, message, good])
        const got: Array<unknown> = []
        check(yield* Effect.flip(Stream.runForEach(server.messages, (value) => Effect.sync(() => got.push(value)))))
        assert.strictEqual(got.length, 1)
        assert.deepInclude(yield* plain.closed, { code, reason: closeReason })
      })
    )
    it.scoped(`${what}: take and runForEach say the same`, () =>
      Effect.gen(function* () {
        const one = yield* ends(Chat)
        yield* one.plain.send(message)
        check(yield* Effect.flip(one.server.take))
        const other = yield* ends(Chat)
        yield* other.plain.sendAll([good, message])
        check(yield* Effect.flip(other.server.runForEach(() => Effect.void)))
        assert.strictEqual((yield* other.plain.closed).code, code)
      })
    )
    it.scoped(`${what}: a function may answer, and go on`, () =>
      Effect.gen(function* () {
        const { client, plain, server } = yield* ends(Chat, {
          onInvalid: (error, socket) =>
            Effect.zipRight(
              Effect.sync(() => check(error)),
              socket.send({ n: -1n })
            )
        })
        yield* plain.sendAll([message, good, message, good, message, good, message, good])
        assert.strictEqual(((yield* server.take) as Said).text, "ok")
        const rest = yield* Stream.runCollect(Stream.take(server.messages, 2))
        assert.strictEqual(Chunk.size(rest), 2)
        assert.deepStrictEqual(yield* client.take, { n: -1n })
        yield* client.close()
        const closed = yield* Effect.exit(server.runForEach(() => Effect.void))
        assert.isTrue(Exit.isSuccess(closed))
      })
    )
  }

  it.scoped("a long field name is cut to what a close reason holds", () =>
    Effect.gen(function* () {
      const contract = WebSocketContract.make("/", {
        incoming: Schema.Record({ key: Schema.String, value: Schema.Number })
      })
      const { plain, server } = yield* ends(contract)
      yield* plain.send(JSON.stringify({ ["ä".repeat(200)]: "x" }))
      yield* Effect.flip(server.take)
      const { reason } = yield* plain.closed
      assert.strictEqual(new TextEncoder().encode(reason).length, 122)
    })
  )

  it.scoped("a function may fail with the error and leave the connection open", () =>
    Effect.gen(function* () {
      const { plain, server } = yield* ends(Chat, { onInvalid: Effect.fail })
      yield* plain.sendAll(["{", good])
      assert.deepInclude(yield* Effect.flip(Stream.runDrain(server.messages)), { reason: "Undecodable" })
      yield* server.send({ n: 1n })
      assert.strictEqual(yield* plain.take, '{"n":"1"}')
    })
  )
})

describe("requests", () => {
  const Room = WebSocketContract.make("/chat/:room/:n?", {
    path: Schema.Struct({ room: Schema.NonEmptyString, n: Schema.optional(Schema.NumberFromString) }),
    urlParams: Schema.Struct({
      since: Schema.optional(Schema.NumberFromString),
      tag: Schema.optional(Schema.Array(Schema.String))
    }),
    headers: Schema.Struct({ "x-user": Schema.NonEmptyString }),
    subprotocols: ["v2", "v1"]
  })
  const headers = { "x-user": "ada" }

  const urls: ReadonlyArray<readonly [string, string]> = [
    ["ws://host", "ws://host/chat/lobby"],
    ["ws://host/", "ws://host/chat/lobby"],
    ["wss://host/api/", "wss://host/api/chat/lobby"],
    ["ws://host/api?key=1", "ws://host/api/chat/lobby?key=1"],
    ["/api", "/api/chat/lobby"],
    ["", "/chat/lobby"]
  ]
  for (const [baseUrl, expected] of urls) {
    it.effect(`baseUrl ${JSON.stringify(baseUrl)}`, () =>
      Effect.gen(function* () {
        const { url } = yield* Room.request({ baseUrl, path: { room: "lobby" }, headers })
        assert.strictEqual(url, expected)
      })
    )
  }

  it.effect("parameters are encoded", () =>
    Effect.gen(function* () {
      const { headers: sent, url } = yield* Room.request({
        baseUrl: new URL("ws://host?a=b"),
        path: { room: "a/b ?ä", n: 7 },
        urlParams: { since: 12, tag: ["x", "y&z"] },
        headers,
        moreHeaders: { Cookie: "sid=1" }
      })
      assert.strictEqual(url, "ws://host/chat/a%2Fb%20%3F%C3%A4/7?a=b&since=12&tag=x&tag=y%26z")
      assert.deepStrictEqual(sent, { cookie: "sid=1", "x-user": "ada" })
    })
  )

  it.effect("without schemas: strings by the path's names, wildcards with their slashes", () =>
    Effect.gen(function* () {
      const Files = WebSocketContract.make("/files/:user/*")
      const { url } = yield* Files.request({
        baseUrl: "ws://host",
        path: { user: "ada", "*": "a/b c" },
        urlParams: { q: ["1", "2"] }
      })
      assert.strictEqual(url, "ws://host/files/ada/a/b%20c?q=1&q=2")
    })
  )

  const refused: ReadonlyArray<readonly [string, Parameters<typeof Room.request>[0], string]> = [
    ["an empty segment", { baseUrl: "ws://host", path: { room: "" }, headers }, "the path does not fit the contract"],
    ["a segment that URLs drop", { baseUrl: "ws://host", path: { room: ".." }, headers }, `the path's "room" is`],
    ["a header", { url: "ws://host", headers: { "x-user": "" } }, "the headers does not fit the contract"]
  ]
  for (const [what, options, detail] of refused) {
    it.effect(`${what} is refused`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Room.request(options))
        assert.deepInclude(error, { phase: "Request", reason: "Invalid" })
        assert.include(error.detail, detail)
      })
    )
  }

  it.scoped("connect asks the client's service for them", () =>
    Effect.gen(function* () {
      const asked: Array<unknown> = []
      const refusal = new WebSocketError.HandshakeError({ phase: "Dial", reason: "Failed", detail: "test" })
      const service = WebSocketClient.WebSocketClient.of({
        connect: (url, options) => {
          asked.push(url, options)
          return Effect.fail(refusal)
        }
      })
      const connect = (options: { readonly subprotocols?: ReadonlyArray<string> }) =>
        WebSocketClient.connect(Room, { url: "ws://host/x", headers, maxMessageBytes: 10, ...options }).pipe(
          Effect.provideService(WebSocketClient.WebSocketClient, service),
          Effect.flip
        )
      assert.strictEqual(yield* connect({}), refusal)
      yield* connect({ subprotocols: ["v1"] })
      assert.deepStrictEqual(asked, [
        "ws://host/x",
        { subprotocols: ["v2", "v1"], maxMessageBytes: 10, headers },
        "ws://host/x",
        { subprotocols: ["v1"], maxMessageBytes: 10, headers }
      ])
      assert.isTrue(WebSocketContract.isWebSocketContract(Room))
      assert.isFalse(WebSocketContract.isWebSocketContract("ws://host"))
    })
  )
})
