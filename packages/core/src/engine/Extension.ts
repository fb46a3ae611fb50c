/**
 * Extensions of the protocol (RFC 6455 §9): what one is, how both sides agree on several, and how those agreed on transform
 * messages together. permessage-deflate is one of them.
 *
 * An {@link Extension} is a value that is registered at a server or a client. The opening handshake offers it ({@link offer}) and
 * agrees on it ({@link negotiate} at the server, {@link accept} at the client); {@link open} makes the {@link Pipeline} of one
 * connection from what was agreed. Only whole data messages pass through it, control frames never do (§5.5).
 *
 * Left to others: header text (`headerGrammar`), fragments and frames, and keeping messages in order while one is worked on.
 */
import { clip, type ExtensionOffer, isToken } from "./headerGrammar.js"
import * as Opcode from "./Opcode.js"
import type { Message, Role } from "./Protocol.js"
import { type Violation, violation } from "./Rule.js"

/**
 * The parameters of an offer or an answer, in order; `true` is the value of one without a value, and one that is repeated is
 * repeated here. Names and values are tokens.
 *
 * @since 0.1.0
 * @category models
 */
export type Params = ExtensionOffer["params"]

/**
 * An extension, for either role or both. Its functions must not throw, and may be called for any number of connections at once.
 *
 * @example
 * import { Extension } from "@effect-ws/core/engine"
 *
 * // Sends every message backwards; with no reserved bit it sees all messages.
 * const turned = ({ payload }: { readonly payload: Uint8Array }) => payload.slice().reverse()
 * const session: Extension.Session = {
 *   encode: (message) => ({ payload: turned(message), rsv: 0 }),
 *   decode: turned
 * }
 * const reverse: Extension.Extension = {
 *   name: "x-reverse",
 *   rsv: 0,
 *   offer: () => [[]],
 *   accept: (answer) => (answer.length === 0 ? () => session : Extension.refuse("it takes no parameters")),
 *   negotiate: (offers) => (offers.some((params) => params.length === 0) ? { params: [], open: () => session } : undefined)
 * }
 *
 * @since 0.1.0
 * @category models
 */
export interface Extension {
  /** A token, unique among those registered together. Case counts. */
  readonly name: string
  /**
   * The reserved bits (0x40, 0x20, 0x10) with which it marks its messages, 0 for none. With some it decodes only messages that
   * have one of them; without any it decodes every message.
   */
  readonly rsv: number
  /** At the client: what to offer, best first; each is an alternative. An empty list offers nothing. */
  readonly offer: () => ReadonlyArray<Params>
  /** At the client: what the server's answer to these offers means. A {@link Refusal} fails the handshake. */
  readonly accept: (answer: Params, offers: ReadonlyArray<Params>) => Open | Refusal
  /** At the server: the answer to the client's offers of this name, at least one, best first; `undefined` declines all. */
  readonly negotiate: (offers: ReadonlyArray<Params>) => Answer | undefined
}

/**
 * What a server's side of an extension agrees to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly params: Params
  readonly open: Open
}

/**
 * Begins an extension's part of one connection, after the opening handshake.
 *
 * @since 0.1.0
 * @category models
 */
export type Open = (options: SessionOptions) => Session

/**
 * What a {@link Session} is told of its connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface SessionOptions {
  readonly role: Role
}

/**
 * An extension's part of one connection: two transforms of whole data messages.
 *
 * Each gives its result, or `undefined` and calls `done` once. A transform is not called again before its last result is there;
 * the two directions are independent. A `Violation` (`Rule.violation`) fails the connection: `ExtensionData` (1007) for what can't
 * be decoded, `MessageTooBig` (1009), `ExtensionFailure` (1011) for our own failure; its detail is told to the peer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Session {
  /**
   * Whether to `encode` this message. A text is asked about as a string, so that one which stays as it is need not become bytes,
   * but as bytes behind another extension. `compress` is the sender's wish for this message, `undefined` when there is none.
   * Default: every message.
   */
  readonly takes?: ((payload: Message, isText: boolean, compress: boolean | undefined) => boolean) | undefined
  /**
   * The payload must not be changed. The result's may be the same one; otherwise it is on loan until the next call of any session if it is
   * part of larger memory, and the caller's if it is all of its memory.
   */
  readonly encode: (message: Outgoing, done: Done<Encoded>) => Result<Encoded>
  /** The payload may be changed; the result is given as by `encode`. */
  readonly decode: (message: Incoming, done: Done<Uint8Array>) => Result<Uint8Array>
  /**
   * Given when `encode` depends on nothing but the message: what one session made, the peer of any other with the same name and
   * key can decode, so that a broadcast encodes once for all of them.
   */
  readonly encodeKey?: string | undefined
  /** Releases what it holds; called once, also while a transform is under way, whose result no one waits for any more. */
  readonly close?: (() => void) | undefined
}

