// The control of the rule: a slider for a threshold, or a number of best labels. The grid and the detail view
// each have one; both change the same rule.

import { element } from "./element.js";
import { commonThreshold, describeRule } from "./rule.js";
import { formatPercent, t } from "./words.js";

const MIDDLE = 0.5; // where the slider starts if the model's rule is not a single score

export class Threshold {
  #rule;
  #decision;
  #place;
  #parts;

  /** Render the control into `place`; `decision()` returns the rule of the model that has answered. */
  constructor(place, rule, decision) {
    this.#rule = rule;
    this.#decision = decision;
    this.#place = place;
    place.append(element("threshold").content.cloneNode(true));
    const find = (name) => place.querySelector(`.threshold-${name}`);
    const names = ["label", "rule", "reset", "start", "slider", "best", "fewer", "more", "count"];
    this.#parts = Object.fromEntries(names.map((name) => [name, find(name)]));
    const { label, slider, reset, start, fewer, more } = this.#parts;
    slider.id = `${place.id}-slider`;
    label.htmlFor = slider.id;
    slider.addEventListener("input", () => rule.set(Number(slider.value)));
    start.addEventListener("click", () => this.#begin());
    reset.addEventListener("click", () => this.#reset());
    fewer.addEventListener("click", () => rule.setBest(Math.max(1, this.#best() - 1)));
    more.addEventListener("click", () => rule.setBest(this.#best() + 1));
    rule.addEventListener("change", () => this.show());
  }

  /** Show the current rule. */
  show() {
    const { label, rule, reset, start, slider, best, fewer, count } = this.#parts;
    const { threshold, topK } = this.#rule;
    const decision = this.#decision();
    const isOwn = threshold === null && topK === null;
    const isBest = Boolean(decision?.top_k) && threshold === null;
    const position = threshold ?? commonThreshold(decision);
    slider.hidden = isBest || position === null;
    best.hidden = !isBest;
    start.hidden = !slider.hidden;
    reset.hidden = isOwn;
    label.textContent = t(isBest ? "threshold.best" : "threshold.label");
    const words = isOwn ? describeRule(decision) : this.#words();
    rule.textContent = words;
    slider.value = position ?? MIDDLE;
    slider.setAttribute("aria-valuetext", words);
    slider.style.setProperty("--at", slider.value);
    count.textContent = this.#best();
    fewer.disabled = this.#best() === 1;
    this.#place.classList.toggle("own", isOwn);
  }

  #words() {
    const { threshold, topK } = this.#rule;
    if (topK !== null) return t("threshold.best.count", { count: topK });
    return t("threshold.above", { score: formatPercent(threshold) });
  }

  #best() {
    return this.#rule.topK ?? this.#decision()?.top_k ?? 1;
  }

  #begin() {
    this.#rule.set(MIDDLE);
    this.#parts.slider.focus();
  }

  #reset() {
    this.#rule.set(null);
    const { slider, start } = this.#parts;
    (slider.hidden ? start : slider).focus();
  }
}
