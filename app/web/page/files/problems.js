// Error messages: a headline and advice. The server's own message is shown between them.

const WORDS = {
  offline: ["You are offline", "The image will be sent when the connection is back."],
  no_answer: [
    "The server does not answer",
    "It may be restarting, or the connection may be down. The image is kept on this page.",
  ],
  unreadable_image: [
    "This file is not a readable image",
    "It may be corrupt, or not an image at all.",
  ],
  missing_image: ["The server received no image", "Please choose it again."],
  unsupported_type: [
    "This file type is not supported",
    "Save the image as JPEG or PNG and try again.",
  ],
  body_too_large: ["This file is too large", "Save a smaller copy and try again."],
  image_too_large: ["This image is too large", "Save a smaller copy and try again."],
  queue_full: ["The server is busy", "It has too many requests. Try again in a moment."],
  rate_limited: [
    "Too many requests",
    "The server limits requests per client. Try again in a moment.",
  ],
  not_ready: ["The model is not ready yet", "It may still be loading. Try again in a moment."],
  out_of_memory: ["The server is short of memory", "Try again in a moment."],
  quarantined: [
    "This image is blocked",
    "It crashed the server twice. Save it in another format and try again.",
  ],
  deadline_passed: [
    "The request timed out",
    "The server did not finish in time. Try again in a moment.",
  ],
  unknown_model: ["This model is no longer served", "Reload the page to see the current models."],
  no_heatmap: ["This model does not support heat maps", "Its labels are available without them."],
  unauthorized: ["This server requires an API key", "Ask its administrator."],
  forbidden: ["Access denied", "Ask the administrator of this server."],
  internal_error: [
    "Something went wrong on the server",
    "The image is not the cause. The server’s log has the reason under the request id.",
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

/** Return whether a retry can succeed: the image is not the cause. */
export function isTemporary({ status, code }) {
  const isPermanent = code === "body_too_large" || code === "quarantined";
  return !isPermanent && (status < 400 || status === 429 || status >= 500);
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
