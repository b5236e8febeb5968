// The dashboard: its list follows a watch, and what there is beside it is asked for every few seconds while it is shown.

import { answerOf } from "./api.js"
import { Charts } from "./charts.js"
import { Counts } from "./counts.js"
import { byId, make, say } from "./dom.js"
import { List } from "./list.js"
import { Reading } from "./reading.js"
import { prepare } from "./start.js"
import { either, keepTimes, serverSays } from "./time.js"

/** How often it is asked for, in milliseconds. */
const OVERVIEW_EVERY = 2000

/**
 * What `/overview` answers.
 * @typedef {object} Overview
 * @property {string} now
 * @property {string} startTime
 * @property {number} interval Seconds of each of the recent slices.
 * @property {Worker[]} workers
 * @property {number} moreWorkers
 * @property {import("./counts.js").Counted} counts
 * @property {import("./charts.js").Slice[]} recent
 * @property {import("./charts.js").Slice} total
 */

/** @typedef {{name: string, inProcess: boolean, kinds: string[], moreKinds: number, jobs: number, free: number}} Worker */

/** The kinds that nobody serves though jobs of theirs wait; at first, those of which the page says so. @type {ReadonlySet<string>} */
let unserved = new Set(kindsOf("#unserved strong, #jobs li:has(.unserved) .kind"))
/** @type {List | null} */
let list = null

/** @param {string} selector */
function kindsOf(selector) {
  return [...document.querySelectorAll(selector)].map(kind => kind.textContent ?? "")
}

/**
 * Asks again and again, while the page is shown; one answer at a time, and what fails is asked for again.
 * @param {string} address
 * @param {number} interval
 * @param {(answer: any) => void} heard
 */
function poll(address, interval, heard) {
  /** @type {number | undefined} */
  let timer
  let asking = false
  async function again() {
    clearTimeout(timer)
    if (document.hidden || asking) return
    asking = true
    const answer = await answerOf(address)
    asking = false
    timer = setTimeout(again, interval)
    // Where there is none, the list's own stream says that the server is away.
    if (answer) heard(answer)
  }
  document.addEventListener("visibilitychange", again)
  again()
}

/** @param {Overview} overview */
function showOverview(overview) {
  serverSays(Date.parse(overview.now))
  charts.draw(overview)
  showWorkers(overview)
  counts.show(overview.counts)
  const now = new Set(overview.counts.unserved.map(({ kind }) => kind))
  if (now.size === unserved.size && [...now].every(kind => unserved.has(kind))) return
  unserved = now
  list?.serve(unserved)
}

/** @param {Overview} overview */
function showWorkers({ workers, moreWorkers }) {
  const all = byId("workers")
  const key = (/** @type {{name: string, inProcess: boolean}} */ worker) => `${worker.inProcess} ${worker.name}`
  const known = new Map([...all.children].map(element => {
    const name = element.getAttribute("data-worker") ?? ""
    return [key({ name, inProcess: element.hasAttribute("data-in-process") }), element]
  }))
  const wanted = new Set(workers.map(key))
  for (const [name, element] of known) if (!wanted.has(name)) element.remove()
  workers.forEach((worker, index) => {
    const element = known.get(key(worker)) ?? workerOf(worker)
    if (all.children[index] !== element) all.insertBefore(element, all.children[index] ?? null)
    const [slots, kinds] = [".slots", ".kinds"].map(selector => element.querySelector(selector))
    if (slots) say(slots, `${worker.jobs} running, ${worker.free} free`)
    if (kinds) showKinds(kinds, worker)
  })
  byId("more-workers").hidden = moreWorkers === 0
  say(byId("more-workers"), `${moreWorkers} more ${either(moreWorkers, "is", "are")} not listed.`)
  byId("no-workers").hidden = workers.length > 0
}

/** @param {Worker} worker */
function workerOf({ name, inProcess }) {
  const own = inProcess ? [" ", make("span", { class: "own" }, "in the server")] : []
  const parts = [make("strong", {}, name), " ", make("span", { class: "slots" }), ...own, make("div", { class: "kinds" })]
  return make("li", { "data-worker": name, ...(inProcess ? { "data-in-process": "" } : {}) }, ...parts)
}

/**
 * @param {Element} element
 * @param {Worker} worker
 */
function showKinds(element, { kinds, moreKinds }) {
  const rest = moreKinds > 0 ? `and ${moreKinds} more` : ""
  if (element.textContent === kinds.map(kind => `${kind} `).join("") + rest) return
  element.replaceChildren(...kinds.flatMap(kind => [make("span", { class: "kind" }, kind), " "]), rest)
}

const charts = new Charts()
const reading = new Reading()
const counts = new Counts(reading)
keepTimes()
prepare()
const address = byId("jobs").dataset.watch
// What is older than the first page is not followed.
if (address) list = new List(address, unserved, reading)
poll("/overview", OVERVIEW_EVERY, showOverview)
