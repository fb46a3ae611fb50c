/** What a connection may hold, whatever the peer sends. Sizes are bytes. @since 0.1.0 */
export interface Limits {
  /** One message, all fragments together, after decompression. A larger one is refused with 1009 when its length is known. */
  readonly maxMessageBytes: number
  /** Pongs that wait for a transport which takes no more; one more is refused with 1008. */
  readonly maxPendingPongs: number
  /** Messages decoded ahead of their consumer; then reading pauses. */
  readonly maxQueuedMessages: number
  /**
   * Bytes of messages decoded ahead of their consumer (a single message may be larger); then reading pauses. Decoded text counts as
   * UTF-16 code units: each is one or two bytes of memory, and one to three on the wire.
   */
  readonly maxQueuedBytes: number
}

/** 1 MiB a message, 60 pongs, 16 messages or 1 MiB decoded ahead. @since 0.1.0 */
export const defaults: Limits = {
  maxMessageBytes: 0x100000,
  maxPendingPongs: 60,
  maxQueuedMessages: 16,
  maxQueuedBytes: 0x100000
}

/** The limits with the defaults for what is absent; those that are whole already as they are, shared by all connections. @since 0.1.0 */
export const complete = (limits: Partial<Limits>): Limits => (isComplete(limits) ? limits : { ...defaults, ...limits })

const isComplete = (limits: Partial<Limits>): limits is Limits =>
  limits.maxMessageBytes !== undefined &&
  limits.maxPendingPongs !== undefined &&
  limits.maxQueuedMessages !== undefined &&
  limits.maxQueuedBytes !== undefined
