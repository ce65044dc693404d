// Class names in sentences: ImageNet's are lists of synonyms, and there may be many.

import { formatList, t } from "./words.js";

const NAMED = 6; // labels in a headline

/** Return the first of a class name's synonyms: "tench" of "tench, Tinca tinca". */
export function shortName(label) {
  return label.split(",")[0].trim() || label;
}

/** Join labels as "Bus, Car, and Person"; long lists are shortened. */
export function inWords(labels) {
  const names = labels.map(shortName);
  if (names.length <= NAMED) return formatList(names);
  const named = names.slice(0, NAMED - 1);
  return t("detail.more", { names: named.join(t("list.comma")), count: names.length - named.length });
}

/** Return whether a class name contains what was typed, whatever its case. */
export function matches(label, query) {
  return label.toLowerCase().includes(query.trim().toLowerCase());
}
