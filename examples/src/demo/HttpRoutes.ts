/**
 * The ordinary routes: the page with its script and style, the list of rooms, and a health check.
 */
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Clock, Effect, Layer } from "effect"
import { Rooms } from "./Rooms.js"

const headers = {
  "cache-control": "no-cache",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

/** `place` is relative to this folder; `public` is beside `src` and `dist`. */
const file = (path: HttpLayerRouter.PathInput, place: string, contentType: string) => {
  const name = fileURLToPath(new URL(place, import.meta.url))
  return existsSync(name)
    ? HttpLayerRouter.add("GET", path, HttpServerResponse.file(name, { headers, contentType }))
    : Layer.fail(`${name} is missing: npm start makes it (node scripts/bundle-demo.mjs)`)
}

const Page = Layer.mergeAll(
  file("/", "../../public/index.html", "text/html; charset=utf-8"),
  file("/app.js", "./app.js", "text/javascript; charset=utf-8"),
  file("/style.css", "../../public/style.css", "text/css; charset=utf-8")
)

const Health = Layer.unwrapEffect(
  Effect.map(Clock.currentTimeMillis, (started) =>
    HttpLayerRouter.add(
      "GET",
      "/health",
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        HttpServerResponse.json({ status: "ok", upSeconds: Math.round((now - started) / 1000) })
      )
    )
  )
)

const RoomList = Layer.unwrapEffect(
  Effect.map(Rooms, ({ list }) =>
    HttpLayerRouter.add(
      "GET",
      "/api/rooms",
      Effect.flatMap(list, (rooms) => HttpServerResponse.json(rooms))
    )
  )
)

export const HttpRoutes = Layer.mergeAll(Page, Health, RoomList)
