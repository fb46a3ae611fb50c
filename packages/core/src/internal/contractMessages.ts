/**
 * The messages of contracts: codecs, one direction's schema, and connections whose messages have types.
 */
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import type * as Schema from "effect/Schema"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Connection } from "../Connection.js"
import type { Message } from "../Message.js"
import type { MessageCodec, OnInvalid, TypedConnection } from "../WebSocketContract.js"
import { type ConnectionClosed, type ConnectionError, MessageError } from "../WebSocketError.js"
import { chunkOf } from "./chunk.js"
import { refuse } from "./refuse.js"

/**
 * What a codec gives for a message that it can't read.
 *
 * @since 0.1.0
 */
export class Undecodable {
  constructor(
    readonly reason: "Kind" | "Undecodable",
    readonly detail: string
  ) {}
}

/**
 * JSON in text messages.
 *
 * @since 0.1.0
 */
export const json: MessageCodec = {
  name: "JSON",
  decode: (message) => {
    if (typeof message !== "string") return new Undecodable("Kind", "only text messages are understood")
    try {
      return JSON.parse(message)
    } catch {
      return new Undecodable("Undecodable", "not JSON")
    }
  },
  encode: (value) => {
    const text = JSON.stringify(value)
    if (text === undefined) throw new Error(`JSON has no ${typeof value}`)
    return text
  }
}

/**
 * Messages as they are.
 *
 * @since 0.1.0
 */
export const raw: MessageCodec<Message> = {
  name: "raw",
  decode: (message) => message,
  encode: (message) => message
}

type Decoded<A> = Either.Either<A, MessageError> | Effect.Effect<A, MessageError, any>
type Encoded = Either.Either<Message, MessageError> | Effect.Effect<Message, MessageError, any>

type Step<A> = Either.Either<A, ParseResult.ParseIssue> | Effect.Effect<A, ParseResult.ParseIssue, any>

/** One direction of a contract. */
export class Half<A> {
  /** Whether messages pass as they are. */
  readonly plain: boolean
  /** How the messages are written; the name is for documents. */
  readonly codec: MessageCodec | undefined
  readonly decode: (message: Message) => Decoded<A>
  readonly encode: (value: A) => Encoded

  constructor(
    readonly schema: Schema.Schema<A, any, any> | undefined,
    codec: MessageCodec = json
  ) {
    this.plain = schema === undefined
    this.codec = schema === undefined ? undefined : codec
    if (schema === undefined) {
      this.decode = (message) => Either.right(message as A)
      this.encode = (value) => Either.right(value as Message)
      return
    }
    // What a schema does at once it gives as an Either.
    const parse: (value: unknown) => Step<A> = ParseResult.decodeUnknown(schema)
    const format: (value: unknown) => Step<unknown> = ParseResult.encodeUnknown(schema)
    this.decode = (message) => {
      const value = codec.decode(message)
      if (value instanceof Undecodable) {
        return Either.left(new MessageError({ reason: value.reason, path: [], detail: value.detail }))
      }
      const result = parse(value)
      if (!Either.isEither(result)) return Effect.mapError(result, mismatch)
      return Either.isRight(result) ? (result as Either.Right<never, A>) : Either.left(mismatch(result.left))
    }
    const write = (value: unknown): Either.Either<Message, MessageError> => {
      try {
        return Either.right(codec.encode(value))
      } catch (cause) {
        const detail = cause instanceof Error ? cause.message : String(cause)
        return Either.left(new MessageError({ reason: "Unencodable", path: [], detail }))
      }
    }
    this.encode = (value) => {
      const result = format(value)
      if (!Either.isEither(result)) return Effect.flatMap(Effect.mapError(result, unencodable), write)
      return Either.isRight(result) ? write(result.right) : Either.left(unencodable(result.left))
    }
  }

