// A job's page while its job goes on: it moves by itself, over a break too, and says in the end what the API says.

import assert from "node:assert/strict"
import { test } from "node:test"
import { until } from "./api.mjs"
import { AWAY, forAllTests } from "./chromium.mjs"
import { tellsTheTruth } from "./truth.mjs"

const { server, chromium } = await forAllTests("--slots", "16")

/** Opens a job's page as a reader who notes whatever must not happen. */
async function read(id) {
  const reader = await chromium.reader()
  await reader.page.goto(`${server.url}/jobs/${id}`)
  return reader
}

/** Milliseconds after which a page has asked whether its server is there. */
const SILENCE = 40_000

const text = (page, selector) => page.locator(selector).textContent()
const connection = page => page.locator("#connection").getAttribute("data-connection")
const fraction = page => page.locator("#progress").evaluate(bar => bar.value)

test("the bar moves and output grows, and at the end the page says what the API says", async () => {
  const prompt = Array.from({ length: 40 }, (_, number) => `word${number}`).join(" ")
  const { page, trouble, close } = await chromium.reader()
  const id = await server.api.start("simulate", { prompt, seconds: 3, steps: 30 }, { labels: { team: "voice", "a b": "ü=1" } })
  await page.goto(`${server.url}/jobs/${id}`)

  const [fractions, lengths] = [new Set(), new Set()]
  await until(async () => {
    fractions.add(await fraction(page))
    lengths.add((await text(page, "#output")).length)
    return await page.locator("#state").getAttribute("data-state") === "SUCCEEDED"
  }, "the page says that the job has succeeded")

  assert.ok(fractions.size >= 5 && lengths.size >= 5, `the bar was at ${[...fractions]}, the output had ${[...lengths]}`)
  const told = await tellsTheTruth(server.api, page, id)
  assert.equal(told.output, prompt)
  assert.equal(told.timeline.filter(step => step.event === "stage").length, 3)
  assert.equal(await connection(page), "over")
  trouble.none(server)
  await close()
})

test("each report is shown: fraction, stage, output of each channel, log and metrics", async () => {
  const gates = [server.gate("a"), server.gate("b"), server.gate("c")]
  const id = await server.api.script([[
    { stage: "Reading" }, { wait: gates[0].file },
    { progress: 0.25, output: "Hello", log: "half of it\tis there", level: "warn" }, { output: "Hm.", channel: "reasoning" },
    { wait: gates[1].file },
    { progress: 0.5, stage: "Writing", output: " wörld 😀", seconds_left: 90, metrics: { tokens: 12 } }, { wait: gates[2].file },
    { result: { text: "Hello wörld 😀", exact: 1 } },
  ]])
  const { page, trouble, close } = await read(id)

  await until(async () => await text(page, "#stage") === "Reading", "the stage is shown")
  assert.equal(await page.locator("#progress").getAttribute("value"), null, "nobody can tell how far it is")

  gates[0].open()
  await until(async () => await text(page, "#percent") === "25 %", "the percentage is shown")
  await until(async () => await text(page, "#output") === "Hello", "the output is shown")
  await until(async () => await text(page, "[data-channel=reasoning] pre") === "Hm.", "the channel is shown")
  await page.locator("#log [data-attempt='1'] li[data-level=WARN] .message", { hasText: "half of it\tis there" }).waitFor()
  assert.equal(await fraction(page), 0.25)

  gates[1].open()
  await until(async () => await text(page, "#output") === "Hello wörld 😀", "the output grows")
  await until(async () => await fraction(page) === 0.5, "the bar moves")
  assert.equal(await text(page, "#stage"), "Writing")
  await until(async () => /1 min|[89]\d s/.test(await text(page, "#eta")), "the time that is left is shown")
  await page.locator("#metrics", { hasText: "tokens 12" }).waitFor()

  gates[2].open()
  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await close()
})

test("numbers beyond those of a script stay as they are, in input and result", async () => {
  const numbers = '{"n": 12345678901234567890, "f": 1.0}'
  const input = `{"attempts": [[{"line": ${JSON.stringify(`{"result": ${numbers}}`)}}]], "also": ${numbers}}`
  const id = await server.api.start("scripted", input)
  const { page, close } = await read(id)

  await server.api.ended(id)
  for (const reloaded of [false, true]) {
    if (reloaded) await page.reload()
    for (const place of ["#result", "#input"]) {
      await until(async () => {
        assert.match(await text(page, place), /"n": ?12345678901234567890,\s*"f": ?1\.0\b/, `${place}, reloaded: ${reloaded}`)
        return true
      }, "it is exact")
    }
  }
  await close()
})

