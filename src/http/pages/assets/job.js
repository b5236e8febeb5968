// The page of a job, kept up to date by the watch that every client has. The server has written it as it was; the first
// message of the watch takes over from there.

import { enhance } from "./actions.js"
import { answerOf, ask, exactly, isExact } from "./api.js"
import { prepareCopies } from "./copy.js"
import { byId, make, mark, oncePerFrame, say } from "./dom.js"
import { History, told } from "./history.js"
import { Output } from "./output.js"
import { follow } from "./stream.js"
import { either, isFinal, keepTimes, label, lasted, milliseconds, moment, serverNow, serverSays } from "./time.js"

/** @typedef {{ reason?: string, message?: string, permanent?: boolean }} Failure */
/**
 * @typedef {object} Progress
 * @property {number} [fraction]
 * @property {boolean} [estimated]
 * @property {string} [stage]
 * @property {string} [completed]
 * @property {string} [total]
 * @property {string} [unit]
 * @property {string} [expectedEndTime]
 */
/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} kind
 * @property {string} state
 * @property {number} [attempt]
 * @property {Progress} [progress]
 * @property {Failure} [failure]
 * @property {Record<string, number>} [metrics]
 * @property {string} [workerId]
 * @property {number} [queuePosition]
 * @property {string} createTime
 * @property {string} [startTime]
 * @property {string} [endTime]
 * @property {string} [nextAttemptTime]
 * @property {string} [attemptStartTime]
 * @property {string} [queueDuration]
 * @property {string} [runDuration]
 * @property {string} [sequence]
 * @property {{ retryPolicy?: { maximumAttempts?: number } }} [options]
 */
/**
 * @typedef {object} JobEvent
 * @property {string} sequence
 * @property {number} [attempt]
 * @property {string} eventTime
 * @property {{ job: Job }} [snapshot]
 * @property {{ state: string, reason?: string, failure?: Failure, workerId?: string, message?: string, result?: unknown }} [stateChange]
 * @property {Progress} [progress]
 * @property {{ offset?: string, data?: string, channel?: string }} [output]
 * @property {{ keptBytes?: string, channel?: string }} [outputReset]
 * @property {{ level?: string, message?: string }} [log]
 * @property {{ values?: Record<string, number> }} [metrics]
 * @property {{ name?: string }} [stage]
 * @property {{ position?: number, expectedStartTime?: string }} [queueUpdate]
 */

const TYPES = /** @type {const} */ ([
  "snapshot", "stateChange", "stage", "output", "outputReset", "log", "progress", "metrics", "queueUpdate", "problem",
])
/** How many notes about void output are kept. */
const NOTES_MAX = 20
/** How often it is asked whether somebody serves the kind of a job that waits. */
const SERVED_EVERY = 5000

const id = document.body.dataset.job ?? ""
const address = `/v1/jobs/${id}`
/** After which event to begin to read: the server knows how much there is. */
const first = Number(byId("timeline").dataset.after ?? 0)

/** What is known of the job. @type {Job} */
let job = { id, kind: "", state: byId("state").dataset.state ?? "", createTime: "" }
/** The last kept event that was seen; before the first, where to begin. @type {number | null} */
let cursor = null
/** @type {History | null} */
let history = null
/** @type {Map<string, Output>} */
const outputs = new Map()
/** The attempts that have had output, by channel, to tell one that begins anew from one that takes back. @type {Map<string, number>} */
const writers = new Map()
/** The failures that ended attempts. @type {Map<number, Failure>} */
const failures = new Map()
/** The last event that the snapshot has. */
let known = 0
/** The last step to another state that was seen. */
let changed = 0
let stage = ""
/** The state and the attempt that were said last. @type {string | null} */
let announced = null
const announcer = make("p", { id: "announced", class: "unseen", role: "status" })
byId("now").append(announcer)
byId("actions").tabIndex = -1
let isServed = "served" in byId("queue").dataset
/** @type {{ position?: number, expectedStartTime?: string } | null} */
let queue = null

const stream = follow({
  address: () => `${address}:watch?afterSequence=${cursor ?? first}`,
  types: TYPES,
  heard,
  isOver,
})

/**
 * @param {string} type
 * @param {MessageEvent} message
 */
