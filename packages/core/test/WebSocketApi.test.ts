/** What the OpenAPI document says of a contract's endpoint. */
import {
  HttpApi,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  OpenApi
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { MessagePack, WebSocketApi, WebSocketContract } from "@effect-ws/core"
import { Schema } from "effect"

class Say extends Schema.TaggedClass<Say>("Say")("Say", { text: Schema.String }) {}
class Said extends Schema.TaggedClass<Said>("Said")("Said", { by: Schema.String, text: Schema.String }) {}
class Left extends Schema.TaggedClass<Left>("Left")("Left", { by: Schema.String }) {}

class Login extends HttpApiMiddleware.Tag<Login>()("Login", {
  failure: HttpApiError.Unauthorized,
  security: { token: HttpApiSecurity.bearer, page: HttpApiSecurity.apiKey({ in: "cookie", key: "session" }) }
}) {}

const Chat = WebSocketContract.make("/chat/:room", {
  path: Schema.Struct({ room: Schema.String }),
  urlParams: Schema.Struct({ since: Schema.optional(Schema.NumberFromString) }),
  headers: Schema.Struct({ "x-user": Schema.String.annotations({ description: "who" }) }),
  incoming: Say,
  outgoing: Schema.Union(Said, Left),
  subprotocols: ["chat.v2", "chat.v1"]
})

const operationOf = (group: HttpApiGroup.HttpApiGroup.Any, path: string) => {
  const spec = OpenApi.fromApi(HttpApi.make("api").add(group))
  return { spec, operation: spec.paths[path]!.get as OpenApi.OpenAPISpecOperation & Record<string, unknown> }
}

const text = { "text/plain": { schema: { type: "string" } } }

describe("the operation of a contract", () => {
  const { operation, spec } = operationOf(
    HttpApiGroup.make("live").add(WebSocketApi.endpoint("chat", Chat).middleware(Login)),
    "/chat/{room}"
  )

  it("is a GET with the contract's parameters and the offered subprotocols", () => {
    assert.deepStrictEqual(Object.keys(spec.paths["/chat/{room}"]!), ["get"])
    assert.deepStrictEqual(operation.parameters, [
      { name: "room", in: "path", schema: { type: "string" }, required: true },
      {
        name: "x-user",
        in: "header",
        schema: { type: "string", description: "who" },
        required: true,
        description: "who"
      },
      { name: "since", in: "query", schema: { $ref: "#/components/schemas/NumberFromString" }, required: false },
      {
        name: "Sec-WebSocket-Protocol",
        in: "header",
        required: false,
        schema: { type: "string" },
        description:
          "Subprotocols that the client speaks, best first, separated by commas. The server speaks: chat.v2, chat.v1"
      }
    ] as unknown as typeof operation.parameters)
    assert.isUndefined(operation.requestBody)
  })

  it("has the 101, without a body, and what comes instead", () => {
    assert.deepStrictEqual<unknown>(operation.responses, {
      101: {
        description: "Switching Protocols: the WebSocket is open",
        headers: {
          Upgrade: { schema: { type: "string", enum: ["websocket"] } },
          "Sec-WebSocket-Protocol": {
            description: "The subprotocol that was agreed on, if any",
            schema: { type: "string", enum: ["chat.v2", "chat.v1"] }
          }
        }
      },
      400: {
        description: "The request did not match the expected schema",
        content: { "application/json": { schema: { $ref: "#/components/schemas/HttpApiDecodeError" } }, ...text }
      },
      401: { description: "Unauthorized" },
      403: { description: "Pages of this origin may not connect", content: text },
      426: {
        description: "An ordinary request, or another version of the protocol: connect with a WebSocket client",
        headers: {
          Upgrade: { schema: { type: "string", enum: ["websocket"] } },
          "Sec-WebSocket-Version": { schema: { type: "string", enum: ["13"] } }
        },
        content: text
      }
    })
  })

  it("has its security", () => {
    assert.deepStrictEqual(operation.security, [{ token: [] }, { page: [] }])
    assert.deepStrictEqual(spec.components.securitySchemes, {
      token: { type: "http", scheme: "bearer" },
      page: { type: "apiKey", name: "session", in: "cookie" }
    })
  })

  it("has the messages of both directions, whose schemas are the document's", () => {
    assert.deepStrictEqual(operation["x-websocket"], {
      subprotocols: ["chat.v2", "chat.v1"],
      incoming: { codec: "JSON", schema: { $ref: "#/components/schemas/Say" } },
      outgoing: {
        codec: "JSON",
        schema: { anyOf: [{ $ref: "#/components/schemas/Said" }, { $ref: "#/components/schemas/Left" }] }
      }
    })
    assert.deepStrictEqual<unknown>(spec.components.schemas.Left, {
      type: "object",
      required: ["by", "_tag"],
      properties: { by: { type: "string" }, _tag: { type: "string", enum: ["Left"] } },
      additionalProperties: false
    })
    assert.containsAllKeys(spec.components.schemas, ["Say", "Said"])
    assert.strictEqual(
      operation.description,
      "A WebSocket (RFC 6455). The client sends JSON messages (Say), the server JSON messages (Said, Left)."
    )
  })
})

describe("other contracts", () => {
  const messagesOf = (contract: WebSocketContract.WebSocketContract<any, any, any, any, any, never>, path: string) => {
    const { operation } = operationOf(HttpApiGroup.make("live").add(WebSocketApi.endpoint("it", contract)), path)
    const { incoming, outgoing } = operation["x-websocket"] as WebSocketApi.Documented
    return {
      parameters: operation.parameters.map(({ in: place, name, required }) => [place, name, required]),
      incoming,
      outgoing
    }
  }
  const rows: ReadonlyArray<
    readonly [
      name: string,
      contract: WebSocketContract.WebSocketContract<any, any, any, any, any, never>,
      path: string,
      expected: ReturnType<typeof messagesOf>
    ]
  > = [
    [
      "without schemas: the path's own names, messages as they are",
      WebSocketContract.make("/a/:b/c/:d"),
      "/a/{b}/c/{d}",
      {
        parameters: [
          ["path", "b", true],
          ["path", "d", true]
        ],
        incoming: { codec: "raw" },
        outgoing: { codec: "raw" }
      }
    ],
    [
      "an optional segment",
      WebSocketContract.make("/a/:b?"),
      "/a/{b}",
      { parameters: [["path", "b", false]], incoming: { codec: "raw" }, outgoing: { codec: "raw" } }
    ],
    [
      "a wildcard, which has no name in the template",
      WebSocketContract.make("/files/*"),
      "/files/*",
      { parameters: [], incoming: { codec: "raw" }, outgoing: { codec: "raw" } }
    ],
    [
      "MessagePack",
      WebSocketContract.make("/", { incoming: Schema.Number, codec: MessagePack.codec }),
      "/",
      { parameters: [], incoming: { codec: "MessagePack", schema: { type: "number" } }, outgoing: { codec: "raw" } }
    ],
    [
      "bytes, of which there is no JSON Schema",
      WebSocketContract.make("/", { outgoing: Schema.Uint8ArrayFromSelf, codec: WebSocketContract.raw }),
      "/",
      { parameters: [], incoming: { codec: "raw" }, outgoing: { codec: "raw" } }
    ]
  ]
  for (const [name, contract, path, expected] of rows) {
    it(name, () => assert.deepStrictEqual(messagesOf(contract, path), expected))
  }

  it("next to ordinary endpoints, below a prefix, with a description of its own", () => {
    const { operation, spec } = operationOf(
      HttpApiGroup.make("live")
        .add(HttpApiEndpoint.get("version", "/version").addSuccess(Schema.String))
        .add(WebSocketApi.endpoint("chat", Chat).annotate(OpenApi.Description, "The chat."))
        .prefix("/v1"),
      "/v1/chat/{room}"
    )
    assert.deepStrictEqual(Object.keys(spec.paths), ["/v1/version", "/v1/chat/{room}"])
    assert.strictEqual(operation.description, "The chat.")
    assert.notProperty(spec.paths["/v1/version"]!.get, "x-websocket")
  })
})
