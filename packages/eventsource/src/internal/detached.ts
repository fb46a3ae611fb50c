/**
 * What a fiber that outlives its request keeps of it: everything that the handler could see, and nothing else.
 */
import * as HttpApp from "@effect/platform/HttpApp"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"

/** What the handler could see. The scope is the one that the fiber's end closes. */
export const runtime = <R>(
  context: Context.Context<R>,
  scope: Scope.Scope,
  refs: FiberRefs.FiberRefs
): Runtime.Runtime<R | Scope.Scope> => {
  const map = new Map(context.unsafeMap)
  map.set(Scope.Scope.key, scope)
  const span = map.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined
  if (span?._tag === "Span") map.set(Tracer.ParentSpan.key, identityOf(span))
  return make(Context.unsafeMake(map), ownRefs(refs))
}

/** What a fiber had when it ended. */
export const runtimeOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): Runtime.Runtime<never> =>
  make(fiber.currentContext, fiber.getFiberRefs())

const make = <R>(context: Context.Context<R>, fiberRefs: FiberRefs.FiberRefs): Runtime.Runtime<R> =>
  Runtime.make({ context, fiberRefs, runtimeFlags: Runtime.defaultRuntimeFlags })

/** The request's span has ended; what remains of it is its identity, not its attributes. */
const identityOf = ({ sampled, spanId, traceId }: Tracer.Span): Tracer.ExternalSpan =>
  Tracer.externalSpan({ traceId: flat(traceId), spanId: flat(spanId), sampled })

/** An ID is made of many strings, of which each weighs 32 bytes until its characters are read. */
const flat = (id: string): string => {
  id.charCodeAt(0)
  return id
}

/**
 * What middleware has set, without the history that only fibers need which join, and without what belongs to the response.
 * (The request's own collection would keep 4 KB alive for each subscriber.)
 */
const ownRefs = (refs: FiberRefs.FiberRefs): FiberRefs.FiberRefs => {
  const own: Parameters<typeof FiberRefs.unsafeMake>[0] = new Map()
  for (const [ref, stack] of refs.locals) {
    if (isOfRequest(ref) || stack[0][1] === (ref as { readonly initial?: unknown }).initial) continue
    own.set(ref, stack.length === 1 ? stack : [stack[0]])
  }
  return FiberRefs.unsafeMake(own)
}

const isOfRequest = (ref: unknown): boolean =>
  ref === FiberRef.currentContext || ref === FiberRef.interruptedCause || ref === HttpApp.currentPreResponseHandlers
