// The words of the page in the visitor's language; numbers, percentages and lists as that language writes them.

import { words as english } from "./words-en.js";
import { words as chinese } from "./words-zh.js";

const WORDS = { en: english, "zh-CN": chinese };
const root = document.documentElement;
const formats = new Map(); // Intl's objects, which take long to make

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
      : (entry[format(Intl.PluralRules).select(values.count)] ?? entry.other);
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
  return format(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);
}

/** Format a score in 0..1 with at most `digits` decimals: 93.1%, and never a rounded 0% or 100%. */
export function formatPercent(score, digits = 1) {
  const percent = format(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits });
  const step = 10 ** -(digits + 2);
  if (score >= 1 - step / 2) return `> ${percent.format(1 - step)}`;
  if (score > 0 && score < step / 2) return `< ${percent.format(step)}`;
  return percent.format(score);
}

/** Join names as "A, B, and C". */
export function formatList(names) {
  return format(Intl.ListFormat, { type: "conjunction" }).format(names);
}

/** Return one of Intl's objects for the current language. */
function format(Kind, options = {}) {
  const key = `${Kind.name} ${root.lang} ${JSON.stringify(options)}`;
  if (!formats.has(key)) formats.set(key, new Kind(root.lang, options));
  return formats.get(key);
}

/** Call `show` whenever the visitor has chosen another language. */
export function onLanguageChange(show) {
  root.addEventListener("languagechange", show);
}

/** Fill in the elements with `data-t` (text), `data-t-label` (aria-label), `data-t-title`, `data-t-placeholder`. */
function fill(part) {
  for (const each of part.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of part.querySelectorAll("[data-t-label]")) {
    each.setAttribute("aria-label", t(each.dataset.tLabel));
  }
  for (const each of part.querySelectorAll("[data-t-title]")) each.title = t(each.dataset.tTitle);
  for (const each of part.querySelectorAll("[data-t-placeholder]")) {
    each.placeholder = t(each.dataset.tPlaceholder);
  }
  for (const each of part.querySelectorAll("template")) fill(each.content);
}

onLanguageChange(() => fill(document));
fill(document);
root.classList.remove("wordless");