  /** A connection that receives this half and sends the other one. */
  connect<Out>(
    connection: Connection,
    sends: Half<Out>,
    onInvalid: OnInvalid<A, Out> | undefined
  ): Effect.Effect<TypedConnection<A, Out>, never, any> {
    return Effect.contextWith(
      (context: Context.Context<unknown>) => new Typed(connection, this, sends, onInvalid ?? "close", context)
    )
  }

  /** Messages as they are sent; one that does not fit is a defect. */
  encodeAll(values: ReadonlyArray<A>, from = 0, done: Array<Message> = []): Effect.Effect<Array<Message>, never, any> {
    if (this.plain) return Effect.succeed(values as ReadonlyArray<unknown> as Array<Message>)
    for (let i = from; i < values.length; i++) {
      const result = this.encode(values[i]!)
      if (!Either.isEither(result)) {
        return Effect.flatMap(Effect.orDie(result), (message) => {
          done.push(message)
          return this.encodeAll(values, i + 1, done)
        })
      }
      if (Either.isLeft(result)) return Effect.die(result.left)
      done.push(result.right)
    }
    return Effect.succeed(done)
  }
}

const mismatch = (issue: ParseResult.ParseIssue): MessageError => fromIssue("Mismatch", issue)
const unencodable = (issue: ParseResult.ParseIssue): MessageError => fromIssue("Unencodable", issue)

const fromIssue = (reason: "Mismatch" | "Unencodable", issue: ParseResult.ParseIssue): MessageError => {
  const first = ParseResult.ArrayFormatter.formatIssueSync(issue)[0]
  return new MessageError({
    reason,
    path: first?.path ?? [],
    detail: first?.message ?? "it does not fit",
    cause: ParseResult.parseError(issue)
  })
}

class Typed<In, Out> implements TypedConnection<In, Out> {
  constructor(
    readonly raw: Connection,
    private readonly receives: Half<In>,
    private readonly sends: Half<Out>,
    private readonly onInvalid: OnInvalid<In, Out>,
    private readonly context: Context.Context<unknown>
  ) {}

