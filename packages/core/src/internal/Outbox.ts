/**
 * What is to be sent while no connection is open, and where it goes when one is. A message is put out on one connection at
 * most once; what was not put out stays for the next.
 */
import * as Effect from "effect/Effect"
import type { Message } from "../Message.js"
import type { BaseConnection } from "./BaseConnection.js"

export type Overflow = "suspend" | "dropOldest" | "dropNewest" | "fail"

interface Waiting<E> {
  readonly messages: ReadonlyArray<Message>
  next: number
  readonly resume: (effect: Effect.Effect<void, E>) => void
}

export class Outbox<E> {
  /** Older than all that senders wait with. */
  private items: Array<Message> = []
  private senders: Array<Waiting<E>> = []
  private connection: BaseConnection | undefined
  private end: Effect.Effect<never, E> | undefined

  constructor(
    private readonly maxMessages: number,
    private readonly overflow: Overflow,
    private readonly full: () => Effect.Effect<never, E>
  ) {}

  /** Messages that wait for a connection. */
  get pending(): number {
    return this.senders.reduce((count, { messages, next }) => count + messages.length - next, this.items.length)
  }

  send(messages: ReadonlyArray<Message>, from = 0): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      let next = from
      while (next < messages.length) {
        if (this.end !== undefined) return this.end
        const { connection } = this
        if (connection?.unsafeIsOpen() === true) {
          if (!connection.unsafeTrySend(messages[next]!)) {
            return Effect.flatMap(connection.awaitTurn, () => this.send(messages, next))
          }
        } else if (this.senders.length === 0 && this.items.length < this.maxMessages) this.items.push(messages[next]!)
        else if (this.overflow === "fail") return this.full()
        else if (this.overflow === "suspend") return this.wait(messages, next)
        else if (this.overflow === "dropOldest" && this.maxMessages > 0) {
          this.items.shift()
          this.items.push(messages[next]!)
        }
        next++
      }
      return Effect.void
    })
  }

  private wait(messages: ReadonlyArray<Message>, next: number): Effect.Effect<void, E> {
    return Effect.async<void, E>((resume) => {
      // The fiber may have yielded since it looked.
      if (this.connection?.unsafeIsOpen() === true || this.end !== undefined) return resume(this.send(messages, next))
      const waiting: Waiting<E> = { messages, next, resume }
      this.senders.push(waiting)
      return Effect.sync(() => {
        this.senders = this.senders.filter((other) => other !== waiting)
      })
    })
  }

  /** Puts out all that waits, then what comes goes straight to `connection`. Ends early when that dies. */
  attach(connection: BaseConnection): Effect.Effect<void> {
    return Effect.suspend(() => {
      while (connection.unsafeIsOpen()) {
        const sender = this.items.length === 0 ? this.senders[0] : undefined
        if (this.items.length === 0 && sender === undefined) {
          this.connection = connection
          return Effect.void
        }
        const message = sender === undefined ? this.items[0]! : sender.messages[sender.next]!
        if (!connection.unsafeTrySend(message)) return Effect.zipRight(connection.awaitTurn, this.attach(connection))
        if (sender === undefined) this.items.shift()
        else if (++sender.next === sender.messages.length) {
          this.senders.shift()
          sender.resume(Effect.void)
        }
      }
      return Effect.void
    })
  }

  detach(): void {
    this.connection = undefined
  }

  /** Nothing is sent any more: all who wait, and whoever comes, fail. */
  stop(end: Effect.Effect<never, E>): void {
    this.end = end
    this.connection = undefined
    this.items = []
    const { senders } = this
    this.senders = []
    for (const { resume } of senders) resume(end)
  }
}
