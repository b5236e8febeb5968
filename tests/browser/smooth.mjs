// How smoothly the pages run on this machine, which no test can assert: it prints what was measured beside what is required,
// and ends with 1 where something is not met.
//
// node tests/browser/smooth.mjs --binary FILE

import { once } from "node:events"
import { createServer } from "node:http"
import { parseArgs } from "node:util"
import { until } from "./api.mjs"
import { withBoth } from "./chromium.mjs"
import { settled } from "./screenshots.mjs"

const JOBS = 200
const SECONDS = 10
const LOADS = 20
/** Milliseconds. */
const FRAME_MAX = 33
const FRAMES_IN_TIME = 0.95
const LONG_TASK_MAX = 100
const SHOWN_MAX = 100

/** Frames and long tasks of a dashboard whose bars are live. */
async function frames(server, chromium) {
  const input = { seconds: 600, steps: 1200, output: false }
  await server.api.startEach(Array.from({ length: JOBS }, () => ({ kind: "simulate", input })))
  const { page, close } = await chromium.reader()
  await settled(page, server.url)
  await until(() => page.evaluate(jobs => document.querySelectorAll("#jobs [data-job][data-state=RUNNING]").length === jobs, JOBS), "all run")
  const measured = await page.evaluate(async seconds => {
    const [frames, tasks] = [[], []]
    let changes = 0
    new PerformanceObserver(list => tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" })
    new MutationObserver(list => { changes += list.length }).observe(document.body, { subtree: true, childList: true, attributes: true })
    const end = performance.now() + seconds * 1000
    for (let last = await new Promise(requestAnimationFrame); last < end;) {
      const now = await new Promise(requestAnimationFrame)
      frames.push(now - last)
      last = now
    }
    return { frames: frames.sort((one, other) => one - other), tasks, changes: changes / seconds }
  }, SECONDS)
  await close()
  return measured
}

/**
 * How long it takes until a job is shown, from the address to the state, and beside it a page that says no more than that and
 * loads nothing: what the browser takes for any page. The medians of cold loads, each in a window that knows nothing yet.
 */
async function shown(server, chromium) {
  const id = await server.api.start("simulate", { prompt: "a few words", seconds: 0 })
  await server.api.ended(id)
  const bare = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>t</title><p id=state>Succeeded"))
  await once(bare.listen(0, "127.0.0.1"), "listening")
  const addresses = [`${server.url}/jobs/${id}`, `http://127.0.0.1:${bare.address().port}/`]
  const times = addresses.map(() => [])
  for (let load = 0; load < LOADS; load++) {
    for (const [place, address] of addresses.entries()) times[place].push(await shownAt(chromium, address))
  }
  bare.close()
  return times.map(times => times.sort((one, other) => one - other)[LOADS / 2])
}

async function shownAt(chromium, address) {
  const { page, context, close } = await chromium.reader()
  await context.addInitScript(() => {
    new MutationObserver((_, observer) => {
      if (!document.getElementById("state")?.textContent) return
      observer.disconnect()
      // The time of the frame in which it is drawn, since the address was asked for.
      requestAnimationFrame(now => { window.shownAt = now })
    }).observe(document, { subtree: true, childList: true, characterData: true })
  })
  await page.goto(address)
  const time = await until(() => page.evaluate(() => window.shownAt ?? false), "the state is shown")
  await close()
  return time
}

const { values } = parseArgs({ options: { binary: { type: "string" } } })
if (values.binary) process.env.LONGHAUL_BINARY = values.binary
const { times: [time, bareTime], frames: deltas, tasks, changes } = await withBoth(["--slots", String(JOBS + 4)], async (server, chromium) =>
  ({ times: await shown(server, chromium), ...await frames(server, chromium) }))

const at = share => deltas[Math.min(deltas.length - 1, Math.floor(share * deltas.length))]
const longest = Math.max(0, ...tasks)
const rows = [
  [`frame of ${JOBS} running jobs, 95 % of ${deltas.length}`, at(FRAMES_IN_TIME), FRAME_MAX],
  ["frame, half of them", at(0.5), null],
  ["frame, the longest", at(1), null],
  [`task, the longest of ${tasks.length} long ones`, longest, LONG_TASK_MAX],
  [`a job is shown, median of ${LOADS}`, time, SHOWN_MAX],
  ["a bare page is shown", bareTime, null],
]
for (const [what, measured, required] of rows) {
  console.log(`${what.padEnd(50)} | ${measured.toFixed(1).padStart(7)} ms | ${required ? `below ${required} ms` : ""}`)
}
console.log(`${"changes of the page".padEnd(50)} | ${changes.toFixed(0).padStart(7)} /s |`)
process.exitCode = rows.some(([, measured, required]) => required && measured >= required) ? 1 : 0
