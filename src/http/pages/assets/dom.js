// Elements by their ids, and changes that touch only what differs. Text gets into a page as text alone: nothing here, and
// nothing that the browser would let through, makes markup of it.

/**
 * The element of this id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id)
  if (!found) throw new Error(`this page has no #${id}`)
  return found
}

/**
 * Puts a text in place of what an element has, if that differs.
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/**
 * Sets an attribute, if it differs; `null` takes it away.
 * @param {Element} element
 * @param {string} name
 * @param {string | null} value
 */
export function mark(element, name, value) {
  if (element.getAttribute(name) === value) return
  if (value === null) element.removeAttribute(name)
  else element.setAttribute(name, value)
}

/**
 * Makes an element with these attributes and children; a text is a text.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/**
 * Draws at most once a frame, however often it is asked. In a hidden page it waits until that is shown.
 * @param {() => void} draw
 * @returns {() => void}
 */
export function oncePerFrame(draw) {
  let asked = false
  return () => {
    if (asked) return
    asked = true
    requestAnimationFrame(() => {
      asked = false
      draw()
    })
  }
}

/**
 * Whether an element shows its own end, so that a reader sees what is added.
 * @param {Element} element
 */
export function isAtEnd(element) {
  return element.scrollHeight - element.scrollTop - element.clientHeight < 24
}
