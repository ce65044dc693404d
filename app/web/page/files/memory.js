// Keeps answered images in this browser, so that they survive a reload, if the visitor wants it.

import { element } from "./element.js";
import { remoteOf } from "./remote.js";
import { keepMaps } from "./sender.js";
import { shrink } from "./shrink.js";
import { clear, put, readAll, remove } from "./store.js";
import { tell } from "./toast.js";
import { isUnsaved, markUnsaved } from "./unsaved.js";
import { t } from "./words.js";

const WANTED = "resnet-serving-keep"; // in localStorage

export class Memory {
  #pictures;
  #service;
  #box = element("remember");
  #kept = new Map(); // by image: {answer, key}; `key` may be a promise

  constructor({ pictures, service }) {
    this.#pictures = pictures;
    this.#service = service;
    this.#box.addEventListener("change", () => this.#guard(() => this.#choose()));
    pictures.addEventListener("change", ({ detail }) => this.#guard(() => this.#keep(detail)));
    pictures.addEventListener("remove", ({ detail }) => this.#guard(() => this.#drop(detail)));
    this.#box.checked = isWanted();
    if (this.#box.checked) this.#guard(() => this.#restore());
  }

  /** Use the browser's storage, which visitors can forbid and which can be full. */
  async #guard(act) {
    try {
      await act();
    } catch (error) {
      this.#box.checked = false;
      tell(t("remember.failed", { error: error.message }));
    }
  }

  async #choose() {
    localStorage.setItem(WANTED, this.#box.checked ? "yes" : "no");
    if (this.#box.checked) {
      await Promise.all(this.#pictures.all.map((each) => this.#keep(each)));
    } else {
      const unfinished = [...this.#kept.values()].map(({ key }) => key);
      this.#kept.clear();
      await Promise.allSettled(unfinished);
      await clear();
    }
  }

  /** Keep an image with its latest answer, unless only another host has the image. */
  async #keep(picture) {
    const { state, answer, file } = picture;
    if (!this.#box.checked || state !== "done" || remoteOf(file)) return;
    const before = this.#kept.get(picture);
    if (before?.answer === answer) return;
    const key = write(picture, before?.key);
    this.#kept.set(picture, { answer, key });
    try {
      await key;
    } catch (error) {
      this.#kept.delete(picture);
      throw error;
    }
  }

  async #drop(picture) {
    const entry = this.#kept.get(picture);
    this.#kept.delete(picture);
    if (entry) await remove(await entry.key);
  }

  async #restore() {
    const records = await readAll();
    const models = new Map(records.map(({ answer: { model } }) => [JSON.stringify(model), model]));
    for (const model of models.values()) await this.#service.learn(model);
    for (const { key, file: { name, unsaved }, copy, answer, ...rest } of records) {
      const file = new File([copy], name, { type: copy.type });
      if (unsaved) markUnsaved(file);
      const picture = this.#pictures.restore(file, { ...rest, answer });
      keepMaps(picture, picture.result);
      this.#kept.set(picture, { answer, key });
    }
  }
}

function isWanted() {
  try {
    return localStorage.getItem(WANTED) === "yes";
  } catch {
    return false; // storage is disabled
  }
}

/** Write a record of an image; `before` is a promise of the key of its earlier record. Returns the key. */
async function write({ name, sample, target, elapsedMs, answer, file, source }, before) {
  const record = {
    ...{ name, sample, target, elapsedMs, answer },
    copy: await shrink(file),
    file: { name: file.name, unsaved: isUnsaved(file) },
    source: { name: source.name, size: source.size, lastModified: source.lastModified },
  };
  const key = await before;
  return put(key === undefined ? record : { ...record, key });
}
