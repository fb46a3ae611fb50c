/**
 * WebSocket routes and clients for Effect on Node.js.
 *
 * @since 0.1.0
 */

export * as NodeDuplex from "./NodeDuplex.js"
export * as NodeTcpServer from "./NodeTcpServer.js"
export * as NodeTransport from "./NodeTransport.js"
export * as NodeUpgrade from "./NodeUpgrade.js"
export * as NodeWebSocketClient from "./NodeWebSocketClient.js"
export * as NodeWebSocketServer from "./NodeWebSocketServer.js"
export * as PermessageDeflate from "./PermessageDeflate.js"
