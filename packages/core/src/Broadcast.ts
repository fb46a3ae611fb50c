/**
 * One message to many connections: framed once (and compressed once for all whose compression keeps nothing between messages), and the same bytes written to each. All that is published in one turn of the
 * event loop leaves with one write per member. A member that does not keep up has an allowance of unsent bytes and then
 * what its policy says, so that it neither slows the others nor holds memory.
 *
 * A room is a Broadcast; a chat is a map of them.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection } from "./Connection.js"
import * as CloseCode from "./engine/CloseCode.js"
import * as Extension from "./engine/Extension.js"
import { frame } from "./engine/FrameEncoder.js"
import { encodeText, type Natives, portable } from "./engine/Natives.js"
import * as Opcode from "./engine/Opcode.js"
import type { Violation } from "./engine/Rule.js"
import { BaseConnection, noMessage } from "./internal/BaseConnection.js"
import { FramedConnection } from "./internal/FramedConnection.js"
import * as Flush from "./internal/flush.js"
import type { Message } from "./Message.js"

/**
 * What happens to a member whose unsent bytes exceed its allowance: `"drop"` leaves messages out (and counts them), `"disconnect"`
 * closes it with 1013, `"wait"` makes `publish` wait for it.
 *
 * @since 0.1.0
 * @category models
 */
export type SlowPolicy = "drop" | "disconnect" | "wait"

/**
 * Options of a broadcast.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Default `"disconnect"`: a member sees all messages or learns that it does not. */
  readonly slow?: SlowPolicy | undefined
  /** Bytes that may wait to leave for one member. Default 1 MiB. */
  readonly allowanceBytes?: number | undefined
}

/**
 * A set of connections that get the same messages.
 *
 * @since 0.1.0
 * @category models
 */
export interface Broadcast {
  /** Makes a connection a member until the Scope closes. */
  readonly join: (member: Connection) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Sends to all members that are open, except one if given. Completes when the message was handed to every member; under
   * the policy `"wait"` when all have room again. Messages keep their order; those of one turn leave together, after what the
   * members themselves send in it.
   */
  readonly publish: (message: Message, options?: { readonly except?: Connection | undefined }) => Effect.Effect<void>
  /** The number of members. */
  readonly size: Effect.Effect<number>
  /** Messages left out so far, summed over the members. */
  readonly dropped: Effect.Effect<number>
  /** Members closed with 1013 so far. */
  readonly disconnected: Effect.Effect<number>
}

/**
 * A broadcast without members.
 *
 * @example
 * import { Broadcast, WebSocketRoute } from "@effect-ws/core"
 * import { Effect, Layer } from "effect"
 *
 * const Chat = Layer.unwrapEffect(
 *   Effect.map(Broadcast.make(), (room) =>
 *     WebSocketRoute.layer("/chat", {}, (socket) =>
 *       Effect.zipRight(room.join(socket), socket.runForEach((message) => room.publish(message)))
 *     )
 *   )
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<Broadcast> => Effect.sync(() => new Room(options))

/** @internal */
export const unsafeMake = (options: Options): Room => new Room(options)

/** What is published in one turn leaves before it ends, once it is so much. */
const maxPendingBytes = 0x10000

/** One piece of whole frames, as a transport takes it; the same for all members. */
type Frames = readonly [Uint8Array]

interface Publication {
  readonly message: Message
  readonly frame: Uint8Array
  readonly except: Connection | undefined
  /** As the members with equal extensions get it, by their key. */
  encoded?: Map<string, Encoded>
}

/** A publication as extensions made it: a frame, those who wait for it, or a failure. */
type Encoded = Uint8Array | Array<(frame: Uint8Array | undefined) => void> | "failed"

