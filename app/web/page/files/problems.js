// Error messages: a title and advice by the error's code. The server's own message is shown between them.

import { hasWords, t } from "./words.js";

const BY_STATUS = {
  400: "unreadable_image",
  401: "unauthorized",
  403: "forbidden",
  413: "body_too_large",
  415: "unsupported_type",
  429: "queue_full",
  502: "not_ready",
  503: "not_ready",
  504: "deadline_passed",
};

/** Return whether a retry can succeed: the image is not the cause. */
export function isTemporary({ status, code }) {
  const isPermanent = code === "body_too_large" || code === "quarantined";
  return !isPermanent && (status < 400 || status === 429 || status >= 500);
}

/** Return {title, detail, advice, meta} for a Problem. */
export function explain(problem) {
  const { status, requestId, detail } = problem;
  const isKnown = hasWords(`problem.${problem.code}.title`);
  const code = isKnown ? problem.code : (BY_STATUS[status] ?? "internal_error");
  const meta = [status || "", problem.code, requestId && t("problem.request", { id: requestId })];
  return {
    title: t(`problem.${code}.title`),
    detail: asSentence(detail),
    advice: t(`problem.${code}.advice`),
    meta: meta.filter(Boolean).join(" · "),
  };
}

function asSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
