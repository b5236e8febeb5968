// What has happened to a job, step by step, and what it has said, attempt by attempt. Both lists are bounded, and lose their
// oldest lines first.

import { ask } from "./api.js"
import { byId, isAtEnd, make, oncePerFrame } from "./dom.js"
import { isFinal, label, lasted, named, since } from "./time.js"

const STEPS_MAX = 500
const LINES_MAX = 1000
/** How many events of the beginning are read at once, and how often for one click, where they have no step. */
const PAGE_EVENTS = 1000
const PAGES_MAX = 20

/** @typedef {import("./job.js").JobEvent} JobEvent */
/** @typedef {import("./job.js").Failure} Failure */
/** @typedef {{ what: HTMLElement, time: number }} Began */

/**
 * A failure in a line.
 * @param {Failure} failure
 * @returns {(Node | string)[]}
 */
export function told(failure) {
  const parts = [make("code", {}, failure.reason ?? "")]
  return [...parts, failure.message ? ` ${failure.message}` : "", failure.permanent ? " (for good)" : ""]
}

/** A list that grows at its end, once a frame, and stays where its reader is. */
class Tail {
  #element
  #max
  #onDrop
  /** Entries are made when they are shown: of a page that was hidden for long, most never are. @type {(() => HTMLElement)[]} */
  #waiting = []
  /** Its own; before them others may stand. @type {HTMLElement[]} */
  #entries = []
  #fresh = true
  #ask

  /**
   * @param {HTMLElement} element
   * @param {number} max
   * @param {(entry: HTMLElement) => HTMLElement} listOf
   * @param {() => void} onDrop
   */
  constructor(element, max, listOf, onDrop) {
    this.#element = element
    this.#max = max
    this.#onDrop = onDrop
    this.#ask = oncePerFrame(() => {
      // It opens at what has happened last.
      const follows = this.#fresh || isAtEnd(element)
      if (this.#fresh) element.replaceChildren()
      this.#fresh = false
      for (const made of this.#waiting.splice(0)) {
        const entry = made()
        listOf(entry).append(entry)
        this.#entries.push(entry)
      }
      const dropped = this.#entries.splice(0, Math.max(0, this.#entries.length - this.#max))
      for (const entry of dropped) entry.remove()
      if (dropped.length > 0) this.#onDrop()
      if (follows) element.scrollTop = element.scrollHeight
    })
    this.#ask()
  }

  /** @param {() => HTMLElement} made Makes the entry. */
  add(made) {
    this.#waiting.push(made)
    if (this.#waiting.length > this.#max) {
      this.#waiting.shift()
      this.#onDrop()
    }
    this.#ask()
  }
}

/** Steps to other states and into stages, one after the other, each with the time that it lasted. */
class Steps {
  #start
  /** The state and the stage that it is in, whose end is not known yet. @type {Began | null} */
  #state = null
  /** @type {Began | null} */
  #stage = null

  /** @param {number} start When the job was created. */
  constructor(start) {
    this.#start = start
  }