/**
 * What a transform returns: its result, a `Violation` that fails the connection, or `undefined` when {@link Done} is called later.
 *
 * @since 0.1.0
 * @category models
 */
export type Result<A> = A | Violation | undefined

/**
 * Takes the result of a transform that returned `undefined`; only the first counts.
 *
 * @since 0.1.0
 * @category models
 */
export type Done<A> = (result: A | Violation) => void

/**
 * A message to send: for text, the bytes of its UTF-8.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outgoing {
  readonly payload: Uint8Array
  readonly isText: boolean
  /** The sender's wish for this message, `undefined` when there is none. */
  readonly compress?: boolean | undefined
}

/**
 * The message as it is sent, with those of the extension's reserved bits that are set on its first frame.
 *
 * @since 0.1.0
 * @category models
 */
export interface Encoded {
  readonly payload: Uint8Array
  readonly rsv: number
}

/**
 * A received message, all fragments together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Incoming {
  readonly payload: Uint8Array
  readonly isText: boolean
  /** All reserved bits of its first frame, those of other extensions too. */
  readonly rsv: number
  /** The largest result in bytes; a transform that sees it grow beyond stops at once with `MessageTooBig`. */
  readonly maxBytes: number
}

/**
 * An answer that the client can't live with.
 *
 * @since 0.1.0
 * @category models
 */
export interface Refusal {
  readonly _tag: "Refusal"
  readonly reason: string
}

/**
 * Refuses the server's answer; the reason is for the user of the client.
 *
 * @since 0.1.0
 * @category constructors
 */
export const refuse = (reason: string): Refusal => ({ _tag: "Refusal", reason })

// -----------------------------------------------------------------------------------------------------------------------
// negotiation
// -----------------------------------------------------------------------------------------------------------------------

/**
 * One offer of a registered extension; a list of them is what goes into the request.
 *
 * @since 0.1.0
 * @category models
 */
export interface Offered extends ExtensionOffer {
  readonly extension: Extension
}

/**
 * An extension that both sides agreed on, by the parameters of the response.
 *
 * @since 0.1.0
 * @category models
 */
export interface Agreed extends ExtensionOffer {
  /** From {@link Extension}. */
  readonly rsv: number
  readonly open: Open
}

/**
 * An answer of the server which fails the handshake.
 *
 * @since 0.1.0
 * @category errors
 */
export interface Unacceptable {
  readonly _tag: "Unacceptable"
  readonly rule: "ExtensionNotOffered" | "ExtensionDuplicate" | "ExtensionReservedBits" | "ExtensionRefused"
  readonly message: string
}

const none: ReadonlyArray<never> = []

/**
 * Why these extensions can't be registered together, `undefined` when they can: a name is no token or comes twice, or `rsv` has
 * other bits than reserved ones. Extensions which use the same bit may be registered; only one of them is agreed on.
 *
 * @since 0.1.0
 * @category registration
 */
export const misuse = (extensions: ReadonlyArray<Extension>): string | undefined => {
  const names = new Set<string>()
  for (const { name, rsv } of extensions) {
    if (!isToken(name)) return `the name of an extension is a token: ${JSON.stringify(name)}`
    if (names.has(name)) return `the extension ${name} is registered twice`
    names.add(name)
    if ((rsv & Opcode.reservedBits) !== rsv) return `the extension ${name} uses bits that are not reserved ones`
  }
  return undefined
}

/**
 * What a client offers, in the order of registration and within an extension in its order of preference.
 *
 * @since 0.1.0
 * @category client
 */
export const offer = (extensions: ReadonlyArray<Extension>): ReadonlyArray<Offered> =>
  extensions.length === 0
    ? none
    : extensions.flatMap((extension) =>
        extension.offer().map((params) => ({ name: extension.name, params, extension }))
      )

/**
 * Whether the client can take the server's answer, which lists the extensions in the order in which they transform a message
 * that is sent (RFC 6455 §9.1). Each must have been offered, none may come twice, no two may use the same reserved bit, and each
 * judges its own parameters.
 *
 * @since 0.1.0
 * @category client
 */
export const accept = (
  offered: ReadonlyArray<Offered>,
  answers: ReadonlyArray<ExtensionOffer>
): ReadonlyArray<Agreed> | Unacceptable => {
  const agreed: Array<Agreed> = []
  for (const { name, params } of answers) {
    const offers = offered.filter((one) => one.name === name)
    if (offers.length === 0) {
      return unacceptable("ExtensionNotOffered", `the server chose an extension that was not offered: ${clip(name)}`)
    }
    if (agreed.some((one) => one.name === name)) {
      return unacceptable("ExtensionDuplicate", `the server chose an extension twice: ${clip(name)}`)
    }
    const { extension } = offers[0]!
    const clash = agreed.find((one) => (one.rsv & extension.rsv) !== 0)
    if (clash !== undefined) {
      const bits = bitNames(clash.rsv & extension.rsv)
      return unacceptable(
        "ExtensionReservedBits",
        `the server chose two extensions that use ${bits}: ${clash.name}, ${name}`
      )
    }
    const opening = acceptOne(
      extension,
      params,
      offers.map((one) => one.params)
    )
    if (typeof opening !== "function") {
      return unacceptable("ExtensionRefused", `the server's answer for ${name} is refused: ${opening.reason}`)
    }
    agreed.push({ name, params, rsv: extension.rsv, open: opening })
  }
  return agreed
}

