import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { Connection } from "../src/Connection.js"
import { ConnectionSet, type Entry } from "../src/internal/ConnectionSet.js"
import { type Link, Roster } from "../src/internal/roster.js"

class One<T> implements Link<One<T>> {
  list: Roster<One<T>> | undefined
  next: One<T> | undefined
  previous: One<T> | undefined
  constructor(readonly value: T) {}
}

const add = <T>(roster: Roster<One<T>>, value: T): One<T> => {
  const one = new One(value)
  roster.add(one)
  return one
}

const valuesOf = <T>(roster: Roster<One<T>>): Array<T> => {
  const values: Array<T> = []
  for (let one = roster.first; one !== undefined; one = one.next) values.push(one.value)
  return values
}

describe("a roster", () => {
  it("is what an array would be, whoever leaves", () => {
    // A number adds; what it gives names who leaves instead, if there is one.
    const steps = FastCheck.array(FastCheck.option(FastCheck.nat(20)), { maxLength: 60 })
    FastCheck.assert(
      FastCheck.property(steps, (steps) => {
        const roster = new Roster<One<number>>()
        const places: Array<One<number>> = []
        const model: Array<number> = []
        for (const [value, leaver] of steps.entries()) {
          if (leaver === null || leaver >= places.length) {
            places.push(add(roster, value))
            model.push(value)
            continue
          }
          const place = places[leaver]!
          const index = model.indexOf(place.value)
          assert.strictEqual(roster.remove(place), index >= 0)
          if (index >= 0) model.splice(index, 1)
        }
        assert.deepStrictEqual(valuesOf(roster), model)
        assert.strictEqual(roster.size, model.length)
        assert.strictEqual(roster.first?.value, model[0])
      })
    )
  })

  it("is not reached from a place that was left", () => {
    const roster = new Roster<One<string>>()
    const places = ["a", "b", "c"].map((value) => add(roster, value))
    for (const place of places) {
      assert.isTrue(roster.remove(place))
      assert.isUndefined(place.next)
      assert.isUndefined(place.previous)
    }
    assert.isUndefined(roster.first)
  })
})

describe("a set of connections", () => {
  it("lists those who are in it now", () => {
    const entry = (id: string): Entry => ({ connection: { id } as unknown as Connection, interrupt: () => {} })
    const [one, two] = [entry("a"), entry("b")]
    const set = new ConnectionSet()
    const place = set.add(one!)
    const entries = set.list()
    set.delete(place)
    set.add(two!)
    assert.deepStrictEqual(entries, [one])
    assert.deepStrictEqual(set.list(), [two])
  })
})
