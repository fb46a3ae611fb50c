/** What a connection needs of the protocol that it speaks, whichever version that is. */
import type { Protocol } from "./Protocol.js"

/**
 * The part of `Protocol` that whoever does the I/O drives.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectionProtocol
  extends Pick<
    Protocol,
    | "blocked"
    | "busy"
    | "close"
    | "closeTimerFired"
    | "drained"
    | "encodeKey"
    | "limits"
    | "output"
    | "paused"
    | "ping"
    | "pong"
    | "proceed"
    | "receive"
    | "reserve"
    | "resume"
    | "send"
    | "sendEncoded"
    | "sendFragment"
    | "transportClosed"
    | "transportEnded"
    | "waitingBytes"
  > {
  readonly state: Protocol["state"]
  /**
   * Whether the opening handshake is not over, so that `closeTimerFired` is due when it takes longer than the close timeout.
   * What is sent meanwhile waits in `output`.
   */
  readonly opening?: boolean
}
