/** The demo as people see it: its page in Chromium, its server as a process that is stopped and started. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import type { Page } from "playwright-core"
import { start } from "../test/program.js"
import { Chromium, folder, freePort, openPage } from "./support.js"

/** Starts the demo on a port, with a folder for what outlives it; gives how to stop it as Ctrl+C does. */
const startDemo = (port: number, store: string) =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const program = yield* start("demo/main.js", [], {
      PORT: `${port}`,
      CHAT_STORE: store,
      FEED_INTERVAL: "50 millis"
    }).pipe(Scope.extend(scope))
    yield* program.firstLine
    return {
      stop: Effect.gen(function* () {
        yield* program.signal("SIGINT")
        assert.deepInclude(yield* program.ended, { code: 0, stderr: "" })
      })
    }
  })

/** A demo of its own, on a free port and with nothing stored. */
const newDemo = Effect.gen(function* () {
  const port = yield* freePort
  return { port, ...(yield* startDemo(port, yield* folder)) }
})

/** The page in the hands of one person. */
const person = (port: number, name: string, room = "lobby") =>
  Effect.map(openPage(`http://127.0.0.1:${port}/#${room}`), (page) => {
    const run = <A>(f: (page: Page) => Promise<A>) => Effect.promise(() => f(page))
    const shows = (selector: string, text: string) =>
      run((page) => page.locator(selector).filter({ hasText: text }).first().waitFor())
    return {
      run,
      shows,
      lines: run((page) => page.locator("#lines .line p").allTextContents()),
      notes: (text: string) => run((page) => page.locator("#lines .note").filter({ hasText: text }).allTextContents()),
      /** Says things in one turn of the page, which asks to cut the line in between. */
      burst: (before: ReadonlyArray<string>, after: ReadonlyArray<string>) =>
        run((page) =>
          page.evaluate(
            ({ after, before }) => {
              const input = document.getElementById("text") as HTMLInputElement
              const say = (text: string) => {
                input.value = text
                input.form!.requestSubmit()
              }
              for (const text of before) say(text)
              document.getElementById("drop")!.click()
              for (const text of after) say(text)
            },
            { before, after }
          )
        ),
      enter: run(async (page) => {
        await page.getByLabel("Name").fill(name)
        await page.getByRole("button", { name: "Join" }).click()
      }).pipe(Effect.zipRight(shows("#people .mine", `${name} (you)`))),
      say: (text: string) =>
        run(async (page) => {
          await page.getByLabel("Message").fill(text)
          await page.getByRole("button", { name: "Send" }).click()
        }),
      /** How the feed comes, from now on. */
      choose: (via: "WebSocket" | "Server-Sent Events") =>
        run(async (page) => {
          const asked = via === "WebSocket" ? undefined : page.waitForRequest("**/events")
          await page.getByRole("radio", { name: via }).check()
          await asked
        }),
      click: (name: string) => run((page) => page.getByRole("button", { name }).click()),
      /** Waits for a tick after the one that is shown. */
      ticks: run(async (page) => {
        const shown = Number(await page.locator("#figure-n").textContent()) || 0
        await page.waitForFunction((n) => Number(document.getElementById("figure-n")?.textContent) > n, shown)
      })
    }
  })

