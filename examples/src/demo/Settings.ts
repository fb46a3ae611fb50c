/**
 * What can be set from outside, each with its default.
 */
import { fileURLToPath } from "node:url"
import { KeyValueStore } from "@effect/platform"
import { NodeKeyValueStore } from "@effect/platform-node"
import { Config, Duration, Effect, Layer } from "effect"

/** Where to listen. `PORT=0` takes a free port. */
export const listen = {
  port: Config.integer("PORT").pipe(Config.withDefault(8080)),
  host: Config.string("HOST").pipe(Config.withDefault("127.0.0.1")),
  /** How long connections may take to close at shutdown before they are cut. */
  drainTimeout: Config.duration("DRAIN_TIMEOUT").pipe(Config.withDefault(Duration.millis(500)))
}

export const chat = Config.all({
  /** Rooms that exist at one time; more are refused with 503. */
  maxRooms: Config.integer("CHAT_MAX_ROOMS").pipe(Config.withDefault(100)),
  /** Lines that a room remembers. */
  historyLines: Config.integer("CHAT_HISTORY_LINES").pipe(Config.withDefault(50)),
  /** How long a room without members is kept, so that who reconnects finds what was said. */
  roomLinger: Config.duration("CHAT_ROOM_LINGER").pipe(Config.withDefault(Duration.seconds(30))),
  /** How long a member whose line is cut stays in the room, and how long after a restart it may come back. */
  resumeTtl: Config.duration("CHAT_RESUME_TTL").pipe(Config.withDefault(Duration.seconds(30))),
  /** Largest message of a member, in bytes. */
  maxMessageBytes: Config.integer("CHAT_MAX_MESSAGE_BYTES").pipe(Config.withDefault(4096)),
  /** Bytes that may wait for one member before it is disconnected. */
  allowanceBytes: Config.integer("CHAT_ALLOWANCE_BYTES").pipe(Config.withDefault(0x40000))
})

/**
 * What outlives a restart is in the folder `CHAT_STORE`; by default one for the port, beside the program. Nobody comes back to a port that
 * was taken because it was free: then it is in memory.
 */
export const StoreLive = Layer.unwrapEffect(
  Effect.map(
    Config.all({ port: listen.port, folder: Config.string("CHAT_STORE").pipe(Config.withDefault("")) }),
    ({ folder, port }) =>
      port === 0 && folder === ""
        ? KeyValueStore.layerMemory
        : NodeKeyValueStore.layerFileSystem(folder || fileURLToPath(new URL(`./store/${port}`, import.meta.url)))
  )
)

export const feed = Config.all({
  interval: Config.duration("FEED_INTERVAL").pipe(Config.withDefault(Duration.seconds(1))),
  /** Ticks that who connects gets at once. */
  replay: Config.integer("FEED_REPLAY").pipe(Config.withDefault(60))
})
