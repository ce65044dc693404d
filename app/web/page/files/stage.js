// The enlarged image, with the heat map over the part that the network sees.

import { element } from "./element.js";
import { readOrientation, seenPart } from "./frame.js";
import { draw } from "./heat.js";
import { t } from "./words.js";

const SMALL_SCALE = 2.5; // limit for enlarging small images

export class Stage {
  #element = element("stage");
  #picture = element("picture");
  #photo = element("photo");
  #heat = element("heat");
  #seen = element("seen");
  #hint = element("heat-hint");
  #controls = element("heat-controls");
  #opacity = element("opacity");
  #name = this.#controls.querySelector("label");
  #size = Promise.resolve(null); // of the displayed image, {width, height}; null without a preview

  /** `hide()` is called by the button Hide. */
  constructor(hide) {
    this.#opacity.addEventListener("input", () => this.#showOpacity());
    this.#showOpacity();
    element("hide-heat").addEventListener("click", hide);
  }

  /** Show an image without a heat map. */
  open(picture) {
    this.#photo.src = picture.url;
    this.#photo.alt = picture.name;
    this.#seen.hidden = true;
    this.#size = this.#measure(picture);
    this.clear("");
  }

  /** Highlight the part of the image that the model sees. */
  async showFrame(frame) {
    const size = await this.#size;
    if (!size) return;
    const part = seenPart(size.width, size.height, frame);
    for (const [name, value] of Object.entries(part)) {
      this.#picture.style.setProperty(`--seen-${name}`, `${100 * value}%`);
    }
    this.#seen.hidden = !frame?.resize;
  }

  /** Show a heat map over the image. */
  async lay({ label, map }, frame) {
    const size = await this.#size;
    if (!size) return;
    const part = seenPart(size.width, size.height, frame);
    draw(this.#heat, map, size.width * part.width, size.height * part.height);
    this.#heat.dataset.label = label;
    this.#heat.hidden = false;
    this.#controls.hidden = false;
    this.#hint.textContent = "";
    this.#name.textContent = label;
    this.#opacity.setAttribute("aria-label", t("heat.opacity", { label }));
  }

  /** Hide the heat map and show a hint in its place. */
  clear(hint) {
    this.#heat.hidden = true;
    this.#controls.hidden = true;
    this.#hint.textContent = hint;
  }

  #showOpacity() {
    this.#heat.style.opacity = this.#opacity.value;
    this.#opacity.style.setProperty("--at", this.#opacity.value);
  }

  /** Fit the box to the image and return its size; null if the browser cannot decode it. */
  async #measure({ file, url }) {
    let isShown = true;
    try {
      await this.#photo.decode();
    } catch {
      isShown = false;
    }
    const isOnItsSide = isShown && (await readOrientation(file)) >= 5;
    if (this.#photo.src !== url) return null; // another image was opened in the meantime
    this.#picture.hidden = !isShown;
    element("no-preview").hidden = isShown;
    this.#element.classList.toggle("empty", !isShown);
    if (!isShown) return null;
    // The natural size is that of the upright image, even if it is displayed as stored.
    let { naturalWidth: width, naturalHeight: height } = this.#photo;
    const isAsStored = getComputedStyle(this.#photo).imageOrientation === "none";
    if (isOnItsSide && isAsStored) [width, height] = [height, width];
    this.#picture.style.setProperty("--width", width);
    this.#picture.style.setProperty("--height", height);
    this.#picture.style.setProperty("--widest", `${width * SMALL_SCALE}px`);
    return { width, height };
  }
}