  /**
   * The entry of a step.
   * @param {JobEvent} event
   */
  take(event) {
    const { stateChange, stage } = event
    const time = Date.parse(event.eventTime)
    // A state lasts until the next one, and a stage until the next of either.
    for (const ended of stateChange ? [this.#state, this.#stage] : [this.#stage]) {
      ended?.what.append(" ", make("span", { class: "lasted" }, lasted(time - ended.time)))
    }
    const element = make("li", {
      "data-sequence": event.sequence,
      "data-attempt": String(event.attempt ?? 0),
      "data-event": stateChange ? "stateChange" : "stage",
      ...(stateChange ? { "data-state": stateChange.state } : {}),
    })
    const what = make("span", { class: "what" })
    if (stateChange) {
      what.append(make("strong", {}, label(stateChange.state)))
      if (stateChange.failure) what.append(" ", make("span", { class: "reason" }, ...told(stateChange.failure)))
      else if (stateChange.reason) what.append(" ", make("span", { class: "reason" }, named(stateChange.reason)))
      if (stateChange.message) what.append(" ", make("span", { class: "said" }, `“${stateChange.message}”`))
      if (stateChange.workerId) what.append(" ", make("span", { class: "worker" }, `by ${stateChange.workerId}`))
    } else {
      what.append(stage?.name ?? "")
    }
    element.append(since(event.eventTime, this.#start), " ", what)
    this.#stage = stateChange ? null : { what, time }
    if (stateChange) this.#state = isFinal(stateChange.state) ? null : { what, time }
    return element
  }
}

export class History {
  #list
  #lines
  #start
  #steps

  /**
   * @param {number} start When the job was created.
   * @param {string} address Where it is.
   * @param {number} first The event after which it is followed.
   */
  constructor(start, address, first) {
    this.#start = start
    this.#steps = new Steps(start)
    const timeline = byId("timeline")
    const log = byId("log")
    const beginning = new Beginning(start, address, first)
    const dropped = () => {
      byId("earlier").hidden = false
    }
    const droppedStep = () => {
      dropped()
      beginning.offer()
    }
    this.#list = new Tail(timeline, STEPS_MAX, () => timeline, droppedStep)
    this.#lines = new Tail(log, LINES_MAX, entry => this.#attempt(log, entry), dropped)
  }

  /**
   * A step to another state, or into a stage.
   * @param {JobEvent} event
   */
  step(event) {
    const entry = this.#steps.take(event)
    this.#list.add(() => entry)
  }

  /**
   * A line of the log.
   * @param {JobEvent} event
   */
  line(event) {
    this.#lines.add(() => {
      const level = event.log?.level ?? "INFO"
      const entry = make("li", {
        "data-sequence": event.sequence,
        "data-level": level,
        "data-of": String(event.attempt ?? 0),
      })
      const message = make("span", { class: "message" }, event.log?.message ?? "")
      entry.append(since(event.eventTime, this.#start), " ", make("span", { class: "level" }, level), " ", message)
      return entry
    })
  }

  /**
   * The list of the attempt that a line belongs to.
   * @param {HTMLElement} log
   * @param {HTMLElement} entry
   */
  #attempt(log, entry) {
    const attempt = entry.dataset.of ?? "0"
    const known = log.lastElementChild
    if (known instanceof HTMLElement && known.dataset.attempt === attempt && known.lastElementChild instanceof HTMLElement) {
      return known.lastElementChild
    }
    const list = make("ol")
    log.append(make("section", { "data-attempt": attempt }, make("h3", {}, `Attempt ${attempt}`), list))
    return list
  }
}

/** The beginning of a timeline of which the page has only the end: it is read on demand, a page after the other. */
class Beginning {
  #address
  #first
  #steps
  /** The last event that was read. */
  #read = 0
  /** Stands between what was read and what is followed. */
  #gap = make("li", {}, "…")
  #button = /** @type {HTMLButtonElement} */ (make("button", { type: "button", hidden: "" }, "Show the beginning"))

  /**
   * @param {number} start
   * @param {string} address
   * @param {number} first
   */
  constructor(start, address, first) {
    this.#address = address
    this.#first = first
    this.#steps = new Steps(start)
    byId("earlier").append(" ", this.#button)
    this.#button.addEventListener("click", () => void this.#show())
    if (first > 0) this.offer()
  }

  /** There are steps that the timeline has not. */
  offer() {
    this.#button.hidden = false
    this.#gap.hidden = false
  }

  /** Shows what comes next, or says that it could not be had. */
  async #show() {
    const timeline = byId("timeline")
    if (!this.#gap.isConnected) timeline.prepend(this.#gap)
    this.#button.disabled = true
    try {
      const { added, isWhole } = await this.#next()
      this.#gap.before(...added)
      timeline.scrollTop += (added[0] ?? this.#gap).getBoundingClientRect().top - timeline.getBoundingClientRect().top
      this.#button.textContent = "Show more of it"
      this.#button.hidden = isWhole
      this.#gap.hidden = isWhole
    } catch {
      this.#button.textContent = "It could not be had; try again"
    }
    this.#button.disabled = false
    // Who cannot press it meanwhile has lost the focus.
    if (document.activeElement === document.body) (this.#button.hidden ? timeline : this.#button).focus()
  }

  /** The next steps of it, and whether they are its last. */
  async #next() {
    // A page of nothing but output has no step.
    for (let page = 0; page < PAGES_MAX; page++) {
      const answer = await ask(`${this.#address}/events?afterSequence=${this.#read}&pageSize=${PAGE_EVENTS}`)
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
      /** @type {{ events?: JobEvent[], nextAfterSequence?: string }} */
      const { events = [], nextAfterSequence } = await answer.json()
      const end = Number(this.#gap.nextElementSibling?.getAttribute("data-sequence") ?? this.#first + 1)
      const steps = events.filter(event => (event.stateChange || event.stage) && Number(event.sequence) < end)
      this.#read = Math.min(end - 1, Number(events.at(-1)?.sequence ?? this.#read))
      const isWhole = !nextAfterSequence || this.#read === end - 1
      if (steps.length > 0 || isWhole) return { added: steps.map(event => this.#steps.take(event)), isWhole }
    }
    return { added: [], isWhole: false }
  }
}
