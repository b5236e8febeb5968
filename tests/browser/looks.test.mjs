// How the pages look to whom: to axe in every state and look, which the same walk takes a picture of; and what they weigh.

import axe from "axe-core"
import assert from "node:assert/strict"
import { statSync } from "node:fs"
import { test } from "node:test"
import { forAllTests } from "./chromium.mjs"
import { LOOKS, pictures, settled } from "./screenshots.mjs"

/** What a page may weigh with all that it loads. */
const BYTES_MAX = 100 * 1024
const IMPACTS = ["serious", "critical"]
/** Each width and each scheme once; the other two looks are theirs put together anew. */
const SEEN = LOOKS.filter(({ colorScheme, width }) => (colorScheme === "light") === (width > 600))

const { server, chromium } = await forAllTests("--slots", "24")

/** What axe finds on a page that somebody could not use. */
async function findings(page) {
  // Past the page's own policy, which would let nothing of this in.
  if (!await page.evaluate(() => "axe" in window)) await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }))
  return violations.filter(({ impact }) => IMPACTS.includes(impact)).flatMap(({ id, help, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${help}: ${html.slice(0, 200)} ${failureSummary}`))
}

test("every page can be used by everybody, in every state, light and dark, wide and narrow, and fits", async () => {
  const found = {}
  const files = await pictures(server, chromium, SEEN, async (page, name) => {
    const problems = await findings(page)
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    if (beyond > 0) problems.push(`it is ${beyond} pixels wider than the window`)
    if (problems.length) found[name] = problems
    if (!name.endsWith("wide-light")) return
    const plain = await page.context().newPage()
    // As it is without a script; where none may run at all, axe could not either.
    await plain.route("**/*.js", route => route.abort())
    await plain.goto(page.url())
    const withoutScript = await findings(plain)
    if (withoutScript.length) found[`${name}, without a script`] = withoutScript
    await plain.close()
  })

  assert.deepEqual(found, {})
  assert.ok(files.length >= SEEN.length * 8)
  for (const file of files) assert.ok(statSync(file).size > 5_000, `${file} shows something`)
})

test("what nobody could read or name would be found", async () => {
  const { page, close } = await chromium.reader()
  await page.setContent("<html lang=en><title>t</title><main><h1>t</h1><p style='color: #eee; background: #fff'>pale<p><img src=x><button></button>")

  const found = (await findings(page)).map(finding => finding.split(":")[0])

  assert.deepEqual(found.sort(), ["button-name", "color-contrast", "image-alt"])
  await close()
})

const PAGES = [
  ["a job's page weighs less than 100 KiB with all that it loads", async () => `/jobs/${await worked()}`, () => true],
  ["the dashboard weighs less than 100 KiB with all that it loads", () => "/", () => true],
  // Each of 250 jobs is some 400 bytes of news.
  ["a full dashboard weighs less than 100 KiB without the news of its jobs", full, ({ mimeType }) => mimeType !== "text/event-stream"],
]
for (const [name, path, counts] of PAGES) {
  test(name, async () => {
    const { page, context, trouble, close } = await chromium.reader()
    const network = await context.newCDPSession(page)
    const [weights, left] = [new Map(), new Set()]
    const add = ({ requestId, encodedDataLength }) => weights.set(requestId, (weights.get(requestId) ?? 0) + encodedDataLength)
    // A watch does not finish: what has come of it counts as it comes.
    network.on("Network.dataReceived", add)
    network.on("Network.responseReceived", ({ requestId, response }) => {
      if (counts(response)) add({ requestId, ...response })
      else left.add(requestId)
    })
    network.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => weights.set(requestId, encodedDataLength))
    await network.send("Network.enable")

    await settled(page, server.url + await path())
    await page.waitForLoadState("load")

    const weight = [...weights].reduce((sum, [id, bytes]) => sum + (left.has(id) ? 0 : bytes), 0)
    assert.ok(weights.size >= 4, `it loads ${weights.size} files`)
    assert.ok(weight > 5_000 && weight < BYTES_MAX, `${weight} bytes`)
    trouble.none(server)
    await close()
  })
}

/** As many jobs as the list has room for. */
async function full() {
  await server.api.startAll(Array.from({ length: 250 }, () => ({ kind: "nobody-serves-this", input: {} })))
  return "/"
}

async function worked() {
  const id = await server.api.start("simulate", { prompt: "a few words of output", seconds: 0 })
  await server.api.ended(id)
  return id
}
