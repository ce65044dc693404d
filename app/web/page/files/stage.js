// One picture as large as it fits, and the heat map over the part that the network has seen.

import { element } from "./element.js";
import { readOrientation, seenPart } from "./frame.js";
import { draw } from "./heat.js";

const SMALL_SCALE = 2.5; // small pictures are not blown up further

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
  #size = Promise.resolve(null); // of the picture as it is shown, {width, height}; null without a preview

  /** `hide()` is called when somebody wants the heat map gone. */
  constructor(hide) {
    this.#opacity.addEventListener("input", () => this.#showOpacity());
    this.#showOpacity();
    element("hide-heat").addEventListener("click", hide);
  }

  /** Show a picture, without heat. */
  open(picture) {
    this.#photo.src = picture.url;
    this.#photo.alt = picture.name;
    this.#seen.hidden = true;
    this.#size = this.#measure(picture);
    this.clear("");
  }

  /** Show what of the picture counts, by the frame of the model that has answered. */
  async showFrame(frame) {
    const size = await this.#size;
    if (!size) return;
    const part = seenPart(size.width, size.height, frame);
    for (const [name, value] of Object.entries(part)) {
      this.#picture.style.setProperty(`--seen-${name}`, `${100 * value}%`);
    }
    this.#seen.hidden = !frame?.resize;
  }

  /** Lay a heat map over the picture. */
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
    this.#opacity.setAttribute("aria-label", `Opacity of the heat map of ${label}`);
  }

  /** Take the heat map away, and say something in its place. */
  clear(hint) {
    this.#heat.hidden = true;
    this.#controls.hidden = true;
    this.#hint.textContent = hint;
  }

  #showOpacity() {
    this.#heat.style.opacity = this.#opacity.value;
    this.#opacity.style.setProperty("--at", this.#opacity.value);
  }

  /** Give the box the picture's shape, and return its size; null for what the browser cannot show. */
  async #measure({ file, url }) {
    let isShown = true;
    try {
      await this.#photo.decode();
    } catch {
      isShown = false;
    }
    const isOnItsSide = isShown && (await readOrientation(file)) >= 5;
    if (this.#photo.src !== url) return null; // another one is open by now
    this.#picture.hidden = !isShown;
    element("no-preview").hidden = isShown;
    this.#element.classList.toggle("empty", !isShown);
    if (!isShown) return null;
    // The natural size is that of the upright picture, whether it is shown so or as it is stored.
    let { naturalWidth: width, naturalHeight: height } = this.#photo;
    const isAsStored = getComputedStyle(this.#photo).imageOrientation === "none";
    if (isOnItsSide && isAsStored) [width, height] = [height, width];
    this.#picture.style.setProperty("--width", width);
    this.#picture.style.setProperty("--height", height);
    this.#picture.style.setProperty("--widest", `${width * SMALL_SCALE}px`);
    return { width, height };
  }
}
