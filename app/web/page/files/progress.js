// The progress of an image, for the bar and as text.

import { explain } from "./problems.js";
import { formatPercent, t } from "./words.js";

const UPLOADED = 0.9; // of the bar; the rest is for the server
const PATIENCE_S = 2; // the elapsed seconds are shown from here on

/** Return whether an image has neither an answer nor an error yet; false for null. */
export function isUnfinished(picture) {
  return picture?.state === "waiting" || picture?.state === "sending";
}

/** Return the filled fraction of the bar, 0..1. */
export function share({ state, sent }) {
  if (state === "waiting") return 0;
  return state === "sending" ? UPLOADED * sent : 1;
}

/** Describe the state of an unfinished image. */
export function waitingWords({ state, sent, since, problem, retryAt }) {
  if (retryAt) {
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    return t("state.retrying", { problem: explain(problem).title, seconds });
  }
  const seconds = Math.floor((Date.now() - since) / 1000);
  const words = stateWords(state, sent);
  return seconds < PATIENCE_S ? words : t("state.seconds", { words, seconds });
}

function stateWords(state, sent) {
  if (state === "waiting") return t("state.waiting");
  if (sent === 1) return t("state.classifying");
  return t("state.uploading", { share: formatPercent(Math.floor(100 * sent) / 100, 0) });
}
