import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { run } from "./program.js"

/** What each program of the documents prints, whole. */
const programs: Record<string, ReadonlyArray<string>> = {
  "in-memory": ["echoed: hello", "echoed: from", "echoed: effect-ws", "closed with 1000 by the local side"],
  server: ["health: ok", "echoed: hello"],
  client: [
    "connected, subprotocol feed.v1",
    "prices 1",
    "prices 2",
    "prices 3",
    "closed with 1000 by the remote side",
    "no connection: Response, Refused, 401, who are you?"
  ],
  heartbeat: [
    "a ping of our own was answered within a second: true",
    "the peer did not answer the heartbeat's ping",
    "the connection ended with 1006"
  ],
  backpressure: [
    "4 messages went, the next one would have to wait behind 4128 bytes",
    "sent after the line was free again",
    "all 100 messages came through: 103200 bytes"
  ],
  broadcast: ["bob: hello, everybody", "cyd: hello, everybody"],
  fragments: ["one message: row 1;row 2;row 3;row 4;row 5;", "failed: the database is gone", "closed with 1011"],
  extension: [
    "agreed on x-sealed",
    "echoed: hello",
    "agreed on x-sealed",
    "closed with 1007: an extension could not decode the payload (x-sealed: not sealed with our key), RFC 7692 §7.2.2"
  ],
  accept: ["Ada sees account 7", "refused with 401: unknown token", "refused with 400: "],
  middleware: ["hello Ada", "401: log in first"],
  json: ['{"confirmed":"2 of tea"}', '{"error":"not an order"}', '{"error":"not an order"}'],
  proxy: [
    "through the proxy, subprotocol chat.v2",
    "echoed: hello",
    "closed with 3000 by the origin's own closing handshake"
  ],
  resume: [
    "a session begins",
    "1 * 1 = 1",
    "2 * 2 = 4",
    "3 * 3 = 9",
    "4 * 4 = 16",
    "5 * 5 = 25",
    "6 * 6 = 36",
    "over 3 connections"
  ],
  "http-api": ["echoed: through HttpApi"],
  "engine-duplex": [
    "server: GET /echo",
    "client: open, version 13",
    "client: one",
    "client: two",
    "client: three",
    "client: closed with 1000, clean: true"
  ],
  "engine-port": ["hello!", "closed with 1000: enough"],
  tcp: ["answered: 200 hello from /", "echoed: hello"],
  contracts: [
    "Ada: hello (in lobby)",
    "refused: text",
    "403: not you",
    "tick 1",
    "Ada: hello (in lobby)",
    "refused: text",
    "403: not you"
  ],
  reconnecting: [
    "EURUSD, token 1: 1.08",
    "EURUSD, token 1: 1.09",
    "EURUSD, token 2: 1.08",
    "EURUSD, token 2: 1.09",
    "not tried again"
  ],
  openapi: [
    "without a token: 401",
    "a pot for Ada, from tea",
    "documented: 101 400 401 403 426",
    "A WebSocket (RFC 6455). The client sends JSON messages (Order), the server JSON messages (Confirmed)."
  ],
  "sse-listen": ['1 {"n":1}', '2 {"n":2}', '3 {"n":3}', '4 {"n":4}', '5 {"n":5}'],
  "sse-progress": ["25 %", "50 %", "75 %", "done: /results/7"],
  "sse-dashboard": [
    'ada: orders {"count":0}, orders {"count":1}, orders {"count":2}, orders {"count":3}',
    'bob: orders {"count":2}, orders {"count":3}'
  ],
  "sse-resume": ["one", "the server starts again", "two", "three"],
  "sse-answer": ["You asked", "about", "the weather"],
  testing: ["tick tick tick", "ConnectionClosed 1006", "HeartbeatTimeout"]
}

describe("programs", () => {
  for (const [name, lines] of Object.entries(programs)) {
    it.live(`${name} prints what the documents say and ends by itself`, () =>
      Effect.map(run(`${name}.js`), ({ code, stderr, stdout }) =>
        assert.deepStrictEqual([stdout.filter(isOurs), stderr, code], [lines, "", 0])
      )
    )
  }
})

/** Not the line in which the server's platform says where it listens. */
const isOurs = (line: string): boolean => !line.includes("Listening on")
