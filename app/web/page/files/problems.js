// Error messages: a title and advice by the error's code. The server's own message is shown on request.

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

/** Return {title, advice, detail, meta} for a Problem; detail and meta are for experts and may be empty. */
export function explain(problem) {
  const { status, requestId, detail } = problem;
  const code = kindOf(problem);
  const meta = [status || "", problem.code, requestId && t("problem.request", { id: requestId })];
  return {
    title: t(`problem.${code}.title`),
    advice: [problem.numbers, t(`problem.${code}.advice`)].filter(Boolean).join(" "),
    detail: asSentence(detail),
    meta: meta.filter(Boolean).join(" · "),
  };
}

/** Return the part of the keys that stands for a problem. */
function kindOf({ code, status, isDamage }) {
  if (isDamage) return "damaged_image";
  return hasWords(`problem.${code}.title`) ? code : (BY_STATUS[status] ?? "internal_error");
}

function asSentence(text) {
  if (!text) return "";
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
