/** The page of the demo: one program of a chat and a feed, each replaced when something else is chosen. */
import { FetchHttpClient } from "@effect/platform"
import { WebSocketClient } from "@effect-ws/core"
import { Effect, FiberHandle, Layer } from "effect"
import { chat } from "./chat.js"
import { byId, element, on, remember, remembered } from "./dom.js"
import { feed, type Via } from "./feed.js"

const page = Effect.gen(function* () {
  const chatting = yield* FiberHandle.make()
  const feeding = yield* FiberHandle.make()

  const join = Effect.suspend(() => {
    const name = byId<"input">("name").value.trim()
    const room = byId<"input">("room").value.trim()
    if (name === "" || room === "") return Effect.void
    remember("name", name)
    remember("room", room)
    history.replaceState(null, "", `#${room}`)
    byId("room-label").textContent = `room “${room}”`
    return FiberHandle.run(chatting, chat(name, room))
  })
  yield* on(byId("join"), "submit", (event) => {
    event.preventDefault()
    return join
  })
  // Who leaves says so; whose line is cut is expected back. The browser may show the page again as it was.
  yield* on(window, "pagehide", () => FiberHandle.clear(chatting))
  yield* on(window, "pageshow", (event) => ((event as PageTransitionEvent).persisted ? join : Effect.void))
  yield* on(byId<"input">("room"), "focus", () => suggestRooms)
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=via]")) {
    yield* on(radio, "change", () => FiberHandle.run(feeding, feed(radio.value as Via)))
  }

  byId<"input">("name").value = remembered("name") ?? `guest-${Math.floor(Math.random() * 900 + 100)}`
  byId<"input">("room").value = roomOfAddress() || remembered("room") || "lobby"
  yield* FiberHandle.run(feeding, feed("websocket"))
  yield* join
  yield* Effect.never
})

/** What stands behind the `#`, unless somebody wrote there what can't be decoded. */
const roomOfAddress = () => {
  try {
    return decodeURIComponent(location.hash.slice(1))
  } catch {
    return ""
  }
}

const suggestRooms = Effect.gen(function* () {
  const response = yield* Effect.tryPromise(() => fetch("/api/rooms"))
  const rooms: ReadonlyArray<{ readonly room: string }> = yield* Effect.tryPromise(() => response.json())
  byId("rooms").replaceChildren(...rooms.map(({ room }) => element("option", { value: room })))
}).pipe(Effect.ignore)

page.pipe(
  Effect.scoped,
  Effect.provide(Layer.merge(WebSocketClient.layerGlobal, FetchHttpClient.layer)),
  Effect.runFork
)
