import { assert, describe, it } from "@effect/vitest"
import * as HttpResponse from "../../src/engine/HttpResponse.js"

const encode = (response: HttpResponse.HttpResponse, method = "GET"): string => {
  const bytes = HttpResponse.encode(response, method)
  if (!(bytes instanceof Uint8Array)) throw new Error(bytes.field)
  return String.fromCharCode(...bytes)
}

describe("HttpResponse", () => {
  const rows: ReadonlyArray<readonly [string, HttpResponse.HttpResponse, string, string]> = [
    [
      "a text",
      { status: 404, body: "é" },
      "GET",
      "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xc3\xa9"
    ],
    [
      "bytes",
      { status: 200, body: Uint8Array.of(1, 255) },
      "GET",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\x01\xff"
    ],
    [
      "headers of one's own",
      { status: 401, headers: { "content-type": "text/html", "x-a": undefined }, body: "x" },
      "POST",
      "HTTP/1.1 401 Unauthorized\r\ncontent-type: text/html\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    ],
    [
      "several of one name",
      {
        status: 200,
        headers: [
          ["Set-Cookie", "a"],
          ["Set-Cookie", "b"]
        ]
      },
      "GET",
      "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ],
    [
      "to HEAD (RFC 9110 §9.3.2)",
      { status: 200, body: "x", headers: { "Content-Type": "a/b" } },
      "HEAD",
      "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"
    ],
    ["no content (§15.3.5)", { status: 204 }, "GET", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"],
    [
      "a status without usual reason",
      { status: 299 },
      "GET",
      "HTTP/1.1 299 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ],
    [
      "a reason of one's own",
      { status: 200, reason: "Fine" },
      "GET",
      "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ]
  ]
  for (const [name, response, method, text] of rows) it(name, () => assert.strictEqual(encode(response, method), text))

  const bad: ReadonlyArray<readonly [string, HttpResponse.HttpResponse, string]> = [
    ["an interim status", { status: 101 }, "status"],
    ["no status", { status: 600 }, "status"],
    ["a line break in the reason", { status: 200, reason: "a\r\nb: c" }, "reason"],
    ["a line break in a header", { status: 200, headers: { "x-a": "b\r\nc: d" } }, "x-a"],
    ["a length of one's own", { status: 200, headers: { "Content-Length": "5" } }, "content-length"],
    ["an encoding of one's own", { status: 200, headers: { "Transfer-Encoding": "chunked" } }, "transfer-encoding"]
  ]
  for (const [name, response, field] of bad) {
    it(`can't have ${name}`, () => {
      const result = HttpResponse.encode(response, "GET")
      assert.strictEqual(result instanceof Uint8Array ? undefined : result.field, field)
    })
  }
})
