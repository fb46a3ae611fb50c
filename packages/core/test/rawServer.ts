/** A server's side of the opening handshake, by hand. */
import type { Transport } from "@effect-ws/core"
import { Handshake } from "@effect-ws/core/engine"

export const latin1 = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0))

/** Opens the transport, and hands over the head of the first request that comes. */
export const onRequest = (transport: Transport.Transport, handle: (request: string) => void): void => {
  let request = ""
  transport.open({
    onData: (chunk) => {
      if (request.endsWith("\r\n\r\n")) return
      request += String.fromCharCode(...chunk)
      if (request.endsWith("\r\n\r\n")) handle(request)
    },
    onDrain: () => {},
    onEnd: () => transport.end(),
    onClose: () => {}
  })
}

/** A field of a request. */
export const header = (request: string, name: string): string | undefined =>
  new RegExp(`^${name}: (.*)\r$`, "im").exec(request)?.[1]

/** A 101 as it should be, with `change` made to its headers (`undefined` leaves one out) and `after` behind it. */
export const switching = (
  request: string,
  change: Record<string, string | undefined> = {},
  after: Uint8Array = new Uint8Array(0),
  status = "HTTP/1.1 101 Switching Protocols"
): Uint8Array => {
  const headers: Record<string, string | undefined> = {
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Accept": Handshake.acceptKey(header(request, "sec-websocket-key")!),
    ...change
  }
  const lines = Object.entries(headers).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]))
  return Uint8Array.from([...latin1(`${[status, ...lines].join("\r\n")}\r\n\r\n`), ...after])
}
