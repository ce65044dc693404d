// The threshold slider. The grid and the detail view each have one; both change the same rule.

import { element } from "./element.js";
import { commonThreshold, describeRule } from "./rule.js";
import { formatPercent, t } from "./words.js";

const UNKNOWN = 0.5; // position of the thumb if the model's rule is not a single score

/** Render a slider into `place`; `decision()` returns the rule of the model that has answered. */
export class Threshold {
  #rule;
  #decision;

  constructor(place, rule, decision) {
    this.#rule = rule;
    this.#decision = decision;
    place.append(element("threshold").content.cloneNode(true));
    this.element = place;
    this.slider = place.querySelector("input");
    this.words = place.querySelector("output");
    this.reset = place.querySelector("button");
    const label = place.querySelector("label");
    this.slider.id = `${place.id}-slider`;
    label.htmlFor = this.slider.id;
    this.slider.addEventListener("input", () => rule.set(Number(this.slider.value)));
    this.reset.addEventListener("click", () => {
      rule.set(null);
      this.slider.focus();
    });
    rule.addEventListener("change", () => this.show());
  }

  /** Show the current threshold. */
  show() {
    const { threshold } = this.#rule;
    const decision = this.#decision();
    const isOwn = threshold === null;
    const position = threshold ?? commonThreshold(decision) ?? UNKNOWN;
    const words = isOwn ? describeRule(decision) : t("threshold.above", { score: formatPercent(threshold) });
    this.slider.value = position;
    this.slider.setAttribute("aria-valuetext", words);
    this.slider.style.setProperty("--at", position);
    this.words.textContent = words;
    this.reset.hidden = isOwn;
    this.element.classList.toggle("own", isOwn);
  }
}
