// A job's page for who only hears it or has no mouse; and what of a job it shows, or copies, only when it is asked to.

import assert from "node:assert/strict"
import { test } from "node:test"
import { until } from "./api.mjs"
import { forAllTests, tabTo } from "./chromium.mjs"

const CANCEL = "details.confirm:has(form[data-action=cancel])"
/** More than a page shows of an input; and so many times, in seven attempts, more than it follows of a history (`job.rs`). */
const LONG = 80_000
const MANY = 11

const { server, chromium } = await forAllTests("--slots", "8")

async function read(id) {
  const reader = await chromium.reader()
  await reader.page.goto(`${server.url}/jobs/${id}`)
  await reader.page.locator("#connection[data-connection]").waitFor({ state: "attached" })
  return reader
}

const text = (page, selector) => page.locator(selector).textContent()
const stateOf = page => page.locator("#state").getAttribute("data-state")
const focused = page => page.evaluate(() => document.activeElement?.id || document.activeElement?.localName)

test("the focus of a button that goes is near what can be done next, and presses nothing", async () => {
  const gate = server.gate("focus")
  const id = await server.api.script([[{ wait: gate.file }, { result: 1 }]])
  const { page, trouble, close } = await read(id)
  await tabTo(page, `${CANCEL} > summary`)

  gate.open()
  await until(async () => await stateOf(page) === "SUCCEEDED", "it has ended")

  assert.equal(await focused(page), "actions")
  await page.keyboard.press("Enter")
  assert.equal(await page.locator("#actions details[open]").count(), 0)
  await page.keyboard.press("Tab")
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Delete")
  trouble.none(server)
  await close()
})

test("who cancels a job by keyboard keeps the focus at what can be done", async () => {
  const id = await server.api.script([[{ wait: server.gate("never").file }]])
  await server.api.is(id, "RUNNING")
  const { page, trouble, close } = await read(id)

  await tabTo(page, `${CANCEL} > summary`)
  await page.keyboard.press("Enter")
  await tabTo(page, `${CANCEL} button`)
  await page.keyboard.press("Enter")
  await until(async () => await stateOf(page) === "CANCELLED", "it was cancelled")

  await until(async () => await focused(page) === "actions", "the focus is there")
  trouble.none(server)
  await close()
})

test("each step to another state is said once, and nothing in between", async () => {
  const gates = [server.gate("said"), server.gate("said again")]
  const reports = Array.from({ length: 20 }, (_, number) => ({ progress: number / 20, output: "word ", stage: `Stage ${number}` }))
  const id = await server.api.script([
    [{ wait: gates[0].file }, ...reports, { failure: { reason: "NO_LUCK", message: "the first never works" } }, { exit: 1 }],
    [...reports, { wait: gates[1].file }, { result: 1 }],
  ], { options: { retryPolicy: { maximumAttempts: 2, initialInterval: "1s", maximumInterval: "1s" } } })
  await server.api.is(id, "RUNNING")
  const { page, trouble, close } = await read(id)
  await until(async () => await text(page, "#attempt") === "1 of at most 2", "it is followed")
  await page.evaluate(() => {
    window.said = []
    // That of the connection is no part of the job.
    for (const region of document.querySelectorAll(":is([role=status], [aria-live]):not(#connection)")) {
      const hear = () => region.textContent && window.said.push(region.textContent)
      new MutationObserver(hear).observe(region, { childList: true, characterData: true, subtree: true })
    }
  })

  gates[0].open()
  await until(async () => await text(page, "#percent") === "95 %" && (await text(page, "#attempt")).startsWith("2"), "it is repeated")
  gates[1].open()
  await until(async () => await stateOf(page) === "SUCCEEDED", "it has ended")

  await until(() => page.evaluate(() => window.said.at(-1) === "Succeeded"), "its end is said")
  const said = await page.evaluate(() => window.said)
  // What it is in for less than a frame need not be said.
  assert.deepEqual(said.filter(words => !words.startsWith("Pending")), [
    "Retrying: NO_LUCK the first never works", "Running, attempt 2", "Succeeded",
  ])
  trouble.none(server)
  await close()
})

test("the copy of what is too long to be shown is whole and exact", async () => {
  const numbers = '{"n": 12345678901234567890, "f": 1.0}'
  const long = JSON.stringify("ü".repeat(LONG))
  const result = JSON.stringify({ line: `{"result": {"long": ${long}, "exact": ${numbers}}}` })
  const id = await server.api.start("scripted", `{"attempts": [[${result}]], "also": ${numbers}, "long": ${long}}`)
  await server.api.ended(id)
  const { page, context, trouble, close } = await read(id)
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: server.url })
  assert.ok((await text(page, "#input")).length < LONG)

  for (const part of ["input", "result"]) {
    const button = page.locator(`button[data-copy=${part}]`)
    await button.click()
    await until(async () => await button.textContent() === "Copied", "it is copied")

    const copied = await page.evaluate(() => navigator.clipboard.readText())
    assert.ok(JSON.parse(copied).long === "ü".repeat(LONG), `the ${part} is whole`)
    assert.match(copied, /"n": 12345678901234567890,\s*"f": 1\.0\b/)
  }
  trouble.none(server)
  await close()
})

test("the beginning of a long history is shown when it is asked for, a part after the other", async () => {
  const pieces = Array.from({ length: MANY }, () => ({ output: "x".repeat(LONG) }))
  const work = [{ stage: "First" }, ...pieces, { stage: "Last" }, { failure: { reason: "NO_LUCK" } }, { exit: 1 }]
  // Its only list is that of all attempts.
  const id = await server.api.script([work], { options: { retryPolicy: { maximumAttempts: 7, initialInterval: "0.1s", maximumInterval: "0.1s" } } })
  await server.api.ended(id)
  const steps = (await server.api.events(id)).filter(event => event.stateChange || event.stage).map(event => event.sequence)
  const { page, trouble, close } = await read(id)
  const shown = () => page.locator("#timeline li[data-sequence]").evaluateAll(steps => steps.map(step => step.dataset.sequence))
  const button = page.locator("#earlier button")
  await until(async () => (await shown()).at(-1) === steps.at(-1), "its end is shown")
  assert.ok((await shown()).length < steps.length, "all of it is there already")
  assert.equal(await button.textContent(), "Show the beginning")

  for (let clicks = 1; await button.isVisible(); clicks++) {
    const before = (await shown()).length
    await button.click()
    await until(async () => (await shown()).length > before || !await button.isVisible(), "more of it is shown")
    assert.equal((await shown())[0], steps[0])
    assert.ok(clicks <= steps.length, "it has no end")
  }

  assert.deepEqual(await shown(), steps)
  assert.equal(await page.locator("#timeline li:not([data-sequence])").isVisible(), false, "no gap is left")
  trouble.none(server)
  await close()
})
