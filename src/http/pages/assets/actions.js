// The forms of a page, sent without leaving it. Each works without this, too.

import { ask } from "./api.js"

/**
 * Sends a form, and returns where what came of it is to be seen. Throws what went wrong, in a sentence.
 * @param {HTMLFormElement} form
 * @returns {Promise<string>}
 */
export async function send(form) {
  let answer = await post(form)
  if (answer.status === 403 && (await reasonOf(answer)) === "FORM_TOKEN_INVALID") {
    // The server was started anew since this page was made; a new page has the new token.
    await renew()
    answer = await post(form)
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `the server answered ${answer.status}`)
  return (await answer.json()).location
}

/** @param {HTMLFormElement} form */
async function post(form) {
  const fields = new URLSearchParams()
  for (const [name, value] of new FormData(form)) fields.append(name, String(value))
  const options = { method: "POST", body: fields, headers: { accept: "application/json" } }
  return ask(form.action, options).catch(() => {
    throw new Error("the server does not answer; nothing may have happened, or it may have: look again in a moment")
  })
}

/** @param {Response} answer */
async function reasonOf(answer) {
  return (await answer.clone().json().catch(() => ({}))).reason
}

/**
 * Takes the token of a page that is made now. It is read as text: no markup is made of it.
 */
async function renew() {
  const page = await (await ask(location.href, { headers: { accept: "text/html" } })).text()
  const token = /name="token" value="([0-9a-f]{32})"/.exec(page)?.[1]
  if (!token) return
  for (const field of document.querySelectorAll("input[name=token]")) {
    if (field instanceof HTMLInputElement) field.value = token
  }
}

/**
 * Makes the next sending of a form a request of its own. Until then one that is sent twice is one request: after a second click,
 * or where nobody knows whether the first has come.
 * @param {HTMLFormElement} form
 */
function begin(form) {
  const request = form.elements.namedItem("request")
  if (!(request instanceof HTMLInputElement)) return
  const random = crypto.getRandomValues(new Uint8Array(16))
  request.value = [...random].map(byte => byte.toString(16).padStart(2, "0")).join("")
}

/**
 * Sends a form where it stands, and says what came of it.
 * @param {HTMLFormElement} form
 * @param {(location: string) => void} done
 * @param {(sentence: string) => void} failed
 */
export function enhance(form, done, failed) {
  // What was changed is another request, and so is what comes once somebody has come back to a page by the browser's memory.
  form.addEventListener("input", () => begin(form))
  form.addEventListener("change", () => begin(form))
  addEventListener("pageshow", event => {
    if (event.persisted) begin(form)
  })
  form.addEventListener("submit", async event => {
    event.preventDefault()
    const buttons = form.querySelectorAll("button")
    for (const button of buttons) button.disabled = true
    try {
      const location = await send(form)
      begin(form)
      done(location)
    } catch (error) {
      failed(error instanceof Error ? error.message : String(error))
    } finally {
      for (const button of buttons) button.disabled = false
    }
  })
}