/** Responses come in socket events, where nothing may be thrown. */
const acceptOne = (extension: Extension, answer: Params, offers: ReadonlyArray<Params>): Open | Refusal => {
  try {
    return extension.accept(answer, offers)
  } catch (cause) {
    return refuse(`the extension threw ${String(cause)}`)
  }
}

const unacceptable = (rule: Unacceptable["rule"], message: string): Unacceptable => ({
  _tag: "Unacceptable",
  rule,
  message
})

const bitNames = (rsv: number): string =>
  [
    [Opcode.rsv1, "RSV1"],
    [Opcode.rsv2, "RSV2"],
    [Opcode.rsv3, "RSV3"]
  ]
    .flatMap(([bit, name]) => ((rsv & (bit as number)) === 0 ? [] : [name]))
    .join(" and ")

/**
 * What a server agrees to, in the order of registration, which is the order of the response and so that in which a message is
 * transformed. Passed over are extensions that the client does not offer, that decline, and that use a reserved bit which one
 * before them already uses. What an extension throws is thrown.
 *
 * @since 0.1.0
 * @category server
 */
export const negotiate = (
  extensions: ReadonlyArray<Extension>,
  offers: ReadonlyArray<ExtensionOffer>
): ReadonlyArray<Agreed> => {
  if (extensions.length === 0 || offers.length === 0) return none
  const agreed: Array<Agreed> = []
  let used = 0
  for (const extension of extensions) {
    const { name, rsv } = extension
    if ((used & rsv) !== 0) continue
    const own = offers.filter((one) => one.name === name)
    const answer = own.length === 0 ? undefined : extension.negotiate(own.map((one) => one.params))
    if (answer === undefined) continue
    used |= rsv
    agreed.push({ name, params: answer.params, rsv, open: answer.open })
  }
  return agreed
}

// -----------------------------------------------------------------------------------------------------------------------
// composition
// -----------------------------------------------------------------------------------------------------------------------

/**
 * The extensions of one connection as one transform: messages that are sent pass through them in the order agreed on, messages
 * that are received in its reverse.
 *
 * A transform gives its result, or `undefined` and calls `done` once, later, unless the pipeline was closed meanwhile. Whoever
 * uses it waits for the result before the next message of that direction. What a session throws fails the connection with
 * `ExtensionFailure`, what it gives beyond `maxBytes` with `MessageTooBig`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pipeline {
  /** All bits that may be set on a data message. */
  readonly reservedBits: number
  /** Whether messages without a reserved bit must be decoded too, since an extension uses none. */
  readonly decodesAll: boolean
  /** As in {@link Session}, for all together. */
  readonly encodeKey: string | undefined
  /** Whether any extension takes the message; one that none takes may be sent as it is, without `encode`. */
  readonly takes: (message: Message, compress: boolean | undefined) => boolean
  readonly encode: (message: Outgoing, done: Done<Encoded>) => Result<Encoded>
  readonly decode: (message: Incoming, done: Done<Uint8Array>) => Result<Uint8Array>
  /** Releases all sessions; a result under way is dropped. */
  readonly close: () => void
}

/**
 * Options of {@link open}.
 *
 * @since 0.1.0
 * @category models
 */
export interface PipelineOptions extends SessionOptions {
  /** Told what an extension threw, for a log: the peer only hears that it failed. Default: nothing is done with it. */
  readonly onDefect?: ((cause: unknown, extension: string) => void) | undefined
}

