// The detail view of one image: labels, heat maps, timings.

import { Problem } from "./api.js";
import { element } from "./element.js";
import { readOrientation } from "./frame.js";
import { Labels } from "./labels.js";
import { showLatency } from "./latency.js";
import { explain, isTemporary } from "./problems.js";
import { share, waitingWords } from "./progress.js";
import { Stage } from "./stage.js";
import { firstSentence, versionOf } from "./welcome.js";
import { formatList, t } from "./words.js";

const DEMO = "demo"; // the bundled model; its note tells visitors that it does not know photographs
const NAMED = 6; // labels in the headline

/** The event `choose` is dispatched when another label's heat map is shown, or none. */
export class Detail extends EventTarget {
  #service;
  #sender;
  #rule;
  #stage = new Stage(() => this.choose(null));
  #labels;
  #picture = null;
  #shownState = "";
  #chosen = null;

  constructor({ pictures, service, sender, rule }) {
    super();
    this.#service = service;
    this.#sender = sender;
    this.#rule = rule;
    this.#labels = new Labels(rule, (label) => this.choose(label));
    pictures.addEventListener("change", ({ detail }) => detail === this.#picture && this.#show());
    rule.addEventListener("change", () => this.#picture?.state === "done" && this.#showRule());
    element("retry").addEventListener("click", () => sender.send(this.#picture));
  }

  get picture() {
    return this.#picture;
  }

  /** Show the words of the current language. */
  translate() {
    if (!this.#picture) return;
    const chosen = this.#chosen;
    this.#shownState = "";
    this.#show();
    if (chosen !== null) this.choose(chosen);
  }

  /** The label of the visible heat map, or null. */
  get chosen() {
    return this.#chosen;
  }

  /** Show an image, or nothing if null. */
  open(picture) {
    this.#picture = picture;
    element("detail").hidden = !picture;
    if (!picture) return;
    this.#shownState = "";
    this.#chosen = null;
    element("detail-name").textContent = picture.name;
    element("sideways").hidden = true;
    this.#stage.open(picture);
    this.#show();
  }

  /** Show a label's heat map over the image; null hides it. */
  async choose(label) {
    const picture = this.#picture;
    this.#chosen = label;
    this.#labels.mark(label);
    this.dispatchEvent(new Event("choose"));
    if (!this.#about()?.heatmaps) return this.#stage.clear(t("heat.none"));
    if (label === null) return this.#stage.clear(t("heat.choose"));
    if (!picture.maps.has(label)) {
      this.#stage.clear(t("heat.wait", { label }));
      try {
        await this.#sender.locate(picture, label);
      } catch (problem) {
        if (!(problem instanceof Problem)) return undefined; // the image was removed in the meantime
        if (this.#chosen === label) this.#stage.clear(explain(problem).detail);
        return undefined;
      }
    }
    if (picture !== this.#picture || this.#chosen !== label) return undefined;
    const heatmap = picture.maps.get(label);
    if (!heatmap || heatmap.peak <= 0) {
      return this.#stage.clear(t("heat.nowhere", { label }));
    }
    return this.#stage.lay(heatmap, this.#about()?.frame);
  }

  #about() {
    return this.#service.of(this.#picture.answer.model);
  }

  #show() {
    const { state, problem } = this.#picture;
    element("waiting").hidden = !["waiting", "sending"].includes(state);
    element("problem").hidden = state !== "failed";
    element("heat-bar").hidden = state === "failed";
    element("results").hidden = state !== "done";
    element("facts").hidden = state !== "done";
    if (state === "failed") this.#showProblem(problem);
    else if (state !== "done") this.#showWaiting();
    else if (this.#shownState !== "done") this.#showAnswer();
    this.#shownState = state;
  }

  #showWaiting() {
    element("waiting-words").textContent = waitingWords(this.#picture);
    element("waiting-progress").firstElementChild.style.setProperty("--at", share(this.#picture));
  }

  #showProblem(problem) {
    const { title, detail, advice, meta } = explain(problem);
    element("problem-title").textContent = title;
    element("problem-detail").textContent = detail;
    element("problem-advice").textContent = advice;
    element("problem-meta").textContent = meta;
    element("retry").hidden = !isTemporary(problem);
  }

  #showAnswer() {
    const picture = this.#picture;
    const about = this.#about();
    this.#stage.showFrame(about?.frame);
    this.#labels.open(picture, about?.rule);
    this.choose(null);
    this.#showRule();
    this.#showOrientation(picture, about);
    showLatency(element("latency"), picture);
    const { name } = picture.answer.model;
    const version = versionOf({ model: name, version: picture.answer.model.version });
    element("demo-note").hidden = name !== DEMO || picture.sample || !about;
    element("demo-note").textContent = firstSentence(about?.description ?? "");
    element("by").textContent = about
      ? t("model.runs", { ...about, ...version })
      : t("top.choice", version);
    element("by-description").textContent = about?.description ?? "";
  }

  #showRule() {
    const picture = this.#picture;
    const passing = this.#rule.passing(picture).map(({ label }) => label);
    element("answer").textContent = inWords(passing) || t("detail.nothing");
    this.#labels.show();
  }

  /** Warn if the image has an EXIF rotation that the server ignores. */
  async #showOrientation(picture, about) {
    const turned = (await readOrientation(picture.file)) > 1;
    if (picture !== this.#picture) return;
    element("sideways").hidden = !turned || Boolean(about?.exif_rotate);
    element("sideways").textContent = t("detail.sideways");
  }
}

/** Join names as "Bus, Car, and Person"; long lists are shortened. */
export function inWords(names) {
  if (names.length <= NAMED) return formatList(names);
  const named = names.slice(0, NAMED - 1);
  return t("detail.more", { names: named.join(t("list.comma")), count: names.length - named.length });
}
