// The list of jobs, live. Nothing in it moves while somebody points at it or has the focus in it: what is new waits, and what
// has left stays where it was.

import { byId, oncePerFrame, say } from "./dom.js"
import { Row, orderOf } from "./rows.js"
import { follow } from "./stream.js"

/** @typedef {import("./rows.js").Job} Job */

/** How many lines there are at most. */
const ROWS_MAX = 250
/** How many lines are changed, and how many are made, in one frame, so that none takes long. The others have their turn next. */
const CHANGED_PER_FRAME = 30
const MADE_PER_FRAME = 15
/** How many are looked at, where most are not for the list. */
const SEEN_PER_FRAME = 500
/** With fewer lines than this it asks for those that it had no room for. */
const ROWS_MIN = 200
/** How long what has left stays, in milliseconds. */
const LEAVING = 6000

const TYPES = /** @type {const} */ (["job", "departed", "forgottenJobId", "synced"])

export class List {
  /** Those that are shown, newest first. @type {Row[]} */
  #rows = []
  /** @type {Map<string, Row>} */
  #byId = new Map()
  /** What is known of jobs and not shown yet. @type {Map<string, Job>} */
  #changed = new Map()
  /** The last that is known of each that is shown. @type {Map<string, Job>} */
  #known = new Map()
  /** What waits for whoever reads. @type {Map<string, Job>} */
  #newer = new Map()
  /** Those of them that are wanted now. @type {Set<string>} */
  #released = new Set()
  /** There are older ones, which it had no room for. */
  #isCut = false
  /** Those that the server has told of since the list was last known to be whole. @type {Set<string>} */
  #told = new Set()

