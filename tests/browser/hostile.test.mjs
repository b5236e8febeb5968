// Whatever a job says is text: on both pages, as it comes and as it was, with scripts and without.

import assert from "node:assert/strict"
import { test } from "node:test"
import { until } from "./api.mjs"
import { forAllTests } from "./chromium.mjs"
import { parsed, tellsTheTruth } from "./truth.mjs"

/** Each would call `hacked`, ask for something, or change how other text is read. */
const CLASSICS = [
  "<img src=x onerror=hacked('image')>", "<script>hacked('script')</script>", "javascript:hacked('address')",
  "\"><svg onload=hacked('svg')>", "' onmouseover='hacked(\"attribute\")", "</pre></textarea></title></script><script>hacked('out')</script>",
  "<iframe srcdoc='<script>parent.hacked(1)</script>'></iframe>", "<a href=javascript:hacked('link')>here</a>",
  "<style>*{display:none}</style><link rel=stylesheet href=//example.invalid/x.css>", "<meta http-equiv=refresh content='0;url=//example.invalid'>",
  "<base href=//example.invalid/><form action=//example.invalid><button>", "<!-- <![CDATA[ ]]> -->", "&lt;b&gt; &amp;amp; &#60;i&#62;",
  "{{constructor.constructor('hacked(1)')()}} ${hacked(2)} <%= hacked(3) %> #{hacked(4)} {% raw %}", "%3Cscript%3E \\x3cscript\\x3e",
  "data:text/html,<script>hacked('data')</script>",
]
const ALL = CLASSICS.join("\n")
/** Shown the wrong way round, or not at all, without care. */
const ODD = "\u202Egnp.exe\u202C \u2066isolated\u2069 \u200Fmark \uFEFF\u200B 👩‍👩‍👧‍👦😀 e\u0301 ﷽"
const NUL = "before\0after \u0007\u001b[31mred\u001b[0m\u0085"
const LONG = "x".repeat(5000)
const LABELS = Object.fromEntries([
  ...CLASSICS.map((text, number) => [`label ${number}`, text.slice(0, 255)]),
  ["<b onclick=hacked('key')>key</b>", "value"], ["odd", ODD], ["long", LONG.slice(0, 255)],
])

const { server, chromium } = await forAllTests("--slots", "16")

/** Whatever a job can say, each thing that is hostile in each place that takes it. */
function everything(end) {
  return [
    ...CLASSICS.flatMap(text => [{ stage: text.slice(0, 128) }, { log: text, level: "error" }, { output: text }]),
    { output: "\uFEFFa mark that begins a text", channel: "mark" }, { output: ALL, channel: "<img src=x onerror=hacked('channel')>" }, { output: LONG + ODD + NUL },
    { output: `${LONG} ${ODD} ${NUL}`, channel: "reasoning" }, { log: LONG }, { log: ODD }, { log: NUL }, { stage: ODD },
    { progress: 0.5, unit: "<img src=x onerror=hacked(0)>", completed: 1, total: 2, metrics: { "<b onload=hacked(1)>": 1 } }, ...end,
  ]
}

const RETURNS = [{ result: { [ALL]: [ALL, ODD, LONG, NUL] } }]
const FAILS = [{ failure: { reason: "<b>BAD</b>", message: `${ALL} ${ODD}`, permanent: true, details: { [ALL]: ALL } } }, { exit: 1 }]

/** Starts a job that says all of it at the gate, or at once, and ends so. */
function hostile(end, gate) {
  const wait = gate ? [{ wait: gate.file }] : []
  return server.api.script([[...wait, ...everything(end)]], { labels: LABELS })
}

/** There is no element and no attribute that only a job's text could have made. */
async function noMarkup(page) {
  const found = await page.evaluate(() => {
    const foreign = "img, iframe, object, embed, base, svg [onload], body style, body script, body link, body meta:not(noscript meta), textarea + script"
    const elements = [...document.querySelectorAll(foreign)].filter(element => !element.closest("noscript"))
    const handlers = [...document.querySelectorAll("*")].filter(element =>
      [...element.attributes].some(({ name, value }) => /^on/i.test(name) || (/^(href|src|action)$/i.test(name) && /^\s*(javascript|data):/i.test(value))))
    return [...elements, ...handlers].map(element => element.outerHTML.slice(0, 200))
  })
  assert.deepEqual(found, [], "text has become markup")
}

