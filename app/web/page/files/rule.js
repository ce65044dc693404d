// The labels that pass: those of the server's answer, until the visitor changes the rule.

import { formatNumber, formatPercent, t } from "./words.js";

const sorted = new WeakMap(); // classes of a result, in descending order

/** The rule for all images of the page; both null for the model's own. */
export class Rule extends EventTarget {
  threshold = null;
  topK = null;

  /** Let labels above a score pass; null for the model's own rule. */
  set(threshold) {
    this.#change(threshold, null);
  }

  /** Let the best `count` labels pass. */
  setBest(count) {
    this.#change(null, count);
  }

  /** The rule as options of a request. */
  get options() {
    if (this.topK !== null) return { top_k: this.topK };
    return this.threshold === null ? {} : { threshold: this.threshold };
  }

  /** Return the passing labels in descending order: [{label, score, logit}]. */
  passing({ result }) {
    if (this.topK !== null) return byScore(result).slice(0, this.topK);
    if (this.threshold === null) return result.labels;
    return byScore(result).filter(({ score }) => score > this.threshold);
  }

  /** Return a label's threshold as a score in 0..1, or null if it has none. */
  mark(decision, index) {
    return this.threshold ?? (this.topK === null ? scoreThreshold(decision, index) : null);
  }

  #change(threshold, topK) {
    this.threshold = threshold;
    this.topK = topK;
    this.dispatchEvent(new Event("change"));
  }
}

/** Return all classes of an image in descending order: [{label, score, logit, index}]. */
export function byScore(result) {
  if (!sorted.has(result)) {
    const classes = result.scores.map((each, index) => ({ ...each, index }));
    sorted.set(
      result,
      classes.sort((a, b) => b.logit - a.logit),
    );
  }
  return sorted.get(result);
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
  if (common !== null) return t("threshold.default.above", { score: formatPercent(common, 0) });
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
