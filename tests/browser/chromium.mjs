// A Chromium of a test file's own, and what a page of ours must never do in it.
//
// It is started here and not by playwright, which makes every page believe that it is shown and has the focus: in the tabs of
// `tabs`, a page that another one covers is hidden, as for a reader.

import { chromium } from "playwright-core"
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { after } from "node:test"
import { WAIT, until, within } from "./api.mjs"
import { Server } from "./server.mjs"

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
  "--remote-debugging-port=0",
]
const WIDE = { width: 1280, height: 800 }

export class Chromium {
  static async start() {
    const started = new Chromium()
    started.folder = mkdtempSync(join(tmpdir(), "longhaul-chromium-"))
    const command = [...FLAGS, `--user-data-dir=${started.folder}`, "about:blank"]
    started.process = spawn("chromium", command, { stdio: ["ignore", "ignore", "pipe"], detached: true })
    started.ended = once(started.process, "exit")
    const lines = createInterface({ input: started.process.stderr })
    const address = new Promise(found => {
      lines.on("line", line => {
        const [, url] = /^DevTools listening on (ws:\S+)/.exec(line) ?? []
        if (url) found(url)
      })
    })
    started.browser = await chromium.connectOverCDP(await within(address, "where Chromium listens"), { noDefaults: true })
    return started
  }

  /** A reader's window with one page, and nothing kept from others. `told` tells what went on in it. */
  async reader(options = {}) {
    const context = await this.browser.newContext({ viewport: WIDE, ...options })
    return open(context, await watch(context))
  }

  /** Tabs of one window, of which only the one in front is shown. */
  async tabs() {
    const [context] = this.browser.contexts()
    this.trouble ??= await watch(context)
    return { context, trouble: this.trouble }
  }

  async stop() {
    await this.browser.close()
    // It has processes of its own; none may outlive it.
    process.kill(-this.process.pid, "SIGKILL")
    await this.ended
    await until(() => removed(this.folder), "Chromium's folder is removed")
  }
}

/** A server of these settings and a Chromium for all tests of a file, after the last of which both end. */
export async function forAllTests(...settings) {
  const [server, chromium] = await Promise.all([Server.start(...settings), Chromium.start()])
  after(async () => {
    await chromium.stop()
    await server.stop()
  })
  return { server, chromium }
}

/** Runs something with a server of these settings and a Chromium, and ends both whatever comes of it. */
export async function withBoth(settings, run) {
  const [server, chromium] = await Promise.all([Server.start(...settings), Chromium.start()])
  try {
    return await run(server, chromium)
  } finally {
    await chromium.stop()
    await server.stop()
  }
}

async function open(context, trouble) {
  const page = await context.newPage()
  page.setDefaultTimeout(WAIT)
  return { context, page, trouble, close: () => context.close() }
}

/** The last writes of processes that are being killed may come between. */
function removed(folder) {
  try {
    rmSync(folder, { recursive: true, force: true })
    return true
  } catch {
    return false
  }
}

/** Notes whatever a page of ours must never do, from now on. `allowed` names what a test does to it on purpose. */
async function watch(context) {
  const trouble = new Trouble()
  await context.exposeBinding("tellTrouble", (_, what) => trouble.note(what))
  await context.addInitScript(() => {
    // Whatever is hostile calls this, where it runs.
    window.hacked = why => window.tellTrouble(`a script of a job ran: ${why}`)
    document.addEventListener("securitypolicyviolation", event => {
      const { violatedDirective, blockedURI, sourceFile, lineNumber, sample } = event
      window.tellTrouble(`policy: ${violatedDirective} ${blockedURI} ${sourceFile}:${lineNumber} ${sample}`)
    })
  })
  context.on("dialog", dialog => {
    trouble.note(`dialog: ${dialog.message()}`)
    dialog.dismiss()
  })
  context.on("weberror", error => trouble.note(`error: ${error.error().stack}`))
  context.on("console", message => {
    if (["error", "warning"].includes(message.type())) trouble.note(`console: ${message.text()} (${message.location().url})`)
  })
  context.on("request", request => trouble.asked(request))
  return trouble
}

/** What a page must never do, as far as it has done it. */
export class Trouble {
  seen = []
  hosts = new Set()
  allowed = []

  note(what) {
    if (!this.allowed.some(pattern => pattern.test(what))) this.seen.push(what)
  }

  /** Every request goes to where the page itself came from. */
  asked(request) {
    const url = new URL(request.url())
    if (!/^https?:$/.test(url.protocol)) return
    this.hosts.add(url.host)
  }

  /** Allows what a test brings about itself, as the words of a server that is away. */
  allow(...patterns) {
    this.allowed.push(...patterns)
  }

  /** There was none, and no request went anywhere but to this server. */
  none(server) {
    assert.deepEqual(this.seen, [], "the page got into trouble")
    assert.deepEqual([...this.hosts], [new URL(server.url).host], "requests went elsewhere")
  }
}

/** What Chromium itself says on the console of requests that a server does not answer. */
export const AWAY = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)/

/** Presses the tab key until the focus is where it should go, as who has no mouse. */
export async function tabTo(page, selector) {
  const element = page.locator(selector)
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press("Tab")
    if (await element.evaluate(element => element === document.activeElement)) return
  }
  assert.fail(`${selector} cannot be reached with the tab key`)
}
