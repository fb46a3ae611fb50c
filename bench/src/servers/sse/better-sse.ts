/** `better-sse` as its documentation shows it, with text as it is instead of JSON of it. */
import { createServer } from "node:http"
import { createChannel, createSession } from "better-sse"
import { firehoseData, listenEvents } from "./harness.js"

const channel = createChannel()

const server = createServer(async (request, response) => {
  const session = await createSession(request, response, { serializer: String })
  session.push("open", "open")
  if (request.url === "/events") {
    channel.register(session)
    return
  }
  const data = firehoseData(request.url)
  const run = (): void => {
    while (!response.writableNeedDrain) session.push(data, "message", "0")
  }
  response.on("drain", run)
  run()
})

listenEvents(server, ({ data, event, id }) => channel.broadcast(data, event, { eventId: id }))
