// The output of a channel: pieces at their offsets, cut where a reset says so. An offset counts bytes, so bytes are what is kept.

import { isAtEnd, oncePerFrame } from "./dom.js"

/** How much is shown; what is older is left out, and it is said. */
const SHOWN_BYTES_MAX = 1 << 20
/** How much one node of text has at least before another is begun. */
const NODE_BYTES = 16 << 10

/** @typedef {{ bytes: Uint8Array, offset: number }} Piece */

export class Output {
  /** @type {Piece[]} */
  #pieces = []
  /** How many of the pieces are on the page. */
  #drawn = 0
  /** What is on the page has to be made anew. */
  #stale = true
  #element
  #note
  #ask
  // A mark of the byte order is a part of the output like any other.
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  /** Where the valid output ends. */
  end = 0

  /**
   * Shown in `element`; `note` says how much is not.
   * @param {HTMLElement} element
   * @param {HTMLElement} note
   */
  constructor(element, note) {
    this.#element = element
    this.#note = note
    this.#ask = oncePerFrame(() => this.#draw())
    this.#ask()
  }

  /**
   * Adds a piece of base64 at an offset.
   * @param {number} offset
   * @param {string} base64
   */
  append(offset, base64) {
    const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))
    this.#pieces.push({ bytes, offset })
    this.end = offset + bytes.length
    this.#trim()
    this.#ask()
  }

  /**
   * Cuts at an offset, and returns how many bytes are void.
   * @param {number} kept
   */
  cut(kept) {
    const cut = Math.max(0, this.end - kept)
    if (cut === 0) return 0
    while (this.#pieces.length > 0) {
      const last = this.#pieces[this.#pieces.length - 1]
      if (!last || last.offset < kept) break
      this.#pieces.pop()
    }
    const last = this.#pieces.at(-1)
    if (last && last.offset + last.bytes.length > kept) last.bytes = last.bytes.subarray(0, kept - last.offset)
    this.end = kept
    this.#stale = true
    this.#ask()
    return cut
  }

  #trim() {
    const first = this.end - SHOWN_BYTES_MAX
    // By halves, so that a long output is not made anew with each of its pieces.
    if (this.#pieces.length === 0 || (this.#pieces[0]?.offset ?? 0) >= first - SHOWN_BYTES_MAX / 2) return
    const kept = this.#pieces.findIndex(piece => piece.offset >= first)
    this.#pieces.splice(0, kept < 0 ? this.#pieces.length - 1 : kept)
    this.#stale = true
  }

  #draw() {
    const follows = isAtEnd(this.#element)
    if (this.#stale) {
      this.#element.replaceChildren()
      this.#drawn = 0
      this.#stale = false
    }
    const added = this.#pieces.slice(this.#drawn).map(piece => this.#decoder.decode(piece.bytes)).join("")
    this.#drawn = this.#pieces.length
    const last = this.#element.lastChild
    if (added && last instanceof Text && last.length < NODE_BYTES) last.appendData(added)
    else if (added) this.#element.append(added)
    const first = this.#pieces[0]?.offset ?? this.end
    this.#note.hidden = first === 0
    if (first > 0) this.#note.textContent = `The first ${first} of ${this.end} bytes are not shown here.`
    // Who reads further up stays where they are.
    if (added && follows) this.#element.scrollTop = this.#element.scrollHeight
 }
}
