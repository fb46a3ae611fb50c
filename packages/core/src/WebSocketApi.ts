/**
 * Contracts as endpoints of `HttpApi`: a WebSocket route stands in the OpenAPI document beside the other endpoints, with its
 * parameters, its 101, its security and the messages of both directions, and is behind the same middleware.
 *
 * The endpoint is made here, of a contract; a server handles it with `handleRaw` and `WebSocketRoute.toHandler`; clients connect by the
 * contract (`WebSocketClient.connect`). The client that `HttpApiClient` derives has a method for the endpoint too, but HTTP clients
 * can't upgrade: don't call it.
 *
 * @since 0.1.0
 */
import type { Headers } from "@effect/platform/Headers"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as OpenApi from "@effect/platform/OpenApi"
import * as OpenApiJsonSchema from "@effect/platform/OpenApiJsonSchema"
import * as Schema from "effect/Schema"
import type { Half } from "./internal/contractMessages.js"
import type { WebSocketContract } from "./WebSocketContract.js"

/**
 * The endpoint of a contract: a GET whose path parameters, query and headers are the contract's, which no value but a response can
 * answer.
 *
 * @since 0.1.0
 * @category models
 */
export type Endpoint<Name extends string, P, U, H, R> = HttpApiEndpoint.HttpApiEndpoint<
  Name,
  "GET",
  P,
  U,
  never,
  H,
  never,
  never,
  R
>

/**
 * An `HttpApi` endpoint of a contract, for `HttpApiGroup.add`. Errors of `accept` are added with `addError`, security with
 * `middleware`: it answers before the 101. Browsers send no `Authorization` with a WebSocket; `HttpApiSecurity.apiKey` in a cookie or
 * in the query works there.
 *
 * In the document the operation has the responses 101, 400, 403 and 426, the offered subprotocols as the parameter
 * `Sec-WebSocket-Protocol`, and the field `x-websocket` ({@link Documented}). That is done by `OpenApi.Transform`; to add to the
 * operation use `OpenApi.Override`, since a Transform of your own takes the place of ours. `OpenApi.Description` takes the place of
 * the description.
 *
 * @example
 * import { HttpApi, HttpApiBuilder, HttpApiGroup } from "@effect/platform"
 * import { WebSocketApi, WebSocketRoute } from "@effect-ws/core"
 * import { Schema } from "effect"
 *
 * const Chat = WebSocketRoute.make("/chat/:room", { incoming: Schema.String, outgoing: Schema.String })
 *
 * const Api = HttpApi.make("api").add(HttpApiGroup.make("live").add(WebSocketApi.endpoint("chat", Chat)))
 *
 * const Live = HttpApiBuilder.group(Api, "live", (handlers) =>
 *   handlers.handleRaw("chat", Chat.toHandler((socket, { path }) =>
 *     socket.runForEach((text) => socket.send(`${path.room}: ${text}`))
 *   ))
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const endpoint = <const Name extends string, P, U, H, In, Out, R>(
  name: Name,
  contract: WebSocketContract<P, U, H, In, Out, R>
): Endpoint<Name, P, U, H, R> => {
  const { headersSchema, incoming, outgoing, path, pathSchema, subprotocols, urlParamsSchema } = contract
  return HttpApiEndpoint.get(name, path)
    .setPath(asEncoded(pathSchema ?? Schema.Struct(pathFields(path))))
    .setUrlParams(asEncoded(urlParamsSchema ?? anyUrlParams))
    .setHeaders(asEncoded(headersSchema ?? anyHeaders))
    .addSuccess(switching(incoming, outgoing), { status: 101 })
    .annotate(OpenApi.Transform, (operation) =>
      document(operation as Operation, incoming, outgoing, subprotocols)
    ) as unknown as Endpoint<Name, P, U, H, R>
}

/**
 * The field `x-websocket` of an operation: what OpenAPI has no place for.
 *
 * @since 0.1.0
 * @category models
 */
export interface Documented {
  /** Supported subprotocols, best first. */
  readonly subprotocols: ReadonlyArray<string>
  /** Messages from client to server. */
  readonly incoming: DocumentedMessages
  /** Messages from server to client. */
  readonly outgoing: DocumentedMessages
}

/**
 * The messages of one direction.
 *
 * @since 0.1.0
 * @category models
 */
export interface DocumentedMessages {
  /** The name of the contract's codec; `"raw"` where messages are as they are. */
  readonly codec: string
  /** What the codec writes; absent where messages are as they are, or where there is no JSON Schema of them. */
  readonly schema?: OpenApiJsonSchema.JsonSchema
}

// ---- the request ---------------------------------------------------------------------------------------------------------

/** The encoded side of a contract's schemas is strings (`WebSocketContract.Options`), which its type does not say any more. */
const asEncoded = (schema: Schema.Schema<any, any, any>) => schema as Schema.Schema<any>

/** What the literal of a path has after its colons, as `WebSocketRoute.PathParams` has by type. */
const pathFields = (path: string): Record<string, typeof Schema.String | Schema.optional<typeof Schema.String>> => {
  const fields: Record<string, typeof Schema.String | Schema.optional<typeof Schema.String>> = {}
  for (const segment of path.split("/")) {
    const colon = segment.indexOf(":")
    if (colon < 0 && segment.endsWith("*")) fields["*"] = Schema.String
    else if (colon >= 0 && segment.endsWith("?")) fields[segment.slice(colon + 1, -1)] = Schema.optional(Schema.String)
    else if (colon >= 0) fields[segment.slice(colon + 1)] = Schema.String
  }
  return fields
}

