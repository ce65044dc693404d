// What the start view shows while the server does not answer or has no model: the reason, and when it is asked again.

import { element } from "./element.js";
import { explain } from "./problems.js";
import { t } from "./words.js";

const TICK_MS = 1000;
const PATIENCE_MS = 500; // most servers answer sooner

export class Outage {
  #service;
  #isLate = false;

  constructor(service) {
    this.#service = service;
    element("outage-retry").addEventListener("click", () => service.start());
    setTimeout(() => {
      this.#isLate = true;
      this.show();
    }, PATIENCE_MS);
    setInterval(() => this.#showCountdown(), TICK_MS);
  }

  /** Show the state of the service in the words of the current language. */
  show() {
    const { about, problem } = this.#service;
    element("outage").hidden = !problem && (Boolean(about) || !this.#isLate);
    if (element("outage").hidden) return;
    const { title, advice } = problem
      ? explain(problem)
      : { title: t("outage.connecting"), advice: "" };
    element("outage-title").textContent = title;
    element("outage-advice").textContent = advice;
    element("outage-retry").hidden = !problem;
    this.#showCountdown();
  }

  #showCountdown() {
    const { problem, retryAt } = this.#service;
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const words = seconds ? t("outage.countdown", { seconds }) : t("outage.trying");
    element("outage-next").textContent = problem ? words : "";
  }
}
