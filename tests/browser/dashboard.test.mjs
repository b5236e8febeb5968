// The dashboard: what there is, live and without a script; what it filters by is in the address.

import assert from "node:assert/strict"
import { test } from "node:test"
import { until } from "./api.mjs"
import { forAllTests } from "./chromium.mjs"

const MANY = 200
/** How many rows a dashboard has at most, and how much of it may change a second: generous, and far from everything. */
const ROWS_MAX = 250
const CHANGES_PER_SECOND_MAX = 5_000
/** How many lines one frame may make, so that none is late: generous. */
const MADE_PER_FRAME_MAX = 30

const { server, chromium } = await forAllTests("--slots", String(MANY + 20))

async function read(path = "/", options) {
  const reader = await chromium.reader(options)
  await reader.page.goto(server.url + path)
  return reader
}

const row = id => `#jobs [data-job="${id}"]`
const listed = page => page.locator("#jobs [data-job]").evaluateAll(rows => rows.map(row => row.dataset.job))

/** A job that goes on until its gate is opened. */
async function running(name, more) {
  const gate = server.gate(name)
  const id = await server.api.script([[{ stage: "Working" }, { progress: 0.5 }, { wait: gate.file }, { result: 1 }]], more)
  await server.api.is(id, "RUNNING")
  await until(async () => (await server.api.job(id)).progress?.fraction === 0.5, "it has come as far as that")
  return { id, gate }
}

async function count(page, kind, state) {
  return page.locator(`#counts tr[data-kind="${kind}"] td[data-state=${state}]`).textContent()
}

test("a job comes, moves and goes by itself", async () => {
  const { page, trouble, close } = await read()
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })

  const { id, gate } = await running("comes")
  await page.locator(`${row(id)}[data-state=RUNNING]`).waitFor()
  await until(async () => await page.locator(`${row(id)} progress`).evaluate(bar => bar.value) === 0.5, "its bar moves")
  assert.match(await page.locator(row(id)).textContent(), /scripted[^]*Working/)
  await until(async () => (await count(page, "scripted", "RUNNING")).trim() === "1", "it is counted")
  gate.open()

  await until(async () => {
    const rows = page.locator(row(id))
    return await rows.count() === 0 || await rows.getAttribute("data-state") === "SUCCEEDED"
  }, "it has ended there too")
  await until(async () => (await count(page, "scripted", "SUCCEEDED")).trim() === "1", "it is counted as such")
  trouble.none(server)
  await close()
})

test("without a script it tells how things stand", async () => {
  const { id, gate } = await running("plain", { labels: { team: "plain" } })
  const unserved = await server.api.start("unserved-kind", {})
  const { page, trouble, close } = await read("/", { javaScriptEnabled: false })

  assert.equal(await page.locator(row(id)).getAttribute("data-state"), "RUNNING")
  assert.equal(await page.locator(`${row(id)} progress`).getAttribute("value"), "0.5")
  assert.match(await page.locator(row(id)).textContent(), /scripted[^]*Working/)
  assert.equal((await count(page, "scripted", "RUNNING")).trim(), "1")
  assert.match(await page.locator(".unserved").first().textContent(), /unserved-kind/)
  assert.match(await page.locator("#workers").textContent(), /scripted/)
  await page.click(`${row(id)} a`)
  await page.waitForURL(`${server.url}/jobs/${id}`)
  trouble.none(server)
  gate.open()
  await server.api.cancel(unserved)
  await close()
})

test("it says where no worker serves a kind, until that is over", async () => {
  const { page, trouble, close } = await read()
  const id = await server.api.start("served-by-nobody", {})

  await page.locator(".unserved", { hasText: "served-by-nobody" }).first().waitFor()
  await server.api.cancel(id)
  await page.locator(".unserved", { hasText: "served-by-nobody" }).first().waitFor({ state: "hidden" })

  trouble.none(server)
  await close()
})