const anyUrlParams = Schema.Record({
  key: Schema.String,
  value: Schema.Union(Schema.String, Schema.Array(Schema.String))
})

// Platforms give the headers of their own requests, not always made by `Headers`.
const anyHeaders = Schema.declare((headers): headers is Headers => typeof headers === "object" && headers !== null, {
  jsonSchema: { type: "object", required: [], properties: {} }
})

// ---- the document --------------------------------------------------------------------------------------------------------

type Operation = OpenApi.OpenAPISpecOperation & {
  responses: Record<number, OpenApi.OpenApiSpecResponse & { headers?: Record<string, unknown> }>
}

/**
 * The success of the endpoint. A 101 has no body; the schema is there so that `OpenApi` enters what the messages refer to among the
 * document's schemas, and {@link document} moves it.
 */
const switching = (incoming: Half<any>, outgoing: Half<any>): Schema.Schema.Any =>
  Schema.Struct({ incoming: documentable(incoming), outgoing: documentable(outgoing) }).annotations({
    description: "Switching Protocols: the WebSocket is open"
  })

const documentable = ({ schema }: Half<any>): Schema.Schema<any> => {
  if (schema === undefined) return Schema.Unknown
  try {
    OpenApiJsonSchema.makeWithDefs(schema, { defs: {} })
    return schema as Schema.Schema<any>
  } catch {
    // There is no JSON Schema of it, or not without an annotation: bytes as they are, say.
    return Schema.Unknown
  }
}

const documentHalf = (half: Half<any>, schema: OpenApiJsonSchema.JsonSchema): DocumentedMessages => {
  const codec = half.codec?.name ?? "raw"
  return documentable(half) === Schema.Unknown ? { codec } : { codec, schema }
}

const describe = ({ codec, schema }: DocumentedMessages): string => {
  const names = schema === undefined ? [] : namesOf(schema)
  return `${codec} messages${names.length === 0 ? "" : ` (${names.join(", ")})`}`
}

/** The schemas of the document that messages are one of. */
const namesOf = (schema: object): ReadonlyArray<string> => {
  const { $ref, anyOf } = schema as { readonly $ref?: string; readonly anyOf?: ReadonlyArray<object> }
  if ($ref !== undefined) return [$ref.slice($ref.lastIndexOf("/") + 1)]
  return anyOf?.flatMap(namesOf) ?? []
}

const text = { "text/plain": { schema: { type: "string" } } } as const

const document = (
  operation: Operation,
  incoming: Half<any>,
  outgoing: Half<any>,
  subprotocols: ReadonlyArray<string>
): Operation & { readonly "x-websocket": Documented } => {
  const { parameters, responses } = operation
  const { content, ...opened } = responses[101]!
  const messages = (content!["application/json"]!.schema as OpenApiJsonSchema.Object).properties
  const websocket: Documented = {
    subprotocols,
    incoming: documentHalf(incoming, messages.incoming!),
    outgoing: documentHalf(outgoing, messages.outgoing!)
  }
  const upgrade = { schema: { type: "string", enum: ["websocket"] } }
  return {
    ...operation,
    description:
      operation.description ??
      `A WebSocket (RFC 6455). The client sends ${describe(websocket.incoming)}, the server ${describe(websocket.outgoing)}.`,
    // The template of the path has no name for what a wildcard matches.
    parameters: [...parameters.filter(({ name }) => name !== "*"), ...offers(subprotocols)],
    responses: {
      ...responses,
      101: { ...opened, headers: { Upgrade: upgrade, ...agreed(subprotocols) } },
      400: {
        description: "The request is no opening handshake, or does not fit",
        ...responses[400],
        content: { ...responses[400]?.content, ...text }
      },
      403: {
        description: "Pages of this origin may not connect",
        ...responses[403],
        content: { ...responses[403]?.content, ...text }
      },
      426: {
        description: "An ordinary request, or another version of the protocol: connect with a WebSocket client",
        headers: { Upgrade: upgrade, "Sec-WebSocket-Version": { schema: { type: "string", enum: ["13"] } } },
        content: text
      }
    },
    "x-websocket": websocket
  }
}

const subprotocolHeader = "Sec-WebSocket-Protocol"

const offers = (subprotocols: ReadonlyArray<string>): Array<OpenApi.OpenAPISpecParameter> =>
  subprotocols.length === 0
    ? []
    : [
        {
          name: subprotocolHeader,
          in: "header",
          required: false,
          schema: { type: "string" },
          description: `Subprotocols that the client speaks, best first, separated by commas. The server speaks: ${subprotocols.join(", ")}`
        }
      ]

const agreed = (subprotocols: ReadonlyArray<string>): Record<string, unknown> =>
  subprotocols.length === 0
    ? {}
    : {
        [subprotocolHeader]: {
          description: "The subprotocol that was agreed on, if any",
          schema: { type: "string", enum: subprotocols }
        }
      }