function heard(type, message) {
  if (type === "problem") return gone(JSON.parse(message.data))
  /** @type {JobEvent} */
  const event = JSON.parse(message.data)
  if (event.snapshot) return begin(event.snapshot.job)
  // What is older than the snapshot says nothing about the time.
  // And what comes late must not set the clock back.
  if (Number(event.sequence) > known && Date.parse(event.eventTime) > serverNow()) serverSays(Date.parse(event.eventTime))
  switch (type) {
    case "stateChange":
      change(event, message.data)
      break
    case "stage":
      stage = event.stage?.name ?? ""
      history?.step(event)
      break
    case "output":
      write(event)
      break
    case "outputReset":
      reset(event)
      break
    case "log":
      history?.line(event)
      break
    case "progress":
      job.progress = event.progress
      break
    case "metrics":
      job.metrics = event.metrics?.values
      showMetrics()
      break
    case "queueUpdate":
      queue = event.queueUpdate ?? null
      break
  }
  cursor = Number(event.sequence)
  draw()
}

/**
 * The first message of each connection.
 * @param {Job} snapshot
 */
function begin(snapshot) {
  if (cursor !== null && Number(snapshot.sequence) < cursor) {
    // The store is an earlier one: a backup was restored. Nothing of what is shown is sure.
    location.reload()
    return
  }
  job = snapshot
  known = Number(snapshot.sequence)
  queue = { position: snapshot.queuePosition }
  if (!history) {
    history = new History(Date.parse(job.createTime), address, first)
    cursor = first
    byId("earlier").hidden = first === 0
    for (const channel of channels()) channel.remove()
    output("")
  }
  if (isFinal(job.state) && Number(job.sequence) <= (cursor ?? 0)) stream.end()
  facts()
  draw()
}

/**
 * A step to another state. Numbers of a result are kept as they were written.
 * @param {JobEvent} event
 * @param {string} text
 */
function change(event, text) {
  const step = event.stateChange
  if (!step) return
  history?.step(event)
  const attempt = event.attempt ?? 0
  if (step.failure) failures.set(attempt, step.failure)
  if (attempt !== job.attempt) stage = ""
  if (Number(event.sequence) > Number(job.sequence ?? 0) || isFinal(step.state)) {
    job.state = step.state
    job.failure = step.failure
    job.workerId = step.workerId
    // Of an attempt that begins nothing is known yet.
    if (attempt !== job.attempt) job.progress = {}
    job.attempt = attempt
    changed = Number(event.sequence)
    void refresh()
  }
  if (step.result !== undefined) {
    say(byId("result"), exactly(text, parsed => parsed.stateChange.result))
    byId("returned").hidden = false
    // It is whole now.
    byId("returned").querySelector(".cut")?.remove()
  }
  if (isFinal(step.state)) {
    say(byId("done"), "")
    if (step.state === "SUCCEEDED") job.progress = { ...job.progress, fraction: 1 }
    // It is the last that is kept of a job.
    cursor = Number(event.sequence)
    stream.end()
  }
}

/** @param {JobEvent} event */
function write(event) {
  const { offset = "0", data = "", channel = "" } = event.output ?? {}
  writers.set(channel, event.attempt ?? 0)
  output(channel).append(Number(offset), data)
}

/** @param {JobEvent} event */
function reset(event) {
  const { keptBytes = "0", channel = "" } = event.outputReset ?? {}
  const cut = output(channel).cut(Number(keptBytes))
  if (cut === 0) return
  const attempt = event.attempt ?? 0
  const writer = writers.get(channel) ?? 0
  const failure = failures.get(writer)
  const which = channel ? ` in ${channel}` : ""
  const bytes = `${cut} ${either(cut, "byte", "bytes")}${which} ${either(cut, "is", "are")} void`
  const what = Number(keptBytes) > 0 ? `the last ${bytes}` : bytes
  // Only a checkpoint keeps output of an earlier attempt; whether there is one that keeps none is not told here.
  const again = Number(keptBytes) > 0 ? "went on from its checkpoint" : "began"
  const why =
    writer === attempt ? [`Attempt ${attempt} took back what it had written: `]
    : failure ? [`Attempt ${writer} failed (`, ...told(failure), `) and attempt ${attempt} ${again}: `]
    : [`Attempt ${writer} ended and attempt ${attempt} ${again}: `]
  const list = byId("void")
  list.append(make("li", {}, ...why, `${what}.`))
  while (list.children.length > NOTES_MAX) list.firstElementChild?.remove()
}

/** The parts of the page about channels beside the main one. */
function channels() {
  return [...byId("channels").querySelectorAll("[data-channel]")]
}

/**
 * The output of a channel, in a part of its own.
 * @param {string} channel
 */
