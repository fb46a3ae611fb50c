/**
 * The open connections of a server, or of any other set: to list and count them, to send to all, to close all.
 * `NodeWebSocketServer.layer` provides the {@link Connections} of its server, whatever route they came by.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Broadcast from "./Broadcast.js"
import type { Connection } from "./Connection.js"
import { ConnectionSet, politeEntry } from "./internal/ConnectionSet.js"
import type * as Upgrade from "./Upgrade.js"

/**
 * What can be done with all connections of a set.
 *
 * @since 0.1.0
 * @category models
 */
export interface Service {
  /** Those in the set now, in the order in which they came. One leaves it when its handler and its transport have ended. */
  readonly list: Effect.Effect<ReadonlyArray<Connection>>
  /** How many there are. */
  readonly count: Effect.Effect<number>
  /** Puts a connection into the set until the Scope closes. Those of a server are in its set already. */
  readonly add: (connection: Connection) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Sends to all, framed once, except one if given. A connection with more than 1 MiB unsent is closed with 1013; for
   * another policy or a part of the connections make a `Broadcast`.
   */
  readonly publish: Broadcast.Broadcast["publish"]
  /**
   * Closes all that are there now, by default with 1001, and waits for their closing handshakes, each at most for its close timeout. Others
   * may come meanwhile; a server's shutdown lets nobody in. A code or reason that can't be sent is a defect.
   */
  readonly closeAll: (code?: number, reason?: string) => Effect.Effect<void>
  /** Cuts all that are there now; the peers see 1006. */
  readonly abortAll: Effect.Effect<void>
}

/**
 * The open connections of a server.
 *
 * @example
 * import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
 * import { Connections } from "@effect-ws/core"
 * import { Effect } from "effect"
 *
 * const Announce = HttpLayerRouter.add("POST", "/announce", Effect.gen(function*() {
 *   const connections = yield* Connections.Connections
 *   yield* connections.publish("maintenance at midnight")
 *   return HttpServerResponse.text(`told ${yield* connections.count}`)
 * }))
 *
 * @since 0.1.0
 * @category services
 */
export class Connections extends Context.Tag("@effect-ws/core/Connections")<Connections, Service>() {}

/**
 * An empty set.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Service> = Effect.sync(() => fromSet(new ConnectionSet()))

/**
 * The connections of one server, for platforms that make `Upgrade` servers.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromServer = (server: Upgrade.UpgradeServer): Service => fromSet(server.connections)

/**
 * An empty set of its own.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Connections> = Layer.effect(Connections, make)

const fromSet = (set: ConnectionSet): Service => {
  const now = () => set.list().map(({ connection }) => connection)
  const each = (f: (connection: Connection) => Effect.Effect<unknown>) =>
    Effect.suspend(() => Effect.forEach(now(), f, { concurrency: "unbounded", discard: true }))
  let room: Broadcast.Room | undefined
  const everybody = (): Broadcast.Room => {
    if (room !== undefined) return room
    const made = Broadcast.unsafeMake({})
    for (const connection of now()) made.unsafeJoin(connection)
    set.observe({
      added: ({ connection }) => made.unsafeJoin(connection),
      deleted: ({ connection }) => made.unsafeLeave(connection)
    })
    room = made
    return made
  }
  return {
    list: Effect.sync(now),
    count: Effect.sync(() => set.size),
    add: (connection) =>
      Effect.acquireRelease(
        Effect.sync(() => set.add(politeEntry(connection))),
        (place) => Effect.sync(() => set.delete(place))
      ),
    publish: (message, options) => Effect.suspend(() => everybody().publish(message, options)),
    closeAll: (code = 1001, reason) => each((connection) => connection.close(code, reason)),
    abortAll: each((connection) => connection.abort)
  }
}
