/** `faye-websocket`'s EventSource as its documentation shows it. */
import { createServer } from "node:http"
import FayeWebSocket from "faye-websocket"
import { firehoseData, listenEvents } from "./harness.js"

const subscribers = new Set<InstanceType<typeof FayeWebSocket.EventSource>>()

const server = createServer((request, response) => {
  const source = new FayeWebSocket.EventSource(request, response)
  if (request.url === "/events") {
    subscribers.add(source)
    source.on("close", () => subscribers.delete(source))
    return
  }
  const data = firehoseData(request.url)
  const run = (): void => {
    while (source.send(data));
  }
  source.on("drain", run)
  run()
})

listenEvents(server, ({ data, event, id }) => {
  for (const source of subscribers) source.send(data, { event, id })
})
