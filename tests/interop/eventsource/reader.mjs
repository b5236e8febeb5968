// Reads a watch with an EventSource that nobody here wrote, and prints each event as a line of JSON.
//
// node reader.mjs URL NAME…: the names are those of the events to listen for. It ends when the EventSource gives up for good.

import { EventSource } from "eventsource";

const [url, ...names] = process.argv.slice(2);
const source = new EventSource(url);
const tell = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);

source.addEventListener("open", () => tell({ event: "open" }));
for (const name of names) {
  source.addEventListener(name, ({ type, lastEventId, data }) => tell({ event: "message", type, id: lastEventId, data }));
}
source.addEventListener("error", ({ code, message }) => {
  const gone = source.readyState === EventSource.CLOSED;
  tell({ event: gone ? "closed" : "broken", code, message });
});
