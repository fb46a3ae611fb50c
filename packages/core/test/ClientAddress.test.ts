import type { HttpServerRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { ClientAddress } from "@effect-ws/core"
import { Option } from "effect"

const proxies = ["127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8"]

interface Row {
  readonly rule: string
  readonly peer?: string | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly address: string | undefined
  readonly secure?: boolean
  readonly proxies?: ReadonlyArray<string>
  readonly host?: string
}

const check = (header: "x-forwarded-for" | "forwarded", rows: ReadonlyArray<Row>) => {
  const clients = ClientAddress.make({ trusted: proxies, header })
  for (const row of rows) {
    it(row.rule, () => {
      const remoteAddress = "peer" in row ? row.peer : "127.0.0.1"
      const client = clients.resolve({ remoteAddress, secure: false, headers: row.headers })
      assert.strictEqual(client.address, row.address)
      assert.strictEqual(client.secure, row.secure ?? false)
      if (row.proxies !== undefined) assert.deepStrictEqual(client.proxies, row.proxies)
      if (row.host !== undefined) assert.strictEqual(client.host, row.host)
    })
  }
}

describe("X-Forwarded-For", () => {
  check("x-forwarded-for", [
    { rule: "no header: the peer", headers: {}, address: "127.0.0.1", proxies: [] },
    {
      rule: "a peer that is no proxy is not believed",
      peer: "192.0.2.9",
      headers: { "x-forwarded-for": "198.51.100.1", "x-forwarded-proto": "https", host: "a", "x-forwarded-host": "b" },
      address: "192.0.2.9",
      host: "a"
    },
    {
      rule: "a proxy is believed",
      headers: {
        "x-forwarded-for": "198.51.100.1",
        "x-forwarded-proto": "https",
        host: "inner",
        "x-forwarded-host": "outer"
      },
      address: "198.51.100.1",
      secure: true,
      proxies: ["127.0.0.1"],
      host: "outer"
    },
    {
      rule: "what the client made up stands left and is not believed",
      headers: { "x-forwarded-for": "127.0.0.1, 203.0.113.7, 198.51.100.1", "x-forwarded-proto": "https, http" },
      address: "198.51.100.1"
    },
    {
      rule: "a chain of proxies",
      headers: { "x-forwarded-for": "6.6.6.6, 198.51.100.1, 10.1.2.3", "x-forwarded-proto": "http, https, http" },
      address: "198.51.100.1",
      secure: true,
      proxies: ["127.0.0.1", "10.1.2.3"]
    },
    {
      rule: "one protocol for a chain of proxies",
      headers: { "x-forwarded-for": "198.51.100.1, 10.1.2.3", "x-forwarded-proto": "https" },
      address: "198.51.100.1",
      secure: true
    },
    {
      rule: "all are proxies: the furthest",
      headers: { "x-forwarded-for": "10.0.0.1,10.0.0.2" },
      address: "10.0.0.1",
      proxies: ["127.0.0.1", "10.0.0.2"]
    },
    { rule: "with a port", headers: { "x-forwarded-for": "198.51.100.1:4711" }, address: "198.51.100.1" },
    {
      rule: "a proxy that writes the protocol only",
      headers: { "x-forwarded-proto": "http, https" },
      address: "127.0.0.1",
      secure: true,
      proxies: []
    },
    { rule: "IPv6", headers: { "x-forwarded-for": "2001:db8::1" }, address: "2001:db8::1" },
    { rule: "IPv6 with a port", headers: { "x-forwarded-for": "[2001:db8::1]:4711" }, address: "2001:db8::1" },
    {
      rule: "an IPv4-mapped peer",
      peer: "::ffff:10.0.0.5",
      headers: { "x-forwarded-for": "198.51.100.1" },
      address: "198.51.100.1",
      proxies: ["10.0.0.5"]
    },
    { rule: "garbage is not the proxy's address", headers: { "x-forwarded-for": "garbage" }, address: undefined },
    { rule: "a number too large", headers: { "x-forwarded-for": "1.2.3.256" }, address: undefined },
    { rule: "an empty last entry", headers: { "x-forwarded-for": "198.51.100.1," }, address: undefined },
    {
      rule: "a peer without address is not trusted by a list",
      peer: undefined,
      headers: { "x-forwarded-for": "198.51.100.1" },
      address: undefined,
      proxies: []
    },
    { rule: "Forwarded is ignored", headers: { forwarded: "for=6.6.6.6;proto=https" }, address: "127.0.0.1" }
  ])
})

describe("Forwarded (RFC 7239)", () => {
  check("forwarded", [
    {
      rule: "§4 one element",
      headers: { forwarded: "for=192.0.2.60;proto=https;by=203.0.113.43;host=outer" },
      address: "192.0.2.60",
      secure: true,
      host: "outer"
    },
    {
      rule: "§4 names know no case",
      headers: { forwarded: 'For="[2001:db8:cafe::17]:4711"' },
      address: "2001:db8:cafe::17"
    },
    {
      rule: "§4 several elements, the right-most written last",
      headers: { forwarded: "for=6.6.6.6;proto=https, for=198.51.100.17;proto=http, for=10.0.0.9" },
      address: "198.51.100.17",
      proxies: ["127.0.0.1", "10.0.0.9"]
    },
    { rule: "§6.2 unknown", headers: { forwarded: "for=unknown" }, address: undefined },
    { rule: "§6.3 an obfuscated name", headers: { forwarded: 'for="_gazonk"' }, address: undefined },
    { rule: "§4 an element without for", headers: { forwarded: "for=6.6.6.6, by=10.0.0.1" }, address: undefined },
    { rule: "§4 a quoted pair", headers: { forwarded: 'for="192.0.2.\\60"' }, address: "192.0.2.60" },
    {
      rule: "§8.1 a quote that a client opens does not swallow what the proxy adds",
      headers: { forwarded: 'for=6.6.6.6;x=", for=198.51.100.1' },
      address: undefined
    },
    {
      rule: "§8.1 nor a quote that the proxy's own quote would close",
      headers: { forwarded: 'for=6.6.6.6;x=", for="[2001:db8::1]"' },
      address: undefined
    },
    { rule: "§4 for twice", headers: { forwarded: "for=6.6.6.6;for=198.51.100.1" }, address: undefined },
    { rule: "§4 no token", headers: { forwarded: "for=1.2.3.4 5" }, address: undefined },
    { rule: "X-Forwarded-For is ignored", headers: { "x-forwarded-for": "6.6.6.6" }, address: "127.0.0.1" }
  ])
})

describe("trusted", () => {
  const via = (trusted: ClientAddress.Options["trusted"], remoteAddress: string | undefined) =>
    ClientAddress.make({ trusted }).resolve({
      remoteAddress,
      secure: false,
      headers: { "x-forwarded-for": "198.51.100.1" }
    }).address === "198.51.100.1"

  const rows: ReadonlyArray<readonly [network: string, address: string, trusted: boolean]> = [
    ["10.0.0.0/8", "10.255.255.255", true],
    ["10.0.0.0/8", "11.0.0.0", false],
    ["192.0.2.128/25", "192.0.2.127", false],
    ["192.0.2.128/25", "192.0.2.128", true],
    ["0.0.0.0/0", "203.0.113.1", true],
    ["0.0.0.0/0", "2001:db8::1", false],
    ["::/0", "2001:db8::1", true],
    ["fe80::/10", "fe80::1%eth0", true],
    ["2001:db8::/33", "2001:db8:8000::1", false],
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1", true],
    ["::ffff:192.0.2.1", "192.0.2.1", true],
    ["192.0.2.1", "::ffff:192.0.2.1", true]
  ]
  for (const [network, address, trusted] of rows) {
    it(`${network} ${trusted ? "holds" : "does not hold"} ${address}`, () =>
      assert.strictEqual(via([network], address), trusted))
  }
  it("a predicate, which may trust a peer without address", () => {
    assert.isTrue(via((address) => address === undefined, undefined))
    assert.isFalse(via((address) => address === undefined, "127.0.0.1"))
  })
  for (const bad of [
    "",
    "localhost",
    "10.0.0.0/33",
    "::1/129",
    "1.2.3",
    "01.2.3.4",
    "1::2::3",
    "10.0.0.0/8/8",
    "10.0.0.0/-1"
  ]) {
    it(`${JSON.stringify(bad)} is no network`, () =>
      assert.throws(() => ClientAddress.make({ trusted: [bad] }), TypeError))
  }
})

describe("of", () => {
  const request = (source: object, remoteAddress?: string) =>
    ({
      source,
      headers: { "x-forwarded-for": "198.51.100.1" },
      remoteAddress: Option.fromNullable(remoteAddress)
    }) as unknown as HttpServerRequest.HttpServerRequest
  const clients = ClientAddress.make({ trusted: ["127.0.0.1"] })

  it("reads Node's socket, not what middleware made of the address", () => {
    const { address, secure } = clients.of(
      request({ url: "/", socket: { remoteAddress: "192.0.2.1", encrypted: true } }, "127.0.0.1")
    )
    assert.deepStrictEqual({ address, secure }, { address: "192.0.2.1", secure: true })
  })
  it("reads a web request", () => {
    const { address, secure } = clients.of(request(new Request("https://example.com/"), "127.0.0.1"))
    assert.deepStrictEqual({ address, secure }, { address: "198.51.100.1", secure: true })
  })
})