function output(channel) {
  const known = outputs.get(channel)
  if (known) return known
  const note = make("p", { class: "cut" })
  let text = byId("output")
  if (channel === "") {
    // What the server has said of its own text is no longer true.
    if (text.previousElementSibling?.classList.contains("cut")) text.previousElementSibling.remove()
    text.before(note)
  } else {
    text = make("pre", { class: "output", tabindex: "0", role: "region", "aria-label": channel })
    byId("channels").append(make("section", { "data-channel": channel }, make("h2", {}, `Output: ${channel}`), note, text))
  }
  const made = new Output(text, note)
  outputs.set(channel, made)
  return made
}

const draw = oncePerFrame(() => {
  const state = byId("state")
  mark(state, "data-state", job.state)
  say(state, label(job.state))
  const over = isFinal(job.state)
  const fraction = job.state === "SUCCEEDED" ? 1 : job.attempt ? job.progress?.fraction : over ? undefined : 0
  const bar = byId("progress")
  mark(bar, "data-state", job.state)
  mark(bar, "value", fraction !== undefined ? String(fraction) : over ? "0" : null)
  const percent = fraction === undefined || !job.attempt ? "" : `${Math.floor(fraction * 100)} %`
  say(byId("percent"), percent)
  say(byId("stage"), stage || job.progress?.stage || "")
  document.title = [percent && !over ? percent : label(job.state), job.kind].join(" ")
  const failure = job.failure
  byId("failure").hidden = !failure
  if (failure) byId("failure").querySelector("p")?.replaceChildren(...told(failure))
  offer(action => (action === "cancel" ? !over && job.state !== "CANCELLING" : over))
  announce()
  tick()
})

/**
 * Shows what can be done now. The focus of what has gone goes to the place of it all, where a key that is pressed at that
 * moment does nothing.
 * @param {(action: string | undefined) => boolean} isOffered
 */
function offer(isOffered) {
  const actions = byId("actions")
  let isLost = false
  for (const part of actions.querySelectorAll("[data-for]")) {
    if (!(part instanceof HTMLElement)) continue
    const hides = !isOffered(part.dataset.for)
    if (hides && part.contains(document.activeElement)) isLost = true
    part.hidden = hides
  }
  if (isLost) actions.focus()
}

/** Tells who only hears the page of each step to another state, and of nothing in between. */
function announce() {
  const standing = `${job.state} ${job.attempt ?? 0}`
  if (standing === announced) return
  const attempt = (job.attempt ?? 0) > 1 && job.state === "RUNNING" ? `, attempt ${job.attempt}` : ""
  const why = job.failure ? `: ${[job.failure.reason, job.failure.message].filter(Boolean).join(" ")}` : ""
  // How it was when the page came is part of the page.
  if (announced !== null) say(announcer, `${label(job.state)}${attempt}${why}`)
  announced = standing
}

/** What changes with the time alone. */
function tick() {
  say(byId("eta"), job.state === "RUNNING" ? [counted(), left()].filter(Boolean).join(" · ") : "")
  say(byId("queue"), waits())
  // What the server has counted are the attempts that have ended.
  const runs = job.attemptStartTime && (job.state === "RUNNING" || job.state === "CANCELLING")
  const attempt = runs && job.attemptStartTime ? Math.max(0, serverNow() - Date.parse(job.attemptStartTime)) : 0
  say(byId("ran"), lasted(milliseconds(job.runDuration) + attempt))
}

/** How many units are done. */
function counted() {
  const { completed, total, unit } = job.progress ?? {}
  if (!completed || completed === "0") return ""
  return `${completed}${total ? ` of ${total}` : ""} ${unit ?? ""}`.trim()
}

/** When it is expected to end: by its own word, or else as far as what is done tells. */
function left() {
  const { expectedEndTime, fraction } = job.progress ?? {}
  const now = serverNow()
  let rest = expectedEndTime ? Date.parse(expectedEndTime) - now : Number.NaN
  if (!expectedEndTime && job.attemptStartTime && fraction !== undefined && fraction >= 0.05) {
    rest = ((now - Date.parse(job.attemptStartTime)) * (1 - fraction)) / fraction
  }
  if (Number.isNaN(rest)) return ""
  return rest < 1000 ? "nearly done" : `about ${lasted(Math.ceil(rest / 1000) * 1000)} left`
}

