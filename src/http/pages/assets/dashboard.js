// The dashboard: its list follows a watch, and what there is beside it is asked for every few seconds while it is shown.

import { answerOf } from "./api.js"
import { Charts } from "./charts.js"
import { Counts } from "./counts.js"
import { byId, make, say } from "./dom.js"
import { List } from "./list.js"
import { Reading } from "./reading.js"
import { prepare } from "./start.js"
import { keepTimes, serverSays } from "./time.js"

/** How often each is asked for, in milliseconds. */
const COUNTS_EVERY = 2000
const OVERVIEW_EVERY = 5000
/** As many kinds of a worker as the server names (`dashboard.rs`). */
const WORKER_KINDS_MAX = 12

/**
 * What `/overview` answers.
 * @typedef {object} Overview
 * @property {string} now
 * @property {string} startTime
 * @property {number} interval Seconds of each of the recent slices.
 * @property {Worker[]} workers
 * @property {number} moreWorkers
 * @property {string[]} servedKinds
 * @property {import("./charts.js").Slice[]} recent
 * @property {import("./charts.js").Slice} total
 */

/** @typedef {{name: string, inProcess: boolean, kinds: string[], jobs: number, free: number}} Worker */

/** The kinds that somebody serves; at first, those on the page of which it does not say that nobody does. @type {ReadonlySet<string>} */
let served = servedAtFirst()
/** @type {List | null} */
let list = null

function servedAtFirst() {
  const kinds = (/** @type {string} */ selector) => [...document.querySelectorAll(selector)].map(kind => kind.textContent ?? "")
  const served = new Set(kinds("#workers .kind, #counts tbody th, #jobs .kind"))
  for (const kind of kinds("#unserved strong, #jobs li:has(.unserved) .kind")) served.delete(kind)
  return served
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
  const now = new Set(overview.servedKinds)
  if (now.size === served.size && [...now].every(kind => served.has(kind))) return
  served = now
  list?.serve(served)
  counts.serve(served)
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
    if (kinds) showKinds(kinds, worker.kinds)
  })
  byId("more-workers").hidden = moreWorkers === 0
  say(byId("more-workers"), `${moreWorkers} more are not listed.`)
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
 * @param {readonly string[]} kinds
 */
function showKinds(element, kinds) {
  const shown = kinds.slice(0, WORKER_KINDS_MAX)
  const rest = kinds.length > shown.length ? `and ${kinds.length - shown.length} more` : ""
  if (element.textContent === shown.map(kind => `${kind} `).join("") + rest) return
  element.replaceChildren(...shown.flatMap(kind => [make("span", { class: "kind" }, kind), " "]), rest)
}

const charts = new Charts()
const reading = new Reading()
const counts = new Counts(served, reading)
keepTimes()
prepare()
const address = byId("jobs").dataset.watch
// What is older than the first page is not followed.
if (address) list = new List(address, served, reading)
poll("/v1/jobs:count", COUNTS_EVERY, answer => counts.show(answer.counts ?? [], answer.truncated === true))
poll("/overview", OVERVIEW_EVERY, showOverview)
