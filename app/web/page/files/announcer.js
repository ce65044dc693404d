// Announcements for screen readers.

import { element } from "./element.js";

/** Have a text read aloud; a later one replaces it. */
export function announce(text) {
  element("announcer").textContent = text;
}
