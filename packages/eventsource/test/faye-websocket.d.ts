declare module "faye-websocket" {
  import type { IncomingMessage, ServerResponse } from "node:http"

  class EventSource {
    static isEventSource(request: IncomingMessage): boolean
    constructor(request: IncomingMessage, response: ServerResponse, options?: { ping?: number; retry?: number })
    readonly lastEventId: string
    send(message: string, options?: { event?: string; id?: string }): boolean
    ping(): boolean
    close(): boolean
  }

  const faye: { readonly EventSource: typeof EventSource }
  export default faye
}