/** What it waits for. */
function waits() {
  const soon = job.nextAttemptTime ? `The next attempt begins in ${lasted(Date.parse(job.nextAttemptTime) - serverNow())}.` : ""
  if (job.state === "SCHEDULED" || job.state === "RETRYING") return soon
  if (job.state !== "PENDING") return ""
  if (!isServed) return `No worker serves the kind ${job.kind} just now.`
  return queue?.position ? `Number ${queue.position} of those that wait for a worker.` : "It waits for a worker."
}

async function askWhetherServed() {
  if (job.state !== "PENDING" || document.hidden) return
  const overview = await answerOf("/overview")
  if (!overview) return
  serverSays(Date.parse(overview.now))
  const { unserved, moreUnserved, isCut } = overview.counts
  const isAll = moreUnserved === 0 && !isCut && Date.parse(overview.now) > Date.parse(job.createTime)
  if (unserved.some((/** @type {{kind: string}} */ { kind }) => kind === job.kind)) isServed = false
  // Of what it does not tell of, or was made before, the page goes on saying what it said.
  else if (isAll) isServed = true
  draw()
}

/** Gets what a step has changed beside the state. */
async function refresh() {
  /** @type {Job | null} */
  const now = await answerOf(`${address}?view=BASIC`)
  if (!now) return
  // An answer from before another step: that has asked anew.
  if (Number(now.sequence) < changed) return
  // How far it is comes by the watch, which may be ahead.
  job = { ...now, progress: now.attempt === job.attempt && !isFinal(now.state) ? job.progress : now.progress }
  facts()
  draw()
  void askWhetherServed()
}

/** What is known of it beside where it stands. */
function facts() {
  const time = (/** @type {string} */ place, /** @type {string | undefined} */ value) =>
    byId(place).replaceChildren(...(value ? [moment(value)] : []))
  const most = job.options?.retryPolicy?.maximumAttempts
  say(byId("attempt"), `${job.attempt ?? 0}${most ? ` of at most ${most}` : ""}`)
  time("created", job.createTime)
  time("started", job.startTime)
  time("ended", job.endTime)
  say(byId("waited"), lasted(milliseconds(job.queueDuration)))
  say(byId("worker"), job.workerId ?? "")
  showMetrics()
}

function showMetrics() {
  const metrics = Object.entries(job.metrics ?? {}).sort(([one], [other]) => (one < other ? -1 : 1))
  byId("metrics").replaceChildren(...metrics.map(([name, value]) => make("span", { class: "pair" }, `${name} ${value}`)))
}

/** Whether nothing more will come, where the browser was told so. */
async function isOver() {
  const answer = await ask(`${address}?view=BASIC`)
  if (answer.status === 404) {
    gone({ reason: "JOB_NOT_FOUND" })
    return true
  }
  if (!answer.ok) return false
  /** @type {Job} */
  const now = await answer.json()
  return isFinal(now.state) && Number(now.sequence) <= (cursor ?? 0)
}

/**
 * It cannot be followed any more.
 * @param {{ reason?: string, detail?: string }} problem
 */
function gone({ reason, detail }) {
  stream.end()
  const forgotten = "This job was forgotten; what you see is the last that was known of it."
  say(byId("done"), reason === "JOB_NOT_FOUND" ? forgotten : `It cannot be followed: ${detail}`)
  offer(() => false)
}

prepareCopies(async id => {
  if (!isExact) throw new Error("this browser rounds numbers")
  const answer = await ask(`${address}?view=FULL`)
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
  return exactly(await answer.text(), job => job[id])
})

for (const form of document.querySelectorAll("form[data-action]")) {
  if (!(form instanceof HTMLFormElement)) continue
  const action = form.dataset.action
  const done = byId("done")
  // While it is sent it cannot be pressed again, and so it loses the focus.
  const refocus = () => {
    if (document.activeElement === document.body) byId("actions").focus()
  }
  enhance(
    form,
    target => {
      form.closest("details")?.removeAttribute("open")
      if (action === "cancel") say(done, "It was asked to stop.")
      else location.assign(target)
      refocus()
    },
    sentence => {
      say(done, sentence)
      refocus()
    },
  )
}

const input = byId("input")
if (!input.previousElementSibling?.classList.contains("cut")) {
  try {
    input.textContent = exactly(input.textContent ?? "", parsed => parsed)
  } catch {
    // It is shown as it is.
  }
}

keepTimes()
setInterval(() => {
  if (!document.hidden) tick()
}, 1000)
setInterval(() => void askWhetherServed(), SERVED_EVERY)
void askWhetherServed()
