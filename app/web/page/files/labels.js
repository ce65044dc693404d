// The labels of an image with their bars. Choosing one shows its heat map.

import { element } from "./element.js";
import { byScore } from "./rule.js";
import { formatNumber, formatPercent, t } from "./words.js";

const SHOWN_BELOW = 4; // labels below the threshold that are always shown
const LEAST = 6;

export class Labels {
  #list = element("labels");
  #more = element("more");
  #template = element("label-row").content.firstElementChild;
  #rule;
  #rows = new Map();
  #isOpen = false;
  #picture = null;

  /** `choose(label)` is called with a label's name, or with null if it is deselected. */
  constructor(rule, choose) {
    this.#rule = rule;
    this.#more.addEventListener("click", () => {
      this.#isOpen = !this.#isOpen;
      this.show();
    });
    this.#list.addEventListener("click", ({ target }) => {
      const row = target.closest(".label");
      if (row) choose(row.classList.contains("chosen") ? null : row.dataset.label);
    });
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Create the rows of a classified image; `decision` is the rule of the model that answered. */
  open(picture, decision) {
    this.#picture = picture;
    this.#isOpen = false;
    this.#rows = new Map(
      byScore(picture.result).map((each) => [each.label, this.#makeRow(each, decision)]),
    );
    this.#list.replaceChildren(...[...this.#rows.values()].map(({ row }) => row));
    this.show();
  }

  /** Show the passing labels and the strongest of the others. */
  show() {
    if (!this.#picture) return;
    const passing = new Set(this.#rule.passing(this.#picture).map(({ label }) => label));
    const last = [...this.#rows.keys()].findLastIndex((label) => passing.has(label));
    const count = this.#isOpen ? this.#rows.size : Math.max(last + 1 + SHOWN_BELOW, LEAST);
    [...this.#rows].forEach(([label, { row, tick, button, mark, words }], place) => {
      const passes = passing.has(label);
      row.hidden = place >= count;
      row.classList.toggle("passes", passes);
      const at = mark();
      tick.hidden = at === null;
      if (at !== null) row.style.setProperty("--mark", at);
      button.setAttribute(
        "aria-label",
        t(passes ? "labels.passing" : "labels.failing", { label, score: words }),
      );
    });
    this.#more.hidden = this.#rows.size <= Math.max(count, this.#isOpen ? LEAST : 0);
    if (this.#isOpen) this.#more.hidden = false;
    this.#more.textContent = this.#isOpen
      ? t("labels.fewer")
      : t("labels.more", { count: this.#rows.size });
    this.#more.setAttribute("aria-expanded", this.#isOpen);
  }

  /** Mark the label of the visible heat map; null for none. */
  mark(chosen) {
    for (const [label, { row, button }] of this.#rows) {
      row.classList.toggle("chosen", label === chosen);
      button.setAttribute("aria-pressed", label === chosen);
    }
  }

  #makeRow({ label, score, logit, index }, decision) {
    const row = this.#template.cloneNode(true);
    const [button, bar] = [row.querySelector("button"), row.querySelector(".bar")];
    const words = formatPercent(score);
    row.dataset.label = label;
    button.textContent = label;
    row.querySelector(".label-score").textContent = words;
    row.querySelector(".label-logit").textContent = t("labels.logit", { logit: formatNumber(logit, 2) });
    bar.setAttribute("aria-label", label);
    bar.setAttribute("aria-valuenow", Math.round(100 * score));
    bar.setAttribute("aria-valuetext", words);
    row.style.setProperty("--score", score);
    return {
      row,
      button,
      words,
      tick: row.querySelector(".tick"),
      mark: () => this.#rule.mark(decision, index),
    };
  }

  /** Move the focus with the arrow keys, in addition to Tab. */
  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.#list.querySelectorAll(".label:not([hidden]) button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}
