/** The window in which operations count, for all processes that report a {@link LoadReport}. */
import { setTimeout as delay } from "node:timers/promises"
import type { LoadReport, LoadTask } from "../messages.js"

export const send = (message: LoadReport): Promise<void> =>
  new Promise((resolve) => process.send!(message, undefined, {}, () => resolve()))

/** Lets the running workload warm up, then counts its operations for the time asked for. */
export const measure = async (task: LoadTask, operations: () => number): Promise<LoadReport> => {
  await delay(task.warmupSeconds * 1000)
  void send({ type: "windowStart" })
  const operationsBefore = operations()
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  await delay(task.seconds * 1000)
  const seconds = (performance.now() - startedAt) / 1e3
  const { system, user } = process.cpuUsage(cpuBefore)
  const counted = operations() - operationsBefore
  void send({ type: "windowEnd" })
  if (counted === 0) throw new Error("no operation ended within the window")
  return { type: "done", operations: counted, seconds, cpuShare: (user + system) / 1e6 / seconds }
}
