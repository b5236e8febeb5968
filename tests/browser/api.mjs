// The public API, as far as these tests need it, and waiting for what is to be true.

/** Milliseconds after which anything that should have happened has failed. */
export const WAIT = 30_000
const AGAIN = 20

export const FINAL = new Set(["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"])

export class Api {
  constructor(url) {
    this.url = url
  }

  /** Calls an address of `/v1`; an error of it is an error here. */
  async call(method, path, body) {
    const headers = body === undefined ? {} : { "content-type": "application/json" }
    const answer = await fetch(`${this.url}/v1${path}`, { method, headers, body })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path} was answered ${answer.status}: ${text}`)
    return text && JSON.parse(text)
  }

  /** Starts a job, and returns its ticket. An `input` that is a text is sent as it is. */
  async start(kind, input, more = {}) {
    const payload = typeof input === "string" ? input : JSON.stringify(input)
    const rest = JSON.stringify({ kind, ...more })
    return (await this.call("POST", "/jobs", `${rest.slice(0, -1)},"input":${payload}}`)).id
  }

  /** Starts one job for each of these requests at once, and returns their tickets. */
  async startAll(requests) {
    const { jobs } = await this.call("POST", "/jobs:batchStart", JSON.stringify({ requests }))
    return jobs.map(job => job.id)
  }

  /** Starts a job for each of these requests, each once the one before runs, as they come in life; returns their tickets. */
  async startEach(requests) {
    const ids = []
    for (const { kind, input, ...more } of requests) {
      ids.push(await this.start(kind, input, more))
      await this.is(ids.at(-1), "RUNNING", ...FINAL)
    }
    return ids
  }

  /** A `scripted` job, which does in its attempts what these lists say; see `scripted.mjs`. */
  script(attempts, more = {}) {
    const retryPolicy = { maximumAttempts: attempts.length, initialInterval: "0.1s", maximumInterval: "0.1s" }
    return this.start("scripted", { attempts }, { ...more, options: { retryPolicy, ...more.options } })
  }

  job(id) {
    return this.call("GET", `/jobs/${id}?view=FULL`)
  }

  /** All events that are kept of a job. */
  async events(id) {
    const events = []
    for (let after = "0"; after;) {
      const page = await this.call("GET", `/jobs/${id}/events?pageSize=1000&afterSequence=${after}`)
      events.push(...page.events ?? [])
      after = page.nextAfterSequence
    }
    return events
  }

  cancel(id) {
    return this.call("POST", `/jobs/${id}:cancel`)
  }

  /** Waits until a job is in one of these states. */
  is(id, ...states) {
    return until(async () => {
      const job = await this.job(id)
      return states.includes(job.state) && job
    }, `the job is ${states.join(" or ")}`)
  }

  /** Waits until a job has ended. */
  ended(id) {
    return this.is(id, ...FINAL)
  }

  /** Whether there is still such a job. */
  async has(id) {
    return (await fetch(`${this.url}/v1/jobs/${id}`)).status === 200
  }
}

/** Waits until a condition holds, and returns what it returned. An assertion that does not hold yet is one that may later. */
export async function until(condition, what) {
  const end = Date.now() + WAIT
  let why
  do {
    try {
      const found = await condition()
      if (found !== false && found !== null && found !== undefined) return found
    } catch (error) {
      if (error.code !== "ERR_ASSERTION") throw error
      why = error
    }
    await new Promise(again => setTimeout(again, AGAIN))
  } while (Date.now() < end)
  throw why ?? new Error(`${what}: that has not happened within ${WAIT / 1000} s`)
}

/** A promise that is kept in time. */
export function within(promise, what) {
  let timer
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error(`${what}: that has not come within ${WAIT / 1000} s`)), WAIT)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
