import { Upgrade } from "@effect-ws/core"

/** Batches of connection fibers run when the event loop has polled. */
export const scheduler = Upgrade.makeScheduler(setImmediate)
