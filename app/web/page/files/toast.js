// Short messages at the bottom of the page; screen readers announce them.

import { element } from "./element.js";

const SHOWN_MS = 6000;
let timer = 0;

/** Show a message for a few seconds. */
export function tell(text) {
  element("toast").textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => {
    element("toast").textContent = "";
  }, SHOWN_MS);
}
