// The progress of an image, for the bar and as text.

import { explain } from "./problems.js";

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
    return `${explain(problem).headline}; trying again in ${seconds}\u00a0s`;
  }
  if (state === "waiting") return "Waiting";
  return sent < 1 ? `Uploading, ${Math.round(100 * sent)}%` : "Classifying";
}
