/**
 * WebSockets for Effect: a sans-I/O engine, and connections as Streams and Scopes above it.
 *
 * @since 0.1.0
 */
export * as Broadcast from "./Broadcast.js"
export * as ClientAddress from "./ClientAddress.js"
export * as Connection from "./Connection.js"
export * as Connections from "./Connections.js"
export * as Message from "./Message.js"
export * as MessagePack from "./MessagePack.js"
export * as PlatformSocket from "./PlatformSocket.js"
export * as Reconnecting from "./Reconnecting.js"
export * as Resume from "./Resume.js"
export * as TestTransport from "./TestTransport.js"
export * as Transport from "./Transport.js"
export * as Upgrade from "./Upgrade.js"
export * as WebSocketApi from "./WebSocketApi.js"
export * as WebSocketClient from "./WebSocketClient.js"
export * as WebSocketContract from "./WebSocketContract.js"
export * as WebSocketError from "./WebSocketError.js"
export * as WebSocketRoute from "./WebSocketRoute.js"
