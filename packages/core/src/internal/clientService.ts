/** The tag of the client's service, apart from WebSocketClient so that what it exports may use it. */
import * as Context from "effect/Context"
import type { Service } from "../WebSocketClient.js"

/**
 * What opens connections: `NodeWebSocketClient.layer`, `layerGlobal`, or `fromDialer` over anything that moves bytes.
 *
 * @since 0.1.0
 * @category services
 */
export class WebSocketClient extends Context.Tag("@effect-ws/core/WebSocketClient")<WebSocketClient, Service>() {}