/**
 * The pipeline of a connection with these extensions, `undefined` when there are none. What an extension throws while it opens is
 * thrown, after those opened before it are closed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const open = (agreed: ReadonlyArray<Agreed>, options: PipelineOptions): Pipeline | undefined => {
  if (agreed.length === 0) return undefined
  const stages: Array<Stage> = []
  try {
    for (const { name, open, rsv } of agreed) stages.push({ name, rsv, session: open({ role: options.role }) })
  } catch (cause) {
    new Stages(stages, options.onDefect).close()
    throw cause
  }
  return new Stages(stages, options.onDefect)
}

interface Stage {
  readonly name: string
  readonly rsv: number
  readonly session: Session
}

class Stages implements Pipeline {
  readonly reservedBits: number
  readonly decodesAll: boolean
  readonly encodeKey: string | undefined
  private closed = false

  constructor(
    private readonly stages: ReadonlyArray<Stage>,
    private readonly onDefect: PipelineOptions["onDefect"]
  ) {
    this.reservedBits = stages.reduce((bits, { rsv }) => bits | rsv, 0)
    this.decodesAll = stages.some(({ rsv }) => rsv === 0)
    this.encodeKey = stages.some(({ session }) => session.encodeKey === undefined)
      ? undefined
      : stages.map(({ name, session }) => `${name}=${session.encodeKey}`).join(", ")
  }

  takes(message: Message, compress: boolean | undefined): boolean {
    const isText = typeof message === "string"
    try {
      return this.stages.some(({ session }) => session.takes?.(message, isText, compress) !== false)
    } catch {
      // `encode` asks again and fails: what an extension should have hidden is never sent as it is.
      return true
    }
  }

  encode(message: Outgoing, done: Done<Encoded>): Result<Encoded> {
    return this.encodeFrom(0, message, 0, done)
  }

  decode(message: Incoming, done: Done<Uint8Array>): Result<Uint8Array> {
    return this.decodeFrom(this.stages.length - 1, message, done)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    for (const stage of this.stages) {
      try {
        stage.session.close?.()
      } catch (cause) {
        this.onDefect?.(cause, stage.name)
      }
    }
  }

  /** From this stage to the last; `rsv` are the bits set by those before. */
  private encodeFrom(at: number, message: Outgoing, rsv: number, done: Done<Encoded>): Result<Encoded> {
    const stage = this.stages[at]
    if (stage === undefined) return { payload: message.payload, rsv }
    const { isText, payload, compress } = message
    const { session } = stage
    return this.run<Encoded, Encoded>(
      stage,
      (resume) =>
        session.takes?.(payload, isText, compress) === false ? { payload, rsv: 0 } : session.encode(message, resume),
      (encoded) =>
        (encoded.rsv & ~stage.rsv) === 0
          ? this.encodeFrom(
              at + 1,
              { payload: this.handedOn(at + 1, encoded.payload, payload), isText, compress },
              rsv | encoded.rsv,
              done
            )
          : violation("ExtensionFailure", `${stage.name} set a reserved bit that is not its own`),
      done
    )
  }

  /** From this stage to the first. */
  private decodeFrom(at: number, message: Incoming, done: Done<Uint8Array>): Result<Uint8Array> {
    const stage = this.stages[at]
    if (stage === undefined) return message.payload
    const { isText, maxBytes, rsv } = message
    if (stage.rsv !== 0 && (stage.rsv & rsv) === 0) return this.decodeFrom(at - 1, message, done)
    return this.run<Uint8Array, Uint8Array>(
      stage,
      (resume) => stage.session.decode(message, resume),
      (payload) =>
        payload.length <= maxBytes
          ? this.decodeFrom(
              at - 1,
              { payload: this.handedOn(at - 1, payload, message.payload), isText, rsv, maxBytes },
              done
            )
          : violation("MessageTooBig", `${stage.name}: ${payload.length} bytes, limit ${maxBytes}`),
      done
    )
  }

  /** What the next stage gets: a result may be on loan, and that stage may take its time. */
  private handedOn(next: number, result: Uint8Array, given: Uint8Array): Uint8Array {
    return this.stages[next] === undefined || result === given || result.length === result.buffer.byteLength
      ? result
      : new Uint8Array(result)
  }

  /**
   * One call of a session, and what comes `next` with its result. The first result counts, wherever it comes from; one that comes
   * while the call still runs is the call's, so `done` is only ever called from outside.
   */
  private run<A extends object, B>(
    stage: Stage,
    start: (resume: Done<A>) => Result<A>,
    next: (result: A) => Result<B>,
    done: Done<B>
  ): Result<B> {
    let state: "running" | "waiting" | "settled" = "running"
    let result: Result<A>
    const proceed = (given: A | Violation): Result<B> => (isViolation(given) ? named(stage, given) : next(given))
    const resume = (given: A | Violation): void => {
      if (state === "running") result ??= given
      if (state !== "waiting") return
      state = "settled"
      const outcome = this.closed ? undefined : proceed(given)
      if (outcome !== undefined) done(outcome)
    }
    try {
      const returned = start(resume)
      result ??= returned
    } catch (cause) {
      this.onDefect?.(cause, stage.name)
      result = violation("ExtensionFailure")
    }
    state = result === undefined ? "waiting" : "settled"
    return result === undefined ? undefined : proceed(result)
  }
}

const isViolation = (result: object): result is Violation => "rule" in result

const named = (stage: Stage, { detail, rule }: Violation): Violation =>
  violation(rule, detail === "" ? stage.name : `${stage.name}: ${detail}`)
