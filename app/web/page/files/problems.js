// Errors in words for people: a headline, and what to do. The server's own sentence stands between them.

const WORDS = {
  offline: ["You are offline", "The picture stays here; it is sent when the network is back."],
  no_answer: [
    "The server does not answer",
    "It may be restarting, or the way to it is cut. The picture stays here.",
  ],
  unreadable_image: [
    "This file cannot be read as a picture",
    "It may be damaged, or not be a picture at all.",
  ],
  missing_image: ["No picture arrived", "Please choose it once more."],
  unsupported_type: [
    "This type of file is not read",
    "Save the picture as JPEG or PNG and try that.",
  ],
  body_too_large: ["This file is too large", "Save the picture smaller and try that."],
  image_too_large: ["This picture is too large", "Save the picture smaller and try that."],
  queue_full: ["The server is busy", "Many people are asking at once. Try again in a moment."],
  rate_limited: [
    "That was too fast",
    "The server takes so many requests at a time. Try again in a moment.",
  ],
  not_ready: ["The model is not ready yet", "It may still be loading. Try again in a moment."],
  out_of_memory: ["The server is short of memory", "Try again in a moment."],
  quarantined: [
    "This picture is not taken any more",
    "It crashed the server twice. Save it anew, in another format, and try that.",
  ],
  deadline_passed: [
    "It took too long",
    "The server gave up on this picture. Try again in a moment.",
  ],
  unknown_model: ["This model is not served any more", "Load the page again to see what is."],
  no_heatmap: ["This model has no heat maps", "It tells what is in a picture, but not where."],
  unauthorized: ["The server wants a key", "Ask whoever runs it."],
  forbidden: ["The server does not let you in", "Ask whoever runs it."],
  internal_error: [
    "Something went wrong on the server",
    "It is not your picture’s fault. The log has the reason under the request’s number.",
  ],
};
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

/** Tell whether the same picture may be answered another time: the fault is not the picture's. */
export function mayPass({ status, code }) {
  const isItsOwn = code === "body_too_large" || code === "quarantined";
  return !isItsOwn && (status < 400 || status === 429 || status >= 500);
}

/** Return {headline, detail, advice, meta} for a Problem. */
export function explain(problem) {
  const [headline, advice] =
    WORDS[problem.code] ?? WORDS[BY_STATUS[problem.status]] ?? WORDS.internal_error;
  const meta = [
    problem.status || "",
    problem.code,
    problem.requestId && `request ${problem.requestId}`,
  ];
  return {
    headline,
    detail: asSentence(problem.detail),
    advice,
    meta: meta.filter(Boolean).join(" · "),
  };
}

function asSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
