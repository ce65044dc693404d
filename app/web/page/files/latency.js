// The timings of a request as one stacked bar.

import { formatNumber, t } from "./words.js";

const PARTS = ["upload", "decode", "queue", "forward"]; // measured by the server

/** Render the bar and its numbers into an element. */
export function showLatency(place, { answer, result, elapsedMs }) {
  const timings = { ...answer.timings_ms, ...result.timings_ms };
  const parts = PARTS.map((name) => ({ name, ms: timings[name] ?? 0 }));
  const known = parts.reduce((sum, { ms }) => sum + ms, 0);
  parts.push({ name: "other", ms: Math.max(0, elapsedMs - known) });

  const bar = document.createElement("div");
  bar.className = "latency-bar";
  bar.setAttribute("aria-hidden", "true");
  const list = document.createElement("dl");
  list.className = "latency-parts";
  for (const { name, ms } of parts) {
    const piece = document.createElement("span");
    piece.className = `piece ${name}`;
    piece.style.flexGrow = ms;
    bar.append(piece);
    list.append(entry(name, ms));
  }
  const total = document.createElement("p");
  total.className = "latency-total";
  const values = { total: round(elapsedMs), count: result.batch };
  total.textContent = t(result.batch > 1 ? "time.batch" : "time.total", values);
  place.replaceChildren(total, bar, list);
}

function entry(name, ms) {
  const item = document.createElement("div");
  item.title = t(`time.${name}.title`);
  const term = document.createElement("dt");
  term.className = name;
  term.textContent = t(`time.${name}`);
  const value = document.createElement("dd");
  value.textContent = t("time.ms", { ms: round(ms) });
  item.append(term, value);
  return item;
}

function round(ms) {
  return formatNumber(ms, ms < 10 ? 1 : 0);
}
