// A program of the child protocol that does what its input says: for each attempt a list of messages, the last one for all
// further ones. It writes one after the other, and has three steps of its own: {"wait": FILE} stands until that file is there,
// {"line": TEXT} writes a line as it is, {"exit": CODE} ends it.

import { existsSync, readFileSync, writeSync } from "node:fs"

const AGAIN = 10
const { attempt, input } = JSON.parse(readFileSync(0, "utf8"))
for (const step of input.attempts[Math.min(attempt, input.attempts.length) - 1]) {
  if (step.wait !== undefined) {
    while (!existsSync(step.wait)) await new Promise(again => setTimeout(again, AGAIN))
  } else if (step.exit !== undefined) {
    process.exit(step.exit)
  } else {
    write(`${step.line ?? JSON.stringify(step)}\n`)
  }
}

/** A pipe takes a part of what is large. */
function write(text) {
  for (let bytes = Buffer.from(text); bytes.length > 0;) bytes = bytes.subarray(writeSync(1, bytes))
}
