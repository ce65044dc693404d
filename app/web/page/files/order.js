// Which images the grid shows, and in which order.

import { element } from "./element.js";
import { shortName } from "./names.js";
import { byScore } from "./rule.js";
import { formatNumber, t } from "./words.js";

const MANY = 3; // images from which filter and order are offered
const [ALL, NOTHING, FAILED] = ["all", "nothing", "failed"]; // values of the filter; of a label "label:NAME"
const ORDERS = ["added", "name", "score", "doubt"];

export class Order {
  #rule;
  #decisionOf;
  #filter = element("gallery-filter");
  #order = element("gallery-order");
  #shownFilters = "";

  /** `decisionOf(picture)` returns the rule of the model that answered; `change()` is called on a choice. */
  constructor(rule, decisionOf, change) {
    this.#rule = rule;
    this.#decisionOf = decisionOf;
    this.#filter.addEventListener("change", change);
    this.#order.addEventListener("change", change);
    this.#showOrders();
  }

  /** Return the images to show, in their order, and update the counts of the filter. */
  apply(pictures) {
    const labels = new Map(pictures.map((each) => [each, this.#labelsOf(each)]));
    this.#showFilters(pictures, labels);
    element("gallery-choices").hidden = pictures.length < MANY && this.#filter.value === ALL;
    const shown = pictures.filter((each) => this.#passes(each, labels.get(each)));
    return this.#sort(shown);
  }

  /** Show the words of the current language. */
  translate() {
    this.#showOrders();
  }

  #labelsOf(picture) {
    return picture.state === "done" ? this.#rule.passing(picture).map(({ label }) => label) : [];
  }

  #passes(picture, labels) {
    const value = this.#filter.value;
    if (value === ALL) return true;
    if (value === FAILED) return picture.state === "failed";
    if (value === NOTHING) return picture.state === "done" && !labels.length;
    return labels.includes(labelOf(value));
  }

  #sort(pictures) {
    if (this.#order.value === "name") {
      const collator = new Intl.Collator(undefined, { numeric: true });
      return pictures.sort((a, b) => collator.compare(a.name, b.name));
    }
    const measure = { score: (each) => this.#score(each), doubt: (each) => this.#certainty(each) };
    const value = measure[this.#order.value];
    if (!value) return pictures;
    const values = new Map(pictures.map((each) => [each, each.state === "done" ? value(each) : 2]));
    return pictures.sort((a, b) => values.get(a) - values.get(b));
  }

  /** Return the negative score of the label of the filter, or of the strongest one. */
  #score({ result }) {
    const label = labelOf(this.#filter.value);
    const found = result.scores.find((each) => each.label === label) ?? byScore(result)[0];
    return -found.score;
  }

  /** Return the smallest distance of a score from its threshold; without thresholds from the next score. */
  #certainty(picture) {
    const classes = byScore(picture.result);
    const decision = this.#decisionOf(picture);
    if (this.#rule.mark(decision, 0) === null) {
      const place = Math.max(1, this.#rule.passing(picture).length);
      return place < classes.length ? classes[place - 1].score - classes[place].score : 1;
    }
    return Math.min(
      ...classes.map(({ score, index }) => Math.abs(score - this.#rule.mark(decision, index))),
    );
  }

  #showFilters(pictures, labels) {
    const counts = new Map();
    for (const label of [...labels.values()].flat()) counts.set(label, (counts.get(label) ?? 0) + 1);
    const byCount = [...counts].sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
    const value = this.#filter.value || ALL;
    const nothing = pictures.filter((each) => each.state === "done" && !labels.get(each).length);
    const failed = pictures.filter(({ state }) => state === "failed");
    const rows = [
      [ALL, t("filter.all"), pictures.length],
      ...byCount.map(([label, count]) => [`label:${label}`, shortName(label), count]),
      [NOTHING, t("detail.nothing"), nothing.length],
      [FAILED, t("filter.failed"), failed.length],
    ].filter(([name, , count]) => count || name === ALL || name === value);
    if (value.startsWith("label:") && !counts.has(labelOf(value))) {
      rows.push([value, shortName(labelOf(value)), 0]);
    }
    const texts = rows.map(([, words, count]) => `${words} (${formatNumber(count)})`);
    if (texts.join("\n") === this.#shownFilters) return; // an open list would close
    this.#shownFilters = texts.join("\n");
    const options = rows.map(
      ([name], place) => new Option(texts[place], name, false, name === value),
    );
    this.#filter.replaceChildren(...options);
  }

  #showOrders() {
    const value = this.#order.value || ORDERS[0];
    const options = ORDERS.map((name) => new Option(t(`order.${name}`), name, false, name === value));
    this.#order.replaceChildren(...options);
  }
}

function labelOf(value) {
  return value.startsWith("label:") ? value.slice("label:".length) : null;
}
