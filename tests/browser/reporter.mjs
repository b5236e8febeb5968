// Tells how the tests went: a line each, what went wrong, and as the last line how many passed and failed.

import { inspect } from "node:util"

/** @param {AsyncIterable<any>} events */
export default async function* report(events) {
  const started = Date.now()
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for await (const { type, data } of events) {
    if (type === "test:stderr" || type === "test:stdout") yield data.message
    if (type !== "test:pass" && type !== "test:fail") continue
    // A file is a test of its own where it fails outside of its tests.
    const failed = type === "test:fail"
    if (data.details.type === "suite" || (failed && data.details.error?.failureType === "subtestsFailed")) continue
    const outcome = failed ? "failed" : data.skip !== undefined || data.todo !== undefined ? "skipped" : "passed"
    counts[outcome] += 1
    yield `${failed ? "FAILED" : outcome} ${data.name} (${Math.round(data.details.duration_ms)} ms)\n`
    if (failed) yield `${indented(reason(data.details.error))}\n`
  }
  const skipped = counts.skipped ? `, ${counts.skipped} skipped` : ""
  yield `in ${Math.round((Date.now() - started) / 1000)} s\n`
  yield `${counts.passed} passed, ${counts.failed} failed${skipped}\n`
}

function reason(error) {
  const cause = error?.cause ?? error
  return cause?.stack ?? inspect(cause)
}

function indented(text) {
  return text.replace(/^/gm, "    ")
}
