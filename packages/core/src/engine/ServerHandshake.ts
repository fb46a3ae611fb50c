/**
 * The server's opening handshake in all versions that are switched on: the request's headers choose between RFC 6455 (`Handshake`),
 * version 8 of its drafts, and hixie-76 and hixie-75; the rest of the server need not know which it is.
 */
import type { ConnectionProtocol } from "./ConnectionProtocol.js"
import * as Hixie from "./drafts/HixieHandshake.js"
import { HixieProtocol } from "./drafts/HixieProtocol.js"
import * as Handshake from "./Handshake.js"
import { Protocol, type Options as ProtocolOptions } from "./Protocol.js"

/**
 * A request that may be answered with 101.
 *
 * @since 0.1.0
 * @category models
 */
export type AcceptedRequest = Handshake.AcceptedRequest | Hixie.AcceptedRequest

/**
 * Whether a request opens a WebSocket in version 13 or one of `request.drafts`.
 *
 * @since 0.1.0
 * @category server
 */
export const checkRequest = (request: Handshake.Request): AcceptedRequest | Handshake.RejectedRequest => {
  const { drafts } = request
  if (drafts !== undefined && drafts.length > 0) {
    const hixie = Hixie.versionOf(request)
    if (hixie !== undefined && drafts.includes(hixie)) return Hixie.checkRequest(request, hixie)
  }
  return Handshake.checkRequest(request)
}

/**
 * The answer to a page that may not connect (RFC 6455 §10.2); `host` is the request's `Host`.
 *
 * @since 0.1.0
 * @category server
 */
export const checkOrigin = (
  { origin }: Pick<AcceptedRequest, "origin">,
  host: string | undefined,
  policy: Handshake.OriginPolicy = "same"
): Handshake.RejectedRequest | undefined =>
  Handshake.checkOrigin(origin, host, policy)
    ? undefined
    : Handshake.rejected("Origin", 403, `Pages of ${origin} may not connect here.`)

/**
 * What a server agrees to; see {@link Handshake.Agreement} and {@link Hixie.Agreement}.
 *
 * @since 0.1.0
 * @category models
 */
export interface Agreement extends Omit<Handshake.Agreement, "key">, Hixie.Agreement {}

// Field by field: a spread is 1 % of an opening handshake.
const standard = (key: string, { extensions, subprotocol }: Agreement): Handshake.Agreement => ({
  key,
  subprotocol,
  extensions
})

/**
 * The whole 101 response: the handshake's own headers, then `headers`. To be written as Latin-1.
 *
 * `FormatError` as for `Handshake.formatAccept`.
 *
 * @since 0.1.0
 * @category server
 */
export const formatAccept = (
  accepted: AcceptedRequest,
  agreement: Agreement,
  headers: Handshake.Headers | ReadonlyArray<Handshake.HeaderEntry> = []
): string | Handshake.FormatError => {
  if ("key" in accepted) return Handshake.formatAccept(standard(accepted.key, agreement), headers)
  const all = Handshake.withOwn(Hixie.responseHeaders(accepted, agreement), Handshake.entriesOf(headers))
  return "_tag" in all ? all : Handshake.formatResponse(101, Hixie.reasons[accepted.version], all)
}

/**
 * What speaks the version of an accepted request once its 101 is written.
 *
 * @since 0.1.0
 * @category server
 */
export const makeProtocol = (
  accepted: Pick<AcceptedRequest, "version"> & { readonly keys?: Uint8Array | undefined },
  options: Omit<ProtocolOptions, "role">
): ConnectionProtocol => {
  const { keys, version } = accepted
  return version === "hixie-76" || version === "hixie-75"
    ? new HixieProtocol({ ...options, version, keys })
    : new Protocol({ ...options, role: "server" })
}
