// Whether somebody reads the list of jobs: points into it, or has the focus in it. Meanwhile nothing moves it: whatever is
// above it keeps its height, and who makes lines there has to wait.

import { byId } from "./dom.js"

export class Reading {
  /** Somebody reads. */
  isOn = false
  #pointed = false
  #focused = false
  /** @type {(() => void)[]} */
  #listeners = []
  /** @type {HTMLElement[]} */
  #above = []

  constructor() {
    // The button of what waits is part of it: on the way there it must not go.
    const reading = byId("reading")
    reading.addEventListener("pointerenter", () => ((this.#pointed = true), this.#look()))
    reading.addEventListener("pointerleave", () => ((this.#pointed = false), this.#look()))
    reading.addEventListener("focusin", () => ((this.#focused = true), this.#look()))
    reading.addEventListener("focusout", () => ((this.#focused = false), this.#look()))
    for (let inside = /** @type {Element} */ (reading); inside.parentElement && inside.localName !== "main"; inside = inside.parentElement) {
      for (let above = inside.previousElementSibling; above; above = above.previousElementSibling) {
        if (above instanceof HTMLElement && !above.classList.contains("unseen")) this.#above.push(above)
      }
    }
    // In a window of another size it has another one.
    addEventListener("resize", () => this.#keepHeights())
  }

  /**
   * Calls this whenever somebody begins or ends to read.
   * @param {() => void} listener
   */
  onChange(listener) {
    this.#listeners.push(listener)
  }

  #look() {
    const isOn = this.#pointed || this.#focused
    if (isOn === this.isOn) return
    this.isOn = isOn
    this.#keepHeights()
    for (const listener of this.#listeners) listener()
  }

  #keepHeights() {
    for (const { style } of this.#above) [style.height, style.overflowAnchor] = ["", ""]
    if (!this.isOn) return
    const heights = this.#above.map(element => element.getBoundingClientRect().height)
    // What moves within them must not make the browser scroll, either.
    this.#above.forEach(({ style }, place) => ([style.height, style.overflowAnchor] = [`${heights[place]}px`, "none"]))
  }
}
