// How smoothly the pages run on this machine, which no test can assert: it prints what was measured beside what is required,
// and ends with 1 where something is not met.
//
// node tests/browser/smooth.mjs --binary FILE

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

/** How long it takes until a job is shown, from the address to the state: the median of cold loads. */
async function shown(server, chromium) {
  const id = await server.api.start("simulate", { prompt: "a few words", seconds: 0 })
  await server.api.ended(id)
  const times = []
  for (let load = 0; load < LOADS; load++) {
    const { page, context, close } = await chromium.reader()
    await context.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.getElementById("state")?.textContent) return
        observer.disconnect()
        // The time of the frame in which it is drawn, since the address was asked for.
        requestAnimationFrame(now => { window.shownAt = now })
      }).observe(document, { subtree: true, childList: true, characterData: true })
    })
    await page.goto(`${server.url}/jobs/${id}`)
    times.push(await until(() => page.evaluate(() => window.shownAt ?? false), "the job is shown"))
    await close()
  }
  return times.sort((one, other) => one - other)[LOADS / 2]
}

const { values } = parseArgs({ options: { binary: { type: "string" } } })
if (values.binary) process.env.LONGHAUL_BINARY = values.binary
const { time, frames: deltas, tasks, changes } = await withBoth(["--slots", String(JOBS + 4)], async (server, chromium) =>
  ({ time: await shown(server, chromium), ...await frames(server, chromium) }))

const at = share => deltas[Math.min(deltas.length - 1, Math.floor(share * deltas.length))]
const longest = Math.max(0, ...tasks)
const rows = [
  [`frame of ${JOBS} running jobs, 95 % of ${deltas.length}`, at(FRAMES_IN_TIME), FRAME_MAX],
  ["frame, half of them", at(0.5), null],
  ["frame, the longest", at(1), null],
  [`task, the longest of ${tasks.length} long ones`, longest, LONG_TASK_MAX],
  [`a job is shown, median of ${LOADS}`, time, SHOWN_MAX],
]
for (const [what, measured, required] of rows) {
  console.log(`${what.padEnd(50)} | ${measured.toFixed(1).padStart(7)} ms | ${required ? `below ${required} ms` : ""}`)
}
console.log(`${"changes of the page".padEnd(50)} | ${changes.toFixed(0).padStart(7)} /s |`)
process.exitCode = rows.some(([, measured, required]) => required && measured >= required) ? 1 : 0
