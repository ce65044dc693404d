// What answers: the model, its rule, what it sees of a picture, and the server's limits.

import { describe } from "./api.js";

const ASK_AGAIN_S = 5;

export class Service extends EventTarget {
  #known = new Map(); // descriptions by model and version

  /** The description of the model that answers by default; null until it is known. */
  about = null;
  /** Why it is not known, a Problem. */
  problem = null;

  get limits() {
    return this.about?.limits;
  }

  /** Ask what is served, again and again until there is an answer. */
  async start() {
    try {
      this.about = await describe();
      this.problem = null;
      this.#keep(this.about);
    } catch (problem) {
      this.problem = problem;
      setTimeout(() => this.start(), (problem.retryAfterS ?? ASK_AGAIN_S) * 1000);
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Learn about a model that has answered, where it is not the one that was known: versions change. */
  async meet(model) {
    if (this.#known.has(key(model))) return;
    try {
      this.#keep(await describe(model));
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
