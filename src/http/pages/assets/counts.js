// How many jobs of each kind are in each state: the table of the server (`counts.rs`), kept up to date. While somebody reads
// the list below it, only its numbers change.

import { byId, make, mark, say } from "./dom.js"
import { either } from "./time.js"

/** How many jobs are in each state; what is absent is zero. @typedef {Record<string, number>} Line */
/**
 * What the server has counted: the kinds that have most to do, and how many more there are.
 * @typedef {object} Counted
 * @property {{kind: string, jobs: Line}[]} kinds
 * @property {number} moreKinds
 * @property {Line} all
 * @property {boolean} isCut There are more than can be counted.
 * @property {{kind: string, waiting: number}[]} unserved The kinds that nobody serves, and how many of their jobs wait.
 * @property {number} moreUnserved
 */

/** How many kinds that nobody serves are named: more would bury what is below. */
const NOTES_MAX = 5

export class Counts {
  /** @param {import("./reading.js").Reading} reading */
  constructor(reading) {
    this.reading = reading
    this.table = byId("counts")
    /** The states, in the order of their columns. */
    this.states = [...this.table.querySelectorAll("thead th[data-state]")].map(cell => cell.getAttribute("data-state") ?? "")
  }

  /** @param {Counted} counted */
  show(counted) {
    const { kinds, moreKinds, all, isCut } = counted
    const lines = new Map(kinds.map(({ kind, jobs }) => [kind, jobs]))
    const body = this.table.querySelector("tbody")
    const sum = this.table.querySelector("tfoot tr")
    if (!body || !sum) return
    const rows = new Map([...body.rows].map(row => [row.dataset.kind ?? "", row]))
    // While somebody reads the list below, no line comes or goes.
    const shown = this.reading.isOn ? [...rows.keys()] : [...lines.keys()]
    for (const [kind, row] of rows) if (!shown.includes(kind)) row.remove()
    shown.forEach((kind, index) => {
      const row = rows.get(kind) ?? this.#line(kind)
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null)
      // One that is not among those with most to do keeps its numbers for so long; where all are told of, it has no jobs.
      const line = lines.get(kind) ?? (moreKinds > 0 || isCut ? null : {})
      if (line) this.#fill(row, line, `&kind=${encodeURIComponent(kind)}`)
    })
    this.#fill(sum, all, "")
    if (!this.reading.isOn) byId("beyond").hidden = moreKinds === 0 && !isCut
    const words = `${moreKinds} more ${either(moreKinds, "kind is", "kinds are")} not listed; the sum has all.`
    say(byId("beyond"), isCut ? "There are more kinds than can be counted here." : words)
    this.#showUnserved(counted)
  }

  /** @param {string} kind */
  #line(kind) {
    const head = make("th", { scope: "row" }, make("a", { href: `/?show=all&kind=${encodeURIComponent(kind)}` }, kind))
    const cells = this.states.map(state => make("td", { "data-state": state }))
    return /** @type {HTMLTableRowElement} */ (make("tr", { "data-kind": kind }, head, ...cells))
  }

  /**
   * @param {Element} row
   * @param {Line} counts
   * @param {string} kind
   */
  #fill(row, counts, kind) {
    row.querySelectorAll("td").forEach((cell, place) => {
      const text = String(counts[this.states[place] ?? ""] ?? 0)
      if (cell.textContent === text) return
      mark(cell, "data-none", text === "0" ? "" : null)
      const link = cell.querySelector("a")
      if (text === "0") cell.replaceChildren("0")
      else if (link) say(link, text)
      else cell.replaceChildren(make("a", { href: `/?state=${this.states[place]}${kind}` }, text))
    })
  }

  /**
   * Says where jobs wait because nobody serves their kind.
   * @param {Counted} counted
   */
  #showUnserved({ unserved, moreUnserved }) {
    const notes = byId("unserved")
    const known = new Map([...notes.children].map(note => [note.getAttribute("data-kind") ?? "", note]))
    if (this.reading.isOn) {
      const waiting = new Map(unserved.map(({ kind, waiting }) => [kind, waiting]))
      for (const [kind, note] of known) {
        const number = note.querySelector("span")
        const now = waiting.get(kind) ?? (moreUnserved > 0 ? null : 0)
        if (number && now !== null) say(number, String(now))
      }
      return
    }
    const named = unserved.slice(0, NOTES_MAX)
    const more = unserved.length - named.length + moreUnserved
    byId("more-unserved").hidden = more === 0
    say(byId("more-unserved"), `So it is with ${more} more ${either(more, "kind", "kinds")}.`)
    for (const [kind, note] of known) if (!named.some(one => one.kind === kind)) note.remove()
    for (const { kind, waiting } of named) {
      const number = known.get(kind)?.querySelector("span")
      if (number) {
        say(number, String(waiting))
        continue
      }
      const count = make("span", {}, String(waiting))
      const words = ["No worker serves the kind ", make("strong", {}, kind), ": ", count, " waiting."]
      notes.append(make("p", { class: "unserved", "data-kind": kind }, ...words))
    }
  }
}
