// Connects what the page offers beyond answers: downloads, code, comparison, camera, kept images, links.

import { Calls } from "./calls.js";
import { Compare } from "./compare.js";
import { offerDownloads } from "./downloads.js";
import { element } from "./element.js";
import { onLanguageChange, t } from "./words.js";

export class Features {
  #calls;
  #compare;

  /** `parts` are those of main.js. */
  constructor(parts) {
    const { pictures, detail } = parts;
    this.#calls = new Calls(parts);
    this.#compare = new Compare(parts);
    offerDownloads(parts);
    pictures.addEventListener("change", ({ detail: picture }) => {
      if (picture === detail.picture) this.show(picture);
    });
    onLanguageChange(() => this.show(detail.picture));
  }

  /** Show what belongs to the image in the detail view; null if it is closed. */
  show(picture) {
    this.#calls.show(picture);
    this.#compare.show(picture);
    element("origin").hidden = !picture?.converted;
    if (picture?.converted) {
      element("origin").textContent = t("detail.converted", { format: picture.converted });
    }
  }
}
