// The page of the demo. Everything that came from somebody else is put in place as text, never as HTML.

const byId = (id) => document.getElementById(id)

const element = (tag, { text, ...properties } = {}, children = []) => {
  const node = Object.assign(document.createElement(tag), properties)
  if (text !== undefined) node.textContent = text
  node.append(...children)
  return node
}

const clockTime = (at) => new Date(at).toLocaleTimeString()

/** A stored choice of this tab, where the browser allows it. */
const remembered = (key, value) => {
  try {
    if (value !== undefined) sessionStorage.setItem(key, value)
    return sessionStorage.getItem(key) ?? undefined
  } catch {
    return undefined
  }
}

// ---- a WebSocket that comes back -----------------------------------------------------------------------------------

const firstDelay = 1000
const longestDelay = 15_000
/** A connection that lived so long was a good one: the next failure starts from the first delay again. */
const goodAfter = 10_000

/**
 * Keeps a WebSocket to `url` open until `stop`. After the n-th failure in a row it waits 1 s, 2 s, 4 s and so on, at most 15 s,
 * up to half of it less by chance, so that clients of a server that restarts do not all come back at once.
 *
 * `onState` gets `connecting`, `open`, `waiting` (with the time of the next attempt) and `closed`.
 */
const reconnecting = (url, { onState, onMessage, onEvent = () => {} }) => {
  let socket
  let timer
  let failures = 0
  let openedAt
  let stopped = false

  const connect = () => {
    clearTimeout(timer)
    timer = undefined
    openedAt = undefined
    onState({ state: "connecting" })
    socket = new WebSocket(url)
    socket.onopen = () => {
      openedAt = Date.now()
      onEvent("open")
      onState({ state: "open" })
    }
    socket.onmessage = ({ data }) => onMessage(JSON.parse(data))
    socket.onclose = ({ code, reason }) => {
      if (stopped) return
      onEvent(openedAt === undefined ? "no connection came about" : `closed: ${describe(code, reason)}`)
      retryLater()
    }
  }

  const retryLater = () => {
    if (openedAt !== undefined && Date.now() - openedAt > goodAfter) failures = 0
    const longest = Math.min(longestDelay, firstDelay * 2 ** failures++)
    const delay = longest * (0.5 + Math.random() / 2)
    onEvent(`attempt ${failures} in ${(delay / 1000).toFixed(1)} s`)
    onState({ state: "waiting", until: Date.now() + delay, attempt: failures })
    timer = setTimeout(connect, delay)
  }

  const now = () => {
    if (timer !== undefined) connect()
  }

  window.addEventListener("online", now)
  connect()
  return {
    now,
    /** Whether it could be sent. */
    send: (message) => {
      if (socket.readyState !== WebSocket.OPEN) return false
      socket.send(JSON.stringify(message))
      return true
    },
    stop: () => {
      stopped = true
      clearTimeout(timer)
      window.removeEventListener("online", now)
      socket.close(1000)
      onState({ state: "closed" })
    }
  }
}

const meanings = {
  1000: "normal",
  1001: "the server is going away",
  1005: "without a code",
  1006: "the line was cut",
  1009: "a message was too big",
  1011: "the server failed",
  1013: "this page was too slow"
}

const describe = (code, reason) => {
  const meaning = reason || meanings[code]
  return meaning === undefined ? `${code}` : `${code}, ${meaning}`
}

const socketUrl = (path) => new URL(path, location.href.replace(/^http/, "ws")).href

// ---- the state that one sees ------------------------------------------------------------------------------------------

const stateTexts = { idle: "not connected", connecting: "connecting", open: "connected", closed: "not connected" }

const showState = (pill, { state, attempt }) => {
  const text = state === "waiting" ? `lost, attempt ${attempt} follows` : stateTexts[state]
  if (pill.textContent !== text) pill.textContent = text
  pill.dataset.state = state
}

/** Counts down beside the pill, where screen readers do not follow. */
const countdown = (() => {
  let ticking
  return (until) => {
    clearInterval(ticking)
    const show = () => {
      const left = until === undefined ? 0 : Math.max(0, until - Date.now())
      byId("chat-countdown").textContent = left === 0 ? "" : `next attempt in ${(left / 1000).toFixed(1)} s`
      if (left === 0) clearInterval(ticking)
    }
    ticking = setInterval(show, 100)
    show()
  }
})()

const maxEvents = 50

const logEvent = (text) => {
  const events = byId("events")
  events.prepend(element("li", {}, [element("time", { text: clockTime(Date.now()) }), text]))
  while (events.childElementCount > maxEvents) events.lastElementChild.remove()
}

// ---- chat ---------------------------------------------------------------------------------------------------------------

const maxLines = 300
let chat
let self
const members = new Map()
const seen = new Set()

const join = (name, room) => {
  chat?.stop()
  remembered("name", name)
  remembered("room", room)
  history.replaceState(null, "", `#${room}`)
  members.clear()
  seen.clear()
  byId("lines").replaceChildren()
  byId("room-label").textContent = `room “${room}”`
  showPeople()
  const url = socketUrl(`/chat/${encodeURIComponent(room)}?name=${encodeURIComponent(name)}`)
  chat = reconnecting(url, { onState: onChatState, onMessage: onChatMessage, onEvent: logEvent })
}

