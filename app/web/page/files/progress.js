// The progress of an image, for the bar and as text.

import { explain } from "./problems.js";
import { formatPercent, t } from "./words.js";

const UPLOADED = 0.9; // of the bar; the rest is for the server

/** Return the filled fraction of the bar, 0..1. */
export function share({ state, sent }) {
  if (state === "waiting") return 0;
  return state === "sending" ? UPLOADED * sent : 1;
}

/** Describe the state of an unfinished image. */
export function waitingWords({ state, sent, problem, retryAt }) {
  if (retryAt) {
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    return t("state.retrying", { problem: explain(problem).title, seconds });
  }
  if (state === "waiting") return t("state.waiting");
  return sent < 1
    ? t("state.uploading", { share: formatPercent(Math.round(100 * sent) / 100) })
    : t("state.classifying");
}
