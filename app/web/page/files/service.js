// The current model: its description, rule and limits.

import { describe } from "./api.js";

const ASK_AGAIN_S = 5;

export class Service extends EventTarget {
  #known = new Map(); // descriptions by model and version
  #timer = 0;

  /** The requested model as options of a request: {}, {model} or {model, version}. */
  target = {};
  /** The description of the requested model; null until it is loaded. */
  about = null;
  /** The Problem if the description could not be loaded. */
  problem = null;
  /** The time of the next attempt after a problem, as Date.now(). */
  retryAt = 0;

  get limits() {
    return this.about?.limits;
  }

  /** Ask what is served, again and again until there is an answer. */
  async start() {
    const { target } = this;
    clearTimeout(this.#timer);
    try {
      const about = await describe(target);
      if (target !== this.target) return; // another one was chosen meanwhile
      this.about = about;
      this.problem = null;
      this.#keep(about);
    } catch (problem) {
      if (target !== this.target) return;
      const waitMs = (problem.retryAfterS ?? ASK_AGAIN_S) * 1000;
      this.problem = problem;
      this.retryAt = Date.now() + waitMs;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.start(), waitMs);
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Switch to another model or version. */
  choose(target) {
    this.target = target;
    return this.start();
  }

  /** Load the description of a model that has answered, unless it is known. */
  async learn(model) {
    if (this.#known.has(key(model))) return;
    try {
      this.#keep(await describe({ model: model.name, version: model.version }));
    } catch {
      // The version was unloaded: its answer is shown without the description.
    }
  }

  /** Return the description of a model that has answered, or undefined. */
  of(model) {
    return this.#known.get(key(model));
  }

  #keep(description) {
    this.#known.set(`${description.model} ${description.version}`, description);
  }
}

function key({ name, version }) {
  return `${name} ${version}`;
}
