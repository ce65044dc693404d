// The grid of images with their progress.

import { showDemoNote } from "./demo.js";
import { element } from "./element.js";
import { Order } from "./order.js";
import { Tile, isToRetry } from "./tile.js";
import { t } from "./words.js";

export class Gallery {
  #pictures;
  #service;
  #actions;
  #order;
  #rule;
  #tiles = new Map();
  #changed = new Set(); // images whose tiles are out of date
  #isDue = false;
  #list = element("tiles");

  /** The displayed images, in their order. */
  shown = [];

  /** `actions` is {open, retry}; both are called with an image. */
  constructor({ pictures, service, rule }, actions) {
    this.#pictures = pictures;
    this.#service = service;
    this.#rule = rule;
    this.#actions = { ...actions, remove: (picture) => this.#askRemove(picture) };
    const decisionOf = ({ answer }) => service.of(answer.model)?.rule;
    this.#order = new Order(rule, decisionOf, () => this.refresh());
    pictures.addEventListener("add", ({ detail }) => this.#add(detail));
    pictures.addEventListener("change", ({ detail }) => this.#refreshSoon([detail]));
    pictures.addEventListener("remove", ({ detail }) => this.#remove(detail));
    rule.addEventListener("change", () => this.#refreshSoon(pictures.all));
    element("clear").addEventListener("click", () => {
      [...pictures.all].forEach((each) => pictures.remove(each));
      element("choose").focus();
    });
    element("retry-all").addEventListener("click", () => {
      pictures.all.filter(isToRetry).forEach(actions.retry);
    });
  }

  /** Focus an image's tile. */
  focus(picture) {
    this.refresh(); // a tile that is waiting for the next frame cannot be focused
    this.#tiles.get(picture)?.focus();
  }

  /** Return the image `step` places after another in the grid, cyclically. */
  neighbor(picture, step) {
    const list = this.shown.includes(picture) ? this.shown : this.#pictures.all;
    return list[(list.indexOf(picture) + step + list.length) % list.length];
  }

  /** Show the words of the current language. */
  translate() {
    this.#order.translate();
    this.#refreshSoon(this.#pictures.all);
  }

  #add(picture) {
    this.#tiles.set(picture, new Tile(picture, this.#rule, this.#actions));
    this.#refreshSoon([picture]);
  }

  #askRemove(picture) {
    const { element: tile } = this.#tiles.get(picture);
    const neighbor = tile.nextElementSibling ?? tile.previousElementSibling;
    (neighbor?.querySelector(".tile-open") ?? element("choose")).focus();
    this.#pictures.remove(picture);
  }

  #remove(picture) {
    this.#tiles.get(picture).element.remove();
    this.#tiles.delete(picture);
    this.#changed.delete(picture);
    this.#refreshSoon([]);
  }

  /** Update the tiles of images before the next frame. */
  #refreshSoon(pictures) {
    for (const picture of pictures) this.#changed.add(picture);
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => this.refresh());
  }

  /** Update what has changed, and all counts once. */
  refresh() {
    this.#isDue = false;
    for (const picture of this.#changed) this.#tiles.get(picture)?.show();
    this.#changed.clear();
    this.shown = this.#order.apply([...this.#pictures.all]);
    const tiles = this.shown.map((picture) => this.#tiles.get(picture).element);
    const isSame = tiles.length === this.#list.childElementCount;
    if (!isSame || tiles.some((tile, place) => tile !== this.#list.children[place])) {
      this.#list.replaceChildren(...tiles);
    }
    this.#showCount();
    const own = this.#pictures.all.filter(({ sample }) => !sample);
    showDemoNote(element("gallery-demo"), own.length > 0 && this.#service.about);
  }

  #showCount() {
    const { all } = this.#pictures;
    const [total, done, failed] = [
      all.length,
      this.#pictures.count("done"),
      this.#pictures.count("failed"),
    ];
    element("gallery").hidden = total === 0;
    element("home").toggleAttribute("data-empty", total === 0);
    element("gallery-title").textContent = t("gallery.title", { count: total });
    element("gallery-count").textContent = this.#countWords(done, failed, total);
    element("retry-all").hidden = all.filter(isToRetry).length < 2;
    const bar = element("gallery-progress");
    bar.setAttribute("aria-valuemax", total);
    bar.setAttribute("aria-valuenow", done + failed);
    bar.classList.toggle("full", done + failed === total);
    bar.firstElementChild.style.setProperty("--at", total ? (done + failed) / total : 0);
  }

  #countWords(done, failed, total) {
    const words = done + failed < total ? [t("gallery.done", { count: done })] : [];
    if (failed) words.push(t("gallery.failed", { count: failed }));
    if (this.shown.length < total) words.push(t("gallery.shown", { count: this.shown.length }));
    return words.join(t("list.comma"));
  }
}
