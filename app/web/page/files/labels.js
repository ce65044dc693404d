// The labels of a picture with their bars. Choosing one lays its heat map over the picture.

import { element } from "./element.js";
import { asPercent, byScore } from "./rule.js";

const SHOWN_BELOW = 4; // labels that do not pass, shown without being asked for
const LEAST = 6;

export class Labels {
  #list = element("labels");
  #more = element("more");
  #template = element("label-row").content.firstElementChild;
  #rule;
  #rows = new Map();
  #isOpen = false;
  #picture = null;

  /** `choose(label)` is called with a label's name, or with null where it is let go. */
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

  /** Make the rows of a picture that was answered; `decision` is the rule of who answered. */
  open(picture, decision) {
    this.#picture = picture;
    this.#isOpen = false;
    this.#rows = new Map(
      byScore(picture.result).map((each) => [each.label, this.#makeRow(each, decision)]),
    );
    this.#list.replaceChildren(...[...this.#rows.values()].map(({ row }) => row));
    this.show();
  }

  /** Show which labels pass, and as many of the others as there is use for. */
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
        `${label}, ${words}${passes ? "" : ", does not pass"}. Show where`,
      );
    });
    this.#more.hidden = this.#rows.size <= Math.max(count, this.#isOpen ? LEAST : 0);
    if (this.#isOpen) this.#more.hidden = false;
    this.#more.textContent = this.#isOpen ? "Show fewer" : `Show all ${this.#rows.size} labels`;
    this.#more.setAttribute("aria-expanded", this.#isOpen);
  }

  /** Mark the label whose heat map is shown; null for none. */
  mark(chosen) {
    for (const [label, { row, button }] of this.#rows) {
      row.classList.toggle("chosen", label === chosen);
      button.setAttribute("aria-pressed", label === chosen);
    }
  }

  #makeRow({ label, score, logit, index }, decision) {
    const row = this.#template.cloneNode(true);
    const [button, bar] = [row.querySelector("button"), row.querySelector(".bar")];
    const words = asPercent(score);
    row.dataset.label = label;
    button.textContent = label;
    row.querySelector(".label-score").textContent = words;
    row.querySelector(".label-logit").textContent = `logit ${logit.toFixed(2)}`;
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

  /** Go up and down by the arrow keys, beside Tab. */
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
