import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { type Place, Roster } from "../src/internal/roster.js"

describe("a roster", () => {
  it("is what an array would be, whoever leaves", () => {
    // A number adds; what it gives names who leaves instead, if there is one.
    const steps = FastCheck.array(FastCheck.option(FastCheck.nat(20)), { maxLength: 60 })
    FastCheck.assert(
      FastCheck.property(steps, (steps) => {
        const roster = new Roster<number>()
        const places: Array<Place<number>> = []
        const model: Array<number> = []
        for (const [value, leaver] of steps.entries()) {
          if (leaver === null || leaver >= places.length) {
            places.push(roster.add(value))
            model.push(value)
            continue
          }
          const place = places[leaver]!
          const index = model.indexOf(place.value)
          assert.strictEqual(roster.remove(place), index >= 0)
          if (index >= 0) model.splice(index, 1)
        }
        assert.deepStrictEqual(roster.values(), model)
        assert.strictEqual(roster.size, model.length)
        assert.strictEqual(roster.first?.value, model[0])
      })
    )
  })

  it("is not reached from a place that was left", () => {
    const roster = new Roster<string>()
    const places = ["a", "b", "c"].map((value) => roster.add(value))
    for (const place of places) {
      assert.isTrue(roster.remove(place))
      assert.isUndefined(place.next)
      assert.isUndefined(place.previous)
    }
    assert.isUndefined(roster.first)
  })

  it("gives those who are in it now", () => {
    const roster = new Roster<string>()
    const place = roster.add("a")
    const values = roster.values()
    roster.remove(place)
    roster.add("b")
    assert.deepStrictEqual(values, ["a"])
  })
})