  /**
   * @param {string} address
   * @param {ReadonlySet<string>} unserved
   * @param {import("./reading.js").Reading} reading
   */
  constructor(address, unserved, reading) {
    this.element = byId("jobs")
    this.button = byId("newer")
    this.unserved = unserved
    this.reading = reading
    for (const element of this.element.children) {
      if (element instanceof HTMLElement) this.#add(Row.of(element), this.#rows.length)
    }
    this.draw = oncePerFrame(() => this.#draw())
    reading.onChange(() => {
      if (!reading.isOn) this.#release()
    })
    this.button.addEventListener("click", () => this.#release())
    setInterval(() => this.#takeOut(), 1000)
    this.stream = follow({
      address: () => address,
      types: TYPES,
      heard: (type, event) => this.#hear(type, JSON.parse(event.data)),
      isOver: async () => false,
      // It has no cursor: who comes again is told all anew.
      begun: () => this.#told.clear(),
    })
  }

  /**
   * Somebody else runs jobs now.
   * @param {ReadonlySet<string>} unserved
   */
  serve(unserved) {
    this.unserved = unserved
    for (const [id, job] of this.#known) {
      if (job.state === "PENDING" && !this.#changed.has(id)) this.#changed.set(id, job)
    }
    this.draw()
  }

  /**
   * @param {string} type
   * @param {{job?: Job, departed?: Job, forgottenJobId?: string}} message
   */
  #hear(type, message) {
    const job = message.job ?? message.departed
    if (job) {
      if (type === "job") this.#told.add(job.id)
      else this.#told.delete(job.id)
      if (type === "job" || this.#byId.has(job.id)) this.#changed.set(job.id, job)
      else this.#changed.delete(job.id)
      const row = this.#byId.get(job.id)
      if (type === "departed") row?.leave()
      else row?.comeBack()
    } else if (message.forgottenJobId) {
      this.#forget(message.forgottenJobId)
    } else if (type === "synced") {
      this.#sync()
    }
    if (type === "departed" && job) this.#newer.delete(job.id)
    this.draw()
  }

  /** @param {string} id */
  #forget(id) {
    for (const jobs of [this.#changed, this.#known, this.#newer]) jobs.delete(id)
    this.#told.delete(id)
    this.#released.delete(id)
    this.#byId.get(id)?.forget()
  }

  /** The server has told all that it knows: what it has not told of is there no more. */
  #sync() {
    for (const row of this.#rows) {
      if (!this.#told.has(row.id)) row.leave()
    }
    for (const id of this.#newer.keys()) {
      if (!this.#told.has(id)) this.#newer.delete(id)
    }
    this.#told.clear()
  }

  #draw() {
    let [seen, changed, made] = [0, 0, 0]
    for (const [id, job] of this.#changed) {
      if (changed === CHANGED_PER_FRAME || made === MADE_PER_FRAME || seen === SEEN_PER_FRAME) break
      seen += 1
      const row = this.#byId.get(id)
      if (row) {
        row.show(job, this.unserved)
        this.#known.set(id, job)
        changed += 1
      } else if (!this.#take(job)) {
        made += 1
      }
      this.#changed.delete(id)
    }
    this.#trim()
    this.#count()
    if (this.#changed.size > 0) this.draw()
  }

  /**
   * Puts a new job into the list, or aside; returns whether it is aside.
   * @param {Job} job
   */
  #take(job) {
    const isWanted = this.#released.delete(job.id)
    const place = this.#placeOf(orderOf(job))
    if (place >= ROWS_MAX) {
      this.#isCut = true
      return true
    }
    // What comes behind all others moves none of them.
    if (!isWanted && this.reading.isOn && place < this.#rows.length) {
      this.#newer.set(job.id, job)
      // No more than there is room for; the newest came last.
      for (const oldest of this.#newer.keys()) {
        if (this.#newer.size <= ROWS_MAX) break
        this.#newer.delete(oldest)
        this.#isCut = true
      }
      return true
    }
    const row = Row.make(job)
    row.show(job, this.unserved)
    this.#known.set(job.id, job)
    this.#add(row, place)
    return false
  }

  /**
   * @param {Row} row
   * @param {number} place
   */
  #add(row, place) {
    if (!row.element.isConnected) this.element.insertBefore(row.element, this.#rows[place]?.element ?? null)
    this.#rows.splice(place, 0, row)
    this.#byId.set(row.id, row)
  }

  /**
   * Where a line belongs: behind all that are newer.
   * @param {string} order
   */
  #placeOf(order) {
    let [from, to] = [0, this.#rows.length]
    while (from < to) {
      const middle = (from + to) >> 1
      if (this.#rows[middle].order > order) from = middle + 1
      else to = middle
    }
    return from
  }

  #trim() {
    while (this.#rows.length > ROWS_MAX) {
      this.#remove(this.#rows[this.#rows.length - 1])
      this.#isCut = true
    }
  }

  /** @param {Row} row */
  #remove(row) {
    row.element.remove()
    this.#rows.splice(this.#rows.indexOf(row), 1)
    this.#byId.delete(row.id)
    this.#known.delete(row.id)
  }

  /** Takes out what has left long enough ago, unless somebody reads. */
  #takeOut() {
    if (this.reading.isOn || document.hidden) return
    const now = performance.now()
    const gone = this.#rows.filter(row => row.left !== null && now - row.left > LEAVING)
    if (gone.length === 0) return
    gone.forEach(row => this.#remove(row))
    if (this.#isCut && this.#rows.length < ROWS_MIN) {
      this.#isCut = false
      this.stream.anew()
    }
    this.#count()
  }

  #count() {
    const count = this.#newer.size
    this.button.hidden = count === 0
    say(this.button, `Show ${count === ROWS_MAX ? `${count} or more` : count} new ${count === 1 ? "job" : "jobs"}`)
    byId("none").hidden = this.#rows.length > 0 || this.#isCut || this.#changed.size > 0
  }

  /** Shows what waits. */
  #release() {
    for (const [id, job] of this.#newer) {
      this.#released.add(id)
      if (!this.#changed.has(id)) this.#changed.set(id, job)
    }
    this.#newer.clear()
    this.#count()
    this.draw()
  }
}
