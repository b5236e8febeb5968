// A watch that goes on over breaks, and rests while nobody looks: a browser has six connections for a host, and each open
// page would take one.

import { ask } from "./api.js"
import { byId, mark, say } from "./dom.js"

/** How long to wait before coming again where the browser has given up by itself. */
const AGAIN = 1500
/** After how long without a word it is made sure that the server is there: what keeps a stream alive a page does not see. */
const QUIET = 30_000
/** How often the clock is looked at, and how long the server may take to say that it is there. */
const LOOK_EVERY = 5000
const SIGN_MAX = 5000

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
  /** When something was heard last, or was begun to be waited for. */
  let heardAt = 0
  let isAsking = false

  function open() {
    clearTimeout(timer)
    if (over || document.hidden || source) return
    const opened = new EventSource(address())
    source = opened
    heardAt = performance.now()
    opened.onopen = () => {
      heardAt = performance.now()
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
        heardAt = performance.now()
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

  /** Makes sure that the server is there; a link that is dead may look as one over which nothing is said. */
  async function check() {
    const asked = source
    if (!asked || isAsking) return
    isAsking = true
    const lastHeard = heardAt
    const isThere = await ask("/healthz", {}, SIGN_MAX).then(() => true, () => heardAt > lastHeard)
    isAsking = false
    if (asked !== source || document.hidden) return
    if (isThere && asked.readyState === EventSource.OPEN) {
      heardAt = performance.now()
      return
    }
    showConnection("broken")
    rest()
    timer = setTimeout(open, AGAIN)
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
  setInterval(() => {
    if (!document.hidden && performance.now() - heardAt > QUIET) void check()
  }, LOOK_EVERY)
  // They tell of the machine's own link, which need not be the one to the server.
  addEventListener("online", check)
  addEventListener("offline", check)
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
