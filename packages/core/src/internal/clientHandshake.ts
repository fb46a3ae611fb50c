/**
 * The client's opening handshake over any Transport: the request goes out, the response comes in, and what follows the response's
 * head waits for the connection. And the deadline of each phase of opening.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { HandshakeResponse } from "../Connection.js"
import type * as Extension from "../engine/Extension.js"
import * as Handshake from "../engine/Handshake.js"
import * as HttpBody from "../engine/HttpBody.js"
import * as HttpHead from "../engine/HttpHead.js"
import type { Listener, Transport } from "../Transport.js"
import { HandshakeError, type TransportError } from "../WebSocketError.js"
import * as Timers from "./timers.js"

/** Bytes of a refusal's body that are kept for the error. */
const maxBodyBytes = 64 * 1024
/** Interim responses (100, 102, 103) before the final one. */
const maxInterimResponses = 10

// ---- deadlines ---------------------------------------------------------------------------------------------------------

/** The phases that wait for others. */
export type Phase = Exclude<HandshakeError["phase"], "Request">

const waitedFor: { readonly [P in Phase]: string } = {
  Dial: "dialing",
  Tls: "the TLS handshake",
  Proxy: "the proxy's answer to CONNECT",
  Response: "the response to the opening handshake"
}

/** The deadline of the phase that is under way; it starts anew with each phase. */
export class Deadline {
  private phase: Phase = "Dial"
  private state: "running" | "fired" | "stopped" = "running"
  private resume: ((effect: Effect.Effect<never, HandshakeError>) => void) | undefined
  private readonly timer = new Timers.Timer(() => {
    this.state = "fired"
    this.resume?.(Effect.fail(this.onTimeout()))
  })

  /** What to fail with instead, when more is known than that time is over. */
  onTimeout: () => HandshakeError = () =>
    new HandshakeError({
      phase: this.phase,
      reason: "Timeout",
      detail: `${waitedFor[this.phase]} took longer than ${this.millis[this.phase]} ms`
    })

  constructor(
    private readonly clock: Clock.Clock,
    private readonly millis: Readonly<Record<Phase, number>>
  ) {}

  /** A phase begins. */
  readonly enter = (phase: Phase): void => {
    if (this.state !== "running") return
    this.phase = phase
    const timers = Timers.of(this.clock)
    timers.cancel(this.timer)
    if (Number.isFinite(this.millis[phase])) timers.set(this.timer, this.millis[phase])
  }

  /** Runs `effect` from the first phase on; interrupts it when a deadline is over. */
  limit<A, R>(effect: Effect.Effect<A, HandshakeError, R>): Effect.Effect<A, HandshakeError, R> {
    const expired = Effect.async<never, HandshakeError>((resume) => {
      if (this.state === "fired") resume(Effect.fail(this.onTimeout()))
      else this.resume = resume
    })
    return Effect.suspend(() => {
      this.enter("Dial")
      return Effect.ensuring(
        Effect.raceFirst(effect, expired),
        Effect.sync(() => {
          this.state = "stopped"
          Timers.of(this.clock).cancel(this.timer)
        })
      )
    })
  }
}

// ---- request and response ----------------------------------------------------------------------------------------------

/** A request that is ready to be written. */
export interface Request {
  readonly text: string
  readonly key: string
  readonly subprotocols: ReadonlyArray<string>
  readonly extensions: ReadonlyArray<Extension.Offered>
  /** Whether a 3xx with `Location` is an answer instead of a refusal. */
  readonly redirectable: boolean
}

/** An answer that is no error. */
export type Answer =
  | {
      readonly _tag: "Accepted"
      readonly subprotocol: string | undefined
      readonly response: HandshakeResponse
      readonly extensions: ReadonlyArray<Extension.Agreed>
    }
  | {
      readonly _tag: "Redirect"
      readonly status: number
      readonly location: string
      readonly headers: Handshake.Headers
    }

const responseOf = ({ headers, rawHeaders, status }: HttpHead.ResponseHead): HandshakeResponse => ({
  status,
  headers,
  setCookies: rawHeaders.flatMap(([name, value]) => (name.toLowerCase() === "set-cookie" ? [value] : []))
})

type Done = (effect: Effect.Effect<Answer, HandshakeError>) => void

/**
 * The Transport under the opening handshake, and afterwards the connection's: it delivers first what came after the response's head.
 */
export class HandshakeTransport implements Transport, Listener {
  private parser: HttpHead.HttpHead<HttpHead.ResponseHead> | undefined = HttpHead.make("response")
  private interim = 0
  private refusal: { readonly head: HttpHead.ResponseHead; readonly body: HttpBody.HttpBody } | undefined
  private request: Request | undefined
  private done: Done | undefined
  // After the handshake; `held` waits for the connection to open or to resume.
  private listener: Listener | undefined
  private held: Array<Uint8Array> | undefined
  private paused = false
  private ended = false
  private closed: { readonly error: TransportError | undefined } | undefined

  constructor(private readonly transport: Transport) {}

  /** Writes the request and waits for the answer. Interruption leaves the transport as it is, for its owner to abort. */
  exchange(request: Request, deadline: Deadline): Effect.Effect<Answer, HandshakeError> {
    return Effect.async((resume) => {
      deadline.enter("Response")
      deadline.onTimeout = this.timeoutError(deadline.onTimeout)
      this.request = request
      this.done = resume
      this.transport.open(this)
      this.transport.write([HttpHead.encode(request.text)])
      return Effect.sync(() => {
        this.done = undefined
      })
    })
  }