/** @internal */
export class Room implements Broadcast, Flush.Turn {
  private readonly members = new Map<BaseConnection, number>()
  private publications: Array<Publication> = []
  private pendingBytes = 0
  private droppedCount = 0
  private disconnectedCount = 0
  /** What encodes once for all members with equal extensions, by their key; idle ones. */
  private readonly pipelines = new Map<string, Array<Extension.Pipeline>>()
  /** Those of the members, whose transports take their own kind of bytes as they are. */
  private natives: Natives = portable
  private readonly slow: SlowPolicy
  private readonly allowance: number

  constructor(options: Options) {
    this.slow = options.slow ?? "disconnect"
    this.allowance = Math.max(1, options.allowanceBytes ?? 0x100000)
  }

  readonly join = (member: Connection): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => this.unsafeJoin(member)),
      () => Effect.sync(() => this.unsafeLeave(member))
    )

  unsafeJoin(member: Connection): void {
    const connection = internal(member)
    // Who was a member when something was published gets it, and nobody else.
    this.flush()
    if (connection instanceof FramedConnection) this.natives = connection.protocol.output.natives
    this.members.set(connection, (this.members.get(connection) ?? 0) + 1)
  }

  unsafeLeave(member: Connection): void {
    const connection = internal(member)
    this.flush()
    const joined = this.members.get(connection)! - 1
    if (joined === 0) this.members.delete(connection)
    else this.members.set(connection, joined)
    if (this.members.size === 0) this.closePipelines()
  }

  /** An empty room holds nothing that is counted elsewhere, as compression contexts are. */
  private closePipelines(): void {
    for (const idle of this.pipelines.values()) for (const pipeline of idle) pipeline.close()
    this.pipelines.clear()
  }

  readonly publish = (message: Message, options?: { readonly except?: Connection | undefined }): Effect.Effect<void> =>
    Effect.suspend(() => {
      const slow = this.slow === "wait" ? this.slowMembers() : undefined
      if (slow === undefined) {
        this.put(message, options?.except)
        return Effect.void
      }
      return Effect.zipRight(
        Effect.forEach(slow, (member) => member.awaitBuffered(this.allowance), { discard: true }),
        Effect.sync(() => this.put(message, options?.except))
      )
    })

  readonly size = Effect.sync(() => this.members.size)
  readonly dropped = Effect.sync(() => this.droppedCount)
  readonly disconnected = Effect.sync(() => this.disconnectedCount)

  private put(message: Message, except: Connection | undefined): void {
    const misuse = noMessage(message)
    if (misuse !== undefined) throw new TypeError(misuse)
    if (this.members.size === 0) return
    const opcode = typeof message === "string" ? Opcode.text : Opcode.binary
    const publication = { message, frame: frame(this.natives, opcode, message), except }
    if (this.publications.push(publication) === 1) Flush.soon(this)
    this.pendingBytes += publication.frame.length
    if (this.pendingBytes >= maxPendingBytes) this.flush()
  }

  private slowMembers(): ReadonlyArray<BaseConnection> | undefined {
    let slow: Array<BaseConnection> | undefined
    for (const member of this.members.keys()) {
      if (member.unsafeBufferedBytes() >= this.allowance) {
        slow ??= []
        slow.push(member)
      }
    }
    return slow
  }

  endTurn(): void {
    this.flush()
  }

  /** Everything that was published in this turn goes to each member with one write. */
  private flush(): void {
    const { publications } = this
    if (publications.length === 0) return
    this.publications = []
    this.pendingBytes = 0
    const selective = publications.some(({ except }) => except !== undefined)
    const together = new Map<string, Frames | undefined>()
    for (const member of this.members.keys()) {
      if (!selective && shares(member)) {
        const key = member.sharedKey
        let frames = together.get(key)
        if (frames === undefined && !together.has(key)) {
          frames = this.encodeAll(publications, member)
          together.set(key, frames)
        }
        if (frames !== undefined && this.fits(member, frames[0].length)) {
          // The same memory for all: it is never written over.
          member.writeEncodedNow(frames)
          continue
        }
      }
      this.deliver(member, publications)
    }
  }

  private fits(member: BaseConnection, bytes: number): boolean {
    return this.slow === "wait" || member.unsafeBufferedBytes() + bytes <= this.allowance
  }

  /** All publications as members with `member`'s key get them; `undefined` when an extension does not give one at once. */
  private encodeAll(publications: ReadonlyArray<Publication>, member: Sharing): Frames | undefined {
    const frames: Array<Uint8Array> = []
    for (const publication of publications) {
      const encoded = this.encode(publication, member)
      if (!(encoded instanceof Uint8Array)) return undefined
      frames.push(encoded)
    }
    if (frames.length === 1) return [frames[0]!]
    const bytes = this.natives.allocate(frames.reduce((size, frame) => size + frame.length, 0))
    let offset = 0
    for (const frame of frames) {
      bytes.set(frame, offset)
      offset += frame.length
    }
    return [bytes]
  }

  /** The publication as `member`'s extensions make it, once for all with the same key. */
  private encode(publication: Publication, member: Sharing): Encoded {
    if (member.agreed.length === 0) return publication.frame
    const key = member.sharedKey
    publication.encoded ??= new Map()
    const before = publication.encoded.get(key)
    if (before !== undefined) return before
    const { encoded, message } = publication
    const isText = typeof message === "string"
    const opcode = isText ? Opcode.text : Opcode.binary
    // A pipeline takes one message at a time.
    const idle = this.pipelines.get(key) ?? []
    this.pipelines.set(key, idle)
    const pipeline = idle.pop() ?? Extension.open(member.agreed, { role: "server" })!
    const framed = (result: Extension.Encoded | Violation): Uint8Array | undefined => {
      if (this.pipelines.get(key) === idle) idle.push(pipeline)
      else pipeline.close()
      return "rule" in result ? undefined : frame(this.natives, opcode, result.payload, result.rsv)
    }
    let now: Encoded = publication.frame
    if (pipeline.takes(message, undefined)) {
      const waiting: Array<(frame: Uint8Array | undefined) => void> = []
      const payload = isText ? encodeText(this.natives, message) : message
      const result = pipeline.encode({ payload, isText }, (result) => {
        const late = framed(result)
        for (const give of waiting) give(late)
      })
      now = result === undefined ? waiting : (framed(result) ?? "failed")
    } else idle.push(pipeline)
    encoded.set(key, now)
    return now
  }

  /** Hands on what others get too, now or in its place; `false` when `member` has to send the message itself. */
  private deliverShared(member: Sharing, publication: Publication): boolean {
    const encoded = this.encode(publication, member)
    if (encoded === "failed") return false
    if (encoded instanceof Uint8Array) {
      member.writeEncoded(encoded)
      return true
    }
    const give = member.reserve(publication.frame.length)
    if (give === undefined) return false
    encoded.push((frame) => {
      give(frame)
      // A member does not miss a message without learning of it.
      if (frame === undefined) member.unsafeClose(CloseCode.internalError, "")
    })
    return true
  }

  /** One by one, for members that are left out of some, do not keep up, or need frames of their own (masked, compressed, of a draft). */
  private deliver(member: BaseConnection, publications: ReadonlyArray<Publication>): void {
    for (const publication of publications) {
      if ((publication.except as unknown) === member || !member.unsafeIsOpen()) continue
      if (this.fits(member, publication.frame.length)) {
        if (!shares(member) || !this.deliverShared(member, publication)) member.unsafeSend(publication.message)
      } else if (this.slow === "drop") this.droppedCount++
      else {
        this.disconnectedCount++
        member.unsafeClose(CloseCode.tryAgainLater, "too slow")
        return
      }
    }
  }
}

/** A member that gets the same frames as all others with its key. */
type Sharing = FramedConnection & { readonly sharedKey: string }

const shares = (member: BaseConnection): member is Sharing =>
  member instanceof FramedConnection && member.sharedKey !== undefined

const internal = (connection: Connection): BaseConnection => {
  if (connection instanceof BaseConnection) return connection
  throw new TypeError("a Broadcast's members are connections of this library")
}
