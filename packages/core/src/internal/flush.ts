/**
 * Writes once per turn: whatever connections put out while fibers ran leaves after them, one write per connection; in a
 * microtask, or when the batch of fibers ends that the scheduler of connections runs.
 */
export interface Turn {
  /** The turn ends. */
  endTurn(): void
}

let waiting: Array<Turn> = []
let inBatch = false
const settled = Promise.resolve()

const flushAll = (): void => {
  const now = waiting
  waiting = []
  for (let i = 0; i < now.length; i++) now[i]!.endTurn()
}

/** Calls `endTurn` when this turn ends; once per call, so ask once. */
export const soon = (connection: Turn): void => {
  // A promise's reaction instead of queueMicrotask, which on Node makes an AsyncResource each time.
  if (waiting.push(connection) === 1 && !inBatch) settled.then(flushAll)
}

/** Runs `batch` and then flushes. */
export const after = (batch: () => void): void => {
  inBatch = true
  try {
    batch()
  } finally {
    inBatch = false
  }
  while (waiting.length > 0) flushAll()
}
