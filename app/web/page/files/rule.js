// The labels that pass: those of the server's answer, until the threshold is moved.

import { formatNumber, formatPercent, t } from "./words.js";

/** The threshold for all images of the page; null for the model's own rule. */
export class Rule extends EventTarget {
  threshold = null;

  set(threshold) {
    this.threshold = threshold;
    this.dispatchEvent(new Event("change"));
  }

  /** Return the passing labels in descending order: [{label, score, logit}]. */
  passing({ result }) {
    if (this.threshold === null) return result.labels;
    return byScore(result).filter(({ score }) => score > this.threshold);
  }

  /** Return a label's threshold as a score in 0..1, or null if it has none. */
  mark(decision, index) {
    return this.threshold ?? scoreThreshold(decision, index);
  }
}

/** Return all classes of an image in descending order. */
export function byScore({ scores }) {
  return scores.map((each, index) => ({ ...each, index })).sort((a, b) => b.logit - a.logit);
}

/** Return the threshold that all classes share, as a score in 0..1, or null. */
export function commonThreshold(decision) {
  return decision && !Array.isArray(decision.threshold) ? scoreThreshold(decision, 0) : null;
}

/** Describe the model's own rule. */
export function describeRule(decision) {
  if (!decision) return t("threshold.default");
  if (decision.top_k) return t("threshold.default.best", { count: decision.top_k });
  const common = commonThreshold(decision);
  if (common !== null) return t("threshold.default.above", { score: formatPercent(common) });
  return Array.isArray(decision.threshold)
    ? t("threshold.default.each")
    : t("threshold.default.logit", { logit: formatNumber(decision.threshold, 2) });
}

function scoreThreshold(decision, index) {
  if (!decision || decision.top_k) return null;
  const threshold = Array.isArray(decision.threshold)
    ? decision.threshold[index]
    : decision.threshold;
  if (decision.threshold_on === "score") return threshold;
  return decision.activation === "sigmoid" ? 1 / (1 + Math.exp(-threshold)) : null;
}
