// The grid of images with their progress.

import { element } from "./element.js";
import { explain, isTemporary } from "./problems.js";
import { share, waitingWords } from "./progress.js";
import { t } from "./words.js";

const SHOWN = 3; // labels on a tile

export class Gallery {
  #pictures;
  #rule;
  #actions;
  #tiles = new Map();
  #template = document.getElementById("tile").content.firstElementChild;
  #list = document.getElementById("tiles");

  /** `actions` is {open, retry}; both are called with an image. */
  constructor(pictures, rule, actions) {
    this.#pictures = pictures;
    this.#rule = rule;
    this.#actions = actions;
    pictures.addEventListener("add", ({ detail }) => this.#add(detail));
    pictures.addEventListener("change", ({ detail }) => this.#show(detail));
    pictures.addEventListener("remove", ({ detail }) => this.#remove(detail));
    rule.addEventListener("change", () => pictures.all.forEach((each) => this.#show(each)));
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
    this.#tiles.get(picture)?.querySelector(".tile-open").focus();
  }

  #add(picture) {
    const tile = this.#template.cloneNode(true);
    const image = tile.querySelector("img");
    image.src = picture.url;
    image.addEventListener("error", () => tile.classList.add("no-picture"));
    tile.querySelector(".tile-name").textContent = picture.name;
    tile.querySelector(".tile-open").addEventListener("click", () => this.#actions.open(picture));
    const retry = tile.querySelector(".tile-retry");
    retry.addEventListener("click", () => this.#actions.retry(picture));
    const remove = tile.querySelector(".tile-remove");
    remove.addEventListener("click", () => {
      const neighbor = tile.nextElementSibling ?? tile.previousElementSibling;
      (neighbor?.querySelector(".tile-open") ?? element("choose")).focus();
      this.#pictures.remove(picture);
    });
    this.#name(picture, tile);
    this.#tiles.set(picture, tile);
    this.#list.append(tile);
    this.#show(picture);
  }

  /** Show the words of the current language. */
  translate() {
    for (const [picture, tile] of this.#tiles) {
      this.#name(picture, tile);
      this.#show(picture);
    }
  }

  #name({ name }, tile) {
    tile.querySelector(".tile-retry").setAttribute("aria-label", t("tile.retry.label", { name }));
    tile.querySelector(".tile-remove").setAttribute("aria-label", t("tile.remove.label", { name }));
  }

  #remove(picture) {
    this.#tiles.get(picture).remove();
    this.#tiles.delete(picture);
    this.#showCount();
  }

  #show(picture) {
    const tile = this.#tiles.get(picture);
    tile.dataset.state = picture.state;
    tile.querySelector(".tile-labels").replaceChildren(...this.#words(picture));
    tile.querySelector(".tile-retry").hidden = !isToRetry(picture);
    tile.querySelector(".progress span").style.setProperty("--at", share(picture));
    this.#showCount();
  }

  #words(picture) {
    if (picture.state === "failed") return [word(explain(picture.problem).title, "failure")];
    if (picture.state !== "done") return [word(waitingWords(picture), "quiet")];
    const passing = this.#rule.passing(picture);
    if (!passing.length) return [word(t("detail.nothing"), "quiet")];
    const chips = passing.slice(0, SHOWN).map(({ label }) => word(label, "chip"));
    if (passing.length > SHOWN) chips.push(word(t("gallery.more", { count: passing.length - SHOWN }), "quiet"));
    return chips;
  }

  #showCount() {
    const [total, done, failed] = [
      this.#pictures.all.length,
      this.#pictures.count("done"),
      this.#pictures.count("failed"),
    ];
    element("gallery").hidden = total === 0;
    element("home").toggleAttribute("data-empty", total === 0);
    element("gallery-title").textContent = t("gallery.title", { count: total });
    element("gallery-count").textContent = countInWords(done, failed, total);
    element("retry-all").hidden = this.#pictures.all.filter(isToRetry).length < 2;
    const bar = element("gallery-progress");
    bar.setAttribute("aria-valuemax", total);
    bar.setAttribute("aria-valuenow", done + failed);
    bar.classList.toggle("full", done + failed === total);
    bar.firstElementChild.style.setProperty("--at", total ? (done + failed) / total : 0);
  }
}

function isToRetry({ state, problem }) {
  return state === "failed" && isTemporary(problem);
}

function countInWords(done, failed, total) {
  const answered = done + failed < total ? [t("gallery.done", { count: done })] : [];
  return [...answered, ...(failed ? [t("gallery.failed", { count: failed })] : [])].join(
    t("list.comma"),
  );
}

function word(text, kind) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}
