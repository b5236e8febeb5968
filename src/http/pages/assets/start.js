// The form that starts jobs: fields of their own for kinds whose input is known here, and for others the input of the newest.

import { enhance } from "./actions.js"
import { ask, exactly, isExact } from "./api.js"
import { byId, make, say } from "./dom.js"

/**
 * A field of an input.
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {"text" | "number" | "checkbox"} type
 * @property {string | number | boolean} value
 * @property {Record<string, string>} [attributes]
 */

/** @type {Record<string, readonly Field[]>} */
const FIELDS = {
  simulate: [
    { name: "prompt", label: "Prompt", type: "text", value: "Hello there" },
    { name: "seconds", label: "Seconds", type: "number", value: 10, attributes: { min: "0", max: "86400", step: "any" } },
    { name: "steps", label: "Steps", type: "number", value: 20, attributes: { min: "0", max: "100000" } },
    { name: "output", label: "With output", type: "checkbox", value: true },
    { name: "chaos.error", label: "Chance of an error", type: "number", value: 0, attributes: { min: "0", max: "1", step: "0.05" } },
  ],
  summarize: [
    { name: "text", label: "Text", type: "text", value: "" },
    { name: "sentences", label: "Sentences", type: "number", value: 3, attributes: { min: "1", max: "100" } },
  ],
}

/** The longest input that is taken over from another job. */
const TAKEN_OVER_MAX = 64 << 10

/** Makes the form ready. */
export function prepare() {
  const form = /** @type {HTMLFormElement} */ (byId("start"))
  const kind = /** @type {HTMLSelectElement | HTMLInputElement} */ (form.elements.namedItem("kind"))
  const input = /** @type {HTMLTextAreaElement} */ (form.elements.namedItem("input"))
  const fields = byId("fields")
  const details = /** @type {HTMLDetailsElement} */ (byId("as-json"))
  /** What nobody has changed may be replaced. */
  let untouched = input.value

  const put = (/** @type {string} */ text) => {
    input.value = untouched = text
  }

  function choose() {
    const known = FIELDS[kind.value]
    fields.replaceChildren(...(known ?? []).map(field => control(field, () => put(written(known, fields)))))
    if (!known) details.open = true
    if (known) put(written(known, fields))
    else takeOver(kind.value)
  }

  /** @param {string} wanted */
  async function takeOver(wanted) {
    if (input.value === untouched) put("{}")
    // Nobody should start a job with other numbers than they see in the one before.
    if (!isExact) return
    const query = new URLSearchParams({ "filter.kinds": wanted, pageSize: "1", view: "FULL" })
    const found = await ask(`/v1/jobs?${query}`)
      .then(async answer => exactly(await answer.text(), list => list.jobs[0].input))
      .catch(() => null)
    // Who has gone on to another kind, or has begun to write, keeps that.
    if (found && found.length <= TAKEN_OVER_MAX && kind.value === wanted && input.value === untouched) put(found)
  }

  kind.addEventListener("change", choose)
  input.addEventListener("input", () => {
    const known = FIELDS[kind.value]
    if (known) fill(known, fields, input.value)
  })
  enhance(
    form,
    location => {
      window.location.assign(location)
    },
    sentence => say(byId("started"), sentence),
  )
  choose()
  details.open = !FIELDS[kind.value]
}

/**
 * @param {Field} field
 * @param {() => void} changed
 */
function control({ name, label, type, value, attributes = {} }, changed) {
  const isLong = name === "text"
  const element = isLong
    ? make("textarea", { rows: "5", "data-field": name })
    : make("input", { type, "data-field": name, ...(type === "number" ? { inputmode: "decimal" } : {}), ...attributes })
  if (element instanceof HTMLTextAreaElement || element instanceof HTMLInputElement) {
    if (element instanceof HTMLInputElement && type === "checkbox") element.checked = value === true
    else element.value = String(value)
  }
  element.addEventListener("input", changed)
  return make("label", { class: type }, label, element)
}

/**
 * The controls by the names of their fields.
 * @param {Element} fields
 */
function controls(fields) {
  const all = /** @type {NodeListOf<HTMLInputElement | HTMLTextAreaElement>} */ (fields.querySelectorAll("[data-field]"))
  return new Map([...all].map(element => [element.dataset.field ?? "", element]))
}

/**
 * What the fields say, as JSON.
 * @param {readonly Field[]} known
 * @param {Element} fields
 */
function written(known, fields) {
  const byName = controls(fields)
  /** @type {Record<string, unknown>} */
  const written = {}
  for (const { name, type } of known) {
    const element = byName.get(name)
    if (!element || (type === "number" && element.value === "")) continue
    const value =
      type === "number" ? Number(element.value)
      : type === "checkbox" && element instanceof HTMLInputElement ? element.checked
      : element.value
    const [outer, inner] = name.split(".")
    if (inner === undefined) written[outer] = value
    else if (value) written[outer] = { [inner]: value }
  }
  return JSON.stringify(written, null, 1)
}

/**
 * Puts into the fields what somebody has written as JSON, as far as there is a field for it.
 * @param {readonly Field[]} known
 * @param {Element} fields
 * @param {string} text
 */
function fill(known, fields, text) {
  let input
  try {
    input = JSON.parse(text)
  } catch {
    return
  }
  const byName = controls(fields)
  for (const { name, type } of known) {
    const value = name.split(".").reduce((inside, key) => inside?.[key], input)
    const element = byName.get(name)
    if (element instanceof HTMLInputElement && type === "checkbox") element.checked = value !== false
    else if (element) element.value = value === undefined ? "" : String(value)
  }
}
