/**
 * The URL and headers that a contract's parameters become.
 */
import type * as Headers from "@effect/platform/Headers"
import * as Effect from "effect/Effect"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { HandshakeError } from "../WebSocketError.js"

/** What a client asks for. */
export interface ContractRequest {
  readonly url: string | URL
  readonly headers: Headers.Input | undefined
}

interface Schemas {
  readonly path: string
  readonly pathSchema: Schema.Schema<any, any, any> | undefined
  readonly urlParamsSchema: Schema.Schema<any, any, any> | undefined
  readonly headersSchema: Schema.Schema<any, any, any> | undefined
}

interface Wishes {
  readonly url?: string | URL | undefined
  readonly baseUrl?: string | URL | undefined
  readonly path?: unknown
  readonly urlParams?: unknown
  readonly headers?: unknown
  readonly moreHeaders?: Headers.Input | undefined
}

type Encoded = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

export const request = (contract: Schemas, options: Wishes): Effect.Effect<ContractRequest, HandshakeError, any> =>
  Effect.gen(function* () {
    const headers =
      contract.headersSchema === undefined
        ? (options.headers as Headers.Input | undefined)
        : merge(options.moreHeaders, yield* encode(contract.headersSchema, options.headers ?? {}, "headers"))
    if (options.url !== undefined) return { url: options.url, headers }
    const path = fillPath(contract.path, yield* encode(contract.pathSchema, options.path ?? {}, "path"))
    if (path instanceof HandshakeError) return yield* path
    const query = formatQuery(yield* encode(contract.urlParamsSchema, options.urlParams ?? {}, "query"))
    return { url: join(String(options.baseUrl), path, query), headers }
  })

const invalid = (detail: string, cause?: ParseResult.ParseError) =>
  new HandshakeError({ phase: "Request", reason: "Invalid", detail, cause })

const encode = (
  schema: Schema.Schema<any, any, any> | undefined,
  value: unknown,
  what: string
): Effect.Effect<Encoded, HandshakeError, any> =>
  schema === undefined
    ? Effect.succeed(value as Encoded)
    : Effect.mapError(Schema.encodeUnknown(schema)(value), (cause) =>
        invalid(`the ${what} does not fit the contract`, cause)
      )

const merge = (more: Headers.Input | undefined, headers: Encoded): Headers.Input => {
  const all: Record<string, string> = {}
  const entries = more === undefined ? [] : Symbol.iterator in more ? more : Object.entries(more)
  for (const [name, value] of entries) if (value !== undefined) all[name.toLowerCase()] = String(value)
  for (const [name, value] of Object.entries(headers)) if (value !== undefined) all[name.toLowerCase()] = String(value)
  return all
}

/** The path with its parameters filled in; `*` takes slashes. */
const fillPath = (pattern: string, params: Encoded): string | HandshakeError => {
  let path = ""
  for (const segment of pattern.slice(1).split("/")) {
    if (segment === "*" || (segment.endsWith("*") && !segment.includes(":"))) {
      const rest = String(params["*"] ?? "").split("/")
      if (rest.some(isDots)) return invalid(`the path has a segment "." or ".."`)
      path += `/${segment.slice(0, -1)}${rest.map(encodeURIComponent).join("/")}`
      continue
    }
    const colon = segment.indexOf(":")
    if (colon < 0) {
      path += `/${segment}`
      continue
    }
    const optional = segment.endsWith("?")
    const name = segment.slice(colon + 1, optional ? -1 : undefined)
    const value = params[name]
    if (value === undefined && optional) continue
    if (typeof value !== "string" || value === "") return invalid(`the path has no "${name}"`)
    // URLs drop such segments, also when they are percent-encoded: the request would go elsewhere.
    if (colon === 0 && isDots(value)) return invalid(`the path's "${name}" is "." or ".."`)
    path += `/${segment.slice(0, colon)}${encodeURIComponent(value)}`
  }
  return path
}

const isDots = (segment: string) => segment === "." || segment === ".."

const formatQuery = (params: Encoded): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined) continue
    if (typeof value === "string") query.append(name, value)
    else for (const one of value) query.append(name, one)
  }
  return query.toString()
}

/** Relative bases stay relative: a platform's WebSocket resolves them against its page. */
const join = (base: string, path: string, query: string): string => {
  const at = base.indexOf("?")
  const place = (at < 0 ? base : base.slice(0, at)).replace(/\/+$/, "")
  const queries = [at < 0 ? "" : base.slice(at + 1), query].filter((part) => part !== "")
  return `${place}${path}${queries.length === 0 ? "" : `?${queries.join("&")}`}`
}
