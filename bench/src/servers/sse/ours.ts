/** This library: the response is made of the broadcast itself. */
import { serveOurs } from "./shared.js"

serveOurs((events) => events)
