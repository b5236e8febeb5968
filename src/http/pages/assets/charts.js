// What happened in the last minutes, as small drawings. What they say is said in words beside them.

import { mark, say } from "./dom.js"
import { either, lasted, milliseconds } from "./time.js"

/**
 * What happened in some seconds; what is absent is zero.
 * @typedef {object} Slice
 * @property {string} time
 * @property {number} [created]
 * @property {number} [succeeded]
 * @property {number} [failed]
 * @property {number} [cancelled]
 * @property {number} [expired]
 * @property {number} [retried]
 * @property {string} [p50]
 * @property {string} [p95]
 */

const SVG = "http://www.w3.org/2000/svg"
const [WIDTH, HEIGHT, TOP] = [270, 56, 4]

/**
 * A drawing with paths of these names, made once.
 * @param {string} chart
 * @param {readonly string[]} names
 */
function drawing(chart, names) {
  const figure = document.querySelector(`figure[data-chart=${chart}]`)
  if (!figure) throw new Error(`this page has no chart of ${chart}`)
  const svg = document.createElementNS(SVG, "svg")
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })) {
    svg.setAttribute(name, value)
  }
  const paths = new Map()
  for (const name of names) {
    const path = document.createElementNS(SVG, "path")
    path.setAttribute("class", name)
    path.setAttribute("vector-effect", "non-scaling-stroke")
    paths.set(name, path)
    svg.append(path)
  }
  figure.append(svg)
  const [value, words] = [".value", ".words"].map(selector => figure.querySelector(selector))
  if (!value || !words) throw new Error(`the chart of ${chart} has no words`)
  return {
    /** @param {Record<string, string>} shapes */
    draw(shapes) {
      for (const [name, shape] of Object.entries(shapes)) mark(paths.get(name), "d", shape)
    },
    /**
     * @param {string} number
     * @param {string} sentence
     * @param {string} label
     */
    tell(number, sentence, label) {
      say(value, number)
      say(words, sentence)
      mark(svg, "aria-label", label)
    },
  }
}

/** @param {Slice} slice */
const endedIn = slice => (slice.succeeded ?? 0) + (slice.failed ?? 0) + (slice.cancelled ?? 0) + (slice.expired ?? 0)
/** @param {Slice} slice */
const failedIn = slice => (slice.failed ?? 0) + (slice.expired ?? 0)

/**
 * Bars for numbers, each above what lies below it.
 * @param {readonly number[]} numbers
 * @param {readonly number[]} below
 * @param {number} most
 */
function bars(numbers, below, most) {
  const step = WIDTH / numbers.length
  const y = (/** @type {number} */ number) => round(HEIGHT - ((HEIGHT - TOP) * number) / most)
  return numbers
    .map((number, index) => {
      if (number === 0) return ""
      const [left, right] = [round(index * step + 0.4), round((index + 1) * step - 0.4)]
      const [foot, head] = [y(below[index]), y(below[index] + number)]
      return `M${left} ${foot}V${head}H${right}V${foot}Z`
    })
    .join("")
}

/**
 * A line through what is known, on a scale of tens, with a gap where nothing is.
 * @param {readonly (number | null)[]} values
 * @param {number} least
 * @param {number} most
 */
function line(values, least, most) {
  const step = WIDTH / values.length
  const span = Math.max(0.1, Math.log10(most) - Math.log10(least))
  let shape = ""
  let isOn = false
  values.forEach((value, index) => {
    if (value === null) {
      isOn = false
      return
    }
    const y = round(HEIGHT - 2 - ((HEIGHT - TOP - 2) * (Math.log10(value) - Math.log10(least))) / span)
    const x = round((index + 0.5) * step)
    // A point alone is as wide as its slice.
    const isAlone = !isOn && (values[index + 1] ?? null) === null
    shape += isAlone ? `M${round(x - step / 2)} ${y}H${round(x + step / 2)}` : `${isOn ? "L" : "M"}${x} ${y}`
    isOn = true
  })
  return shape
}