for (const [how, end, state] of [["succeeds", RETURNS, "SUCCEEDED"], ["fails", FAILS, "FAILED"]]) {
  test(`a hostile job that ${how} is text on its page, live, loaded and without a script`, async () => {
    const gate = server.gate(how)
    const id = await hostile(end, gate)
    const live = await chromium.reader()
    await live.page.goto(`${server.url}/jobs/${id}`)
    await live.page.locator("#connection[data-connection=live]").waitFor({ state: "attached" })
    gate.open()
    assert.equal((await server.api.ended(id)).state, state)

    await tellsTheTruth(server.api, live.page, id)
    await noMarkup(live.page)
    await live.page.reload()
    await tellsTheTruth(server.api, live.page, id, parsed)
    await noMarkup(live.page)
    live.trouble.none(server)
    const plain = await chromium.reader({ javaScriptEnabled: false })
    await plain.page.goto(`${server.url}/jobs/${id}`)
    await tellsTheTruth(server.api, plain.page, id, parsed)
    await noMarkup(plain.page)
    plain.trouble.none(server)
    await Promise.all([live.close(), plain.close()])
  })
}

test("hostile jobs are text on the dashboard, with a script and without, and so is what was searched for", async () => {
  const gate = server.gate("dashboard")
  const running = await server.api.script([[...everything([]), { wait: gate.file }]], { labels: LABELS })
  const queries = ["", "show=all", ...["q", "kind", "label", "pageToken"].map(name => `${name}=${encodeURIComponent(ALL)}`)]

  for (const javaScriptEnabled of [true, false]) {
    const { page, trouble, close } = await chromium.reader({ javaScriptEnabled })
    // It may well refuse them; the page that says so is one of ours, too.
    trouble.allow(/status of 400/)
    for (const query of queries) {
      await page.goto(`${server.url}/?${query}`)
      await noMarkup(page)
    }
    await page.goto(`${server.url}/?label=${encodeURIComponent(`label 0=${CLASSICS[0]}`)}`)
    const row = page.locator(`#jobs [data-job="${running}"]`)
    await row.waitFor()
    await until(async () => (await row.textContent()).includes(ODD), "its stage is shown as it is")
    await noMarkup(page)
    trouble.none(server)
    await close()
  }
  gate.open()
})

test("a script, a style, a request and an error would be told", async () => {
  const id = await server.api.start("unserved", {})
  const { page, trouble, close } = await chromium.reader()
  await page.goto(`${server.url}/jobs/${id}`)
  trouble.none(server)

  for (const [provoke, told] of [
    [() => document.body.append(Object.assign(document.createElement("script"), { textContent: "hacked('inline')" })), /policy: .*Script/],
    [() => document.body.setAttribute("style", "color: red"), /policy: style-src/],
    [() => document.body.append(Object.assign(document.createElement("img"), { src: "http://example.invalid/" })), /policy: img-src/],
    [() => { document.body.innerHTML = "<b>markup</b>" }, /policy: .*innerHTML/],
    [() => window.hacked("by hand"), /a script of a job ran: by hand/],
    [() => console.error("something is wrong"), /console: something is wrong/],
    [() => setTimeout(() => { throw new Error("nobody catches this") }), /error: [^]*nobody catches this/],
    [() => setTimeout(() => alert("a dialog")), /dialog: a dialog/],
  ]) {
    // What it throws there and then is ours.
    await page.evaluate(provoke).catch(() => {})

    await until(() => trouble.seen.some(what => told.test(what)), `${told} is told`)
  }
  assert.throws(() => trouble.none(server))
  await close()
})

test("markup that got into a page would be found", async () => {
  const { page, close } = await chromium.reader()
  for (const markup of ["<img src=x>", "<p onclick=hacked()>", "<a href='javascript:hacked()'>", "<p><style></style>", "<iframe></iframe>"]) {
    await page.setContent(markup)

    await assert.rejects(noMarkup(page), undefined, markup)
  }
  await close()
})
