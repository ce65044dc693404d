// Sends images: a few at a time, with retries after Retry-After.

import { Problem, predict } from "./api.js";
import { convert, formatOf, isReadByServer } from "./convert.js";
import { shrink } from "./shrink.js";
import { formatNumber, t } from "./words.js";

const AT_ONCE = 4;
const TRIES = 6;
const LONGEST_WAIT_S = 30;
const SPREAD_MS = 250; // so that refused requests do not return at the same moment
/** Options of a request: images as browsers display them, and all scores, so that another rule needs no request. */
export const EVERYTHING = { upright: true, scores: "all" };
const MAPS = { heatmap_top_k: 50 }; // so that choosing a label needs no request either, unless it is far down
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
    picture.request.abort();
    picture.request = new AbortController();
    const changes = { state: "waiting", problem: null, retryAt: null, since: Date.now() };
    this.#pictures.update(picture, changes);
    this.#queue.push({ picture, signal: picture.request.signal });
    this.#next();
  }

  /** Abort the request of an unfinished image. */
  cancel(picture) {
    picture.request.abort();
    this.#pictures.update(picture, {
      state: "failed",
      problem: new Problem({ code: "canceled" }),
      retryAt: null,
    });
  }

  /** Request the heat map of another label, for a small copy: a map has few cells. Throws Problem. */
  async locate(picture, label) {
    const { model } = picture.answer;
    const options = { ...EVERYTHING, heatmap: label, model: model.name, version: model.version };
    const copy = await shrink(picture.file);
    const { answer } = await predict(copy, options, { signal: picture.request.signal });
    keepMaps(picture, answer.images[0]);
  }

  #sendAgain(code) {
    for (const picture of this.#pictures.all) {
      if (picture.state === "failed" && picture.problem.code === code) this.send(picture);
    }
  }

  #next() {
    while (this.#busy < AT_ONCE && this.#queue.length) {
      const { picture, signal } = this.#queue.shift();
      if (signal.aborted) continue;
      this.#busy += 1;
      this.#answer(picture, signal).finally(() => {
        this.#busy -= 1;
        this.#next();
      });
    }
  }

  async #answer(picture, signal) {
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        await this.#ask(picture, signal);
        return;
      } catch (problem) {
        if (signal.aborted) return;
        if (!(problem instanceof Problem)) throw problem;
        if (problem.retryAfterS === null || tries === TRIES) {
          await this.#explain(problem, picture.file);
          this.#pictures.update(picture, { state: "failed", problem });
          return;
        }
        await this.#wait(picture, problem, signal);
      }
    }
  }

  async #ask(picture, signal) {
    this.#pictures.update(picture, { state: "sending", sent: 0, problem: null, retryAt: null });
    const file = await convert(picture.file);
    if (file !== picture.file) Object.assign(picture, { file, converted: formatOf(picture.file) });
    if (signal.aborted) return;
    this.#checkSize(file);
    const { target } = this.#service;
    const onUpload = (sent) => !signal.aborted && this.#pictures.update(picture, { sent });
    const { answer, elapsedMs } = await this.#predict(file, onUpload, signal);
    const [result] = answer.images;
    picture.maps.clear();
    keepMaps(picture, result);
    await this.#service.learn(answer.model);
    if (signal.aborted) return;
    this.#pictures.update(picture, { state: "done", answer, result, elapsedMs, target });
  }

  async #predict(file, onUpload, signal) {
    const { about, target } = this.#service;
    const options = { ...EVERYTHING, ...target };
    try {
      const maps = about?.heatmaps ? MAPS : {};
      return await predict(file, { ...options, ...maps }, { onUpload, signal });
    } catch (problem) {
      if (problem.code !== "no_heatmap") throw problem;
      return predict(file, options, { onUpload, signal }); // the server has changed models since
    }
  }

  /** Reject files that the server would reject after a long upload. */
  #checkSize(file) {
    const limit = this.#service.limits?.max_body_bytes;
    if (!limit || file.size + FORM_BYTES <= limit) return;
    const numbers = t("problem.body_too_large.sizes", {
      size: inMebibytes(file.size),
      limit: inMebibytes(limit),
    });
    throw new Problem({ code: "body_too_large", numbers });
  }

  /** Add what the page knows about an error: the limit in the visitor's language, and if the file is damaged. */
  async #explain(problem, file) {
    const limit = this.#service.limits?.max_pixels;
    if (problem.code === "image_too_large" && limit) {
      const megapixels = formatNumber(limit / 1e6, 1);
      problem.numbers = t("problem.image_too_large.limit", { megapixels });
    }
    problem.isDamage = problem.code === "unreadable_image" && (await isReadByServer(file));
  }

  async #wait(picture, problem, signal) {
    const waitMs = Math.min(problem.retryAfterS, LONGEST_WAIT_S) * 1000 + Math.random() * SPREAD_MS;
    const retryAt = Date.now() + waitMs;
    while (Date.now() < retryAt && !signal.aborted) {
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
