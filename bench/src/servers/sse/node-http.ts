/** Event streams as one writes them by hand with `node:http`. */
import { createServer, type ServerResponse } from "node:http"
import { firehoseData, listenEvents } from "./harness.js"

const subscribers = new Set<ServerResponse>()

const firehose = (response: ServerResponse, text: string): void => {
  const run = (): void => {
    while (response.write(text));
  }
  response.on("drain", run)
  run()
}

const server = createServer((request, response) => {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
  response.write(":\n\n")
  if (request.url === "/events") {
    subscribers.add(response)
    response.on("close", () => subscribers.delete(response))
  } else {
    firehose(response, `data: ${firehoseData(request.url)}\n\n`)
  }
})

listenEvents(server, ({ data, event, id }) => {
  const text = `event: ${event}\nid: ${id}\ndata: ${data}\n\n`
  for (const response of subscribers) response.write(text)
})
