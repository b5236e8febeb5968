// Writes pictures of both pages, in each state, light and dark, wide and narrow, to target/screenshots/.
//
// node tests/browser/screenshots.mjs [--binary FILE]

import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { withBoth } from "./chromium.mjs"
import { crowd, jobs } from "./stage.mjs"

const FOLDER = fileURLToPath(new URL("../../target/screenshots/", import.meta.url))
export const LOOKS = [
  { colorScheme: "light", width: 1280 }, { colorScheme: "dark", width: 1280 }, { colorScheme: "light", width: 390 },
  { colorScheme: "dark", width: 390 },
]

/** Lets `visit` see a reader's window in each of these looks. */
async function eachLook(chromium, looks, visit) {
  for (const { colorScheme, width } of looks) {
    const reader = await chromium.reader({ colorScheme, viewport: { width, height: width > 600 ? 900 : 844 } })
    await visit(reader, `${width > 600 ? "wide" : "narrow"}-${colorScheme}`)
    await reader.close()
  }
}

/** Opens an address, and returns once its script is at work. */
export async function settled(page, url) {
  await page.goto(url)
  await page.locator("#connection[data-connection]").waitFor({ state: "attached" })
  // What is drawn is drawn in a frame, and the first one may have been before.
  await page.evaluate(() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn))))
}

/** Takes pictures in these looks, and lets `look` see each page; returns their files. */
export async function pictures(server, chromium, looks = LOOKS, look = async () => {}) {
  mkdirSync(FOLDER, { recursive: true })
  const files = []
  const take = paths => eachLook(chromium, looks, async ({ page }, how) => {
    for (const [name, path] of Object.entries(paths)) {
      await settled(page, server.url + path)
      await look(page, `${name}-${how}`)
      files.push(join(FOLDER, `${name}-${how}.png`))
      await page.screenshot({ path: files.at(-1), fullPage: true })
    }
  })
  await take({ "dashboard-empty": "/" })
  const { close, ...made } = await jobs(server)
  await crowd(server)
  const pages = Object.entries(made).map(([name, id]) => [`job-${name}`, `/jobs/${id}`])
  await take({ "dashboard-busy": "/", "dashboard-all": "/?show=all", ...Object.fromEntries(pages) })
  close()
  return files
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { binary: { type: "string" } } })
  if (values.binary) process.env.LONGHAUL_BINARY = values.binary
  console.log((await withBoth(["--slots", "24"], pictures)).join("\n"))
}
