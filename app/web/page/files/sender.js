// Sends images: a few at a time, with retries after Retry-After.

import { Problem, predict } from "./api.js";
import { convert, formatOf } from "./convert.js";
import { formatNumber, t } from "./words.js";

const AT_ONCE = 4;
const TRIES = 6;
const LONGEST_WAIT_S = 30;
const SPREAD_MS = 250; // so that refused requests do not return at the same moment
const EVERYTHING = { scores: "all" }; // so that moving the threshold needs no request
const FORM_BYTES = 2048; // upper bound of the form's overhead

export class Sender {
  #pictures;
  #service;
  #queue = [];
  #busy = 0;

  /** `service` has the options and limits of the current model (service.js). */
  constructor(pictures, service) {
    this.#pictures = pictures;
    this.#service = service;
    window.addEventListener("online", () => this.#sendAgain("offline"));
  }

  /** Queue an image, for the first time or again. */
  send(picture) {
    this.#pictures.update(picture, { state: "waiting", problem: null, retryAt: null });
    this.#queue.push(picture);
    this.#next();
  }

  /** Request the heat map of another label. Throws Problem. */
  async locate(picture, label) {
    const { model } = picture.answer;
    const options = { ...EVERYTHING, heatmap: label, model: model.name, version: model.version };
    const { answer } = await predict(picture.file, options, { signal: picture.left.signal });
    keepMaps(picture, answer.images[0]);
  }

  #sendAgain(code) {
    for (const picture of this.#pictures.all) {
      if (picture.state === "failed" && picture.problem.code === code) this.send(picture);
    }
  }

  #next() {
    while (this.#busy < AT_ONCE && this.#queue.length) {
      const picture = this.#queue.shift();
      if (picture.left.signal.aborted) continue;
      this.#busy += 1;
      this.#answer(picture).finally(() => {
        this.#busy -= 1;
        this.#next();
      });
    }
  }

  async #answer(picture) {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#ask(picture);
        return;
      } catch (problem) {
        if (picture.left.signal.aborted) return;
        if (!(problem instanceof Problem)) throw problem;
        if (problem.retryAfterS === null || tries === TRIES) {
          this.#pictures.update(picture, { state: "failed", problem });
          return;
        }
        await this.#wait(picture, problem);
      }
      if (picture.left.signal.aborted) return;
    }
  }

  async #ask(picture) {
    this.#pictures.update(picture, { state: "sending", sent: 0, problem: null, retryAt: null });
    const file = await convert(picture.file);
    if (file !== picture.file) Object.assign(picture, { file, converted: formatOf(picture.file) });
    this.#checkSize(file);
    const { target } = this.#service;
    const onUpload = (sent) => this.#pictures.update(picture, { sent });
    const { answer, elapsedMs } = await this.#predict(file, onUpload, picture.left.signal);
    const [result] = answer.images;
    picture.maps.clear();
    keepMaps(picture, result);
    await this.#service.learn(answer.model);
    this.#pictures.update(picture, { state: "done", answer, result, elapsedMs, target });
  }

  async #predict(file, onUpload, signal) {
    const { about, target } = this.#service;
    const options = { ...EVERYTHING, ...target };
    try {
      const maps = about?.heatmaps ? { heatmap: "all" } : {};
      return await predict(file, { ...options, ...maps }, { onUpload, signal });
    } catch (problem) {
      if (problem.code !== "no_heatmap") throw problem;
      return predict(file, options, { onUpload, signal }); // the server has changed models since
    }
  }

  /** Reject files that the server would reject after a long upload. */
  #checkSize(file) {
    const limit = this.#service.limits?.max_body_bytes;
    if (limit && file.size + FORM_BYTES > limit) {
      const detail = t("problem.body_too_large.sizes", {
        size: inMebibytes(file.size),
        limit: inMebibytes(limit),
      });
      throw new Problem({ code: "body_too_large", detail });
    }
  }

  async #wait(picture, problem) {
    const waitMs = Math.min(problem.retryAfterS, LONGEST_WAIT_S) * 1000 + Math.random() * SPREAD_MS;
    const retryAt = Date.now() + waitMs;
    while (Date.now() < retryAt && !picture.left.signal.aborted) {
      this.#pictures.update(picture, { state: "waiting", problem, retryAt }); // updates the countdown
      await new Promise((resolve) => setTimeout(resolve, Math.min(1000, retryAt - Date.now())));
    }
  }
}

/** Keep the heat maps of an answer. */
export function keepMaps(picture, result) {
  for (const { heatmap } of [...result.labels, ...result.scores]) {
    if (heatmap) picture.maps.set(heatmap.label, heatmap);
  }
}

function inMebibytes(bytes) {
  return formatNumber(bytes / 1024 / 1024, 1);
}
