// What answers: the model, its rule, what it sees of a picture, and the server's limits.

import { describe } from "./api.js";

const ASK_AGAIN_S = 5;

export class Service extends EventTarget {
  #known = new Map(); // descriptions by model and version

  /** Who is asked, as options of a request: {}, {model} or {model, version}. */
  target = {};
  /** The description of the model that is asked; null until it is known. */
  about = null;
  /** Why it is not known, a Problem. */
  problem = null;

  get limits() {
    return this.about?.limits;
  }

  /** Ask what is served, again and again until there is an answer. */
  async start() {
    const { target } = this;
    try {
      const about = await describe(target);
      if (target !== this.target) return; // another one was chosen meanwhile
      this.about = about;
      this.problem = null;
      this.#keep(about);
    } catch (problem) {
      if (target !== this.target) return;
      this.problem = problem;
      setTimeout(() => this.start(), (problem.retryAfterS ?? ASK_AGAIN_S) * 1000);
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Have another model, or version, answer from now on. */
  choose(target) {
    this.target = target;
    return this.start();
  }

  /** Learn about a model that has answered, where it is not the one that was known: versions change. */
  async meet(model) {
    if (this.#known.has(key(model))) return;
    try {
      this.#keep(await describe({ model: model.name, version: model.version }));
    } catch {
      // It is gone already: its answer is shown without what only its description tells.
    }
  }

  /** The description of the model that has answered; undefined where there was none. */
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