  /** When time is over in the middle of a refusal, the refusal is what there is to tell. */
  private timeoutError(otherwise: () => HandshakeError): () => HandshakeError {
    return () => (this.refusal === undefined ? otherwise() : this.refused(this.refusal.head, this.refusal.body.text()))
  }

  private settle(effect: Effect.Effect<Answer, HandshakeError>): void {
    const { done } = this
    this.done = this.parser = this.request = undefined
    this.transport.pause()
    done?.(effect)
  }

  private fail(reason: "Invalid" | "Failed", detail: string, head?: HttpHead.ResponseHead, cause?: unknown): void {
    const { status, headers } = head ?? {}
    this.settle(Effect.fail(new HandshakeError({ phase: "Response", reason, detail, status, headers, cause })))
  }

  private refused(head: HttpHead.ResponseHead, body: string): HandshakeError {
    const { headers, reason, status } = head
    const detail = `the server answered with status ${status}${reason === "" ? "" : ` ${reason}`}`
    return new HandshakeError({ phase: "Response", reason: "Refused", detail, status, headers, body })
  }

  private receiveHead(chunk: Uint8Array, parser: HttpHead.HttpHead<HttpHead.ResponseHead>, request: Request): void {
    const result = parser.push(chunk)
    if (result._tag === "Incomplete") return
    if (result._tag === "Failed") return this.fail("Invalid", `the response is no HTTP/1.1: ${result.message}`)
    const { head, rest } = result
    // RFC 9110 §15.2: interim responses come before the final one; 101 is final here
    if (head.status < 200 && head.status !== 101) {
      if (++this.interim > maxInterimResponses) return this.fail("Invalid", "too many interim responses", head)
      this.parser = HttpHead.make("response")
      return rest.length === 0 ? undefined : this.receiveHead(rest, this.parser, request)
    }
    const location = head.headers.location
    if (request.redirectable && head.status >= 300 && head.status < 400 && location !== undefined) {
      return this.settle(Effect.succeed({ _tag: "Redirect", status: head.status, location, headers: head.headers }))
    }
    if (head.status !== 101) {
      this.refusal = { head, body: HttpBody.make(head, maxBodyBytes) }
      return this.receiveBody(rest)
    }
    const result101 = Handshake.checkResponse({
      status: head.status,
      httpVersion: head.httpVersion,
      headers: head.headers,
      key: request.key,
      offeredSubprotocols: request.subprotocols,
      offeredExtensions: request.extensions
    })
    if (result101._tag === "Rejected") return this.fail("Invalid", result101.message, head)
    if (rest.length > 0) this.held = [rest]
    this.settle(Effect.succeed({ ...result101, response: responseOf(head) }))
  }

  /** An empty `chunk` may be all that there is of a body without bytes. */
  private receiveBody(chunk: Uint8Array): void {
    if (this.refusal!.body.push(chunk)) this.endBody()
  }

  private endBody(): void {
    const { body, head } = this.refusal!
    this.settle(Effect.fail(this.refused(head, body.text())))
  }

  // ---- from the transport ------------------------------------------------------------------------------------------------

  onData(chunk: Uint8Array): void {
    if (this.listener !== undefined) this.listener.onData(chunk)
    else if (this.request === undefined) this.hold(chunk)
    else if (this.refusal !== undefined) this.receiveBody(chunk)
    else this.receiveHead(chunk, this.parser!, this.request)
  }

  onLent(chunk: Uint8Array): void {
    if (this.listener?.onLent !== undefined) this.listener.onLent(chunk)
    else this.onData(new Uint8Array(chunk))
  }

  onDrain(): void {
    this.listener?.onDrain()
  }

  onEnd(): void {
    if (this.listener !== undefined && this.held === undefined) this.listener.onEnd()
    else if (this.request === undefined) this.ended = true
    else if (this.refusal !== undefined) this.endBody()
    else this.fail("Failed", "the server ended the transport before it answered")
  }

  onClose(error: TransportError | undefined): void {
    this.closed = { error }
    if (this.listener !== undefined) {
      this.held = undefined
      this.listener.onClose(error)
    } else if (this.request === undefined) return
    else if (this.refusal !== undefined) this.endBody()
    else this.fail("Failed", "the transport was lost before the server answered", undefined, error)
  }

  private hold(chunk: Uint8Array): void {
    this.held ??= []
    this.held.push(chunk)
  }

  // ---- from the connection -----------------------------------------------------------------------------------------------

  open(listener: Listener): void {
    queueMicrotask(() => {
      this.listener = listener
      this.deliver()
      const { closed } = this
      if (closed === undefined) return
      // Lost meanwhile: nothing that came before it is, whether or not there is room for it.
      for (const chunk of this.held ?? []) listener.onData(chunk)
      this.held = undefined
      if (this.ended) listener.onEnd()
      listener.onClose(closed.error)
    })
  }

  /** Hands over what waited, and lets the transport go on when nothing does. */
  private deliver(): void {
    while (this.held !== undefined) {
      if (this.paused) return
      const chunk = this.held.shift()!
      if (this.held.length === 0) this.held = undefined
      this.listener!.onData(chunk)
    }
    if (this.closed !== undefined) return
    if (this.ended) {
      this.ended = false
      this.listener!.onEnd()
    }
    if (!this.paused) this.transport.resume()
  }

  write(chunks: ReadonlyArray<Uint8Array>): boolean {
    return this.transport.write(chunks)
  }

  bufferedBytes(): number {
    return this.transport.bufferedBytes()
  }

  pause(): void {
    this.paused = true
    this.transport.pause()
  }

  resume(): void {
    this.paused = false
    if (this.listener !== undefined) this.deliver()
  }

  end(): void {
    this.transport.end()
  }

  abort(): void {
    if (this.closed === undefined) this.transport.abort()
  }
}
