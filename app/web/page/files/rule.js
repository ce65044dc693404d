// The labels that pass: those of the server's answer, until the threshold is moved.

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
  if (!decision) return "model default";
  if (decision.top_k)
    return decision.top_k === 1
      ? "model default: the best label"
      : `model default: the best ${decision.top_k} labels`;
  const common = commonThreshold(decision);
  if (common !== null) return `model default: above ${asPercent(common)}`;
  return Array.isArray(decision.threshold)
    ? "model default: one for each label"
    : `model default: logit above ${decision.threshold}`;
}

/** Format a score: 93.1%, never rounded to 0% or 100%. */
export function asPercent(score) {
  const percent = 100 * score;
  if (percent > 99.9 && percent < 100) return "> 99.9%";
  if (percent < 0.1 && percent > 0) return "< 0.1%";
  return `${percent.toFixed(1).replace(/\.0$/, "")}%`;
}

function scoreThreshold(decision, index) {
  if (!decision || decision.top_k) return null;
  const threshold = Array.isArray(decision.threshold)
    ? decision.threshold[index]
    : decision.threshold;
  if (decision.threshold_on === "score") return threshold;
  return decision.activation === "sigmoid" ? 1 / (1 + Math.exp(-threshold)) : null;
}
