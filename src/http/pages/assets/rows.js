// The lines of the list of jobs: made of the parts that the server makes them of (`rows.rs`), and changed where a job has.

import { make, mark, say } from "./dom.js"
import { isFinal, label, lasted, moment, named } from "./time.js"

/**
 * A job of the API, as far as it is shown here.
 * @typedef {object} Job
 * @property {string} id
 * @property {string} kind
 * @property {string} state
 * @property {string} createTime
 * @property {string} [endTime]
 * @property {string} [nextAttemptTime]
 * @property {number} [attempt]
 * @property {{fraction?: number, stage?: string}} [progress]
 * @property {{reason?: string, message?: string}} [failure]
 */

/** How much of a failure is said here; the job's own page has all of it. */
const MESSAGE_CHARACTERS_MAX = 200

/**
 * The part of a ticket that tells it apart from those of the same moment.
 * @param {string} id
 */
function short(id) {
  return id.slice(id.lastIndexOf("-") + 1)
}

/**
 * What the order of jobs is by: the newest is the greatest.
 * @param {Job} job
 */
export function orderOf(job) {
  const [seconds, part = ""] = job.createTime.replace("Z", "").split(".")
  return `${seconds}.${part.padEnd(9, "0")} ${job.id}`
}

/** The line of a job. */
export class Row {
  /**
   * @param {HTMLElement} element
   * @param {string} order
   */
  constructor(element, order) {
    this.element = element
    this.order = order
    this.id = element.dataset.job ?? ""
    /** When it has left the list, and stays only so that nothing jumps. @type {number | null} */
    this.left = null
    this.state = part(element, ".state")
    this.bar = /** @type {HTMLProgressElement} */ (part(element, "progress"))
    this.percent = part(element, ".percent")
    this.note = part(element, ".note")
    /** What the note was made of. @type {string | null} */
    this.noted = null
  }

  /**
   * The line that the server has made.
   * @param {HTMLElement} element
   */
  static of(element) {
    const time = element.querySelector(".age time")
    const createTime = time?.getAttribute("datetime") ?? ""
    return new Row(element, orderOf(/** @type {Job} */ ({ id: element.dataset.job ?? "", createTime })))
  }

  /**
   * A new line.
   * @param {Job} job
   */
  static make(job) {
    const link = make("a", { class: "name", href: `/jobs/${job.id}` })
    link.append(make("span", { class: "kind" }, job.kind), " ", make("code", {}, short(job.id)))
    const bar = make("progress", { max: "1", "aria-label": `Progress of ${job.kind} ${short(job.id)}` })
    const parts = [make("span", { class: "state" }), bar, make("span", { class: "percent" }), make("span", { class: "note" })]
    const age = make("span", { class: "age" }, moment(job.createTime))
    return new Row(make("li", { "data-job": job.id }, link, ...parts, age), orderOf(job))
  }

  /**
   * Shows the job as it is now.
   * @param {Job} job
   * @param {ReadonlySet<string>} unserved
   */
  show(job, unserved) {
    mark(this.element, "data-state", job.state)
    mark(this.state, "data-state", job.state)
    say(this.state, label(job.state))
    const fraction = job.progress?.fraction
    const isUnknown = fraction === undefined && (job.state === "RUNNING" || job.state === "CANCELLING")
    mark(this.bar, "value", isUnknown ? null : String(fraction ?? 0))
    say(this.percent, fraction === undefined ? "" : `${Math.floor(fraction * 100)} %`)
    const noted = notedOf(job, unserved)
    if (noted === this.noted) return
    this.noted = noted
    const note = noteOf(job, unserved)
    if (note.length > 1 || note.some(part => typeof part !== "string") || this.note.childElementCount > 0) {
      this.note.replaceChildren(...note)
    } else {
      say(this.note, String(note[0] ?? ""))
    }
  }

  /** Is in the list no more, and stays for a while. */
  leave() {
    this.left ??= performance.now()
    this.element.classList.add("left")
  }

  /** Is in the list again. */
  comeBack() {
    if (this.left === null) return
    this.left = null
    this.element.classList.remove("left")
  }

  /** The server has forgotten it. */
  forget() {
    mark(this.element, "data-forgotten", "")
    this.note.replaceChildren("deleted")
    this.leave()
  }
}

/**
 * @param {HTMLElement} element
 * @param {string} selector
 * @returns {HTMLElement}
 */
function part(element, selector) {
  const found = element.querySelector(selector)
  if (!(found instanceof HTMLElement)) throw new Error(`a line has no ${selector}`)
  return found
}

/**
 * All that the note depends on, so that it is made anew only where that has changed.
 * @param {Job} job
 * @param {ReadonlySet<string>} unserved
 */
function notedOf(job, unserved) {
  const { state, attempt, progress, failure, nextAttemptTime, endTime } = job
  const waits = state === "PENDING" && !unserved.has(job.kind)
  const stage = isFinal(state) ? "" : progress?.stage
  return [state, attempt, stage, failure?.reason, failure?.message, nextAttemptTime, endTime, waits].join("\n")
}

/**
 * What is to be known of where it is.
 * @param {Job} job
 * @param {ReadonlySet<string>} unserved
 * @returns {(Node | string)[]}
 */
function noteOf(job, unserved) {
  const told = job.failure ? tell(job.failure) : ""
  switch (job.state) {
    case "PENDING":
      if (!unserved.has(job.kind)) return ["waits for a worker"]
      return [make("span", { class: "unserved" }, `no worker serves ${job.kind}`)]
    case "SCHEDULED":
    case "RETRYING": {
      const next = job.nextAttemptTime ? ["next attempt ", moment(job.nextAttemptTime)] : []
      return told ? [`${told}, `, ...next] : next
    }
    case "SUCCEEDED":
    case "CANCELLED":
      return job.endTime ? [`after ${lasted(Date.parse(job.endTime) - Date.parse(job.createTime))}`] : []
    case "FAILED":
    case "EXPIRED":
      return [told]
    default: {
      const stage = job.progress?.stage ?? ""
      const attempt = (job.attempt ?? 0) > 1 ? `attempt ${job.attempt}` : ""
      return [[stage, attempt].filter(part => part !== "").join(" · ")]
    }
  }
}

/** @param {{reason?: string, message?: string}} failure */
function tell({ reason = "", message = "" }) {
  return named(reason) + (message ? `: ${[...message.slice(0, 2 * MESSAGE_CHARACTERS_MAX)].slice(0, MESSAGE_CHARACTERS_MAX).join("")}` : "")
}
