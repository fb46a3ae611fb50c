/**
 * What a fiber that outlives its request keeps of it: everything that the handler could see, and nothing else.
 */
import * as HttpApp from "@effect/platform/HttpApp"
import * as Context from "effect/Context"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as Runtime from "effect/Runtime"
import * as Tracer from "effect/Tracer"

export const runtime = <R>(context: Context.Context<R>, refs: FiberRefs.FiberRefs): Runtime.Runtime<R> =>
  Runtime.make({
    context: withoutSpanAttributes(context),
    fiberRefs: ownRefs(refs),
    runtimeFlags: Runtime.defaultRuntimeFlags
  })

/** The request's span has ended; what remains of it is its identity, not its attributes. */
const withoutSpanAttributes = <R>(context: Context.Context<R>): Context.Context<R> => {
  const span = context.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined
  if (span?._tag !== "Span") return context
  const { sampled, spanId, traceId } = span
  const map = new Map(context.unsafeMap)
  map.set(Tracer.ParentSpan.key, Tracer.externalSpan({ traceId, spanId, sampled }))
  return Context.unsafeMake(map)
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
