// A watch that goes on over breaks, and rests while nobody looks: a browser has six connections for a host, and each open
// page would take one.

import { byId, mark, say } from "./dom.js"

/** How long to wait before coming again where the browser has given up by itself. */
const AGAIN = 1500

/**
 * Shows whether what is on the page is how things stand.
 * @param {"live" | "broken" | "over"} connection
 */
function showConnection(connection) {
  const element = byId("connection")
  mark(element, "data-connection", connection)
  say(element, { live: "live", broken: "connecting again…", over: "ended" }[connection])
}

/**
 * Follows a stream of server-sent events until it is over.
 *
 * `address` is asked for each time, so that it can name where to go on. `isOver` says whether there is nothing more to come,
 * once the stream has ended in a way that the browser takes for good.
 * @param {object} options
 * @param {() => string} options.address
 * @param {readonly string[]} options.types
 * @param {(type: string, event: MessageEvent) => void} options.heard
 * @param {() => Promise<boolean>} options.isOver
 * @param {() => void} [options.begun] The stream has begun, the first time or again.
 */
export function follow({ address, types, heard, isOver, begun }) {
  /** @type {EventSource | null} */
  let source = null
  let over = false
  /** @type {number | undefined} */
  let timer

  function open() {
    clearTimeout(timer)
    if (over || document.hidden || source) return
    const opened = new EventSource(address())
    source = opened
    opened.onopen = () => {
      showConnection("live")
      if (opened === source) begun?.()
    }
    opened.onerror = () => {
      if (opened !== source) return
      showConnection("broken")
      if (opened.readyState !== EventSource.CLOSED) return
      // It comes again by itself after a break, and gives up where it was told that there is nothing.
      source = null
      timer = setTimeout(look, 0)
    }
    for (const type of types) {
      opened.addEventListener(type, event => {
        if (opened === source) heard(type, event)
      })
    }
  }

  async function look() {
    try {
      over = (await isOver()) || over
    } catch {
      // It is asked again.
    }
    if (over) showConnection("over")
    else timer = setTimeout(open, AGAIN)
  }

  function rest() {
    clearTimeout(timer)
    source?.close()
    source = null
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) rest()
    else open()
  })
  // A page that is left and come back to by the browser's memory.
  addEventListener("pagehide", rest)
  addEventListener("pageshow", open)
  open()

  return {
    /** There is nothing more to come. */
    end() {
      over = true
      rest()
      showConnection("over")
    },
    /** Begins anew, by another address. */
    anew() {
      rest()
      open()
    },
  }
}
