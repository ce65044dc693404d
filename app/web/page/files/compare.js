// Compares the answers of two models or versions for the image in the detail view.

import { Problem, predict } from "./api.js";
import { element } from "./element.js";
import { explain } from "./problems.js";
import { byScore } from "./rule.js";
import { EVERYTHING } from "./sender.js";
import { formatPercent, onLanguageChange, t } from "./words.js";

export class Compare {
  #service;
  #rule;
  #choice = element("compare-choice");
  #words = element("compare-words");
  #table = element("compare-table");
  #picture = null;
  #answer = null; // the one that the other is compared with
  #other = null;

  constructor({ service, rule }) {
    this.#service = service;
    this.#rule = rule;
    this.#choice.addEventListener("change", () => this.#ask(JSON.parse(this.#choice.value)));
    rule.addEventListener("change", () => this.#render());
    onLanguageChange(() => this.#offer());
  }

  /** Offer the other models for an image; null for none. */
  show(picture) {
    const answer = picture?.state === "done" ? picture.answer : null;
    if (answer && answer === this.#answer) return;
    this.#picture = picture;
    this.#answer = answer;
    this.#offer();
  }

  #offer() {
    const targets = this.#answer ? this.#findOthers() : [];
    element("compare").hidden = !targets.length;
    this.#choice.replaceChildren(
      new Option(t("compare.none"), "null"),
      ...targets.map((target) => new Option(nameOf(target), JSON.stringify(target))),
    );
    this.#other = null;
    this.#render();
  }

  /** Return the loaded versions that have not answered, as options of a request. */
  #findOthers() {
    const { name, version } = this.#answer.model;
    return Object.entries(this.#service.about?.models ?? {})
      .flatMap(([model, versions]) => versions.map((each) => ({ model, version: each })))
      .filter((each) => each.model !== name || each.version !== version);
  }

  async #ask(target) {
    const [picture, answer] = [this.#picture, this.#answer];
    const chosen = this.#choice.value;
    const isCurrent = () => answer === this.#answer && chosen === this.#choice.value;
    this.#other = null;
    this.#render();
    if (!target) return;
    this.#words.textContent = t("state.classifying");
    const { signal } = picture.request;
    try {
      const reply = await predict(picture.file, { ...EVERYTHING, ...target }, { signal });
      if (!isCurrent()) return;
      this.#other = reply.answer;
      this.#render();
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      if (isCurrent()) this.#words.textContent = explain(problem).title;
    }
  }

  #render() {
    this.#table.hidden = !this.#other;
    this.#words.textContent = "";
    if (!this.#other) return;
    const sides = [this.#answer, this.#other].map((answer) => this.#readSide(answer));
    const labels = new Set(sides.flatMap(({ passing }) => [...passing]));
    const rows = [...labels].map((label) => makeRow(label, sides));
    const heads = [t("compare.label"), ...sides.map(({ name }) => name)];
    this.#table.tHead.rows[0].replaceChildren(...heads.map((text) => makeCell("th", text)));
    this.#table.tBodies[0].replaceChildren(...rows);
    const count = rows.filter(({ className }) => className === "differs").length;
    this.#words.textContent = count ? t("compare.differ", { count }) : t("compare.same");
  }

  #readSide({ model, images: [result] }) {
    const scores = byScore(result).toReversed(); // of classes with the same name the strongest counts
    return {
      name: nameOf({ model: model.name, version: model.version }),
      passing: new Set(this.#rule.passing({ result }).map(({ label }) => label)),
      scores: new Map(scores.map(({ label, score }) => [label, score])),
    };
  }
}

function nameOf({ model, version }) {
  return t("top.choice", { model, version: String(version) });
}

function makeRow(label, sides) {
  const row = document.createElement("tr");
  const head = makeCell("th", label);
  head.scope = "row";
  row.append(head, ...sides.map((side) => makeScore(label, side)));
  const [one, other] = sides.map(({ passing }) => passing.has(label));
  if (one !== other) row.className = "differs";
  return row;
}

/** Return a cell with a score; a check mark says that the label is recognized. */
function makeScore(label, { passing, scores }) {
  const text = scores.has(label) ? formatPercent(scores.get(label)) : t("compare.unknown");
  return makeCell("td", passing.has(label) ? `✓ ${text}` : text);
}

function makeCell(kind, text) {
  const cell = document.createElement(kind);
  cell.textContent = text;
  return cell;
}
