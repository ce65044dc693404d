// A tile of the grid: one image with its labels, progress, or error.

import { element } from "./element.js";
import { inWords, shortName } from "./names.js";
import { explain, isTemporary } from "./problems.js";
import { share, waitingWords } from "./progress.js";
import { formatPercent, t } from "./words.js";

const SHOWN = 3; // labels on a tile
const MOST = 0.99; // higher scores are shown as this: there is no room for "> 99%"

export class Tile {
  #picture;
  #rule;
  #find;

  /** `actions` is {open, retry, remove}, each called with the image. */
  constructor(picture, rule, actions) {
    this.#picture = picture;
    this.#rule = rule;
    this.element = element("tile").content.firstElementChild.cloneNode(true);
    this.#find = (selector) => this.element.querySelector(selector);
    const image = this.#find("img");
    image.src = picture.url;
    image.addEventListener("error", () => this.element.classList.add("no-picture"));
    this.#find(".tile-open").addEventListener("click", () => actions.open(picture));
    this.#find(".tile-retry").addEventListener("click", () => actions.retry(picture));
    this.#find(".tile-remove").addEventListener("click", () => actions.remove(picture));
  }

  focus() {
    this.#find(".tile-open").focus();
  }

  /** Show the current state in the words of the current language. */
  show() {
    const { name, state } = this.#picture;
    this.element.dataset.state = state;
    this.#find(".tile-name").textContent = name;
    this.#find(".tile-open").title = this.#tooltip();
    this.#find(".tile-labels").replaceChildren(...this.#words());
    this.#find(".tile-retry").hidden = !isToRetry(this.#picture);
    this.#find(".tile-retry").setAttribute("aria-label", t("tile.retry.label", { name }));
    this.#find(".tile-remove").setAttribute("aria-label", t("tile.remove.label", { name }));
    this.#find(".progress span").style.setProperty("--at", share(this.#picture));
  }

  #tooltip() {
    const { name, state } = this.#picture;
    if (state !== "done") return name;
    const labels = this.#rule.passing(this.#picture).map(({ label }) => label);
    return labels.length ? `${name}\n${inWords(labels)}` : name;
  }

  #words() {
    const { state, problem } = this.#picture;
    if (state === "failed") return [word(explain(problem).title, "failure")];
    if (state !== "done") return [word(waitingWords(this.#picture), "quiet")];
    const passing = this.#rule.passing(this.#picture);
    if (!passing.length) return [word(t("detail.nothing"), "quiet")];
    const chips = passing.slice(0, SHOWN).map(makeChip);
    if (passing.length > SHOWN) {
      chips.push(word(t("gallery.more", { count: passing.length - SHOWN }), "quiet"));
    }
    return chips;
  }
}

/** Return whether an image failed for a reason that may have passed. */
export function isToRetry({ state, problem }) {
  return state === "failed" && isTemporary(problem);
}

function makeChip({ label, score }) {
  const chip = word(`${shortName(label)} `, "chip");
  chip.append(word(formatPercent(Math.min(score, MOST), 0), "chip-score"));
  chip.style.setProperty("--score", score);
  return chip;
}

function word(text, kind) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}
