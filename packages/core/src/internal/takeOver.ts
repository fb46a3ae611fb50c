/** The server's opening handshake inside an HTTP handler: the 101 is sent at once, and the transport is the caller's. */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Extension from "../engine/Extension.js"
import * as Handshake from "../engine/Handshake.js"
import * as ServerHandshake from "../engine/ServerHandshake.js"
import type { Transport } from "../Transport.js"
import * as Upgrade from "../Upgrade.js"

/** See `WebSocketRoute.SubprotocolChoice`. */
export type SubprotocolChoice =
  | ReadonlyArray<string>
  | ((offered: ReadonlyArray<string>, request: HttpServerRequest.HttpServerRequest) => string | undefined)

/** What is agreed of what the client offers. */
export const chooseSubprotocol = (
  offered: ReadonlyArray<string>,
  choice: SubprotocolChoice | undefined,
  request: HttpServerRequest.HttpServerRequest
): string | undefined =>
  choice === undefined
    ? undefined
    : Handshake.selectSubprotocol(
        offered,
        typeof choice === "function" ? (offered) => choice(offered, request) : choice
      )

/** What may be chosen. */
export interface Options {
  readonly subprotocols?: SubprotocolChoice | undefined
  readonly extensions?: ReadonlyArray<Extension.Extension> | undefined
  readonly origins?: Handshake.OriginPolicy | undefined
  readonly drafts?: ReadonlyArray<Handshake.Draft> | undefined
  readonly responseHeaders?: Readonly<Record<string, string>> | undefined
}

/** The transport behind a request that was accepted. */
export interface TakenOver {
  readonly transport: Transport
  readonly opened: ServerHandshake.AcceptedRequest
  readonly subprotocol: string | undefined
  readonly extensions: ReadonlyArray<Extension.Agreed>
  readonly server: Upgrade.UpgradeServer
}

/** Accepts `request`, which may be a changed copy of the platform's own `outer`; fails with the response for who can't be accepted. */
export const takeOver = (
  outer: HttpServerRequest.HttpServerRequest,
  request: HttpServerRequest.HttpServerRequest,
  options: Options
): Effect.Effect<TakenOver, HttpServerResponse.HttpServerResponse> =>
  Effect.suspend(() => {
    const { headers, method } = request
    const check = ServerHandshake.checkRequest({
      method,
      httpVersion: (request.source as { readonly httpVersion?: string }).httpVersion,
      headers,
      drafts: options.drafts
    })
    if (check._tag === "Rejected") return refuse(check.status, check.body, check.headers)
    const upgrade = Upgrade.find(request)
    if (upgrade === undefined) return refuse(500, "This server is not set up for WebSockets.")
    const { server } = upgrade
    if (server.connections.draining) return refuse(503, "The server is shutting down.", { "retry-after": "1" })
    const foreign = ServerHandshake.checkOrigin(check, headers.host, options.origins)
    if (foreign !== undefined) return refuse(foreign.status, foreign.body)
    const subprotocol = chooseSubprotocol(check.subprotocols, options.subprotocols, request)
    const extensions = Extension.negotiate(options.extensions ?? [], check.extensions)
    const agreement = { subprotocol, extensions, target: request.originalUrl, secure: upgrade.secure }
    const head = ServerHandshake.formatAccept(check, agreement, options.responseHeaders)
    if (typeof head !== "string") return Effect.dieMessage(`the 101 can't be sent: ${head.field}: ${head.message}`)
    const transport = upgrade.take(outer, request, head)
    return transport === undefined
      ? clientGone
      : Effect.succeed({ transport, opened: check, subprotocol, extensions, server })
  })

const refuse = (status: number, body: string, headers: Readonly<Record<string, string>> = {}) =>
  Effect.fail(HttpServerResponse.text(`${body}\n`, { status, headers: { ...headers, "cache-control": "no-store" } }))

/** Nobody reads it; for the access log. */
const clientGone = Effect.fail(HttpServerResponse.empty({ status: 499 }))
