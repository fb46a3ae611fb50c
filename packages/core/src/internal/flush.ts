/**
 * Writes once per turn: whatever connections put out while fibers ran leaves in one microtask after them, one write per
 * connection. (Which of the moments a turn offers is taken, made no measurable difference.)
 */
export interface Flushable {
  flush(): void
}

let waiting: Array<Flushable> = []

const flushAll = (): void => {
  const now = waiting
  waiting = []
  for (const connection of now) connection.flush()
}

/** Calls `flush` when this turn ends; once per call, so ask once. */
export const soon = (connection: Flushable): void => {
  if (waiting.push(connection) === 1) queueMicrotask(flushAll)
}