for (const javaScriptEnabled of [true, false]) {
  test(`what it filters by is in the address, ${javaScriptEnabled ? "where scripts run" : "without a script"}`, async () => {
    const name = `filter ${javaScriptEnabled}`
    const [mine, other] = [await running(`${name} mine`, { labels: { team: name } }), await running(`${name} other`)]
    const { page, trouble, close } = await read("/", { javaScriptEnabled })
    await page.locator(row(other.id)).waitFor()

    await page.fill("#filter [name=q]", `team=${name}`)
    await page.press("#filter [name=q]", "Enter")
    await page.locator(row(other.id)).waitFor({ state: "detached" })
    await until(async () => assert.deepEqual(await listed(page), [mine.id]) ?? true, "it alone is listed")
    assert.match(page.url(), /label=team(=|%3D)/)
    await page.reload()
    await until(async () => assert.deepEqual(await listed(page), [mine.id]) ?? true, "a reload keeps the filter")
    await page.click(`${row(mine.id)} a`)
    await page.waitForURL(`${server.url}/jobs/${mine.id}`)
    // Out of its memory the browser brings a page back without loading it.
    await page.goBack({ waitUntil: "commit" })
    await until(async () => assert.deepEqual(await listed(page), [mine.id]) ?? true, "so does the way back")

    await page.fill("#filter [name=q]", mine.id)
    await page.press("#filter [name=q]", "Enter")
    await page.waitForURL(`${server.url}/jobs/${mine.id}`)
    trouble.none(server)
    for (const { gate } of [mine, other]) gate.open()
    await close()
  })
}

test("by state, by kind, and what has ended", async () => {
  const ended = await server.api.start("simulate", { seconds: 0 }, { labels: { by: "state" } })
  const { id, gate } = await running("by state", { labels: { by: "state" } })
  await server.api.ended(ended)
  const { page, close } = await read("/", { javaScriptEnabled: false })

  for (const [query, expected] of [
    ["", [id]], ["&show=ended", [ended]], ["&show=all", [ended, id]], ["&show=all&state=SUCCEEDED", [ended]],
    ["&show=all&kind=scripted", [id]], ["&show=all&kind=scripted&kind=simulate", [ended, id]], ["&kind=simulate", []],
  ]) {
    await page.goto(`${server.url}/?label=by%3Dstate${query}`)
    assert.deepEqual((await listed(page)).sort(), expected.sort(), query)
  }
  gate.open()
  await close()
})

for (const javaScriptEnabled of [true, false]) {
  test(`a job is started from its form, ${javaScriptEnabled ? "where scripts run" : "without a script"}`, async () => {
    const { page, trouble, close } = await read("/", { javaScriptEnabled })
    const input = page.locator("#start [name=input]")
    if (!await input.isVisible()) await page.locator("details:has(#start) > summary, #start summary").first().click()

    await fillKind(page, "simulate")
    await input.fill('{"prompt": "from a form", "seconds": 0.2}')
    await page.locator("#start button").last().click()

    await page.waitForURL(/\/jobs\/[-0-9a-f]+$/)
    const job = await server.api.ended(page.url().split("/").at(-1))
    assert.deepEqual([job.kind, job.input], ["simulate", { prompt: "from a form", seconds: 0.2 }])
    trouble.none(server)
    await close()
  })
}

