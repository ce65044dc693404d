// The words of the page in the visitor's language; numbers, percentages and lists as that language writes them.

import { words as english } from "./words-en.js";
import { words as chinese } from "./words-zh.js";

const WORDS = { en: english, "zh-CN": chinese };
const ALMOST_ALL = 0.9995; // scores from here on would be rounded to 100%
const ALMOST_NONE = 0.0005;
const root = document.documentElement;

/**
 * Return the words of a key with the `values` in place of `{name}`.
 *
 * Numbers are formatted. An entry with several forms is chosen by the plural of `values.count`.
 */
export function t(key, values = {}) {
  const entry = WORDS[root.lang][key];
  const text =
    typeof entry === "string"
      ? entry
      : (entry[new Intl.PluralRules(root.lang).select(values.count)] ?? entry.other);
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? formatNumber(value) : value;
  });
}

/** Return whether a key exists; for keys that contain a code of the server. */
export function hasWords(key) {
  return key in WORDS[root.lang];
}

/** Format a number with at most `digits` decimals. */
export function formatNumber(value, digits = 0) {
  return value.toLocaleString(root.lang, { maximumFractionDigits: digits });
}

/** Format a score in 0..1: 93.1%, and never a rounded 0% or 100%. */
export function formatPercent(score) {
  const format = new Intl.NumberFormat(root.lang, { style: "percent", maximumFractionDigits: 1 });
  if (score >= ALMOST_ALL) return `> ${format.format(0.999)}`;
  if (score > 0 && score < ALMOST_NONE) return `< ${format.format(0.001)}`;
  return format.format(score);
}

/** Join names as "A, B, and C". */
export function formatList(names) {
  return new Intl.ListFormat(root.lang, { type: "conjunction" }).format(names);
}

/** Call `show` whenever the visitor has chosen another language. */
export function onLanguageChange(show) {
  root.addEventListener("languagechange", show);
}

/** Fill in the elements with `data-t` (text), `data-t-label` (aria-label) and `data-t-title` (title). */
function fill(part) {
  for (const each of part.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of part.querySelectorAll("[data-t-label]")) {
    each.setAttribute("aria-label", t(each.dataset.tLabel));
  }
  for (const each of part.querySelectorAll("[data-t-title]")) each.title = t(each.dataset.tTitle);
  for (const each of part.querySelectorAll("template")) fill(each.content);
}

onLanguageChange(() => fill(document));
fill(document);
root.classList.remove("wordless");
