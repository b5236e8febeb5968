// What has happened to a job, step by step, and what it has said, attempt by attempt. Both lists are bounded, and lose their
// oldest lines first.

import { byId, isAtEnd, make, oncePerFrame } from "./dom.js"
import { isFinal, label, lasted, named, since } from "./time.js"

const STEPS_MAX = 500
const LINES_MAX = 1000

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
  /** @type {HTMLElement[]} */
  #waiting = []
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
      for (const entry of this.#waiting.splice(0)) listOf(entry).append(entry)
      const entries = element.getElementsByTagName("li")
      while (entries.length > this.#max) {
        entries[0]?.remove()
        this.#onDrop()
      }
      if (follows) element.scrollTop = element.scrollHeight
    })
    this.#ask()
  }

  /** @param {HTMLElement} entry */
  add(entry) {
    this.#waiting.push(entry)
    if (this.#waiting.length > this.#max) {
      this.#waiting.shift()
      this.#onDrop()
    }
    this.#ask()
  }
}

export class History {
  #steps
  #lines
  #start
  /** The state and the stage that it is in, whose end is not known yet. @type {Began | null} */
  #state = null
  /** @type {Began | null} */
  #stage = null

  /** @param {number} start When the job was created. */
  constructor(start) {
    this.#start = start
    const timeline = byId("timeline")
    const log = byId("log")
    const dropped = () => {
      byId("earlier").hidden = false
    }
    this.#steps = new Tail(timeline, STEPS_MAX, () => timeline, dropped)
    this.#lines = new Tail(log, LINES_MAX, entry => this.#attempt(log, entry), dropped)
  }

  /**
   * A step to another state, or into a stage.
   * @param {JobEvent} event
   */
  step(event) {
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
    this.#steps.add(element)
  }

  /**
   * A line of the log.
   * @param {JobEvent} event
   */
  line(event) {
    const level = event.log?.level ?? "INFO"
    const entry = make("li", {
      "data-sequence": event.sequence,
      "data-level": level,
      "data-of": String(event.attempt ?? 0),
    })
    const message = make("span", { class: "message" }, event.log?.message ?? "")
    entry.append(since(event.eventTime, this.#start), " ", make("span", { class: "level" }, level), " ", message)
    this.#lines.add(entry)
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