  get role() {
    return this.raw.role
  }
  get version() {
    return this.raw.version
  }
  get subprotocol() {
    return this.raw.subprotocol
  }
  get bufferedBytes() {
    return this.raw.bufferedBytes
  }
  get ping() {
    return this.raw.ping
  }
  get pong() {
    return this.raw.pong
  }
  get close() {
    return this.raw.close
  }
  get closed() {
    return this.raw.closed
  }
  get abort() {
    return this.raw.abort
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** What becomes of a message that was not decoded at once: its value, or none if it is to be left out. */
  private settle(result: Decoded<In>): Effect.Effect<Option.Option<In>, MessageError | ConnectionClosed> {
    return Effect.catchAll(
      Effect.asSome(Effect.provide(result as Effect.Effect<In, MessageError>, this.context)),
      (error) => this.invalid(error)
    )
  }

  private invalid(error: MessageError): Effect.Effect<Option.Option<In>, MessageError | ConnectionClosed> {
    const { onInvalid } = this
    if (onInvalid !== "close")
      return Effect.as(
        Effect.suspend(() => onInvalid(error, this)),
        Option.none()
      )
    return Effect.suspend(() => {
      refuse(this.raw, error)
      return Effect.fail(error)
    })
  }

  get messages(): Stream.Stream<In, ConnectionError | MessageError> {
    if (this.receives.plain)
      return this.raw.messages as Stream.Stream<unknown, ConnectionError> as Stream.Stream<In, ConnectionError>
    type Failure = ConnectionError | MessageError
    type Decoding = Channel.Channel<Chunk.Chunk<In>, Chunk.Chunk<Message>, Failure, Failure, void, unknown>
    const { decode } = this.receives
    /** All that is decoded at once goes on as one chunk. */
    const from = (messages: ReadonlyArray<Message>, start: number): Decoding => {
      const values: Array<In> = []
      for (let i = start; i < messages.length; i++) {
        const result = decode(messages[i]!)
        if (Either.isEither(result) && Either.isRight(result)) {
          values.push(result.right)
          continue
        }
        const rest = (): Decoding =>
          Channel.flatMap(
            Channel.fromEffect(this.settle(result)),
            (value): Decoding =>
              Option.isNone(value)
                ? from(messages, i + 1)
                : Channel.flatMap(Channel.write(Chunk.of(value.value)), () => from(messages, i + 1))
          )
        return values.length === 0 ? rest() : Channel.flatMap(Channel.write(chunkOf(values)), rest)
      }
      return values.length === 0 ? loop : Channel.flatMap(Channel.write(chunkOf(values)), () => loop)
    }
    const loop: Decoding = Channel.readWithCause({
      onInput: (chunk: Chunk.Chunk<Message>) => from(Chunk.toReadonlyArray(chunk), 0),
      onFailure: Channel.failCause,
      onDone: () => Channel.void
    })
    return Stream.fromChannel(Channel.pipeTo(Stream.toChannel(this.raw.messages), loop))
  }

  get take(): Effect.Effect<In, ConnectionError | MessageError> {
    // A message that was taken is decoded to the end, so that interruption loses none.
    return Effect.uninterruptibleMask((restore) => {
      const next: Effect.Effect<In, ConnectionError | MessageError> = Effect.flatMap(
        restore(this.raw.take),
        (message) => {
          const result = this.receives.decode(message)
          if (Either.isEither(result) && Either.isRight(result)) return result
          return Effect.flatMap(this.settle(result), (value) =>
            Option.isNone(value) ? next : Effect.succeed(value.value)
          )
        }
      )
      return next
    })
  }

  get runForEach() {
    return <E = never, R = never>(f: (message: In) => Effect.Effect<unknown, E, R> | void) =>
      this.raw.runForEach<E | MessageError | ConnectionClosed, R>((message) => {
        const result = this.receives.decode(message)
        if (Either.isEither(result) && Either.isRight(result)) return f(result.right)
        return Effect.flatMap(this.settle(result), (value) =>
          Option.isNone(value) ? Effect.void : (f(value.value) ?? Effect.void)
        )
      })
  }

  // ---- out ---------------------------------------------------------------------------------------------------------------

  private encoded<A, E>(message: Out, use: (message: Message) => Effect.Effect<A, E>): Effect.Effect<A, E> {
    const result = this.sends.encode(message)
    if (Either.isEither(result)) return Either.isRight(result) ? use(result.right) : Effect.die(result.left)
    return Effect.flatMap(Effect.provide(Effect.orDie(result), this.context) as Effect.Effect<Message>, use)
  }

  get send() {
    return (message: Out): Effect.Effect<void, ConnectionClosed> =>
      Effect.suspend(() => this.encoded(message, this.raw.send))
  }

  get trySend() {
    return (message: Out): Effect.Effect<boolean> => Effect.suspend(() => this.encoded(message, this.raw.trySend))
  }

  get sendAll() {
    return (messages: Iterable<Out>): Effect.Effect<void, ConnectionClosed> =>
      Effect.suspend(() => this.sendArray(Array.isArray(messages) ? messages : [...messages]))
  }

  private sendArray(values: ReadonlyArray<Out>): Effect.Effect<void, ConnectionClosed> {
    const encoded = this.sends.encodeAll(values)
    return Effect.flatMap(Effect.provide(encoded, this.context) as Effect.Effect<Array<Message>>, this.raw.sendAll)
  }

  get sink(): Sink.Sink<void, Out, never, ConnectionClosed> {
    if (this.sends.plain) return this.raw.sink as Sink.Sink<void, unknown, never, ConnectionClosed>
    return Sink.forEachChunk((chunk: Chunk.Chunk<Out>) => this.sendArray(Chunk.toReadonlyArray(chunk)))
  }
}
