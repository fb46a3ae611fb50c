/** How a connection ends for a message that does not fit: apart from what decodes messages, which a client by URL does not need. */
import type { Connection } from "../Connection.js"
import * as CloseCode from "../engine/CloseCode.js"
import { portable } from "../engine/Natives.js"
import type { MessageError } from "../WebSocketError.js"
import { BaseConnection } from "./BaseConnection.js"

/** For the peer: which rule and where, nothing of what the message held. */
const closeReason = (error: MessageError): string => {
  if (error.reason !== "Mismatch") return error.detail
  const text = error.path.length === 0 ? "the message does not fit" : `does not fit: ${error.field}`
  let points = [...text.slice(0, CloseCode.maxReasonBytes)]
  while (portable.textByteLength(points.join("")) > CloseCode.maxReasonBytes) points = points.slice(0, -1)
  return points.join("")
}

/** Begins the closing handshake for a message that does not fit; nothing if the connection is closing already. */
export const refuse = (connection: Connection, error: MessageError): void => {
  if (connection instanceof BaseConnection) connection.unsafeClose(error.code, closeReason(error))
}
