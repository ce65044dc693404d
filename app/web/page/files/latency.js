// The timings of a request as one stacked bar.

const PARTS = [
  ["upload", "receiving the request"],
  ["decode", "decoding the image"],
  ["queue", "waiting for the model thread"],
  ["forward", "running the model"],
];

/** Render the bar and its numbers into an element. */
export function showLatency(place, { answer, result, elapsedMs }) {
  const timings = { ...answer.timings_ms, ...result.timings_ms };
  const parts = PARTS.map(([name, what]) => ({ name, what, ms: timings[name] ?? 0 }));
  const known = parts.reduce((sum, { ms }) => sum + ms, 0);
  parts.push({
    name: "other",
    what: "network, browser and everything else",
    ms: Math.max(0, elapsedMs - known),
  });

  const bar = document.createElement("div");
  bar.className = "latency-bar";
  bar.setAttribute("aria-hidden", "true");
  const list = document.createElement("dl");
  list.className = "latency-parts";
  for (const { name, what, ms } of parts) {
    const piece = document.createElement("span");
    piece.className = `piece ${name}`;
    piece.style.flexGrow = ms;
    bar.append(piece);
    list.append(entry(name, what, ms));
  }
  const total = document.createElement("p");
  total.className = "latency-total";
  total.textContent = `${round(elapsedMs)} ms total`;
  if (result.batch > 1) total.textContent += `, in a batch of ${result.batch}`;
  place.replaceChildren(total, bar, list);
}

function entry(name, what, ms) {
  const item = document.createElement("div");
  item.title = what;
  const term = document.createElement("dt");
  term.className = name;
  term.textContent = name;
  const value = document.createElement("dd");
  value.textContent = `${round(ms)} ms`;
  item.append(term, value);
  return item;
}

function round(ms) {
  return ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en");
}