layer(Chromium.layer, { excludeTestServices: true })("the demo's page", (it) => {
  it.scoped("two people talk and see each other come and go, each room for itself", () =>
    Effect.gen(function* () {
      const { port } = yield* newDemo
      const ada = yield* person(port, "Ada")
      yield* ada.enter
      yield* ada.shows("#chat-state", "connected")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const bob = yield* person(port, "Bob")
          yield* bob.enter
          yield* ada.shows("#people", "Bob")
          yield* ada.say("hello <b>Bob</b> 🐈")
          yield* bob.shows("#lines .line:not(.mine) p", "hello <b>Bob</b> 🐈")
          yield* ada.shows("#lines .mine p", "hello <b>Bob</b> 🐈")
          yield* bob.say("hello Ada")
          yield* ada.shows("#lines .line:not(.mine) p", "hello Ada")
        })
      )
      yield* ada.shows("#lines .note", "Bob left.")
      assert.deepStrictEqual(yield* ada.lines, ["hello <b>Bob</b> 🐈", "hello Ada"])
      // Another room has other lines
      yield* ada.run((page) => page.getByRole("combobox", { name: "Room" }).fill("elsewhere"))
      yield* ada.click("Join")
      yield* ada.shows("#lines .note", "You are in “elsewhere” as Ada.")
      assert.deepStrictEqual(yield* ada.lines, [])
    })
  )

  it.scoped("an address that names no room leads to the lobby", () =>
    Effect.gen(function* () {
      const { port } = yield* newDemo
      const ada = yield* person(port, "Ada", "%")
      yield* ada.shows("#lines .note", "You are in “lobby” as guest-")
    })
  )

  it.scoped("the feed comes over a WebSocket, and as Server-Sent Events", () =>
    Effect.gen(function* () {
      const { port } = yield* newDemo
      const ada = yield* person(port, "Ada")
      yield* ada.ticks
      yield* ada.choose("Server-Sent Events")
      yield* ada.shows("#feed-state", "connected")
      yield* ada.ticks
      yield* ada.choose("WebSocket")
      yield* ada.shows("#feed-state", "connected")
      yield* ada.ticks
    })
  )

  it.scoped("a line that is cut comes back by itself", () =>
    Effect.gen(function* () {
      const { port } = yield* newDemo
      const ada = yield* person(port, "Ada")
      yield* ada.enter
      yield* ada.click("Cut the connection")
      yield* ada.shows("#events li", "closed: 1006, the line was cut")
      yield* ada.shows("#chat-state", "connected")
      yield* ada.say("here again")
      yield* ada.shows("#lines .mine p", "here again")
    })
  )

  for (const via of ["WebSocket", "Server-Sent Events"] as const) {
    it.scoped(`a server that is restarted: the page reconnects, what was typed meanwhile arrives, ${via} tick on`, () =>
      Effect.gen(function* () {
        const port = yield* freePort
        const store = yield* folder
        const { stop } = yield* startDemo(port, store)
        const ada = yield* person(port, "Ada")
        const bob = yield* person(port, "Bob")
        yield* ada.choose(via)
        yield* ada.enter
        yield* bob.enter
        yield* ada.say("before")
        yield* bob.shows("#lines p", "before")

        yield* stop
        yield* ada.shows("#events li", "closed: 1001")
        yield* ada.shows("#events li", "no connection came about")
        yield* ada.shows("#feed-state", "lost")
        yield* ada.say("one")
        yield* ada.shows("#pending", "1 message waits for the connection.")
        yield* ada.say("two")
        yield* ada.shows("#pending", "2 messages wait for the connection.")

        // Nobody is there, so this is another attempt that fails
        yield* ada.click("Reconnect now")

        yield* startDemo(port, store)
        yield* ada.shows("#chat-state", "connected")
        for (const text of ["one", "two"]) {
          yield* ada.shows("#lines .mine p", text)
          yield* bob.shows("#lines .line:not(.mine) p", text)
        }
        assert.deepStrictEqual(yield* ada.lines, ["before", "one", "two"])
        assert.strictEqual(yield* ada.run((page) => page.locator("#pending").textContent()), "")
        yield* ada.shows("#feed-state", "connected")
      })
    )
  }

  it.scoped("no message is lost or doubled by a server that is restarted while somebody types", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const store = yield* folder
      const { stop } = yield* startDemo(port, store)
      const ada = yield* person(port, "Ada")
      const bob = yield* person(port, "Bob")
      yield* ada.enter
      yield* bob.enter
      const said: Array<string> = []
      const say = Effect.suspend(() => {
        said.push(`message ${said.length + 1}`)
        return ada.say(said[said.length - 1]!)
      })
      const isRestarted = yield* Deferred.make<void>()
      const typing = yield* Effect.fork(
        Effect.zipRight(
          // No more than a room remembers
          Effect.repeat(say, {
            until: () => Effect.map(Deferred.isDone(isRestarted), (done) => done || said.length === 40)
          }),
          Effect.replicateEffect(say, 3)
        )
      )
      yield* bob.shows("#lines p", "message 3")
      yield* stop
      // Meanwhile she goes on typing
      yield* ada.shows("#pending", "3 messages wait for the connection.")
      yield* startDemo(port, store)
      yield* ada.run((page) => page.evaluate(() => window.dispatchEvent(new Event("online"))))
      yield* ada.shows("#chat-state", "connected")
      yield* Deferred.succeed(isRestarted, undefined)
      yield* Fiber.join(typing)
      for (const reader of [ada, bob]) {
        yield* reader.shows("#chat-state", "connected")
        yield* reader.shows("#lines p", said[said.length - 1]!)
        assert.deepStrictEqual(yield* reader.lines, said)
        assert.isEmpty(yield* reader.notes("interrupted"))
      }
    })
  )

  it.scoped(
    "no message is lost or doubled when the line is cut again and again in a burst of them, and nobody leaves",
    () =>
      Effect.gen(function* () {
        const { port } = yield* newDemo
        const ada = yield* person(port, "Ada")
        const bob = yield* person(port, "Bob")
        yield* ada.enter
        yield* bob.enter
        const said: Array<string> = []
        for (let round = 1; round <= 4; round++) {
          const before = Array.from({ length: 8 }, (_, n) => `${round}.${n + 1}`)
          const after = Array.from({ length: 8 }, (_, n) => `${round}.${n + 9}`)
          said.push(...before, ...after)
          // All in one turn of the page: the cut is on its way between them.
          yield* ada.burst(before, after)
          yield* bob.shows("#lines p", after[after.length - 1]!)
          yield* ada.shows("#lines p", after[after.length - 1]!)
          yield* ada.shows("#chat-state", "connected")
        }
        for (const reader of [ada, bob]) {
          assert.deepStrictEqual(yield* reader.lines, said)
          assert.isEmpty(yield* reader.notes("interrupted"))
        }
        assert.isEmpty(yield* bob.notes("Ada left"))
        yield* ada.shows("#events li", "closed: 1006, the line was cut")
      })
  )

  it.scoped("a server that was restarted without what it knew: the page says so, and enters again", () =>
    Effect.gen(function* () {
      const { port, stop } = yield* newDemo
      const ada = yield* person(port, "Ada")
      yield* ada.enter
      yield* ada.say("before")
      yield* ada.shows("#lines .mine p", "before")
      yield* stop
      yield* ada.shows("#events li", "closed: 1001")
      yield* startDemo(port, yield* folder)
      yield* ada.shows("#lines .note", "The conversation was interrupted, ")
      yield* ada.shows("#chat-state", "connected")
      yield* ada.say("after")
      yield* ada.shows("#lines .mine p", "after")
      assert.deepStrictEqual(yield* ada.lines, ["before", "after"])
      yield* ada.shows("#people .mine", "Ada (you)")
    })
  )

  it.scoped("who closes the page has left; who loads it again is there once", () =>
    Effect.gen(function* () {
      const { port } = yield* newDemo
      const ada = yield* person(port, "Ada")
      const bob = yield* person(port, "Bob")
      yield* ada.enter
      yield* bob.enter
      yield* ada.shows("#people", "Bob")
      yield* bob.run((page) => page.reload())
      yield* bob.shows("#people .mine", "Bob (you)")
      assert.strictEqual(yield* bob.run((page) => page.locator("#people li").count()), 2)
      yield* bob.run((page) => page.goto("about:blank"))
      yield* ada.shows("#people-count", "1")
    })
  )
})
