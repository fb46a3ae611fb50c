/**
 * The ordinary routes: the page with its script and style, the list of rooms, and a health check.
 */
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

/** The folder is beside `src` and `dist`. */
const file = (path: HttpLayerRouter.PathInput, name: string, contentType: string) =>
  HttpLayerRouter.add(
    "GET",
    path,
    HttpServerResponse.file(fileURLToPath(new URL(`../../public/${name}`, import.meta.url)), { headers, contentType })
  )

const Page = Layer.mergeAll(
  file("/", "index.html", "text/html; charset=utf-8"),
  file("/app.js", "app.js", "text/javascript; charset=utf-8"),
  file("/style.css", "style.css", "text/css; charset=utf-8")
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
