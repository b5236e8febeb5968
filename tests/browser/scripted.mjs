// A program of the child protocol that does what its input says: for each attempt a list of messages, which it writes one after
// the other, and of two steps of its own: {"wait": FILE} stands until that file is there, {"exit": CODE} ends it.

import { existsSync, readFileSync, writeSync } from "node:fs"

const AGAIN = 10
const { attempt, input } = JSON.parse(readFileSync(0, "utf8"))
for (const step of input.attempts[attempt - 1]) {
  if (step.wait !== undefined) {
    while (!existsSync(step.wait)) await new Promise(again => setTimeout(again, AGAIN))
  } else if (step.exit !== undefined) {
    process.exit(step.exit)
  } else {
    write(JSON.stringify(step) + "\n")
  }
}

/** A pipe takes a part of what is large. */
function write(text) {
  for (let bytes = Buffer.from(text); bytes.length > 0;) bytes = bytes.subarray(writeSync(1, bytes))
}
