/** The chat: a client that stays connected to one room, and what it changes on the page. */
import { type Reconnecting, Resume, WebSocketClient } from "@effect-ws/core"
import { Effect, FiberHandle, Stream } from "effect"
import { Chat, type Line, type Member, type ServerMessage } from "../protocol.js"
import { byId, clockTime, element, on, setText } from "./dom.js"
import { countdown, explain, logEvent, retrying, showStatus } from "./status.js"

/** Is in a room until it is interrupted, which closes the connection. */
export const chat = (name: string, room: string) =>
  Effect.gen(function* () {
    const view = makeView()
    // #region client
    const client = yield* WebSocketClient.reconnecting(Chat, {
      baseUrl: "", // the page's own host
      path: { room },
      urlParams: { name },
      schedule: retrying,
      // What is said while there is no connection is kept for the next one.
      outbox: { maxMessages: 100, overflow: "fail" },
      // What was on its way when the line was cut is sent again, by both ends.
      resume: Resume.memory(),
      onGap: ({ unacknowledged }) => Effect.sync(() => view.gap(unacknowledged.length))
    })
    // #endregion

    const showPending = Effect.map(client.pending, view.pending)
    const timer = yield* FiberHandle.make()
    const follow = (status: Effect.Effect.Success<typeof client.status>) =>
      Effect.gen(function* () {
        view.status(status)
        yield* showPending
        yield* FiberHandle.clear(timer)
        if (status._tag === "Waiting") yield* FiberHandle.run(timer, Effect.scoped(countdown(status.delay)))
      })
    yield* Effect.forkScoped(Stream.runForEach(client.status.changes, follow))

    yield* on(byId("say"), "submit", (event) => {
      event.preventDefault()
      const input = byId<"input">("text")
      const text = input.value
      if (text.trim() === "") return Effect.void
      view.refusal("")
      return client.send({ _tag: "say", text }).pipe(
        Effect.tap(() => {
          if (input.value === text) input.value = ""
        }),
        Effect.catchTags({
          OutboxFull: ({ maxMessages }) => Effect.sync(() => view.refusal(`${maxMessages} messages wait already.`)),
          Stopped: () => Effect.sync(() => view.refusal("This connection has ended; join again."))
        }),
        Effect.zipRight(showPending)
      )
    })
    yield* on(byId<"button">("drop"), "click", () => Effect.ignore(client.send({ _tag: "drop" })))
    yield* on(byId<"button">("retry"), "click", () => client.retryNow)
    yield* on(window, "online", () => client.retryNow)

    yield* Stream.runForEach(client.messages, (message) =>
      Effect.zipRight(
        Effect.sync(() => view.message(message)),
        showPending
      )
    )
  }).pipe(
    Effect.scoped,
    // The status says it too.
    Effect.catchAll((error) => Effect.sync(() => logEvent(`for good: ${explain(error)}`)))
  )

const maxLines = 300

/** One stay in a room, on an empty page. */
const makeView = () => {
  const members = new Map<string, Member>()
  const seen = new Set<string>()
  /** The IDs that we had, one for each stay. */
  const mine = new Set<string>()
  let self: Member | undefined

  const showPeople = () => {
    byId("people-count").textContent = members.size === 0 ? "" : `${members.size}`
    byId("people").replaceChildren(
      ...Array.from(members.values(), ({ id, name }) =>
        element("li", { className: id === self?.id ? "mine" : "", text: id === self?.id ? `${name} (you)` : name })
      )
    )
  }
  const showLine = ({ at, from, id, text }: Line) => {
    if (seen.has(id)) return
    seen.add(id)
    append(
      element("li", { className: mine.has(from.id) ? "line mine" : "line" }, [
        element("header", {}, [
          element("b", { text: from.name }),
          element("time", { text: clockTime(at), dateTime: new Date(at).toISOString() })
        ]),
        element("p", { text })
      ])
    )
  }
  const showNote = (text: string) => append(element("li", { className: "note", text }))

  byId("lines").replaceChildren()
  showPeople()

  return {
    refusal: (text: string) => setText(byId("refusal"), text),

    pending: (count: number) => {
      const messages = count === 1 ? "1 message waits" : `${count} messages wait`
      setText(byId("pending"), count === 0 ? "" : `${messages} for the connection.`)
    },

    status: (status: Reconnecting.Status<unknown>) => {
      const open = status._tag === "Open"
      showStatus(byId("chat-state"), status)
      byId<"input">("text").disabled = status._tag === "Closed"
      byId<"input">("text").placeholder = open ? "Say something" : "Not connected: what you say waits"
      byId<"button">("send").disabled = status._tag === "Closed"
      byId<"button">("drop").disabled = !open
      byId<"button">("retry").disabled = status._tag !== "Waiting"
      if (open) logEvent("open")
      if (status._tag === "Waiting") logEvent(explain(status.cause))
      if (status._tag !== "Closed") return
      members.clear()
      showPeople()
    },

    /** The server knows nothing of our stay any more. A new one begins. */
    gap: (unconfirmed: number) => {
      const messages = unconfirmed === 1 ? "1 message" : `${unconfirmed} messages`
      showNote(`The conversation was interrupted, ${messages} unconfirmed.`)
    },

    message: (message: ServerMessage) => {
      switch (message._tag) {
        case "welcome":
          self = message.you
          mine.add(self.id)
          members.clear()
          for (const member of message.members) members.set(member.id, member)
          for (const line of message.history) showLine(line)
          showNote(`You are in “${message.room}” as ${self.name}.`)
          return showPeople()
        case "joined":
          members.set(message.member.id, message.member)
          showNote(`${message.member.name} came in.`)
          return showPeople()
        case "left":
          members.delete(message.member.id)
          showNote(`${message.member.name} left.`)
          return showPeople()
        case "said":
          return showLine(message.line)
        case "refused":
          return setText(byId("refusal"), `The server refused that: ${message.reason}.`)
      }
    }
  }
}

/** Adds to the conversation, and follows its end unless the reader has scrolled away from it. */
const append = (node: Node): void => {
  const lines = byId("lines")
  const following = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40
  lines.append(node)
  while (lines.childElementCount > maxLines) lines.firstElementChild?.remove()
  if (following) lines.scrollTop = lines.scrollHeight
}
