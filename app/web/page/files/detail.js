// One picture, big: its labels, where they are, where the time went, and the line for a terminal.

import { Problem } from "./api.js";
import { copy, curlLine } from "./curl.js";
import { element } from "./element.js";
import { readOrientation } from "./frame.js";
import { Labels } from "./labels.js";
import { showLatency } from "./latency.js";
import { explain, mayPass } from "./problems.js";
import { share, waitingWords } from "./progress.js";
import { Stage } from "./stage.js";
import { firstSentence } from "./welcome.js";

const CHOOSE = "Choose a label to see where it is.";
const DEMO = "demo"; // the model that comes along: whoever tries it with a photograph should know what it is
const NAMED = 6; // labels in the answer's sentence
const NONE = "This model tells what is in a picture, but not where.";

export class Detail {
  #service;
  #sender;
  #rule;
  #stage = new Stage(() => this.choose(null));
  #labels;
  #picture = null;
  #shownState = "";
  #chosen = null;

  constructor({ pictures, service, sender, rule }) {
    this.#service = service;
    this.#sender = sender;
    this.#rule = rule;
    this.#labels = new Labels(rule, (label) => this.choose(label));
    pictures.addEventListener("change", ({ detail }) => detail === this.#picture && this.#show());
    rule.addEventListener("change", () => this.#picture?.state === "done" && this.#showRule());
    element("retry").addEventListener("click", () => sender.send(this.#picture));
    element("copy").addEventListener("click", () => this.#copy());
  }

  get picture() {
    return this.#picture;
  }

  /** The label whose heat map is shown, or null. */
  get chosen() {
    return this.#chosen;
  }

  /** Show a picture; null for none. */
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

  /** Lay a label's heat map over the picture; null takes it away. */
  async choose(label) {
    const picture = this.#picture;
    this.#chosen = label;
    this.#labels.mark(label);
    if (!this.#about()?.heatmaps) return this.#stage.clear(NONE);
    if (label === null) return this.#stage.clear(CHOOSE);
    if (!picture.maps.has(label)) {
      this.#stage.clear(`Looking for ${label} …`);
      try {
        await this.#sender.locate(picture, label);
      } catch (problem) {
        if (!(problem instanceof Problem)) return undefined; // the picture was removed meanwhile
        if (this.#chosen === label) this.#stage.clear(explain(problem).detail);
        return undefined;
      }
    }
    if (picture !== this.#picture || this.#chosen !== label) return undefined;
    const heatmap = picture.maps.get(label);
    if (!heatmap || heatmap.peak <= 0) {
      return this.#stage.clear(`Nothing in the picture speaks for ${label}.`);
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
    const { headline, detail, advice, meta } = explain(problem);
    element("problem-title").textContent = headline;
    element("problem-detail").textContent = detail;
    element("problem-advice").textContent = advice;
    element("problem-meta").textContent = meta;
    element("retry").hidden = !mayPass(problem);
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
    const { name, version } = picture.answer.model;
    element("demo-note").hidden = name !== DEMO || picture.sample || !about;
    element("demo-note").textContent = firstSentence(about?.description ?? "");
    element("by").textContent =
      `${name}, version ${version}${about ? `, in ${about.precision} on ${about.device}` : ""}`;
    element("by-description").textContent = about?.description ?? "";
  }

  #showRule() {
    const picture = this.#picture;
    const passing = this.#rule.passing(picture).map(({ label }) => label);
    element("answer").textContent = inWords(passing) || "No label passes";
    this.#labels.show();
    element("curl").textContent = curlLine(picture, this.#rule.threshold);
  }

  /** Cameras store photographs as the sensor lies and note how it was held; not every server reads the note. */
  async #showOrientation(picture, about) {
    const turned = (await readOrientation(picture.file)) > 1;
    if (picture !== this.#picture) return;
    element("sideways").hidden = !turned || Boolean(about?.exif_rotate);
    element("sideways").textContent =
      "This photo carries a note that it is to be turned. The server reads it as it is stored, as you see" +
      " it here; SERVING_EXIF_ROTATE=on would turn it upright.";
  }

  async #copy() {
    await copy(element("curl").textContent);
    const button = element("copy");
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  }
}

/** "Bus, Car and Person"; of very many the first. */
export function inWords(names) {
  if (names.length < 2) return names.join("");
  if (names.length <= NAMED) return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, NAMED - 1).join(", ")} and ${names.length - NAMED + 1} more`;
}
