// The heat map of the chosen label: over the image, and where it is in words.

import { Problem } from "./api.js";
import { element } from "./element.js";
import { shortName } from "./names.js";
import { describePlace } from "./place.js";
import { explain } from "./problems.js";
import { Stage } from "./stage.js";
import { formatPercent, t } from "./words.js";

export class HeatMaps {
  #service;
  #sender;
  #stage = new Stage();
  #picture = null;

  /** The label of the visible heat map, or null. */
  chosen = null;
  /** The visible heat map in words, such as "Car: mostly upper left"; may be empty. */
  words = "";

  constructor({ service, sender }) {
    this.#service = service;
    this.#sender = sender;
  }

  /** Show an image without a heat map. */
  open(picture) {
    this.#picture = picture;
    this.#stage.open(picture);
    this.#clear("");
  }

  /** Highlight what the model sees of a classified image. */
  showFrame() {
    this.#stage.showFrame(this.#about()?.frame);
  }

  /** Show a label's heat map; null hides it. Resolves when it is there, or the reason why it is not. */
  async choose(label) {
    const picture = this.#picture;
    this.chosen = label;
    if (!this.#about()?.heatmaps) return this.#clear(t("heat.none"));
    if (label === null) return this.#clear(t("heat.choose"));
    if (!picture.maps.has(label)) {
      this.#clear(t("heat.wait", { label: shortName(label) }));
      try {
        await this.#sender.locate(picture, label);
      } catch (problem) {
        if (!(problem instanceof Problem)) return undefined; // the image was removed in the meantime
        if (this.#isStill(picture, label)) this.#clear(explain(problem).title);
        return undefined;
      }
    }
    return this.#isStill(picture, label) ? this.#lay(picture.maps.get(label)) : undefined;
  }

  #isStill(picture, label) {
    return picture === this.#picture && label === this.chosen;
  }

  #lay(heatmap) {
    const label = shortName(this.chosen);
    if (!heatmap || heatmap.peak <= 0) return this.#clear(t("heat.nowhere", { label }));
    const strongest = Math.max(...[...this.#picture.maps.values()].map(({ peak }) => peak));
    const strength = heatmap.peak / strongest;
    const place = describePlace(heatmap.map);
    this.words = t("heat.words", { label, place });
    element("heat-hint").textContent = "";
    element("heat-controls").hidden = false;
    element("heat-label").textContent = label;
    element("heat-place").textContent = place;
    const share = formatPercent(strength, 0);
    element("heat-strength").textContent = strength < 1 ? t("heat.strength", { share }) : "";
    element("opacity").setAttribute("aria-label", t("heat.opacity", { label }));
    return this.#stage.lay(heatmap, strength, this.#about()?.frame);
  }

  /** Hide the heat map and show a hint in its place. */
  #clear(hint) {
    this.#stage.clear();
    this.words = "";
    element("heat-controls").hidden = true;
    element("heat-hint").textContent = hint;
  }

  #about() {
    return this.#picture.answer && this.#service.of(this.#picture.answer.model);
  }
}
