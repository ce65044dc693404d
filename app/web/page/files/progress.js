// How far a picture is, for the bar and in words.

import { explain } from "./problems.js";

const UPLOADED = 0.9; // of the bar; the rest is the server's work

/** The share of the bar, 0..1. */
export function share({ state, sent }) {
  if (state === "waiting") return 0;
  return state === "sending" ? UPLOADED * sent : 1;
}

/** What a picture is waiting for. */
export function waitingWords({ state, sent, problem, retryAt }) {
  if (retryAt) {
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    return `${explain(problem).headline}; trying again in ${seconds}\u00a0s`;
  }
  if (state === "waiting") return "Waiting for its turn";
  return sent < 1 ? `Uploading, ${Math.round(100 * sent)} %` : "Looking at it";
}
