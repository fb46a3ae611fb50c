/** The parts of the untyped peers which the benchmark uses. */
declare module "websocket-driver" {
  import type { IncomingMessage } from "node:http"
  import type { Duplex } from "node:stream"

  export interface Driver {
    readonly io: Duplex
    readonly messages: Duplex
    on(event: "close", listener: () => void): this
    start(): boolean
  }
  const driver: {
    isWebSocket(request: IncomingMessage): boolean
    http(request: IncomingMessage): Driver
  }
  export default driver
}

declare module "faye-websocket" {
  import type { IncomingMessage, ServerResponse } from "node:http"
  import type { Duplex } from "node:stream"

  class EventSource {
    constructor(request: IncomingMessage, response: ServerResponse)
    on(event: "close" | "drain", listener: () => void): this
    send(data: string, options?: { readonly event: string; readonly id: string }): boolean
  }

  export default class FayeWebSocket {
    static readonly EventSource: typeof EventSource
    static isWebSocket(request: IncomingMessage): boolean
    constructor(request: IncomingMessage, socket: Duplex, head: Buffer)
    on(event: "message", listener: (event: { readonly data: string | Buffer }) => void): this
    on(event: "close", listener: () => void): this
    send(message: string | Buffer): boolean
  }
}