test("an attempt that fails voids its output on the page, which says why", async () => {
  const [failing, going] = [server.gate("failing"), server.gate("going")]
  const id = await server.api.script([
    [
      { stage: "First" }, { output: "void text" }, { output: "void thought", channel: "reasoning" }, { log: "I try" },
      { wait: failing.file }, { failure: { reason: "NO_LUCK", message: "the first never works" } }, { exit: 3 },
    ],
    [{ output: "valid text" }, { output: "thought", channel: "reasoning" }, { wait: going.file }, { result: "done" }],
  ])
  const { page, trouble, close } = await read(id)

  await until(async () => await text(page, "#output") === "void text", "the output is shown")
  await until(async () => await text(page, "[data-channel=reasoning] pre") === "void thought", "so is the channel's")
  assert.equal(await text(page, "#void"), "")
  failing.open()

  await until(async () => await text(page, "#output") === "valid text", "the void output disappears")
  await until(async () => await text(page, "[data-channel=reasoning] pre") === "thought", "that of the channel too")
  const why = await text(page, "#void")
  assert.match(why, /attempt 1|first attempt/i)
  assert.match(why, /NO_LUCK|no luck|the first never works/)
  going.open()
  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await close()
})

test("what is void where an attempt goes on from a checkpoint is said as it is", async () => {
  const [failing, going] = [server.gate("fails behind its checkpoint"), server.gate("goes on from it")]
  const failed = [{ wait: failing.file }, { failure: { reason: "NO_LUCK", message: "not behind it" } }, { exit: 3 }]
  const next = [{ output: "three" }, { wait: going.file }, { result: "done" }]
  const written = [{ output: "one two" }, { output: "h", channel: "reasoning" }]
  const some = await server.api.script([[...written, { checkpoint: "far", output_bytes: 4 }, ...failed], next])
  const all = await server.api.script([[...written, { checkpoint: "far" }, ...failed], next])
  const pages = [await read(some), await read(all)]
  for (const { page } of pages) {
    await until(async () => await text(page, "#output") === "one two", "the output is shown")
    await until(async () => await text(page, "[data-channel=reasoning] pre") === "h", "so is the channel's")
  }

  failing.open()
  const shown = ["one three", "one twothree"]
  for (const [at, { page }] of pages.entries()) {
    await until(async () => await text(page, "#output") === shown[at], "the next attempt goes on")
  }

  const reasoning = "Attempt 1 failed (NO_LUCK not behind it) and attempt 2 began: 1 byte in reasoning is void."
  const notes = page => page.locator("#void li").allTextContents()
  const main = "Attempt 1 failed (NO_LUCK not behind it) and attempt 2 went on from its checkpoint: the last 3 bytes are void."
  assert.deepEqual(await notes(pages[0].page), [main, reasoning])
  // Nothing that the page shows of the main output is void.
  assert.deepEqual(await notes(pages[1].page), [reasoning])
  going.open()
  for (const { trouble, close } of pages) {
    trouble.none(server)
    await close()
  }
})

test("a page goes on by itself over a crash of the server, and tells the truth in the end", async () => {
  const never = server.gate("never")
  const going = server.gate("after the crash")
  const work = [{ stage: "Counting" }, { output: "one two " }, { output: "hm", channel: "reasoning" }, { log: "counting" }]
  const id = await server.api.script([
    [...work, { progress: 0.4 }, { wait: never.file }],
    [...work, { progress: 0.6 }, { wait: going.file }, { output: "three" }, { result: { counted: 3 } }],
  ])
  const { page, trouble, close } = await read(id)
  trouble.allow(AWAY)
  await until(async () => await text(page, "#output") === "one two ", "the output is shown")
  await page.evaluate(() => { window.loaded = "once" })

  await server.kill()
  await until(async () => await connection(page) === "broken", "the page says that it is connecting again")
  assert.match(await text(page, "#connection"), /connecting again/)
  await page.waitForEvent("requestfailed")
  await server.start()
  await until(async () => await connection(page) === "live", "the page is live again")
  await until(async () => await fraction(page) === 0.6, "the second attempt is shown")
  going.open()

  const told = await tellsTheTruth(server.api, page, id)
  assert.deepEqual([told.state, told.attempt, told.output], ["SUCCEEDED", "2", "one two three"])
  assert.equal(await page.evaluate(() => window.loaded), "once", "the page was loaded anew")
  trouble.none(server)
  await close()
})

