// Cancelling, repeating and deleting a job from its page: by mouse, by keyboard, without a script; and not by anybody else.

import assert from "node:assert/strict"
import { once } from "node:events"
import { createServer } from "node:http"
import { test } from "node:test"
import { until } from "./api.mjs"
import { forAllTests, tabTo } from "./chromium.mjs"
import { tellsTheTruth } from "./truth.mjs"

const CANCEL = "details.confirm:has(form[data-action=cancel])"
const DELETE = "details.confirm:has(form[data-action=delete])"
const RETRY = "form[data-action=retry]"
/** What Chromium says of an answer that a test provokes. */
const REFUSED = /status of 403/

const { server, chromium } = await forAllTests("--slots", "16")

async function read(id, options) {
  const reader = await chromium.reader(options)
  await reader.page.goto(`${server.url}/jobs/${id}`)
  return reader
}

/** A job that goes on until it is cancelled. */
async function running(name) {
  const id = await server.api.script([[{ output: "working" }, { wait: server.gate(name).file }]])
  await server.api.is(id, "RUNNING")
  return id
}

async function finished() {
  const id = await server.api.script([[{ output: "worked" }, { result: "done" }]])
  await server.api.ended(id)
  return id
}

/** The other job whose page is shown now. */
async function another(page, id) {
  await page.waitForURL(url => /^\/jobs\/[-0-9a-f]+$/.test(url.pathname) && !url.pathname.endsWith(id))
  return new URL(page.url()).pathname.split("/").at(-1)
}

/** How a reader acts: where scripts run or not, by mouse or by keyboard alone. */
const READERS = [
  ["by mouse", { javaScriptEnabled: true }, (page, selector) => page.click(selector)],
  ["by keyboard", { javaScriptEnabled: true }, press],
  ["without a script", { javaScriptEnabled: false }, (page, selector) => page.click(selector)],
  ["by keyboard without a script", { javaScriptEnabled: false }, press],
]

async function press(page, selector) {
  await page.locator(selector).waitFor()
  await tabTo(page, selector)
  await page.keyboard.press("Enter")
}

for (const [how, options, act] of READERS) {
  test(`a job is cancelled ${how}, once that was confirmed`, async () => {
    const id = await running(`cancelled ${how}`)
    const { page, trouble, close } = await read(id, options)

    assert.equal(await page.locator(`${CANCEL} button`).isVisible(), false, "nothing is asked before it is confirmed")
    await act(page, `${CANCEL} > summary`)
    await page.locator(`${CANCEL} button`).waitFor()
    assert.equal((await server.api.job(id)).state, "RUNNING")
    await act(page, `${CANCEL} button`)

    await server.api.is(id, "CANCELLED")
    if (options.javaScriptEnabled) await tellsTheTruth(server.api, page, id)
    else {
      // It would load itself anew, but seldom enough to be read. While it is still on its way to what a form led to, it cannot.
      const anew = () => page.reload().then(() => stateOf(page)).catch(() => "")
      await until(async () => await anew() === "CANCELLED", "a page that is loaded anew says so")
    }
    assert.equal(await page.locator(CANCEL).isVisible(), false, "what has ended cannot be cancelled")
    trouble.none(server)
    await close()
  })

  test(`a job is started again ${how}, and the page is the new one's`, async () => {
    const id = await finished()
    const { page, trouble, close } = await read(id, options)

    await act(page, `${RETRY} button`)

    const repeat = await another(page, id)
    assert.equal((await server.api.job(repeat)).retryOf, id)
    await page.locator(`a[href="/jobs/${id}"]`).waitFor()
    trouble.none(server)
    await close()
  })

  test(`a job is deleted ${how}, once that was confirmed`, async () => {
    const id = await finished()
    const { page, trouble, close } = await read(id, options)

    assert.equal(await page.locator(`${DELETE} button`).isVisible(), false, "nothing is asked before it is confirmed")
    await act(page, `${DELETE} > summary`)
    await page.locator(`${DELETE} button`).waitFor()
    assert.ok(await server.api.has(id))
    await act(page, `${DELETE} button`)

    await page.waitForURL(url => url.pathname === "/")
    assert.equal(await server.api.has(id), false)
    trouble.none(server)
    await close()
  })
}

async function stateOf(page) {
  return page.locator("#state").getAttribute("data-state").catch(() => null)
}

test("an open page offers what can be done as the job goes on", async () => {
  const going = server.gate("offers")
  const id = await server.api.script([[{ wait: going.file }, { result: 1 }]])
  const { page, close } = await read(id)
  const offered = async () => {
    const seen = [CANCEL, RETRY, DELETE].map(selector => page.locator(selector).isVisible())
    return (await Promise.all(seen)).join()
  }

  await until(async () => await offered() === "true,false,false", "what goes on can be cancelled")
  going.open()

  await until(async () => await offered() === "false,true,true", "what has ended can be repeated and deleted")
  await close()
})

