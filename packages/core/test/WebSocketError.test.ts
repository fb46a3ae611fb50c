import { assert, describe, it } from "@effect/vitest"
import { WebSocketError } from "@effect-ws/core"
import { Rule } from "@effect-ws/core/engine"
import { Duration, Effect } from "effect"

const info: WebSocketError.CloseInfo = {
  code: 1000,
  reason: "",
  clean: true,
  initiator: "remote",
  sent: undefined,
  received: undefined,
  violation: undefined
}
const reset = new WebSocketError.TransportError({ reason: "Reset", cause: new Error("ECONNRESET") })

describe("messages of errors", () => {
  const rows: ReadonlyArray<readonly [string, { readonly message: string }, string]> = [
    ["TransportError", reset, "the transport failed (Reset): ECONNRESET"],
    [
      "TransportError with another cause",
      new WebSocketError.TransportError({ reason: "Write", cause: "broken" }),
      "the transport failed (Write): broken"
    ],
    ["ConnectionClosed", new WebSocketError.ConnectionClosed({ info }), "closed by the remote side: code 1000"],
    [
      "ConnectionClosed with a reason",
      new WebSocketError.ConnectionClosed({ info: { ...info, code: 4000, reason: "bye", initiator: "local" } }),
      'closed by the local side: code 4000, "bye"'
    ],
    [
      "ConnectionClosed by the network",
      new WebSocketError.ConnectionClosed({ info: { ...info, code: 1006, initiator: "transport" }, cause: reset }),
      "the transport was lost: code 1006; the transport failed (Reset): ECONNRESET"
    ],
    [
      "ProtocolError",
      WebSocketError.ProtocolError.fromViolation(Rule.violation("ReservedOpcode", "opcode 0x3")),
      "the peer broke a rule: reserved opcode (opcode 0x3), RFC 6455 §5.2"
    ],
    [
      "HeartbeatTimeout",
      new WebSocketError.HeartbeatTimeout({ timeout: Duration.seconds(20) }),
      "the peer did not answer the heartbeat's ping"
    ],
    [
      "HandshakeError",
      new WebSocketError.HandshakeError({
        phase: "Response",
        reason: "Refused",
        detail: "status 403",
        url: "ws://x/",
        status: 403
      }),
      "opening handshake with ws://x/ failed (Response, Refused): status 403"
    ],
    [
      "HandshakeError with a cause",
      new WebSocketError.HandshakeError({
        phase: "Dial",
        reason: "Failed",
        detail: "no route",
        cause: new Error("EHOSTUNREACH")
      }),
      "opening handshake failed (Dial, Failed): no route: EHOSTUNREACH"
    ]
  ]
  for (const [what, error, message] of rows) it(what, () => assert.strictEqual(error.message, message))
})

describe("fields", () => {
  it("a ConnectionClosed has code and reason of its info", () => {
    const error = new WebSocketError.ConnectionClosed({ info: { ...info, code: 4001, reason: "r" } })
    assert.deepStrictEqual([error.code, error.reason], [4001, "r"])
  })

  it("a ProtocolError knows the section of its rule, for every rule", () => {
    for (const rule of Object.keys(Rule.rules) as Array<WebSocketError.Rule>) {
      const error = WebSocketError.ProtocolError.fromViolation(Rule.violation(rule, "seen"))
      assert.deepStrictEqual([error.rule, error.code, error.detail], [rule, Rule.rules[rule].code, "seen"])
      assert.strictEqual(error.section, Rule.rules[rule].section)
      assert.include(error.message, error.section)
    }
  })

  it.effect("catchTag tells them apart", () =>
    Effect.gen(function* () {
      const failing = (error: WebSocketError.ConnectionError) =>
        Effect.fail(error).pipe(
          Effect.catchTags({
            ConnectionClosed: ({ code }) => Effect.succeed(`closed ${code}`),
            ProtocolError: ({ rule }) => Effect.succeed(`rule ${rule}`),
            HeartbeatTimeout: () => Effect.succeed("dead")
          })
        )
      assert.strictEqual(yield* failing(new WebSocketError.ConnectionClosed({ info })), "closed 1000")
      assert.strictEqual(
        yield* failing(WebSocketError.ProtocolError.fromViolation(Rule.violation("InvalidText"))),
        "rule InvalidText"
      )
      assert.strictEqual(yield* failing(new WebSocketError.HeartbeatTimeout({ timeout: Duration.seconds(1) })), "dead")
    })
  )
})
