/** The parts of the page, by the IDs of index.html. What came from somebody else is put in place as text, never as HTML. */
import { Effect, Runtime, type Scope } from "effect"

/** The element of that ID, which the page has, and which is of that kind. */
export const byId = <Tag extends keyof HTMLElementTagNameMap = "p">(id: string): HTMLElementTagNameMap[Tag] =>
  document.getElementById(id) as HTMLElementTagNameMap[Tag]

/** A new element. */
export const element = <Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  { text, ...properties }: Partial<HTMLElementTagNameMap[Tag]> & { readonly text?: string } = {},
  children: ReadonlyArray<Node> = []
): HTMLElementTagNameMap[Tag] => {
  const node = Object.assign(document.createElement(tag), properties)
  if (text !== undefined) node.textContent = text
  node.append(...children)
  return node
}

/** Writes text where it is another one: screen readers speak what is written, also when it was there already. */
export const setText = (node: Element, text: string): void => {
  if (node.textContent !== text) node.textContent = text
}

/** A time of day from milliseconds since 1970. */
export const clockTime = (at: number): string => new Date(at).toLocaleTimeString()

/** Runs an Effect for every event of a target, as long as the Scope lives. */
export const on = <R>(
  target: EventTarget,
  type: string,
  handle: (event: Event) => Effect.Effect<unknown, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  Effect.flatMap(Effect.runtime<R>(), (runtime) => {
    const listener = (event: Event) => {
      Runtime.runFork(runtime)(handle(event))
    }
    return Effect.acquireRelease(
      Effect.sync(() => target.addEventListener(type, listener)),
      () => Effect.sync(() => target.removeEventListener(type, listener))
    )
  })

/** A choice of this tab, where the browser allows to keep one. */
export const remembered = (key: string): string | undefined => {
  try {
    return sessionStorage.getItem(key) ?? undefined
  } catch {
    return undefined
  }
}

/** Keeps a choice of this tab, where the browser allows it. */
export const remember = (key: string, value: string): void => {
  try {
    sessionStorage.setItem(key, value)
  } catch {
    // Without storage the next visit asks again.
  }
}
