// How many jobs of each kind are in each state: the table of the server (`counts.rs`), kept up to date. While somebody reads
// the list below it, only its numbers change.

import { byId, make, mark, say } from "./dom.js"
import { isFinal } from "./time.js"

/** @typedef {{kind: string, state: string, jobs: string}} Count */

/** As many kinds as the server lists. */
const KINDS_MAX = 50
/** How many kinds that nobody serves are named: more would bury what is below. */
const NOTES_MAX = 5

export class Counts {
  /** By kind, in the order of the columns. @type {ReadonlyMap<string, number[]>} */
  #counted = new Map()

  /**
   * @param {ReadonlySet<string>} served
   * @param {import("./reading.js").Reading} reading
   */
  constructor(served, reading) {
    this.served = served
    this.reading = reading
    this.table = byId("counts")
    /** The states, in the order of their columns. */
    this.states = [...this.table.querySelectorAll("thead th[data-state]")].map(cell => cell.getAttribute("data-state") ?? "")
  }

  /**
   * Somebody else runs jobs now.
   * @param {ReadonlySet<string>} served
   */
  serve(served) {
    this.served = served
    this.#showUnserved()
  }

  /**
   * @param {Count[]} counts
   * @param {boolean} isCut There are more than these.
   */
  show(counts, isCut) {
    /** @type {Map<string, number[]>} */
    const lines = new Map()
    const all = this.states.map(() => 0)
    for (const { kind, state, jobs } of counts) {
      const place = this.states.indexOf(state)
      if (place < 0) continue
      const line = lines.get(kind) ?? this.states.map(() => 0)
      line[place] += Number(jobs)
      all[place] += Number(jobs)
      lines.set(kind, line)
    }
    this.#counted = lines
    const body = this.table.querySelector("tbody")
    const sum = this.table.querySelector("tfoot tr")
    if (!body || !sum) return
    const rows = new Map([...body.rows].map(row => [row.dataset.kind ?? "", row]))
    // While somebody reads the list below, no line comes or goes.
    const shown = this.reading.isOn ? [...rows.keys()] : this.#chosen(lines)
    for (const [kind, row] of rows) if (!shown.includes(kind)) row.remove()
    shown.forEach((kind, index) => {
      const row = rows.get(kind) ?? this.#line(kind)
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null)
      this.#fill(row, lines.get(kind) ?? [], `&kind=${encodeURIComponent(kind)}`)
    })
    this.#fill(sum, all, "")
    const more = lines.size - shown.length
    if (!this.reading.isOn) byId("beyond").hidden = more <= 0 && !isCut
    const words = `${more} more kinds are not listed; they are part of the sum.`
    say(byId("beyond"), isCut ? "There are more kinds than can be counted here." : words)
    this.#showUnserved()
  }

  /**
   * The kinds that have most to do, by name.
   * @param {Map<string, number[]>} lines
   */
  #chosen(lines) {
    const sum = (/** @type {number[]} */ line) => line.reduce((sum, count) => sum + count, 0)
    const active = (/** @type {number[]} */ line) => sum(line.filter((_, place) => !isFinal(this.states[place])))
    const all = [...lines].map(([kind, line]) => ({ kind, active: active(line), all: sum(line) }))
    all.sort((one, other) => other.active - one.active || other.all - one.all || (one.kind < other.kind ? -1 : 1))
    return all.slice(0, KINDS_MAX).map(({ kind }) => kind).sort()
  }

  /** @param {string} kind */
  #line(kind) {
    const head = make("th", { scope: "row" }, make("a", { href: `/?show=all&kind=${encodeURIComponent(kind)}` }, kind))
    const cells = this.states.map(state => make("td", { "data-state": state }))
    return /** @type {HTMLTableRowElement} */ (make("tr", { "data-kind": kind }, head, ...cells))
  }

  /**
   * @param {Element} row
   * @param {readonly number[]} counts
   * @param {string} kind
   */
  #fill(row, counts, kind) {
    row.querySelectorAll("td").forEach((cell, place) => {
      const text = String(counts[place] ?? 0)
      if (cell.textContent === text) return
      mark(cell, "data-none", text === "0" ? "" : null)
      const link = cell.querySelector("a")
      if (text === "0") cell.replaceChildren("0")
      else if (link) say(link, text)
      else cell.replaceChildren(make("a", { href: `/?state=${this.states[place]}${kind}` }, text))
    })
  }

  /** Says where jobs wait because nobody serves their kind. */
  #showUnserved() {
    const notes = byId("unserved")
    const pending = this.states.indexOf("PENDING")
    const unserved = [...this.#counted].filter(([kind, line]) => line[pending] > 0 && !this.served.has(kind))
    const waiting = new Map(unserved.slice(0, NOTES_MAX))
    const known = new Map([...notes.children].map(note => [note.getAttribute("data-kind") ?? "", note]))
    if (this.reading.isOn) {
      for (const [kind, note] of known) {
        const number = note.querySelector("span")
        if (number) say(number, String(this.#counted.get(kind)?.[pending] ?? 0))
      }
      return
    }
    const more = unserved.length - waiting.size
    byId("more-unserved").hidden = more === 0
    say(byId("more-unserved"), `So it is with ${more} more kinds.`)
    for (const [kind, note] of known) if (!waiting.has(kind)) note.remove()
    for (const [kind, line] of waiting) {
      const number = known.get(kind)?.querySelector("span")
      if (number) {
        say(number, String(line[pending]))
        continue
      }
      const count = make("span", {}, String(line[pending]))
      const words = ["No worker serves the kind ", make("strong", {}, kind), ": ", count, " waiting."]
      notes.append(make("p", { class: "unserved", "data-kind": kind }, ...words))
    }
  }
}
