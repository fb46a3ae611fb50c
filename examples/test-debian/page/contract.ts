/** What the page and the server of the tests agree on. */
import { WebSocketContract } from "@effect-ws/core"
import { Schema } from "effect"

export const Talk = WebSocketContract.make("/talk/:topic", {
  path: Schema.Struct({ topic: Schema.NonEmptyString }),
  incoming: Schema.Struct({ say: Schema.String }),
  outgoing: Schema.Struct({ said: Schema.String })
})
