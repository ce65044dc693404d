// Which labels count: those that the server answered, until somebody moves the threshold.

/** One threshold for all pictures of the page; null leaves it to the model's own rule. */
export class Rule extends EventTarget {
  threshold = null;

  set(threshold) {
    this.threshold = threshold;
    this.dispatchEvent(new Event("change"));
  }

  /** The scores that pass, strongest first: [{label, score, logit}]. */
  passing({ result }) {
    if (this.threshold === null) return result.labels;
    return byScore(result).filter(({ score }) => score > this.threshold);
  }

  /** A label's own threshold as a score in 0..1, or null where it has none. */
  mark(decision, index) {
    return this.threshold ?? scoreThreshold(decision, index);
  }
}

/** Every class of a picture, strongest first. */
export function byScore({ scores }) {
  return scores.map((each, index) => ({ ...each, index })).sort((a, b) => b.logit - a.logit);
}

/** The one score above which the model lets every class pass, or null where there is no such. */
export function commonThreshold(decision) {
  return decision && !Array.isArray(decision.threshold) ? scoreThreshold(decision, 0) : null;
}

/** The model's own rule in words. */
export function describeRule(decision) {
  if (!decision) return "the model’s own rule";
  if (decision.top_k)
    return decision.top_k === 1
      ? "the model’s own: the best one"
      : `the model’s own: the best ${decision.top_k}`;
  const common = commonThreshold(decision);
  if (common !== null) return `the model’s own: above ${asPercent(common)}`;
  return Array.isArray(decision.threshold)
    ? "the model’s own: one for each label"
    : `the model’s own: a logit above ${decision.threshold}`;
}

/** A score in words: 93.1 %, never a rounded 0 or 100. */
export function asPercent(score) {
  const percent = 100 * score;
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  if (percent < 0.1 && percent > 0) return "< 0.1 %";
  return `${percent.toFixed(1).replace(/\.0$/, "")} %`;
}

function scoreThreshold(decision, index) {
  if (!decision || decision.top_k) return null;
  const threshold = Array.isArray(decision.threshold)
    ? decision.threshold[index]
    : decision.threshold;
  if (decision.threshold_on === "score") return threshold;
  return decision.activation === "sigmoid" ? 1 / (1 + Math.exp(-threshold)) : null;
}
