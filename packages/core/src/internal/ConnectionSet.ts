/** The connections of a server or route with the fibers that handle them, and how all of them end. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Connection } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { type Link, Roster } from "./roster.js"

/** A connection and how to interrupt what handles it. */
export interface Entry {
  readonly connection: Connection
  readonly interrupt: () => void
}

/** The entry of a connection whose user sees its end by itself. */
export const politeEntry = (connection: Connection): Entry => ({
  connection,
  interrupt: () => {
    Effect.runFork(connection.close(CloseCode.goingAway))
  }
})

/** Who is told of every entry. */
export interface Observer {
  readonly added: (entry: Entry) => void
  readonly deleted: (entry: Entry) => void
}

/** Where an entry is in one set. */
export class Place implements Link<Place> {
  list: Roster<Place> | undefined
  next: Place | undefined
  previous: Place | undefined
  constructor(readonly entry: Entry) {}
}

/** Open connections; whoever adds one deletes it, by the place that it got, when nothing is left of it. */
export class ConnectionSet {
  private readonly places = new Roster<Place>()
  private waiting: Array<() => void> = []
  /** No connection may be added any more. */
  draining = false

  get size(): number {
    return this.places.size
  }

  private readonly observers: Array<Observer> = []

  /** From now on tells `observer` who comes and goes. */
  observe(observer: Observer): void {
    this.observers.push(observer)
  }

  add(entry: Entry): Place {
    const place = new Place(entry)
    this.places.add(place)
    for (const observer of this.observers) observer.added(entry)
    return place
  }

  delete(place: Place): void {
    if (!this.places.remove(place)) return
    for (const observer of this.observers) observer.deleted(place.entry)
    if (this.size > 0) return
    const { waiting } = this
    this.waiting = []
    for (const resume of waiting) resume()
  }

  /** Those that are in it now, in the order in which they came. */
  list(): ReadonlyArray<Entry> {
    const entries: Array<Entry> = []
    for (let place = this.places.first; place !== undefined; place = place.next) entries.push(place.entry)
    return entries
  }

  private readonly awaitEmpty = Effect.async<void>((resume) => {
    if (this.size === 0) return resume(Effect.void)
    this.waiting.push(() => resume(Effect.void))
  })

  /**
   * Lets nobody in any more, interrupts all handlers (their connections close with 1001) and waits; after `timeoutMillis` the
   * transports that are left are cut.
   */
  shutdown(timeoutMillis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.draining = true
      for (const entry of this.list()) entry.interrupt()
      return this.awaitEmpty
    }).pipe(
      Effect.interruptible,
      Effect.timeoutTo({ duration: Duration.millis(timeoutMillis), onSuccess: () => true, onTimeout: () => false }),
      Effect.flatMap((empty) =>
        empty ? Effect.void : Effect.forEach(this.list(), ({ connection }) => connection.abort, { discard: true })
      )
    )
  }
}
