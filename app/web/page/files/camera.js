// The camera of a computer: takes an image, or classifies what it sees again and again.

import { Problem, predict } from "./api.js";
import { element } from "./element.js";
import { explain } from "./problems.js";
import { markUnsaved } from "./unsaved.js";
import { formatNumber, formatPercent, t } from "./words.js";

const CAMERA = { video: { width: { ideal: 1280 }, height: { ideal: 720 } }, audio: false };
const LIVE_SIDE = 640; // px, the longer side of live images
const SHOWN = 5; // labels
const PAUSE_S = 2; // after an error without Retry-After
const SMOOTHING = 0.8; // of the displayed rate
const WORDS = { NotAllowedError: "camera.denied", NotFoundError: "camera.missing" };

export class Camera {
  #service;
  #rule;
  #take;
  #dialog = element("camera");
  #video = element("camera-video");
  #stream = null;
  #taken = 0;
  #live = null; // the AbortController of the live classification

  /** `take(files)` is called with an image that the visitor has taken. */
  constructor({ service, rule, take }) {
    this.#service = service;
    this.#rule = rule;
    this.#take = take;
    element("open-camera").hidden = !navigator.mediaDevices?.getUserMedia; // needs HTTPS or localhost
    element("open-camera").addEventListener("click", () => this.#open());
    element("camera-take").addEventListener("click", () => this.#takeImage());
    element("camera-live").addEventListener("click", () => this.#toggle());
    element("camera-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#stop());
    document.addEventListener("visibilitychange", () => document.hidden && this.#dialog.close());
  }

  async #open() {
    this.#show("camera.starting");
    this.#enable(false);
    this.#dialog.showModal();
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia(CAMERA);
      if (!this.#dialog.open) return this.#stop(); // closed while the browser asked for permission
      this.#video.srcObject = this.#stream;
      await this.#video.play();
    } catch (error) {
      return this.#show(WORDS[error.name] ?? "camera.failed");
    }
    this.#show("camera.ready");
    return this.#enable(true);
  }

  /** Turn the camera off. */
  #stop() {
    this.#live?.abort();
    this.#live = null;
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.#video.srcObject = null;
    element("camera-live").setAttribute("aria-pressed", false);
    element("camera-labels").replaceChildren();
    element("camera-rate").textContent = "";
  }

  async #takeImage() {
    this.#taken += 1;
    const blob = await this.#grab(Infinity);
    this.#dialog.close();
    this.#take([markUnsaved(new File([blob], `camera-${this.#taken}.jpg`, { type: blob.type }))]);
  }

  #toggle() {
    const isStarting = !this.#live;
    this.#live?.abort();
    this.#live = isStarting ? new AbortController() : null;
    element("camera-live").setAttribute("aria-pressed", isStarting);
    if (isStarting) this.#classify(this.#live.signal);
  }

  /** Classify one image after another, as fast as the server answers. */
  async #classify(signal) {
    let rate = 0;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        const { answer } = await this.#ask(await this.#grab(LIVE_SIDE), signal);
        this.#show("camera.ready"); // in place of an error
        this.#showLabels(answer.images[0].labels);
        const current = 1000 / (performance.now() - started);
        rate = rate ? SMOOTHING * rate + (1 - SMOOTHING) * current : current;
        element("camera-rate").textContent = t("camera.rate", { rate: formatNumber(rate, 1) });
      } catch (problem) {
        if (signal.aborted) return;
        if (!(problem instanceof Problem)) throw problem;
        element("camera-words").textContent = explain(problem).title;
        const waitMs = 1000 * (problem.retryAfterS ?? PAUSE_S);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
  }

  #ask(blob, signal) {
    const options = { ...this.#service.target, ...this.#rule.options };
    return predict(new File([blob], "camera.jpg", { type: blob.type }), options, { signal });
  }

  /** Return the current image as a JPEG with at most `side` pixels on its longer side. */
  #grab(side) {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const scale = Math.min(1, side / Math.max(width, height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.getContext("2d").drawImage(this.#video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  #show(key) {
    element("camera-words").textContent = t(key);
  }

  #showLabels(labels) {
    const strongest = labels.slice(0, SHOWN);
    const texts = strongest.map(({ label, score }) => `${label} ${formatPercent(score)}`);
    const items = (texts.length ? texts : [t("detail.nothing")]).map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    });
    element("camera-labels").replaceChildren(...items);
  }

  #enable(isOn) {
    element("camera-take").disabled = !isOn;
    element("camera-live").disabled = !isOn;
  }
}
