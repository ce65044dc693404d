// Copies text to the clipboard.

import { t } from "./words.js";

const CONFIRMED_MS = 2000;

/** Copy `text()` whenever a button is clicked; the button confirms it for a moment. */
export function copyOnClick(button, text) {
  const words = button.dataset.t;
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = t("copy.done");
    setTimeout(() => {
      button.textContent = t(words);
    }, CONFIRMED_MS);
  });
}

/** Copy text; without TLS, browsers offer the clipboard's API to localhost only. */
async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
