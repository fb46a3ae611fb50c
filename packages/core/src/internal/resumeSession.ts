/**
 * One end of a resumable session, as data: which messages of ours the peer may still ask for, and which of the peer's came.
 * No sockets, timers or randomness here; both ends are the same.
 *
 * Messages of each direction count from 1. `received` is the last that came in order, `acked` the last of ours that the peer's
 * program has taken, so that it need not be kept. Sizes are bytes; a text counts two for a UTF-16 code unit.
 */
import type { Message } from "../Message.js"

export interface StoreLimits {
  readonly maxMessages: number
  readonly maxBytes: number
  /** What happens to one more: the sender waits, or the oldest message is given up, which is a gap if the peer has not got it. */
  readonly overflow: "suspend" | "gap"
}

/** Where an end stands, told to the other when a transport begins. */
export interface Position {
  /** The last message of the peer that came in order: it continues after it. */
  readonly received: number
  /** The last message of the peer that was taken: it may forget up to it. */
  readonly acked: number
  /** The oldest message of its own that it still has, `sent + 1` for none. */
  readonly first: number
  /** Its own last message. */
  readonly sent: number
}

/** What outlives a process. */
export interface Snapshot {
  readonly sent: number
  readonly acked: number
  readonly received: number
  /** The messages that were sent and not acknowledged, the last one is number `sent`. */
  readonly messages: ReadonlyArray<Message>
}

/** Whether two ends fit together: they continue, or one of them gave up what the other needs, or they are not of one session. */
export type Fit = "resumed" | "overflow" | "unknown"

export const sizeOf = (message: Message): number =>
  typeof message === "string" ? 2 * message.length : message.byteLength

export class ResumeSession {
  /** Kept messages from `head` on, the first of which is number `firstSeq`. */
  private kept: Array<Message | undefined> = []
  private head = 0
  private firstSeq = 1
  private bytesKept = 0
  private ackedSeq = 0
  private receivedSeq = 0

  constructor(
    readonly limits: StoreLimits,
    snapshot?: Snapshot
  ) {
    if (snapshot === undefined) return
    this.kept = [...snapshot.messages]
    this.firstSeq = snapshot.sent - this.kept.length + 1
    this.ackedSeq = snapshot.acked
    this.receivedSeq = snapshot.received
    for (const message of snapshot.messages) this.bytesKept += sizeOf(message)
  }

  get count(): number {
    return this.kept.length - this.head
  }
  get bytes(): number {
    return this.bytesKept
  }
  get sent(): number {
    return this.firstSeq + this.count - 1
  }
  get acked(): number {
    return this.ackedSeq
  }
  get received(): number {
    return this.receivedSeq
  }
  /** The oldest message that can be replayed. */
  get first(): number {
    return this.firstSeq
  }
  /** Messages that may not have arrived, oldest first. */
  get unacknowledged(): ReadonlyArray<Message> {
    return this.kept.slice(this.head) as Array<Message>
  }

  /** How many messages may be sent now, if those up to number `expendable` may be given up for them. */
  room(expendable: number): number {
    const { maxBytes, maxMessages, overflow } = this.limits
    if (overflow === "gap" && expendable >= this.firstSeq) return Number.MAX_SAFE_INTEGER
    return this.bytesKept >= maxBytes ? 0 : Math.max(0, maxMessages - this.count)
  }

  /** Keeps a message of ours and gives its number. */
  send(message: Message, expendable: number): number {
    this.kept.push(message)
    this.bytesKept += sizeOf(message)
    const { maxBytes, maxMessages, overflow } = this.limits
    if (overflow === "gap") {
      while (this.count > 1 && this.firstSeq <= expendable && (this.count > maxMessages || this.bytesKept > maxBytes)) {
        this.drop()
      }
    }
    return this.sent
  }

  /** The message with a number, if it is kept. */
  at(seq: number): Message | undefined {
    return seq < this.firstSeq ? undefined : this.kept[this.head + seq - this.firstSeq]
  }

  /** The bytes of all messages after number `seq`. */
  bytesAfter(seq: number): number {
    let bytes = 0
    for (let i = Math.max(seq + 1, this.firstSeq); i <= this.sent; i++) bytes += sizeOf(this.at(i)!)
    return bytes
  }

  /** The peer has taken all up to number `seq`; `false` if no such message was sent. An older number says nothing new. */
  acknowledge(seq: number): boolean {
    if (seq > this.sent) return false
    if (seq > this.ackedSeq) this.ackedSeq = seq
    while (this.firstSeq <= seq) this.drop()
    return true
  }

  /** What to do with the peer's message number `seq`: deliver the next one, ignore what came before, refuse what comes too early. */
  receive(seq: number): "deliver" | "duplicate" | "gap" {
    if (seq <= this.receivedSeq) return "duplicate"
    if (seq > this.receivedSeq + 1) return "gap"
    this.receivedSeq = seq
    return "deliver"
  }

  /** Whether the peer, standing at `peer`, and this end can go on together; then its acknowledgement counts. */
  fit(peer: Position): Fit {
    if (peer.received > this.sent || peer.acked > peer.received || this.receivedSeq > peer.sent) return "unknown"
    if (peer.received < this.ackedSeq) return "unknown"
    if (peer.received + 1 < this.firstSeq || peer.first > this.receivedSeq + 1) return "overflow"
    this.acknowledge(peer.acked)
    return "resumed"
  }

  private drop(): void {
    this.bytesKept -= sizeOf(this.kept[this.head]!)
    this.kept[this.head++] = undefined
    this.firstSeq++
    // Amortised: as many are moved as were dropped before.
    if (this.head * 2 >= this.kept.length) {
      this.kept = this.kept.slice(this.head)
      this.head = 0
    }
  }
}
