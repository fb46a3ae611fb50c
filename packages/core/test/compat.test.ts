import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { closeScope } from "../src/internal/compat.js"

describe("closeScope", () => {
  it.effect("a scope with nothing to release is closed at once, and stays so", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      assert.strictEqual(closeScope(scope, Exit.fail("why")), undefined)
      let seen: unknown
      yield* Scope.addFinalizerExit(scope, (exit) => Effect.sync(() => (seen = exit)))
      assert.deepStrictEqual(seen, Exit.fail("why"))
    })
  )

  it.effect("a scope with finalizers is closed by what it gives", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const released: Array<string> = []
      yield* Scope.addFinalizer(
        scope,
        Effect.sync(() => released.push("first"))
      )
      yield* Scope.addFinalizer(
        scope,
        Effect.sync(() => released.push("second"))
      )
      const close = closeScope(scope, Exit.void)
      assert.deepStrictEqual(released, [])
      yield* close!
      assert.deepStrictEqual(released, ["second", "first"])
      assert.isDefined(closeScope(scope, Exit.void))
    })
  )

  it.effect("a scope of another make is not touched", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      let closed = 0
      const other = {
        ...scope,
        state: undefined,
        close: () => Effect.sync(() => void closed++)
      } as Scope.CloseableScope
      yield* closeScope(other, Exit.void)!
      assert.strictEqual(closed, 1)
    })
  )
})
