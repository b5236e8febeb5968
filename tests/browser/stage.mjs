// Jobs in every state that a page can show, for who looks at the pages.

import { until } from "./api.mjs"

const TEXT = "The harbour woke before the town did. Gulls argued over the nets, a diesel coughed twice and caught, and the first boat " +
  "slid out past the mole with its lights still on.\n\nNobody on the quay looked up: it was Tuesday, and Tuesdays are for mackerel.\n"

const words = text => text.split(/(?<= )/).map(word => ({ output: word }))
const INPUT = { retryPolicy: { maximumAttempts: 3, initialInterval: "0.1s", maximumInterval: "0.1s" } }

/** One job in each state: a map of what it is to its ticket. `close` lets those end that go on. */
export async function jobs(server) {
  const { api } = server
  const gate = server.gate("stage")
  const labels = { team: "voice", language: "en" }
  const start = (attempts, more) => api.script(attempts, { labels, options: INPUT, ...more })
  const work = [
    { stage: "Loading the model" }, { log: "model loaded from cache" }, { progress: 0.2, stage: "Reading" },
    { output: "The reader wants the mood of a harbour at dawn, so: sounds first, then light.", channel: "reasoning" },
    { stage: "Writing", progress: 0.4, completed: 26, total: 60, unit: "words", seconds_left: 42 }, ...words(TEXT),
    { log: "the temperature is high", level: "warn" }, { metrics: { tokens: 57, tokens_per_second: 21.5 }, progress: 0.62 },
  ]
  const failing = [{ stage: "Asking the provider" }, { progress: 0.3 }, { output: "The harb" }, { log: "429 from the provider", level: "error" },
    { failure: { reason: "PROVIDER_REFUSED", message: "the provider is busy; it asks to come again in 20 s" } }, { exit: 1 }]
  const made = {
    running: await start([failing, [...work, { wait: gate.file }, { result: 1 }]]),
    waiting: await api.start("translate", { text: "Guten Morgen" }, { labels }),
    succeeded: await start([[...work, { result: { text: TEXT, words: 45, finish_reason: "stop" } }]]),
    failed: await start([failing, failing, failing]),
    cancelled: await start([[...work, { wait: gate.file }]]),
  }
  await until(async () => (await api.job(made.cancelled)).progress?.fraction === 0.62, "it has come so far")
  await api.cancel(made.cancelled)
  await until(async () => (await api.job(made.running)).progress?.fraction === 0.62, "it has come so far")
  await Promise.all([api.is(made.succeeded, "SUCCEEDED"), api.is(made.failed, "FAILED"), api.is(made.cancelled, "CANCELLED")])
  return { ...made, close: () => gate.open() }
}

/** Work of several kinds, so that a dashboard has something to show. */
export async function crowd(server) {
  const simulated = (seconds, chaos = {}) => ({ kind: "simulate", input: { prompt: TEXT, seconds, steps: 20, chaos, seed: 1 } })
  const served = [
    ...Array.from({ length: 12 }, () => simulated(0)),
    ...Array.from({ length: 3 }, () => ({ ...simulated(0, { error: 1 }), options: { retryPolicy: { maximumAttempts: 1 } } })),
    ...Array.from({ length: 8 }, (_, number) => simulated(40 + 7 * number)),
  ]
  const unserved = Array.from({ length: 4 }, () => ({ kind: "translate", input: { text: "Guten Morgen" }, labels: { team: "voice" } }))
  await server.api.startEach(served)
  await server.api.startAll(unserved)
  await until(async () => {
    const { counts } = await server.api.call("GET", "/jobs:count?kinds=simulate")
    const of = wanted => Number(counts.find(({ state }) => state === wanted)?.jobs ?? 0)
    return of("RUNNING") === 8 && of("FAILED") === 3 && of("SUCCEEDED") === 12
  }, "some have ended and some go on")
}
