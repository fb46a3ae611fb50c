/**
 * A linked list, in the order in which its links came. The links are its users' own: each is in one list at a time.
 *
 * Where values come and go with connections this is no Set. V8 gives a Set a new table every so many additions. Once one of its
 * tables has become old, all that follow are made old, and each that was left behind keeps what it held alive until the whole heap is collected: small
 * collections then took 6 to 9 milliseconds instead of 2, a tenth of what opening handshakes cost, for as long as the process lived.
 */

/** What can be in a {@link Roster}, whose the fields are. */
export interface Link<L extends Link<L>> {
  list: Roster<L> | undefined
  next: L | undefined
  previous: L | undefined
}

/** See the module. */
export class Roster<L extends Link<L>> {
  first: L | undefined
  private last: L | undefined
  size = 0

  /** Puts a link that is in no list behind all others. */
  add(link: L): void {
    const { last } = this
    link.list = this
    link.previous = last
    if (last === undefined) this.first = link
    else last.next = link
    this.last = link
    this.size++
  }

  /** `false` if the link is not in this list. */
  remove(link: L): boolean {
    if (link.list !== this) return false
    const { next, previous } = link
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    // An old link that was taken out would keep those behind it alive.
    link.list = link.next = link.previous = undefined
    this.size--
    return true
  }
}
