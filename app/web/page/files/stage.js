// The enlarged image, with the heat map over the part that the network sees.

import { element } from "./element.js";
import { seenPart } from "./frame.js";
import { draw } from "./heat.js";

const SMALL_SCALE = 2.5; // limit for enlarging small images

export class Stage {
  #element = element("stage");
  #picture = element("picture");
  #photo = element("photo");
  #heat = element("heat");
  #seen = element("seen");
  #opacity = element("opacity");
  #size = Promise.resolve(null); // of the displayed image, {width, height}; null without a preview

  constructor() {
    this.#opacity.addEventListener("input", () => this.#showOpacity());
  }

  /** Show an image without a heat map. */
  open(picture) {
    this.#photo.src = picture.url;
    this.#photo.alt = picture.name;
    this.#seen.hidden = true;
    element("crop-note").hidden = true;
    this.#size = this.#measure(picture);
    this.clear();
  }

  /** Highlight the part of the image that the model sees. */
  async showFrame(frame) {
    const size = await this.#size;
    if (!size) return;
    const part = seenPart(size.width, size.height, frame);
    for (const [name, value] of Object.entries(part)) {
      this.#picture.style.setProperty(`--seen-${name}`, `${100 * value}%`);
    }
    const isCropped = part.width < 1 || part.height < 1;
    this.#seen.hidden = !isCropped;
    element("crop-note").hidden = !isCropped;
  }

  /** Show a heat map over the image; `strength` in 0..1 is its peak relative to the strongest label's. */
  async lay({ label, map }, strength, frame) {
    const size = await this.#size;
    if (!size) return;
    const part = seenPart(size.width, size.height, frame);
    draw(this.#heat, map, strength, size.width * part.width, size.height * part.height);
    this.#heat.dataset.label = label;
    this.#heat.hidden = false;
    this.#showOpacity();
  }

  /** Hide the heat map. */
  clear() {
    this.#heat.hidden = true;
    this.#showOpacity();
  }

  #showOpacity() {
    const opacity = this.#opacity.value;
    this.#opacity.style.setProperty("--at", opacity);
    this.#picture.style.setProperty("--heat-opacity", this.#heat.hidden ? 0 : opacity);
  }

  /** Fit the box to the image and return its size; null if the browser cannot decode it. */
  async #measure({ url }) {
    let isShown = true;
    try {
      await this.#photo.decode();
    } catch {
      isShown = false;
    }
    if (this.#photo.src !== url) return null; // another image was opened in the meantime
    this.#picture.hidden = !isShown;
    element("no-preview").hidden = isShown;
    this.#element.classList.toggle("empty", !isShown);
    if (!isShown) return null;
    const { naturalWidth: width, naturalHeight: height } = this.#photo;
    this.#picture.style.setProperty("--width", width);
    this.#picture.style.setProperty("--height", height);
    this.#picture.style.setProperty("--widest", `${width * SMALL_SCALE}px`);
    return { width, height };
  }
}
