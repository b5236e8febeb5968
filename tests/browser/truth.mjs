// What a page shows of a job, and what the API tells of it: at the end they are the same.

import assert from "node:assert/strict"
import { until } from "./api.mjs"

/** What the API tells of a job that has ended, in the form in which it can be compared with a page. */
export async function told(api, id) {
  const [job, events] = [await api.job(id), await api.events(id)]
  const outputs = new Map([["", Buffer.alloc(0)]])
  const log = []
  const timeline = []
  for (const { sequence, attempt = 0, ...event } of events) {
    if (event.output) {
      const { channel = "", data } = event.output
      outputs.set(channel, Buffer.concat([outputs.get(channel) ?? Buffer.alloc(0), Buffer.from(data, "base64")]))
    } else if (event.outputReset) {
      const { channel = "", keptBytes = "0" } = event.outputReset
      outputs.set(channel, (outputs.get(channel) ?? Buffer.alloc(0)).subarray(0, Number(keptBytes)))
    } else if (event.log) {
      log.push({ sequence, attempt: String(attempt), level: event.log.level, message: event.log.message })
    } else {
      const which = event.stage ? "stage" : "stateChange"
      timeline.push({ sequence, attempt: String(attempt), event: which, says: event.stage ? [event.stage.name] : step(event.stateChange) })
    }
  }
  const { "": output, ...channels } = Object.fromEntries([...outputs].map(([channel, bytes]) => [channel, bytes.toString()]))
  return {
    state: job.state, attempt: String(job.attempt ?? 0), input: job.input, result: job.result, failure: failure(job.failure),
    labels: Object.entries(job.labels ?? {}).map(pair => pair.join("=")).sort(), output, channels, log, timeline,
  }
}

/** All that a page has to say of a change, in whatever order. */
function step({ state, reason = "", failure: why, message = "", workerId = "" }) {
  const because = why ? failure(why) : [words(reason)]
  return [state.charAt(0) + state.slice(1).toLowerCase(), ...because, message, workerId].filter(text => text !== "")
}

function failure(why) {
  return why ? [why.reason ?? "", why.message ?? ""] : []
}

function words(reason) {
  return reason.toLowerCase().replaceAll("_", " ")
}

/** What a page shows of its job. */
export function shown(page) {
  return page.evaluate(() => {
    const one = selector => document.querySelector(selector)
    const all = (selector, from = document) => [...from.querySelectorAll(selector)]
    const text = selector => one(selector)?.textContent ?? ""
    const hidden = selector => one(selector)?.checkVisibility() !== true
    return {
      state: one("#state").dataset.state,
      word: text("#state"),
      attempt: /^\d+/.exec(text("#attempt"))?.[0],
      input: text("#input"),
      result: hidden("#result") ? undefined : text("#result"),
      failure: hidden("#failure") ? "" : text("#failure"),
      labels: all("#labels .pair").map(pair => pair.textContent).sort(),
      output: text("#output"),
      channels: Object.fromEntries(all("#channels [data-channel]").map(part =>
        [part.dataset.channel, part.querySelector("pre").textContent])),
      log: all("#log [data-attempt]").flatMap(part => all("li[data-sequence]", part).map(line => ({
        sequence: line.dataset.sequence, attempt: part.dataset.attempt, level: line.dataset.level,
        message: line.querySelector(".message").textContent,
      }))),
      timeline: all("#timeline li[data-sequence]").map(({ dataset: { sequence, attempt, event }, textContent }) =>
        ({ sequence, attempt, event, text: textContent })),
    }
  })
}

/** Waits until a job has ended and makes sure that a page shows what the API tells of it. `read` is what of a text the page's parser keeps. */
export async function tellsTheTruth(api, page, id, read = text => text) {
  await api.ended(id)
  const truth = await told(api, id)
  const { input, result, failure: why, timeline: steps, ...rest } = truth
  await until(async () => {
    const { word, input: given, result: returned, failure, timeline, ...seen } = await shown(page)
    same(texts(seen, read), texts(rest, read))
    assert.equal(word.toUpperCase(), truth.state)
    assert.deepEqual(JSON.parse(given), input)
    assert.deepEqual(returned === undefined ? undefined : JSON.parse(returned), result)
    has(failure, why, read)
    assert.deepEqual(timeline.map(({ text, ...step }) => step), steps.map(({ says, ...step }) => step))
    timeline.forEach(({ text }, at) => has(text, steps[at].says, read))
    return true
  }, "the page shows what the API tells")
  return truth
}

/** As deepEqual, but of two long texts it says only where they part. */
function same(seen, truth, where = "the page") {
  if (typeof seen === "string" && typeof truth === "string" && seen !== truth) {
    const from = Math.max(0, [...seen].findIndex((letter, at) => letter !== [...truth][at]) - 20)
    const [shows, tells] = [seen, truth].map(text => JSON.stringify([...text].slice(from, from + 80).join("")))
    assert.fail(`${where} shows from ${from} on ${shows} of ${seen.length}, and the API tells ${tells} of ${truth.length}`)
  }
  if (typeof seen !== "object" || typeof truth !== "object") {
    assert.deepEqual(seen, truth, `${where} shows ${seen}, and the API tells ${truth}`)
    return
  }
  assert.deepEqual(Object.keys(seen).sort(), Object.keys(truth).sort(), where)
  for (const name of Object.keys(seen)) same(seen[name], truth[name], `${where}.${name}`)
}

function texts(value, read) {
  if (typeof value === "string") return read(value)
  if (Array.isArray(value)) return value.map(one => texts(one, read))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, texts(one, read)]))
}

function has(text, parts, read) {
  for (const part of parts) {
    assert.ok(read(text).includes(read(part)), `${JSON.stringify(text)} does not say ${JSON.stringify(part)}`)
  }
}

/** How a parser of HTML reads what a page without a script was sent: it knows one line end; and for a NUL, which it would pass over, the server has sent a sign. */
export function parsed(text) {
  return text.replaceAll("\r\n", "\n").replaceAll("\r", "\n").replaceAll("\0", "\uFFFD")
}
