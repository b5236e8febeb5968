// What the pages ask of the server, each within a time; and how they read it, where a number must stay as it was written.

/** How long an answer may take with all of it, in milliseconds. */
const ANSWER_MAX = 30_000

/**
 * Asks for an address; whatever has not come in time is an error.
 * @param {string} address
 * @param {RequestInit} [options]
 * @param {number} [within] In milliseconds.
 */
export function ask(address, options = {}, within = ANSWER_MAX) {
  return fetch(address, { ...options, signal: AbortSignal.timeout(within) })
}

/**
 * What an address answers; nothing where that is an error, or has not come in time.
 * @param {string} address
 * @returns {Promise<any>}
 */
export async function answerOf(address) {
  try {
    const answer = await ask(address)
    return answer.ok ? await answer.json() : null
  } catch {
    return null
  }
}

const raw = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON).rawJSON

/** Whether this browser can tell how a number was written. */
export const isExact = raw !== undefined

/**
 * A part of a JSON text, laid out to be read. A number is as it was written, where the browser can tell.
 * @param {string} text
 * @param {(parsed: any) => unknown} part
 */
export function exactly(text, part) {
  /** @type {(this: unknown, key: string, value: unknown, context?: { source?: string }) => unknown} */
  const keep = (_, value, context) => (typeof value === "number" && raw && context?.source ? raw(context.source) : value)
  return JSON.stringify(part(JSON.parse(text, /** @type {any} */ (keep))), null, 2)
}
