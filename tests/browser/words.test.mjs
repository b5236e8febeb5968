// The scripts say times and reasons in the words of the server, whose own tests read the same file.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"
import { ago, either, label, lasted, named } from "../../src/http/pages/assets/time.js"

const SAYINGS = JSON.parse(readFileSync(new URL("words.json", import.meta.url), "utf8"))
const NOW = Date.parse("2026-01-01T00:00:00Z")

const SAY = {
  lasted, named,
  ago: milliseconds => ago(NOW + milliseconds, NOW),
  either: count => `${count} ${either(count, "job was", "jobs were")}`,
}

for (const [name, say] of Object.entries(SAY)) {
  test(`the scripts say as the server does: ${name}`, () => {
    assert.ok(SAYINGS[name].length > 0)
    for (const [what, words] of SAYINGS[name]) assert.equal(say(what), words)
  })
}

test("a state is called by its name", () => {
  assert.deepEqual(["RUNNING", "SUCCEEDED"].map(label), ["Running", "Succeeded"])
})
