// The detail view of one image: its labels and heat maps, its progress, or its error.

import { announce } from "./announcer.js";
import { element } from "./element.js";
import { HeatMaps } from "./heatmaps.js";
import { Labels } from "./labels.js";
import { showLatency } from "./latency.js";
import { inWords } from "./names.js";
import { explain, isTemporary } from "./problems.js";
import { isUnfinished, share, waitingWords } from "./progress.js";
import { versionOf } from "./welcome.js";
import { t } from "./words.js";

const TICK_MS = 1000; // between updates of the elapsed seconds

/** The event `choose` is dispatched when another label's heat map is shown, or none. */
export class Detail extends EventTarget {
  #service;
  #rule;
  #heatmaps;
  #labels;
  #picture = null;
  #shownState = "";

  constructor({ pictures, service, sender, rule }) {
    super();
    this.#service = service;
    this.#rule = rule;
    this.#heatmaps = new HeatMaps({ service, sender });
    this.#labels = new Labels(rule, async (label) => {
      await this.choose(label);
      announce(this.#heatmaps.words || element("heat-hint").textContent);
    });
    pictures.addEventListener("change", ({ detail }) => detail === this.#picture && this.#show());
    rule.addEventListener("change", () => this.#picture?.state === "done" && this.#showRule());
    element("retry").addEventListener("click", () => sender.send(this.#picture));
    element("cancel").addEventListener("click", () => sender.cancel(this.#picture));
    element("hide-heat").addEventListener("click", () => this.choose(null));
    setInterval(() => isUnfinished(this.#picture) && this.#showWaiting(), TICK_MS);
  }

  get picture() {
    return this.#picture;
  }

  /** The label of the visible heat map, or null. */
  get chosen() {
    return this.#heatmaps.chosen;
  }

  /** The answer in one sentence, for screen readers. */
  get words() {
    const labels = inWords(this.#rule.passing(this.#picture).map(({ label }) => label));
    return [labels || t("detail.nothing"), this.#heatmaps.words].filter(Boolean).join(t("list.stop"));
  }

  /** Show an image, or nothing if null. */
  open(picture) {
    this.#picture = picture;
    element("detail").hidden = !picture;
    if (!picture) return;
    this.#shownState = "";
    element("detail-name").textContent = picture.name;
    element("detail-name").title = picture.name;
    element("animated").hidden = picture.file.type !== "image/gif";
    this.#heatmaps.open(picture);
    this.#show();
  }

  /** Show a label's heat map over the image; null hides it. */
  choose(label) {
    this.#labels.mark(label);
    const shown = this.#heatmaps.choose(label);
    this.dispatchEvent(new Event("choose"));
    return shown;
  }

  /** Show the words of the current language. */
  translate() {
    if (!this.#picture) return;
    const { chosen } = this;
    this.#shownState = "";
    this.#show();
    if (this.#picture.state === "done") this.choose(chosen);
  }

  #show() {
    const { state, problem } = this.#picture;
    element("waiting").hidden = !isUnfinished(this.#picture);
    element("problem").hidden = state !== "failed";
    element("heat-bar").hidden = state !== "done";
    element("results").hidden = state !== "done";
    element("facts").hidden = state !== "done";
    if (state === "failed") this.#showProblem(problem);
    else if (state !== "done") this.#showWaiting();
    else if (this.#shownState !== "done") this.#showAnswer();
    this.#shownState = state;
  }

  #showWaiting() {
    const bar = element("waiting-progress");
    element("waiting-words").textContent = waitingWords(this.#picture);
    bar.firstElementChild.style.setProperty("--at", share(this.#picture));
    bar.classList.toggle("busy", this.#picture.state === "sending" && this.#picture.sent === 1);
  }

  #showProblem(problem) {
    const { title, advice, detail, meta } = explain(problem);
    element("problem-title").textContent = title;
    element("problem-advice").textContent = advice;
    element("problem-detail").textContent = detail;
    element("problem-meta").textContent = meta;
    element("problem-more").hidden = !detail && !meta;
    element("retry").hidden = !isTemporary(problem);
  }

  #showAnswer() {
    const { answer, result } = this.#picture;
    const about = this.#service.of(answer.model);
    this.#heatmaps.showFrame();
    this.#labels.open(result, about?.rule);
    this.#showRule();
    this.choose(this.#rule.passing(this.#picture)[0]?.label ?? null);
    showLatency(element("latency"), this.#picture);
    const version = versionOf({ model: answer.model.name, version: answer.model.version });
    element("by").textContent = about
      ? t("model.runs", { ...about, ...version })
      : t("top.choice", version);
    element("by-description").textContent = about?.description ?? "";
  }

  #showRule() {
    const labels = this.#rule.passing(this.#picture).map(({ label }) => label);
    element("answer").textContent = inWords(labels) || t("detail.nothing");
    element("answer").title = labels.join("\n");
    this.#labels.show();
  }
}