const onChatState = (status) => {
  const open = status.state === "open"
  showState(byId("chat-state"), status)
  countdown(status.until)
  byId("text").disabled = !open
  byId("text").placeholder = open ? "Say something" : "Waiting for the connection"
  byId("send").disabled = !open
  byId("drop").disabled = !open
  byId("retry").disabled = status.state !== "waiting"
  if (!open) {
    members.clear()
    showPeople()
  }
}

const onChatMessage = (message) => {
  switch (message._tag) {
    case "welcome":
      self = message.you
      members.clear()
      for (const member of message.members) members.set(member.id, member)
      for (const line of message.history) showLine(line)
      showNote(`You are in “${message.room}” as ${self.name}.`)
      showPeople()
      break
    case "joined":
      members.set(message.member.id, message.member)
      showNote(`${message.member.name} came in.`)
      showPeople()
      break
    case "left":
      members.delete(message.member.id)
      showNote(`${message.member.name} left.`)
      showPeople()
      break
    case "said":
      showLine(message.line)
      break
    case "refused":
      byId("refusal").textContent = `The server refused that: ${message.reason}.`
      break
  }
}

/** Adds to the conversation, and follows its end unless the reader has scrolled away from it. */
const append = (node) => {
  const lines = byId("lines")
  const following = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40
  lines.append(node)
  while (lines.childElementCount > maxLines) lines.firstElementChild.remove()
  if (following) lines.scrollTop = lines.scrollHeight
}

const mine = new Set()

const showLine = ({ id, from, text, at }) => {
  if (seen.has(id)) return
  seen.add(id)
  if (from.id === self?.id) mine.add(from.id)
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

const showNote = (text) => append(element("li", { className: "note", text }))

const showPeople = () => {
  const people = [...members.values()]
  byId("people-count").textContent = people.length === 0 ? "" : `${people.length}`
  byId("people").replaceChildren(
    ...people.map(({ id, name }) =>
      element("li", { className: id === self?.id ? "mine" : "", text: id === self?.id ? `${name} (you)` : name })
    )
  )
}

byId("join").addEventListener("submit", (event) => {
  event.preventDefault()
  const name = byId("name").value.trim()
  const room = byId("room").value.trim()
  if (name !== "" && room !== "") join(name, room)
})

byId("say").addEventListener("submit", (event) => {
  event.preventDefault()
  const text = byId("text").value
  byId("refusal").textContent = ""
  if (text.trim() !== "" && chat?.send({ _tag: "say", text })) byId("text").value = ""
})

byId("drop").addEventListener("click", () => chat?.send({ _tag: "drop" }))
byId("retry").addEventListener("click", () => chat?.now())

byId("room").addEventListener("focus", async () => {
  const rooms = await fetch("/api/rooms").then(
    (response) => response.json(),
    () => []
  )
  byId("rooms").replaceChildren(...rooms.map(({ room }) => element("option", { value: room })))
})

// ---- live feed --------------------------------------------------------------------------------------------------------

let feed
const heap = []
const shownTicks = 60

const onTick = (tick) => {
  for (const name of ["n", "people", "rooms", "lines"]) byId(`figure-${name}`).textContent = `${tick[name]}`
  byId("figure-heapMiB").textContent = tick.heapMiB.toFixed(1)
  byId("figure-at").textContent = clockTime(tick.at)
  heap.push(tick.heapMiB)
  if (heap.length > shownTicks) heap.shift()
  const low = Math.min(...heap)
  const span = Math.max(1, Math.max(...heap) - low)
  byId("spark").setAttribute(
    "points",
    heap.map((value, at) => `${(at * 240) / (shownTicks - 1)},${44 - ((value - low) / span) * 40}`).join(" ")
  )
}

const showFeedState = (status) => showState(byId("feed-state"), status)

/**
 * The browser's EventSource reconnects by itself and names the last tick that it saw; but when it was refused (by a server
 * that shuts down), it gives up.
 */
const eventFeed = () => {
  let source
  let timer
  const connect = () => {
    showFeedState({ state: "connecting" })
    source = new EventSource("/events")
    source.onopen = () => showFeedState({ state: "open" })
    source.onerror = () => {
      showFeedState({ state: "connecting" })
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, 2000)
    }
    source.addEventListener("tick", ({ data }) => onTick(JSON.parse(data)))
  }
  connect()
  return {
    stop: () => {
      clearTimeout(timer)
      source.close()
    }
  }
}

const startFeed = (via) => {
  feed?.stop()
  heap.length = 0
  feed =
    via === "events" ? eventFeed() : reconnecting(socketUrl("/feed"), { onState: showFeedState, onMessage: onTick })
}

for (const radio of document.querySelectorAll("input[name=via]")) {
  radio.addEventListener("change", () => startFeed(radio.value))
}

// ---- start ------------------------------------------------------------------------------------------------------------

byId("name").value = remembered("name") ?? `guest-${Math.floor(Math.random() * 900 + 100)}`
byId("room").value = decodeURIComponent(location.hash.slice(1)) || remembered("room") || "lobby"
startFeed("websocket")
join(byId("name").value, byId("room").value)
