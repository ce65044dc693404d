// The labels of an image with their bars. Choosing one shows its heat map.

import { element } from "./element.js";
import { matches } from "./names.js";
import { byScore } from "./rule.js";
import { formatNumber, formatPercent, t } from "./words.js";

const SHOWN_BELOW = 4; // labels below the threshold that are always shown
const LEAST = 6;
const PAGE = 50; // rows that "Show more" adds
const SEARCHED = 30; // classes from which there is a search field

export class Labels {
  #list = element("labels");
  #more = element("more");
  #search = element("labels-search");
  #template = element("label-row").content.firstElementChild;
  #rule;
  #decision = null;
  #classes = [];
  #rows = new Map(); // rows made so far, by label
  #extra = 0; // rows that were asked for by "Show more"
  #isComplete = true; // all rows are shown
  #chosen = null;
  #passing = () => [];

  /** `choose(label)` is called with a label's name, or with null if it is deselected. */
  constructor(rule, choose) {
    this.#rule = rule;
    this.#more.addEventListener("click", () => {
      this.#extra = this.#isComplete ? 0 : this.#extra + PAGE;
      this.show();
    });
    this.#search.addEventListener("input", () => this.show());
    this.#list.addEventListener("click", ({ target }) => {
      const row = target.closest(".label");
      if (row) choose(row.classList.contains("chosen") ? null : row.dataset.label);
    });
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Show the classes of a classified image; `decision` is the rule of the model that answered. */
  open(result, decision) {
    this.#decision = decision;
    this.#classes = byScore(result);
    this.#passing = () => this.#rule.passing({ result });
    this.#rows.clear();
    this.#extra = 0;
    this.#chosen = null;
    this.#search.value = "";
    this.#search.hidden = this.#classes.length < SEARCHED;
    this.show();
  }

  /** Show the passing labels and the strongest of the others, or those that are searched for. */
  show() {
    const passing = new Set(this.#passing().map(({ label }) => label));
    const found = this.#find();
    const first = this.#countFirst(passing);
    const count = Math.min(found.length, first + this.#extra);
    const rows = found.slice(0, count).map((each) => this.#showRow(each, passing));
    const isSame = rows.length === this.#list.childElementCount;
    if (!isSame || rows.some((row, place) => row !== this.#list.children[place])) {
      this.#list.replaceChildren(...rows); // only then, because the focused row would lose the focus
    }
    element("labels-none").hidden = found.length > 0;
    this.#isComplete = found.length === count;
    this.#more.hidden = found.length <= first;
    this.#more.textContent = this.#isComplete
      ? t("labels.fewer")
      : t("labels.more", { count: Math.min(PAGE, found.length - count) });
  }

  /** Mark the label of the visible heat map; null for none. */
  mark(chosen) {
    this.#chosen = chosen;
    for (const [label, row] of this.#rows) {
      row.classList.toggle("chosen", label === chosen);
      row.firstElementChild.setAttribute("aria-pressed", label === chosen);
    }
  }

  #find() {
    const query = this.#search.value;
    return query.trim() ? this.#classes.filter(({ label }) => matches(label, query)) : this.#classes;
  }

  /** Return how many rows are shown before "Show more" is clicked. */
  #countFirst(passing) {
    const last = this.#classes.findLastIndex(({ label }) => passing.has(label));
    return Math.min(Math.max(last + 1 + SHOWN_BELOW, LEAST), PAGE);
  }

  #showRow(each, passing) {
    const { label, score, index } = each;
    const row = this.#rows.get(label) ?? this.#makeRow(each);
    const passes = passing.has(label);
    const mark = this.#rule.mark(this.#decision, index);
    row.classList.toggle("passes", passes);
    row.querySelector(".tick").hidden = mark === null;
    if (mark !== null) row.style.setProperty("--mark", mark);
    row.firstElementChild.setAttribute(
      "aria-label",
      t(passes ? "labels.passing" : "labels.failing", { label, score: formatPercent(score) }),
    );
    return row;
  }

  #makeRow({ label, score, logit }) {
    const row = this.#template.cloneNode(true);
    const [button, bar] = [row.querySelector("button"), row.querySelector(".bar")];
    const words = formatPercent(score);
    row.dataset.label = label;
    button.textContent = label;
    button.setAttribute("aria-pressed", label === this.#chosen);
    row.classList.toggle("chosen", label === this.#chosen);
    const value = row.querySelector(".label-score");
    value.textContent = words;
    value.title = t("labels.logit", { logit: formatNumber(logit, 2) });
    bar.setAttribute("aria-label", label);
    bar.setAttribute("aria-valuenow", Math.round(100 * score));
    bar.setAttribute("aria-valuetext", words);
    row.style.setProperty("--score", score);
    this.#rows.set(label, row);
    return row;
  }

  /** Move the focus with the arrow keys, in addition to Tab. */
  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.#list.querySelectorAll(".label button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}
