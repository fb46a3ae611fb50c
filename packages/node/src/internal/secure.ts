/** Whether a request came over TLS. */
import type { Duplex } from "node:stream"
import type * as Tls from "node:tls"

/**
 * Whether the socket is one of TLS, or a proxy says that its own was. Anybody can say so; it matters only for what the same client
 * is told (the location of hixie-76 and hixie-75, which it compares with its own URL).
 */
export const isSecure = (
  socket: Duplex,
  headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
): boolean =>
  (socket as Partial<Tls.TLSSocket>).encrypted === true ||
  headers["x-forwarded-proto"] === "https" ||
  headers["x-forwarded-scheme"] === "https" ||
  headers["x-forwarded-ssl"] === "on"
