/**
 * Sessions in a `KeyValueStore`, so that they outlive the process. Under a prefix there are
 *
 *     <id>           where the session stands, and which batches of messages there are (JSON)
 *     <id>.<first>   one batch: the messages from number <first> on (JSON; bytes as base64)
 *     index.<x>      the ids that begin with the hexadecimal digit x (JSON), since a store can't be listed
 *
 * A batch is written before what names it, and that before any of its messages goes out. One process uses a prefix at a time.
 */
import type * as KeyValueStore from "@effect/platform/KeyValueStore"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Message } from "../Message.js"
import type { Journal, Saved } from "./ResumedConnection.js"
import type { Snapshot } from "./resumeSession.js"

const Counter = Schema.NonNegativeInt

const Head = Schema.parseJson(
  Schema.Struct({
    version: Schema.Literal(1),
    binding: Schema.String,
    sent: Counter,
    acked: Counter,
    first: Counter,
    received: Counter,
    batches: Schema.Array(Counter)
  })
)
const Batch = Schema.parseJson(Schema.Array(Schema.Union(Schema.String, Schema.Struct({ base64: Schema.String }))))
const Ids = Schema.parseJson(Schema.Array(Schema.String))
const Pointer = Schema.parseJson(Schema.Struct({ id: Schema.String }))

type Written = typeof Batch.Type

/** A session as it was written down. */
export interface Found {
  readonly binding: string
  readonly snapshot: Snapshot
  readonly journal: Journal
}

export class Journals {
  private readonly ids = new Map<string, Set<string>>()
  private readonly oneAtATime = Effect.unsafeMakeSemaphore(1).withPermits(1)

  constructor(
    private readonly store: KeyValueStore.KeyValueStore,
    private readonly prefix: string
  ) {}

  /** The ids of all sessions that were written down. */
  readonly open: Effect.Effect<ReadonlyArray<string>, unknown> = Effect.suspend(() =>
    Effect.map(
      Effect.forEach([..."0123456789abcdef"], (digit) =>
        Effect.map(this.read(`index.${digit}`, Ids), (ids) => {
          this.ids.set(digit, new Set(Option.getOrElse(ids, () => [])))
        })
      ),
      () => [...this.ids.values()].flatMap((ids) => [...ids])
    )
  )

  /** A journal for a new session, which is written down. */
  create(id: string, binding: string): Effect.Effect<Journal, unknown> {
    const journal = new OneJournal(this, id, binding, [])
    const nothing = { sent: 0, acked: 0, first: 1, received: 0 }
    return Effect.as(Effect.zipRight(journal.save(nothing, []), this.index(id, true)), journal)
  }

  /** What was written down of a session; none if it is unknown or was not written whole. */
  find(id: string): Effect.Effect<Option.Option<Found>, unknown> {
    return Effect.flatMap(this.read(id, Head), (head) => {
      if (Option.isNone(head)) return Effect.succeedNone
      const { acked, batches, binding, first, received, sent } = head.value
      return Effect.map(
        Effect.forEach(batches, (first) => this.read(`${id}.${first}`, Batch)),
        (read) => {
          const messages: Array<Message> = []
          for (const batch of read) {
            if (Option.isNone(batch)) return Option.none()
            for (const written of batch.value) {
              const message = readMessage(written)
              if (message === undefined) return Option.none()
              messages.push(message)
            }
          }
          // The first batch may begin with messages that were given up since.
          const count = sent - first + 1
          if (messages.length < count) return Option.none()
          const snapshot = { acked, received, sent, messages: messages.slice(messages.length - count) }
          return Option.some({ binding, snapshot, journal: new OneJournal(this, id, binding, batches) })
        }
      )
    })
  }

  /** Forgets a session whose journal nobody has. */
  forget(id: string): Effect.Effect<void, unknown> {
    return Effect.flatMap(
      this.read(id, Head),
      (head) => new OneJournal(this, id, "", Option.isSome(head) ? head.value.batches : []).removeAll
    )
  }

  /** The session that a client continues. */
  readonly current: Effect.Effect<string | undefined, unknown> = Effect.suspend(() =>
    Effect.map(this.read("client", Pointer), (pointer) => Option.getOrUndefined(pointer)?.id)
  )
  setCurrent(id: string): Effect.Effect<void, unknown> {
    return this.write("client", JSON.stringify({ id }))
  }

  index(id: string, add: boolean): Effect.Effect<void, unknown> {
    const digit = id.slice(0, 1)
    return this.oneAtATime(
      Effect.suspend(() => {
        const ids = this.ids.get(digit) ?? new Set<string>()
        this.ids.set(digit, ids)
        if (add) ids.add(id)
        else ids.delete(id)
        return this.write(`index.${digit}`, JSON.stringify([...ids]))
      })
    )
  }

  write(key: string, value: string): Effect.Effect<void, unknown> {
    return this.store.set(this.prefix + key, value)
  }
  remove(key: string): Effect.Effect<void, unknown> {
    return this.store.remove(this.prefix + key)
  }
  /** What a key holds; none if nothing, or nothing that was written here. */
  private read<A, I extends string>(
    key: string,
    schema: Schema.Schema<A, I>
  ): Effect.Effect<Option.Option<A>, unknown> {
    const decode = Schema.decodeUnknownOption(schema)
    return Effect.map(
      this.store.get(this.prefix + key),
      Option.flatMap((text) => decode(text))
    )
  }
}

class OneJournal implements Journal {
  constructor(
    private readonly journals: Journals,
    private readonly id: string,
    private readonly binding: string,
    private batches: ReadonlyArray<number>
  ) {}

  save({ acked, first, received, sent }: Saved, messages: ReadonlyArray<Message>): Effect.Effect<void, unknown> {
    return Effect.suspend(() => {
      const all = messages.length === 0 ? this.batches : [...this.batches, sent - messages.length + 1]
      const end = (i: number) => (all[i + 1] ?? sent + 1) - 1
      const batches = all.filter((_, i) => end(i) >= first)
      const gone = all.filter((_, i) => end(i) < first)
      const head = { version: 1, binding: this.binding, sent, acked, first, received, batches }
      const batch =
        messages.length === 0 || gone.includes(all[all.length - 1]!)
          ? Effect.void
          : this.journals.write(this.key(all[all.length - 1]!), JSON.stringify(messages.map(writeMessage)))
      return batch.pipe(
        Effect.zipRight(this.journals.write(this.id, JSON.stringify(head))),
        Effect.tap(() => {
          this.batches = batches
        }),
        Effect.zipRight(Effect.forEach(gone, (first) => this.journals.remove(this.key(first)), { discard: true }))
      )
    })
  }

  readonly removeAll: Effect.Effect<void, unknown> = Effect.suspend(() =>
    this.journals
      .remove(this.id)
      .pipe(
        Effect.zipRight(Effect.forEach(this.batches, (first) => this.journals.remove(this.key(first)))),
        Effect.zipRight(this.journals.index(this.id, false))
      )
  )

  readonly remove: Effect.Effect<void> = Effect.catchAllCause(this.removeAll, (cause) =>
    Effect.logWarning("a resumable session could not be removed from its store", cause)
  )

  private key(first: number): string {
    return `${this.id}.${first}`
  }
}

const writeMessage = (message: Message): Written[number] =>
  typeof message === "string" ? message : { base64: Encoding.encodeBase64(message) }

const readMessage = (written: Written[number]): Message | undefined =>
  typeof written === "string" ? written : Either.getOrUndefined(Encoding.decodeBase64(written.base64))