/** @param {number} number */
const round = number => Math.round(number * 10) / 10

/** The drawings of the page. */
export class Charts {
  #throughput = drawing("throughput", ["good", "bad"])
  #latency = drawing("latency", ["p95", "p50"])
  #failures = drawing("failures", ["bad", "retried"])

  /**
   * @param {object} overview
   * @param {string} overview.startTime Before that the server has seen nothing.
   * @param {number} overview.interval The seconds of a slice.
   * @param {readonly Slice[]} overview.recent
   * @param {Slice} overview.total
   */
  draw({ startTime, interval, recent, total }) {
    const isWhole = Date.parse(startTime) <= Date.parse(total.time)
    const when = isWhole ? `in ${Math.round((recent.length * interval) / 60)} min` : "since the server's start"
    const every = `every ${interval} seconds`
    this.#drawThroughput(recent, total, when, every)
    this.#drawLatency(recent, total, when, every)
    this.#drawFailures(recent, total, when, every)
  }

  /**
   * @param {readonly Slice[]} slices
   * @param {Slice} total
   * @param {string} when
   * @param {string} every
   */
  #drawThroughput(slices, total, when, every) {
    const bad = slices.map(failedIn)
    const good = slices.map(slice => endedIn(slice) - failedIn(slice))
    const most = Math.max(1, ...slices.map(endedIn))
    this.#throughput.draw({ bad: bars(bad, bad.map(() => 0), most), good: bars(good, bad, most) })
    const [ended, created] = [endedIn(total), total.created ?? 0]
    const words = `${either(ended, "job", "jobs")} ended ${when}; ${created} ${either(created, "was", "were")} started`
    this.#throughput.tell(String(ended), words, `Jobs that ended, ${every}; at most ${most}`)
  }

  /**
   * @param {readonly Slice[]} slices
   * @param {Slice} total
   * @param {string} when
   * @param {string} every
   */
  #drawLatency(slices, total, when, every) {
    const read = (/** @type {string | undefined} */ text) => (text === undefined ? null : Math.max(1, milliseconds(text)))
    const [p50, p95] = [slices.map(slice => read(slice.p50)), slices.map(slice => read(slice.p95))]
    const known = [...p50, ...p95].filter(value => value !== null)
    const [least, most] = [Math.min(...known, 1e9), Math.max(...known, 1)]
    this.#latency.draw({ p95: line(p95, least, most), p50: line(p50, least, most) })
    const words = total.p95
      ? `half took that at most, 95\u00a0% ${lasted(milliseconds(total.p95))}`
      : `no job succeeded ${when}`
    const label = known.length
      ? `Time from ticket to result, ${every}, from ${lasted(least)} to ${lasted(most)}`
      : "Time from ticket to result: nothing to draw"
    this.#latency.tell(total.p50 ? lasted(milliseconds(total.p50)) : "–", words, label)
  }

  /**
   * @param {readonly Slice[]} slices
   * @param {Slice} total
   * @param {string} when
   * @param {string} every
   */
  #drawFailures(slices, total, when, every) {
    const bad = slices.map(failedIn)
    const retried = slices.map(slice => slice.retried ?? 0)
    const most = Math.max(1, ...bad.map((count, index) => count + retried[index]))
    this.#failures.draw({ bad: bars(bad, bad.map(() => 0), most), retried: bars(retried, bad, most) })
    const [failed, repeated, cancelled] = [failedIn(total), total.retried ?? 0, total.cancelled ?? 0]
    const beside = [
      `${repeated} ${either(repeated, "attempt is", "attempts are")} repeated`,
      `${cancelled} ${either(cancelled, "job was", "jobs were")} cancelled`,
    ]
    const words = `${either(failed, "job", "jobs")} failed ${when}; ${beside.join(", ")}`
    this.#failures.tell(String(failed), words, `Jobs and attempts that failed, ${every}; at most ${most}`)
  }
}