test("a page notices by itself that its server is gone though the link is not, and that it is back", async () => {
  const going = server.gate("frozen")
  const id = await server.api.script([[{ output: "before " }, { wait: going.file }, { output: "after" }, { result: 1 }]])
  const { page, trouble, close } = await chromium.reader()
  trouble.allow(AWAY)
  await page.clock.install()
  const watches = openWatches(page)
  await page.goto(`${server.url}/jobs/${id}`)
  await until(async () => await text(page, "#output") === "before ", "the page is live")
  const [watch] = watches

  const sign = page.waitForResponse(/healthz/)
  await page.clock.fastForward(SILENCE)
  await (await sign).finished()
  await page.evaluate(() => new Promise(done => setTimeout(done)))
  assert.equal(await connection(page), "live", "it is only silent")
  assert.deepEqual([...watches], [watch])

  server.process.kill("SIGSTOP")
  try {
    await until(async () => {
      await page.clock.fastForward(SILENCE)
      return await connection(page) === "broken"
    }, "the page says that it is not live")
  } finally {
    server.process.kill("SIGCONT")
  }

  await until(async () => await connection(page) === "live", "the page is live again")
  going.open()
  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await close()
})

test("a page says at once that the machine has no link, and goes on when it has one", async () => {
  const going = server.gate("offline")
  const id = await server.api.script([[{ output: "before " }, { wait: going.file }, { output: "after" }, { result: 1 }]])
  const { page, context, trouble, close } = await read(id)
  trouble.allow(/ERR_INTERNET_DISCONNECTED/)
  await until(async () => await text(page, "#output") === "before ", "the page is live")

  await context.setOffline(true)
  await until(async () => await connection(page) === "broken", "the page says so")
  going.open()
  await context.setOffline(false)

  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await close()
})

test("a job that waits says where it stands, or that no worker serves its kind", async () => {
  const id = await server.api.start("unserved", {})
  const { page, trouble, close } = await read(id)

  await until(async () => /no worker serves/i.test(await text(page, "#queue")), "the page says so")

  assert.equal(await page.locator("#state").getAttribute("data-state"), "PENDING")
  trouble.none(server)
  await close()
})

test("a hidden page holds no connection, and misses nothing once it is shown", async () => {
  const gates = [server.gate("hidden"), server.gate("shown")]
  const id = await server.api.script([[
    { output: "before " }, { wait: gates[0].file }, { output: "while hidden " }, { log: "nobody looks" }, { progress: 0.5 },
    { wait: gates[1].file }, { output: "after" }, { result: null },
  ]])
  const { context, trouble } = await chromium.tabs()
  const page = await context.newPage()
  const watches = openWatches(page)
  await page.goto(`${server.url}/jobs/${id}`)
  await until(async () => await text(page, "#output") === "before ", "the page is live")
  assert.equal(watches.size, 1)

  const cover = await context.newPage()
  await until(() => watches.size === 0, "the page closes its watch when it is hidden")
  gates[0].open()
  await until(async () => (await server.api.job(id)).progress?.fraction === 0.5, "the job goes on")
  assert.equal(await text(page, "#output"), "before ")
  await page.bringToFront()

  await until(async () => await text(page, "#output") === "before while hidden ", "what was missed is there")
  gates[1].open()
  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await Promise.all([page.close(), cover.close()])
})

test("ten tabs at once each become live when they are shown", async () => {
  const going = server.gate("ten")
  const { context, trouble } = await chromium.tabs()
  const tabs = []
  for (let number = 0; number < 10; number++) {
    const id = await server.api.script([[{ output: `job ${number}` }, { wait: going.file }, { output: " ends" }]])
    const page = await context.newPage()
    await page.goto(`${server.url}/jobs/${id}`)
    tabs.push({ page, number })
  }

  for (const { page, number } of tabs) {
    await page.bringToFront()
    await until(async () => await connection(page) === "live", `tab ${number} is live`)
    await until(async () => await text(page, "#output") === `job ${number}`, `tab ${number} shows its job`)
  }
  going.open()
  for (const { page, number } of tabs) {
    await page.bringToFront()
    await until(async () => await text(page, "#output") === `job ${number} ends`, `tab ${number} goes on`)
  }

  trouble.none(server)
  await Promise.all(tabs.map(({ page }) => page.close()))
})

/** The watches that a page has open. */
function openWatches(page) {
  const open = new Set()
  page.on("request", request => {
    if (request.resourceType() === "eventsource") open.add(request)
  })
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, request => open.delete(request))
  return open
}
