/** This library with an operator on the broadcast: an ordinary Stream, which is pulled for each subscriber. */
import { Stream } from "effect"
import { serveOurs } from "./shared.js"

serveOurs((events) => Stream.map(events, (event) => event))