test("the form takes over the newest input of a kind that it does not know, with its numbers as they are", async () => {
  const id = await server.api.start("exact-kind", '{"n": 12345678901234567890, "f": 1.0, "list": [{"input": "no"}]}')
  const { page, trouble, close } = await read("/?kind=exact-kind")

  await until(async () => {
    assert.match(await page.locator("#start [name=input]").inputValue(), /^\{\s*"n": 12345678901234567890,\s*"f": 1\.0,\s*"list"/)
    return true
  }, "it is taken over")

  trouble.none(server)
  await server.api.cancel(id)
  await close()
})

/** The kinds may be a choice or a field. */
async function fillKind(page, kind) {
  const field = page.locator("#start [name=kind]")
  if (await field.evaluate(field => field.localName === "select")) await field.selectOption(kind)
  else await field.fill(kind)
}

test("an input that is no JSON starts nothing, and the page says why", async () => {
  for (const javaScriptEnabled of [true, false]) {
    const { page, close } = await read("/", { javaScriptEnabled })
    const input = page.locator("#start [name=input]")
    if (!await input.isVisible()) await page.locator("details:has(#start) > summary, #start summary").first().click()

    await fillKind(page, "simulate")
    await input.fill('{"prompt": oops}')
    await page.locator("#start button").last().click()

    await until(async () => /JSON|expected|INVALID/i.test(await page.locator("main").textContent()), "it says why")
    assert.doesNotMatch(page.url(), /\/jobs\/[-0-9a-f]+$/)
    await close()
  }
})

test("nothing jumps while the pointer is in the list: new jobs wait for a click", async () => {
  const { id, gate } = await running("stays")
  const { page, trouble, close } = await read()
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
  await page.hover(`${row(id)} a`)
  const before = await listed(page)
  const place = await page.locator(row(id)).boundingBox()

  const more = await Promise.all(["one", "two", "three"].map(name => running(`newer ${name}`)))
  await page.locator("#newer", { hasText: "3" }).waitFor()
  assert.deepEqual(await listed(page), before)
  assert.deepEqual(await page.locator(row(id)).boundingBox(), place)

  await page.click("#newer")
  for (const { id } of more) await page.locator(row(id)).waitFor()
  trouble.none(server)
  for (const running of [{ gate }, ...more]) running.gate.open()
  await close()
})

for (const width of [1280, 390]) {
  test(`nothing above the list moves it while somebody reads it, ${width} pixels wide`, async () => {
    const { id, gate } = await running(`held ${width}`)
    const gone = await server.api.start(`goes-${width}`, {})
    const { page, trouble, close } = await read("/", { viewport: { width, height: 800 } })
    const line = kind => page.locator(`#counts tr[data-kind="${kind}"]`)
    const note = kind => page.locator(`#unserved [data-kind="${kind}"]`)
    const waiting = () => page.locator("#counts tfoot td[data-state=PENDING]").textContent()
    await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
    await note(`goes-${width}`).waitFor()
    await page.locator(row(id)).scrollIntoViewIfNeeded()
    const place = () => page.locator(row(id)).evaluate(row => row.getBoundingClientRect().top)
    const before = await place()
    const counted = Number(await waiting())
    await page.hover(`${row(id)} a`)
    assert.equal(await place(), before, "it has moved as soon as somebody points at it")

    const come = await server.api.startAll([1, 2, 3].map(number => ({ kind: `comes-${width}-${number}`, input: {} })))
    await until(async () => Number(await waiting()) === counted + 3, "they are counted")
    assert.equal(await place(), before, "it was pushed down")
    assert.equal(await line(`comes-${width}-1`).count() + await note(`comes-${width}-1`).count(), 0, "lines have come over what is below")
    await server.api.cancel(gone)
    await server.api.call("DELETE", `/jobs/${gone}`)
    await until(async () => Number(await waiting()) === counted + 2, "it is counted no more")
    assert.equal(await place(), before, "it was pulled up")
    await page.locator("#charts .words").first().evaluate((words, more) => { words.textContent = more }, "more and more words ".repeat(width / 100))
    assert.equal(await place(), before, "words above it have pushed it down")

    await page.mouse.move(0, 0)
    for (const kind of [1, 2, 3].map(number => `comes-${width}-${number}`)) {
      await line(kind).waitFor({ state: "attached" })
      await note(kind).waitFor()
    }
    await line(`goes-${width}`).waitFor({ state: "detached" })
    await note(`goes-${width}`).waitFor({ state: "detached" })
    trouble.none(server)
    gate.open()
    await Promise.all(come.map(id => server.api.cancel(id)))
    await close()
  })
}

test("what has waited comes a few lines a frame", async () => {
  const burst = jobs => server.api.startAll(Array.from({ length: jobs }, () => ({ kind: "burst", input: {} })))
  const [first] = await burst(1)
  const { page, trouble, close } = await read("/?kind=burst")
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
  await page.hover(`${row(first)} a`)
  const ids = [first, ...await burst(120)]
  await page.locator("#newer", { hasText: "120" }).waitFor()
  await page.evaluate(() => {
    window.made = []
    // It is called once after all that a frame has done.
    new MutationObserver(changes => window.made.push(changes.reduce((made, { addedNodes }) => made + addedNodes.length, 0)))
      .observe(document.getElementById("jobs"), { childList: true })
  })

  await page.click("#newer")
  await until(async () => (await listed(page)).length === ids.length, "all are listed")

  const made = await page.evaluate(() => window.made)
  assert.equal(made.reduce((sum, lines) => sum + lines), 120)
  assert.ok(Math.max(...made) <= MADE_PER_FRAME_MAX, `${made} lines were made in a frame each`)
  trouble.none(server)
  await Promise.all(ids.map(id => server.api.cancel(id)))
  await close()
})

test("a page of a list leads on to what is older, and each job is on one page", async () => {
  const ids = await server.api.startAll(Array.from({ length: 130 }, () => ({ kind: "paged", input: {} })))
  const { page, close } = await read("/?kind=paged", { javaScriptEnabled: false })

  const seen = await listed(page)
  while (await page.locator("#older").isVisible()) {
    await Promise.all([page.waitForEvent("domcontentloaded"), page.locator("#older").click()])
    seen.push(...await listed(page))
    assert.ok(seen.length <= ids.length, "a job is on two pages")
  }

  assert.deepEqual(seen.sort(), ids.sort())
  await Promise.all(ids.map(id => server.api.cancel(id)))
  await close()
})

test(`${MANY} running jobs move, each in its own row, and little more than their bars changes`, async () => {
  const input = { seconds: 120, steps: 240, output: false }
  const ids = await server.api.startEach(Array.from({ length: MANY }, () => ({ kind: "simulate", input })))
  await until(async () => {
    const { counts } = await server.api.call("GET", "/jobs:count?kinds=simulate")
    return counts.some(({ state, jobs }) => state === "RUNNING" && Number(jobs) === MANY)
  }, "all of them run")
  const { page, trouble, close } = await read("/?kind=simulate")
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
  await until(async () => (await listed(page)).length === MANY, "all of them are listed")

  await page.evaluate(() => {
    const values = () => new Map([...document.querySelectorAll("#jobs [data-job]")]
      .map(row => [row.dataset.job, row.querySelector("progress").value]))
    window.seen = { began: performance.now(), first: values(), values, changes: 0, rows: 0 }
    new MutationObserver(changes => {
      window.seen.changes += changes.length
      for (const { addedNodes } of changes) {
        for (const node of addedNodes) window.seen.rows += node.nodeType === Node.ELEMENT_NODE && node.matches("[data-job]") ? 1 : 0
      }
    }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true })
  })
  await until(() => page.evaluate(() => {
    const { first, values } = window.seen
    return [...values()].every(([id, value]) => value > (first.get(id) ?? 1))
  }), "every bar has moved")
  const { changes, rows, seconds } = await page.evaluate(() =>
    ({ ...window.seen, seconds: (performance.now() - window.seen.began) / 1000, first: 0, values: 0 }))

  assert.equal(rows, 0, "rows were made anew")
  assert.ok(changes >= MANY && changes / Math.max(1, seconds) < CHANGES_PER_SECOND_MAX, `${changes} changes in ${seconds} s`)
  assert.ok(await page.locator("#jobs [data-job]").count() <= ROWS_MAX)
  assert.deepEqual((await listed(page)).sort(), ids.sort())
  trouble.none(server)
  await Promise.all(ids.map(id => server.api.cancel(id)))
  await close()
})

test("it goes on by itself over a crash of the server", async () => {
  const { page, close } = await read()
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
  await page.evaluate(() => { window.loaded = "once" })

  await server.kill()
  await page.locator("#connection[data-connection=broken]").waitFor({ state: "attached" })
  await server.start()
  const { id, gate } = await running("after the crash")

  await page.locator(`${row(id)}[data-state=RUNNING]`).waitFor()
  await page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
  assert.equal(await page.evaluate(() => window.loaded), "once")
  gate.open()
  await close()
})
