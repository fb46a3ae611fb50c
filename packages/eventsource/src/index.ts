/**
 * Server-Sent Events for Effect.
 *
 * @since 0.1.0
 */
export * as EventBroadcast from "./EventBroadcast.js"
export * as EventLog from "./EventLog.js"
export * as EventSchema from "./EventSchema.js"
export * as EventSource from "./EventSource.js"
export * as EventStream from "./EventStream.js"
export * as EventStreamRoute from "./EventStreamRoute.js"
export * as ServerSentEvent from "./ServerSentEvent.js"
