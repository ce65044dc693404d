// Requests to the server. URLs are relative, so that the page also works under a proxy's path.

import { bodyOf, remoteOf } from "./remote.js";

/** An error answered by the server (RFC 9457), or one of the page's own if there was no answer. */
export class Problem extends Error {
  constructor({ status = 0, code = "", detail = "", retryAfterS = null, requestId = "" }) {
    super(detail);
    Object.assign(this, { status, code, detail, retryAfterS, requestId });
  }
}

/** Describe the default model, or the one that the options name. Throws Problem. */
export function describe(options) {
  return readJson(`./?${new URLSearchParams(options)}`);
}

/** List the samples: [{name, url, labels, width, height}]. Throws Problem. */
export async function listSamples() {
  return (await readJson("samples")).samples;
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
 * Throws Problem; an aborted request throws the signal's reason.
 */
export function predict(file, options, { onUpload = () => {}, signal } = {}) {
  const request = new XMLHttpRequest();
  const started = performance.now();
  return new Promise((resolve, reject) => {
    request.open("POST", "predict");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", ({ loaded, total }) => onUpload(loaded / total));
    request.addEventListener("load", () => {
      const elapsedMs = performance.now() - started;
      const header = (name) => request.getResponseHeader(name);
      const body = parse(request.responseText);
      if (request.status === 200 && body?.images) resolve({ answer: body, elapsedMs });
      else reject(readProblem(request.status, header, body));
    });
    request.addEventListener("error", () => reject(noAnswer()));
    request.addEventListener("abort", () => reject(signal.reason));
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

async function readJson(url) {
  const response = await ask(url, { headers: { Accept: "application/json" } });
  return response.json();
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
    code: body?.code,
    detail: body?.detail ?? `the server answered with status ${status} and no details`,
    retryAfterS: Number.isNaN(retryAfter) ? null : retryAfter,
    requestId: header("X-Request-ID") ?? "",
  });
}

function noAnswer() {
  return new Problem(
    navigator.onLine
      ? { code: "no_answer", detail: "could not connect to the server" }
      : { code: "offline", detail: "this device has no network connection" },
  );
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
