// The scripts of the pages are checked as TypeScript, though they are written, and sent, as they are.

import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { test } from "node:test"
import { fileURLToPath } from "node:url"

const ASSETS = fileURLToPath(new URL("../../src/http/pages/assets/", import.meta.url))
const TSC = fileURLToPath(new URL("node_modules/.bin/tsc", import.meta.url))
const OPTIONS = [
  "--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
  "--lib", "es2022,dom,dom.iterable", "--types", "",
]

function check(files, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(TSC, [...OPTIONS, ...files], { encoding: "utf8", ...options })
  return { status, said: `${stdout}${stderr}${error ?? ""}` }
}

test("the types of all scripts fit", () => {
  const scripts = readdirSync(ASSETS).filter(name => name.endsWith(".js"))
  assert.ok(scripts.length > 0)

  const { status, said } = check(scripts, { cwd: ASSETS })

  assert.equal(status, 0, said)
})

test("a slip in a script would be found", () => {
  const { status, said } = check([fileURLToPath(new URL("slip.js", import.meta.url))])

  assert.notEqual(status, 0)
  assert.match(said, /slip\.js.*TS2339/)
})
