/**
 * Messages: what a connection sends and receives once its frames are put together.
 *
 * @since 0.1.0
 */

/**
 * A message: a string is a text message (any JavaScript string; lone surrogates are sent as U+FFFD), a `Uint8Array` a
 * binary one. Received bytes are the receiver's to keep and change; bytes that are sent belong to the connection and must
 * not change afterwards. RFC 6455 §5.6.
 *
 * @since 0.1.0
 * @category models
 */
export type Message = string | Uint8Array

/**
 * The two kinds of message, by name.
 *
 * @since 0.1.0
 * @category models
 */
export type Kind = "text" | "binary"

/**
 * Whether a message is text.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isText = (self: Message): self is string => typeof self === "string"

/**
 * Whether a message is binary.
 *
 * @since 0.1.0
 * @category refinements
 */
export const isBinary = (self: Message): self is Uint8Array => typeof self !== "string"

/**
 * The kind of a message.
 *
 * @since 0.1.0
 * @category getters
 */
export const kind = (self: Message): Kind => (typeof self === "string" ? "text" : "binary")

/**
 * Handles both kinds.
 *
 * @since 0.1.0
 * @category pattern matching
 */
export const match = <A, B>(
  self: Message,
  cases: { readonly text: (text: string) => A; readonly binary: (bytes: Uint8Array) => B }
): A | B => (typeof self === "string" ? cases.text(self) : cases.binary(self))
