/**
 * The rooms of the chat: each a Broadcast with its members and the last lines, made when somebody enters and removed when it
 * has been empty for a while. A server that stops leaves the lines to the next one: who comes back late is told what was said.
 */
import { KeyValueStore } from "@effect/platform"
import { Broadcast, type Connection, type WebSocketError } from "@effect-ws/core"
import { Array as Arr, Clock, Effect, Option, RcMap, Schema, type Scope } from "effect"
import { encodeServerMessage, Line, type Member } from "./protocol.js"
import * as Settings from "./Settings.js"

export interface Room {
  readonly name: string
  readonly members: Effect.Effect<ReadonlyArray<Member>>
  /** The last lines, oldest first. */
  readonly history: Effect.Effect<ReadonlyArray<Line>>
  /** Makes a connection a member until the Scope closes: it is welcomed, the others learn of it. */
  readonly enter: (
    socket: Connection.Connection,
    name: string
  ) => Effect.Effect<Member, WebSocketError.ConnectionClosed, Scope.Scope>
  /** Tells everybody in the room, the speaker too, and remembers it. */
  readonly say: (from: Member, text: string) => Effect.Effect<void>
}

/** The lines of rooms, by their names. */
const Left = Schema.Record({ key: Schema.String, value: Schema.Array(Line) })

export class Rooms extends Effect.Service<Rooms>()("demo/Rooms", {
  scoped: Effect.gen(function* () {
    const settings = yield* Settings.chat
    const store = (yield* KeyValueStore.KeyValueStore).forSchema(Left)
    const found = yield* Effect.catchAll(store.get("rooms"), (error) =>
      Effect.as(Effect.logWarning("what was said before can't be read", error), Option.none())
    )
    const left = new Map(Object.entries(Option.getOrElse(found, () => ({}))))
    yield* Effect.forkScoped(
      Effect.delay(
        Effect.sync(() => left.clear()),
        settings.resumeTtl
      )
    )
    let lines = 0
    const rooms = yield* RcMap.make({
      lookup: (name: string) =>
        Effect.suspend(() => {
          const before = left.get(name) ?? []
          left.delete(name)
          return makeRoom(name, settings, before, () => {
            lines++
          })
        }),
      idleTimeToLive: settings.roomLinger,
      capacity: settings.maxRooms
    })
    const save = Effect.gen(function* () {
      for (const name of yield* RcMap.keys(rooms)) left.set(name, yield* (yield* RcMap.get(rooms, name)).history)
      yield* store.set("rooms", Object.fromEntries(left))
    })
    yield* Effect.addFinalizer(() =>
      Effect.catchAllCause(Effect.scoped(save), (cause) => Effect.logWarning("what was said can't be kept", cause))
    )
    const list = Effect.gen(function* () {
      const names = yield* RcMap.keys(rooms)
      return yield* Effect.forEach(names.sort(), (name) =>
        Effect.flatMap(RcMap.get(rooms, name), (room) =>
          Effect.map(room.members, (members) => ({ room: name, members: members.map((member) => member.name) }))
        )
      )
    }).pipe(
      Effect.scoped,
      Effect.map(Arr.filter(({ members }) => members.length > 0)),
      // A room that was listed may be gone when it is looked at, and no other fit in its place.
      Effect.catchTag("ExceededCapacityException", () => Effect.succeed([]))
    )
    return {
      /** The room of that name until the Scope closes. */
      open: (name: string) => RcMap.get(rooms, name),
      /** The rooms that have members. */
      list,
      counts: Effect.map(list, (rooms) => ({
        rooms: rooms.length,
        people: rooms.reduce((sum, { members }) => sum + members.length, 0),
        lines
      }))
    }
  })
}) {}

const makeRoom = (
  name: string,
  settings: { readonly historyLines: number; readonly allowanceBytes: number },
  before: ReadonlyArray<Line>,
  onLine: () => void
): Effect.Effect<Room> =>
  Effect.map(Broadcast.make({ slow: "disconnect", allowanceBytes: settings.allowanceBytes }), (broadcast) => {
    const members = new Map<string, Member>()
    const history = [...before]

    const leave = (member: Member) =>
      Effect.suspend(() => {
        members.delete(member.id)
        return broadcast.publish(encodeServerMessage({ _tag: "left", member }))
      })

    return {
      name,
      members: Effect.sync(() => Array.from(members.values())),
      history: Effect.sync(() => history),
      enter: (socket, wanted) =>
        Effect.gen(function* () {
          const member: Member = { id: crypto.randomUUID(), name: freeName(wanted, members) }
          yield* Effect.acquireRelease(
            Effect.sync(() => members.set(member.id, member)),
            () => leave(member)
          )
          yield* broadcast.publish(encodeServerMessage({ _tag: "joined", member }), { except: socket })
          yield* broadcast.join(socket)
          yield* Effect.suspend(() =>
            socket.send(
              encodeServerMessage({
                _tag: "welcome",
                room: name,
                you: member,
                members: Array.from(members.values()),
                history
              })
            )
          )
          return member
        }),
      say: (from, text) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) => {
          const line: Line = { id: crypto.randomUUID(), from, text, at }
          history.push(line)
          if (history.length > settings.historyLines) history.shift()
          onLine()
          return broadcast.publish(encodeServerMessage({ _tag: "said", line }))
        }).pipe(Effect.uninterruptible)
    }
  })

/** The wanted name, or the first of "name 2", "name 3" that nobody in the room has. */
const freeName = (wanted: string, members: ReadonlyMap<string, Member>): string => {
  const taken = new Set(Array.from(members.values(), ({ name }) => name))
  if (!taken.has(wanted)) return wanted
  for (let number = 2; ; number++) if (!taken.has(`${wanted} ${number}`)) return `${wanted} ${number}`
}
