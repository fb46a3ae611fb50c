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
import { type Natives, portable } from "./engine/Natives.js"
import * as Opcode from "./engine/Opcode.js"
import type { Violation } from "./engine/Rule.js"
import { BaseConnection } from "./internal/BaseConnection.js"
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
export class Room implements Broadcast, Flush.Flushable {
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

  /** The turn ends: everything that was published in it goes to each member with one write. */
  flush(): void {
    const { publications } = this
    if (publications.length === 0) return
    this.publications = []
    this.pendingBytes = 0
    const all: Frames = [this.concat(publications)]
    const selective = publications.some(({ except }) => except !== undefined)
    const encodedAll = new Map<string, Frames | undefined>()
    for (const member of this.members.keys()) {
      let bytes: Frames | undefined
      if (!selective && member instanceof FramedConnection && member.role === "server" && !member.textOnly) {
        const key = member.encodeKey
        if (member.agreed.length === 0) bytes = all
        else if (key !== undefined) {
          if (!encodedAll.has(key)) encodedAll.set(key, this.concatEncoded(publications, key, member))
          bytes = encodedAll.get(key)
        }
      }
      if (
        bytes !== undefined &&
        (this.slow === "wait" || member.unsafeBufferedBytes() + bytes[0].length <= this.allowance)
      ) {
        // The same memory for all: it is never written over.
        ;(member as FramedConnection).writeEncodedNow(bytes)
      } else this.deliver(member, publications)
    }
  }

  /** All publications as members with this key get them; `undefined` when an extension does not give one at once. */
  private concatEncoded(
    publications: ReadonlyArray<Publication>,
    key: string,
    member: FramedConnection
  ): Frames | undefined {
    const frames: Array<Uint8Array> = []
    for (const publication of publications) {
      const encoded = this.encode(publication, key, member)
      if (!(encoded instanceof Uint8Array)) return undefined
      frames.push(encoded)
    }
    return [this.joined(frames)]
  }

  /** The publication as `member`'s extensions make it, once for all with the same key. */
  private encode(publication: Publication, key: string, member: FramedConnection): Encoded {
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
      idle.push(pipeline)
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

  /** What `member`'s extensions need of its own, or not yet: whether it was taken care of. */
  private deliverEncoded(member: FramedConnection, publication: Publication): boolean {
    const key = member.encodeKey
    if (key === undefined) return false
    const encoded = this.encode(publication, key, member)
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

  private concat(publications: ReadonlyArray<Publication>): Uint8Array {
    return this.joined(publications.map(({ frame }) => frame))
  }

  private joined(frames: ReadonlyArray<Uint8Array>): Uint8Array {
    if (frames.length === 1) return frames[0]!
    const bytes = this.natives.allocate(frames.reduce((size, frame) => size + frame.length, 0))
    let offset = 0
    for (const frame of frames) {
      bytes.set(frame, offset)
      offset += frame.length
    }
    return bytes
  }

  /** One by one, for members that are left out of some, do not keep up, or need frames of their own (masked, compressed, of a draft). */
  private deliver(member: BaseConnection, publications: ReadonlyArray<Publication>): void {
    for (const publication of publications) {
      const { except, frame, message } = publication
      if ((except as unknown) === member || !member.unsafeIsOpen()) continue
      if (this.slow === "wait" || member.unsafeBufferedBytes() + frame.length <= this.allowance) {
        if (!(member instanceof FramedConnection) || member.role === "client" || member.textOnly) {
          member.unsafeSend(message)
        } else if (member.agreed.length === 0) member.writeEncoded(frame)
        else if (!this.deliverEncoded(member, publication)) member.unsafeSend(message)
      } else if (this.slow === "drop") this.droppedCount++
      else {
        this.disconnectedCount++
        member.unsafeClose(CloseCode.tryAgainLater, "too slow")
        return
      }
    }
  }
}

const encodeText = (natives: Natives, text: string): Uint8Array => {
  const bytes = natives.allocate(natives.textByteLength(text))
  natives.writeText(text, bytes, 0)
  return bytes
}

const internal = (connection: Connection): BaseConnection => {
  if (connection instanceof BaseConnection) return connection
  throw new TypeError("a Broadcast's members are connections of this library")
}
