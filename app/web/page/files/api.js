// Requests to the server. URLs are relative, so that the page also works under a proxy's path.

import { bodyOf, remoteOf } from "./remote.js";

const DESCRIPTION_MS = 20_000; // at most, for a description or a list
const STALL_MS = 60_000; // without any progress; longer than the server's own deadlines

/** An error answered by the server (RFC 9457), or one of the page's own if there was no answer. */
export class Problem extends Error {
  /** `numbers` is a sentence in the visitor's language, such as a size and its limit. */
  constructor({
    status = 0,
    code = "",
    detail = "",
    numbers = "",
    retryAfterS = null,
    requestId = "",
  }) {
    super(detail);
    Object.assign(this, { status, code, detail, numbers, retryAfterS, requestId });
  }
}

/** Describe the default model, or the one that the options name. Throws Problem. */
export function describe(options) {
  return readJson(`./?${new URLSearchParams(options)}`);
}

/**
 * List samples: those of the model, or those of the server that have a label of the model.
 *
 * Returns [{name, url, labels, width, height}]. Throws Problem.
 */
export async function listSamples({ model, classes }) {
  const { model: owner, samples = [] } = await readJson(`samples?${new URLSearchParams({ model })}`);
  if (owner) return samples;
  return samples.filter(({ labels }) => labels.some((label) => classes.includes(label)));
}

/** Download a sample as a File. Throws Problem. */
export async function openSample({ name, url }) {
  const response = await ask(url, {});
  return new File([await response.blob()], name, { type: response.headers.get("Content-Type") });
}

/**
 * Classify an image. XMLHttpRequest reports upload progress; fetch does not.
 *
 * Returns {answer, elapsedMs}: the answer's JSON, and the duration as seen by the browser.
 * Throws Problem, with the code "stalled" if nothing moves for a minute; an aborted request throws the
 * signal's reason.
 */
export function predict(file, options, { onUpload = () => {}, signal } = {}) {
  const request = new XMLHttpRequest();
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const watch = watchProgress(() => {
      reject(new Problem({ code: "stalled" }));
      request.abort();
    });
    request.open("POST", "predict");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      watch.restart();
      onUpload(loaded / total);
    });
    request.addEventListener("loadend", watch.stop);
    request.addEventListener("load", () => {
      const elapsedMs = performance.now() - started;
      const header = (name) => request.getResponseHeader(name);
      const body = parse(request.responseText);
      if (request.status === 200 && body?.images) resolve({ answer: body, elapsedMs });
      else reject(readProblem(request.status, header, body));
    });
    request.addEventListener("error", () => reject(noAnswer()));
    request.addEventListener("abort", () => reject(signal?.reason));
    signal?.addEventListener("abort", () => request.abort());
    if (remoteOf(file)) {
      request.setRequestHeader("Content-Type", "application/json");
      request.send(JSON.stringify(bodyOf(remoteOf(file), options)));
    } else {
      request.send(makeForm(file, options));
    }
  });
}

function makeForm(file, options) {
  const form = new FormData();
  form.append("image", file, file.name);
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  return form;
}

/** Call `stall` once nothing has moved for STALL_MS. */
function watchProgress(stall) {
  let timer = setTimeout(stall, STALL_MS);
  return {
    stop: () => clearTimeout(timer),
    restart: () => {
      clearTimeout(timer);
      timer = setTimeout(stall, STALL_MS);
    },
  };
}

async function readJson(url) {
  const response = await ask(url, {
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(DESCRIPTION_MS),
  });
  const body = parse(await response.text());
  if (body === null) throw readProblem(response.status, (name) => response.headers.get(name), null);
  return body;
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw noAnswer();
  }
  if (response.ok) return response;
  throw readProblem(
    response.status,
    (name) => response.headers.get(name),
    parse(await response.text()),
  );
}

function readProblem(status, header, body) {
  const retryAfter = Number.parseInt(header("Retry-After"), 10);
  return new Problem({
    status,
    code: status === 200 ? "foreign_answer" : body?.code, // such as the sign-in page of a network
    detail: body?.detail ?? "",
    retryAfterS: Number.isNaN(retryAfter) ? null : retryAfter,
    requestId: header("X-Request-ID") ?? "",
  });
}

function noAnswer() {
  return new Problem({ code: navigator.onLine ? "no_answer" : "offline" });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
