/**
 * Schemas of typed events: a value on one side, the fields of an event on the other.
 *
 * Server and client share one: `EventStream` encodes with it, `EventSource` decodes.
 *
 * @since 0.1.0
 */
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"

/**
 * The fields of an event.
 *
 * @since 0.1.0
 * @category models
 */
export interface Fields {
  readonly event: string
  readonly data: string
  readonly id?: string | undefined
}

/**
 * The schema of the fields themselves.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Fields: Schema.Schema<Fields> = Schema.Struct({
  event: Schema.String,
  data: Schema.String,
  id: Schema.optional(Schema.String)
})

/**
 * A schema whose encoded side is an event.
 *
 * @since 0.1.0
 * @category models
 */
export type EventSchema<A, R = never> = Schema.Schema<A, Fields, R>

/**
 * Values as JSON in the data of events.
 *
 * The event type is the value's `_tag`, so that each member of a union has its own and browsers can listen to it by name;
 * `"message"` where there is none. `event` and `id` choose otherwise. When decoding only the data counts.
 *
 * @example
 * import { EventSchema } from "@effect-ws/eventsource"
 * import { Schema } from "effect"
 *
 * class Progress extends Schema.TaggedClass<Progress>()("Progress", { percent: Schema.Number }) {}
 * class Done extends Schema.TaggedClass<Done>()("Done", { url: Schema.String }) {}
 *
 * const JobEvent = EventSchema.json(Schema.Union(Progress, Done))
 *
 * @since 0.1.0
 * @category constructors
 */
export const json = <A, I, R>(
  schema: Schema.Schema<A, I, R>,
  options: {
    readonly event?: string | ((value: A) => string) | undefined
    readonly id?: ((value: A) => string | undefined) | undefined
  } = {}
): EventSchema<A, R> => {
  const { event, id } = options
  const nameOf = (value: A, encoded: I): string => {
    if (event !== undefined) return typeof event === "string" ? event : event(value)
    const tag = (encoded as { readonly _tag?: unknown } | null | undefined)?._tag
    return typeof tag === "string" ? tag : "message"
  }
  return Schema.transformOrFail(Fields, schema, {
    strict: true,
    decode: (fields, _, ast) =>
      ParseResult.try({
        try: () => JSON.parse(fields.data) as I,
        catch: () => new ParseResult.Type(ast, fields.data, "The data of the event is not JSON")
      }),
    encode: (encoded, _, __, value) =>
      ParseResult.succeed({ event: nameOf(value, encoded), data: JSON.stringify(encoded), id: id?.(value) })
  })
}

/**
 * Events told apart by their type, each with JSON of its own schema: for streams whose data does not name its kind.
 *
 * @example
 * import { EventSchema } from "@effect-ws/eventsource"
 * import { Schema } from "effect"
 *
 * // { event: "tick", data: { n: 1 }, id: "1" } | { event: "alert", data: "fire" }
 * const Feed = EventSchema.named({ tick: Schema.Struct({ n: Schema.Number }), alert: Schema.String })
 *
 * @since 0.1.0
 * @category constructors
 */
export const named = <const Members extends { readonly [event: string]: Schema.Schema.All }>(
  members: Members
): EventSchema<NamedEvent<Members>, Schema.Schema.Context<Members[keyof Members]>> =>
  Schema.Union(
    ...Object.entries(members).map(([event, schema]) =>
      Schema.Struct({
        event: Schema.Literal(event),
        data: Schema.parseJson(schema as Schema.Schema.AnyNoContext),
        id: Schema.optional(Schema.String)
      })
    )
  ) as never

/**
 * The events of {@link named}.
 *
 * @since 0.1.0
 * @category models
 */
export type NamedEvent<Members extends { readonly [event: string]: Schema.Schema.All }> = {
  readonly [Event in keyof Members & string]: {
    readonly event: Event
    readonly data: Schema.Schema.Type<Members[Event]>
    readonly id?: string | undefined
  }
}[keyof Members & string]
