// States, times and reasons in words: the same as the server's own (`words.rs`). Times of the page are kept up to date here.

import { make, mark, say } from "./dom.js"

const FINAL = new Set(["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"])

/**
 * Whether a job of this state has ended.
 * @param {string} state
 */
export function isFinal(state) {
  return FINAL.has(state)
}

/**
 * What a state is called; a new one by its own name.
 * @param {string} state
 */
export function label(state) {
  return state.charAt(0) + state.slice(1).toLowerCase()
}

/**
 * A reason in plain words: CANCEL_REQUESTED is "cancel requested".
 * @param {string} reason
 */
export function named(reason) {
  return reason.toLowerCase().replaceAll("_", " ")
}

/**
 * What is said of one, or of any other number.
 * @param {number} count
 * @param {string} one
 * @param {string} more
 */
export function either(count, one, more) {
  return count === 1 ? one : more
}

/**
 * How long something took, in the two largest units.
 * @param {number} milliseconds
 */
export function lasted(milliseconds) {
  const seconds = Math.floor(Math.max(0, milliseconds) / 1000)
  if (seconds < 1) return `${Math.floor(Math.max(0, milliseconds))} ms`
  if (seconds < 60) return `${Math.floor(milliseconds / 100) / 10} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`
}

/**
 * A duration of protobuf's JSON ("1.5s") in milliseconds.
 * @param {string | undefined} text
 */
export function milliseconds(text) {
  return text ? Number.parseFloat(text) * 1000 : 0
}

/**
 * How far a time is from now, in one unit, and not to the second where nobody needs that.
 * @param {number} time
 * @param {number} now
 */
export function ago(time, now) {
  const seconds = Math.floor(Math.abs(now - time) / 1000)
  const [amount, unit] =
    seconds < 60 ? [seconds, "s"]
    : seconds < 3600 ? [Math.floor(seconds / 60), "min"]
    : seconds < 86400 ? [Math.floor(seconds / 3600), "h"]
    : [Math.floor(seconds / 86400), "d"]
  if (amount === 0) return "now"
  return time <= now ? `${amount} ${unit} ago` : `in ${amount} ${unit}`
}

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" })

/**
 * An element that says how long ago a time was, and exactly when, to who points at it.
 * @param {string} time
 */
export function moment(time) {
  const element = /** @type {HTMLTimeElement} */ (make("time", { datetime: time }))
  tell(element, serverNow())
  return element
}

/**
 * An element that says how long after the start something was: of a list that is read, nothing changes.
 * @param {string} time
 * @param {number} start
 */
export function since(time, start) {
  const at = Date.parse(time)
  const element = make("time", { datetime: time, "data-fixed": "", title: EXACT.format(at) })
  element.textContent = `+${lasted(at - start)}`
  return element
}

/** How far the server's clock is ahead of this one, as far as is known. */
let ahead = 0

/**
 * Takes note of the server's time, so that ages are true where the two clocks differ.
 * @param {number} now
 */
export function serverSays(now) {
  const difference = now - Date.now()
  // A message is under way for a while: only what cannot be that counts.
  if (Math.abs(difference - ahead) > 2000) ahead = difference
}

/** The server's time, about. */
export function serverNow() {
  return Date.now() + ahead
}

/**
 * @param {HTMLTimeElement} element
 * @param {number} now
 */
function tell(element, now) {
  const time = Date.parse(element.dateTime)
  if (Number.isNaN(time)) return
  say(element, ago(time, now))
  // The server knows no reader's time zone.
  if (!element.title || element.title === element.dateTime) mark(element, "title", EXACT.format(time))
}

/** Keeps all times of the page up to date, while it is shown. The server has written what time it is. */
export function keepTimes() {
  const written = Date.parse(document.body.dataset.now ?? "")
  if (!Number.isNaN(written)) serverSays(written)
  const all = () => {
    if (document.hidden) return
    const now = serverNow()
    for (const element of /** @type {NodeListOf<HTMLTimeElement>} */ (document.querySelectorAll("time:not([data-fixed])"))) {
      tell(element, now)
    }
  }
  all()
  setInterval(all, 1000)
  document.addEventListener("visibilitychange", all)
}
