// The buttons that copy what an element shows; or the whole of it, where only its beginning is shown.

import { byId, say } from "./dom.js"

/** How long a button says what came of it, in milliseconds. */
const SAID = 1500

/**
 * Makes the buttons ready. `whole` gets all of what an element shows a part of, by the element's id.
 * @param {(id: string) => Promise<string>} whole
 */
export function prepareCopies(whole) {
  for (const button of document.querySelectorAll("button.copy")) {
    if (!(button instanceof HTMLButtonElement)) continue
    const id = button.dataset.copy ?? ""
    button.hidden = false
    button.addEventListener("click", async () => {
      const source = byId(id)
      const isWhole = id === "output" || !source.previousElementSibling?.classList.contains("cut")
      try {
        await copy(isWhole ? Promise.resolve(source.textContent ?? "") : whole(id), source)
        say(button, "Copied")
      } catch {
        say(button, "Not copied")
      }
      setTimeout(() => say(button, "Copy"), SAID)
    })
  }
}

/**
 * Puts a text on the clipboard, also where the page was not fetched safely.
 * @param {Promise<string>} text
 * @param {Element} source
 */
async function copy(text, source) {
  try {
    // A promise: a browser may allow this only at once after the click, and the text may be on its way.
    const plain = text.then(text => new Blob([text], { type: "text/plain" }))
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": plain })])
  } catch {
    const written = await text
    const put = (/** @type {ClipboardEvent} */ event) => {
      event.clipboardData?.setData("text/plain", written)
      event.preventDefault()
    }
    getSelection()?.selectAllChildren(source)
    document.addEventListener("copy", put, { once: true })
    const isCopied = document.execCommand("copy")
    document.removeEventListener("copy", put)
    if (!isCopied) throw new Error("the browser does not copy")
  }
}