test("a page that is older than the server's process still works, where scripts run", async () => {
  const id = await running("older")
  const { page, trouble, close } = await read(id)
  trouble.allow(REFUSED)
  await page.evaluate(() => document.querySelectorAll("input[name=token]").forEach(token => { token.value = "0".repeat(32) }))

  await page.click(`${CANCEL} > summary`)
  await page.click(`${CANCEL} button`)

  await server.api.is(id, "CANCELLED")
  await tellsTheTruth(server.api, page, id)
  trouble.none(server)
  await close()
})

test("a form whose answer was lost is sent again, and starts one job", async () => {
  const id = await finished()
  const { page, trouble, close } = await read(id)
  trouble.allow(/ERR_FAILED/)
  const requests = []
  // The server has it, and nobody hears what it says.
  await page.route(`**/jobs/${id}/retry`, async route => {
    requests.push(new URLSearchParams(route.request().postData()).get("request"))
    await route.fetch()
    if (requests.length === 1) await route.abort()
    else await route.continue()
  })

  await page.click(`${RETRY} button`)
  await page.getByText("the server does not answer").waitFor()
  await page.click(`${RETRY} button`)

  const repeat = await another(page, id)
  assert.match(requests[0], /^[0-9a-f]{32}$/)
  assert.deepEqual(requests, [requests[0], requests[0]])
  const { jobs } = await server.api.call("GET", "/jobs?pageSize=1000")
  assert.deepEqual(jobs.filter(job => job.retryOf === id).map(job => job.id), [repeat])
  trouble.none(server)
  await close()
})

test("a form with a wrong token is refused and does nothing, and a page says why", async () => {
  const [job, old] = [await running("wrong token"), await finished()]
  const { page, trouble, close } = await read(job, { javaScriptEnabled: false })
  trouble.allow(REFUSED)

  await page.evaluate(() => document.querySelectorAll("input[name=token]").forEach(token => { token.value = "0".repeat(32) }))
  await page.click(`${CANCEL} > summary`)
  await page.click(`${CANCEL} button`)

  await page.getByText("FORM_TOKEN_INVALID").waitFor()
  for (const [id, action] of [[job, "cancel"], [old, "retry"], [old, "delete"]]) {
    for (const body of ["", "token=", `token=${"0".repeat(32)}`]) {
      const headers = { "content-type": "application/x-www-form-urlencoded", accept: "application/json" }
      const answer = await fetch(`${server.url}/jobs/${id}/${action}`, { method: "POST", headers, body })
      assert.deepEqual([answer.status, (await answer.json()).reason], [403, "FORM_TOKEN_INVALID"], `${action} ${body}`)
    }
  }
  assert.equal((await server.api.job(job)).state, "RUNNING")
  assert.ok(await server.api.has(old))
  const { jobs } = await server.api.call("GET", "/jobs?pageSize=1000")
  assert.ok(jobs.every(job => job.retryOf !== old), "nothing was started")
  trouble.none(server)
  await close()
})

test("a page of another origin does nothing, though it knows the token", async () => {
  const id = await running("foreign")
  const { page, close } = await read(id)
  const token = await page.locator("form[data-action=cancel] [name=token]").inputValue()
  const form = `<form method="post" action="${server.url}/jobs/${id}/cancel">
    <input name="token" value="${token}"><button>Win a prize</button></form>`
  const foreign = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(form)).listen(0, "127.0.0.1")
  await once(foreign, "listening")

  await page.goto(`http://127.0.0.1:${foreign.address().port}/`)
  const [answer] = await Promise.all([page.waitForResponse(answer => answer.url().endsWith("/cancel")), page.click("button")])

  assert.equal(answer.status(), 403)
  assert.equal((await server.api.job(id)).state, "RUNNING")
  await close()
  foreign.close()
})

test("a page cannot be framed, and is never what a cache or another site has of it", async () => {
  const id = await finished()
  for (const path of [`/jobs/${id}`, "/", "/jobs/00000000-0000-7000-8000-000000000000"]) {
    const { headers } = await fetch(server.url + path, { headers: { accept: "text/html" } })

    const policy = headers.get("content-security-policy") ?? ""
    for (const rule of ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'",
      "style-src 'self'"]) assert.ok(policy.includes(rule), `${path} has ${policy}`)
    assert.doesNotMatch(policy, /unsafe|\*|data:|https?:/)
    assert.equal(headers.get("x-frame-options"), "DENY")
    assert.equal(headers.get("x-content-type-options"), "nosniff")
    assert.match(headers.get("referrer-policy"), /^(no-referrer|same-origin)$/)
    assert.equal(headers.get("cache-control"), "no-store")
  }
})
