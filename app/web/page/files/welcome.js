// The start view: the current model, its classes and the samples.

import { element } from "./element.js";
import { explain } from "./problems.js";
import { t } from "./words.js";

const MOST_LABELS = 200; // at most this many names are listed

/** Show the current model, or the reason if there is none. */
export function showService({ about, problem, target }) {
  element("answering").classList.toggle("bad", !about);
  if (!about) {
    element("answering").textContent = explain(problem).title;
    return;
  }
  element("answering").textContent = t("top.version", versionOf(about));
  showChoice(about, target);
  element("docs-link").hidden = !about.routes.some((route) => route.startsWith("/docs"));
  // Images are displayed as the server decodes them: as stored, or rotated by their EXIF tag.
  const orientation = about.exif_rotate ? "from-image" : "none";
  document.documentElement.style.setProperty("--orientation", orientation);
  showLimits(about.limits);
  element("knows").hidden = !about.description;
  element("knows").textContent = firstSentence(about.description);
  element("model-description").textContent = about.description;
  element("model-runs").textContent =
    t("model.runs", { ...about, ...versionOf(about) });
  showClasses(about.classes);
}

/** Show the samples whose labels the model knows; `take(sample)` is called on a click. */
export function showSamples(samples, { classes }, take) {
  const known = new Set(classes);
  const fitting = samples.filter(({ labels }) => labels.some((label) => known.has(label)));
  element("samples").hidden = !fitting.length;
  element("sample-list").replaceChildren(...fitting.map((sample) => makeSample(sample, take)));
}

function makeSample(sample, take) {
  const item = document.createElement("li");
  item.style.setProperty("--shape", sample.width / sample.height);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sample";
  const image = document.createElement("img");
  image.src = sample.url;
  image.alt = "";
  const name = document.createElement("span");
  name.textContent = titleOf(sample.name);
  button.title = sample.labels.join(", ");
  button.append(image, name);
  button.addEventListener("click", () => take(sample));
  item.append(button);
  return item;
}

/** Show the list of models and versions if there are several. */
function showChoice({ model: answering, models }, target) {
  const targets = Object.entries(models).flatMap(([model, versions]) => [
    { model },
    ...(versions.length > 1 ? versions.map((version) => ({ model, version })) : []),
  ]);
  const chosen = JSON.stringify(target.model ? target : { model: answering });
  element("model-choice").hidden = targets.length < 2;
  element("answering").hidden = targets.length > 1;
  element("model-choice").replaceChildren(
    ...targets.map((each) => {
      const value = JSON.stringify(each);
      const words = each.version ? t("top.choice", versionOf(each)) : each.model;
      return new Option(words, value, false, value === chosen);
    }),
  );
}

function showLimits({ max_body_bytes: bytes, max_pixels: pixels }) {
  element("limits").textContent = t("add.limits", {
    megabytes: Math.floor(bytes / 1024 / 1024),
    megapixels: Math.floor(pixels / 1e6),
  });
}

function showClasses(classes) {
  element("classes").querySelector("summary").textContent = t("model.classes", {
    count: classes.length,
  });
  const names = classes.slice(0, MOST_LABELS);
  if (classes.length > MOST_LABELS) names.push("…");
  element("classes")
    .querySelector("ul")
    .replaceChildren(
      ...names.map((name) => {
        const item = document.createElement("li");
        item.textContent = name;
        return item;
      }),
    );
}

/** Return a model and its version as words: versions are names, not numbers to be grouped. */
export function versionOf({ model, version }) {
  return { model, version: String(version) };
}

/** Return the first sentence of a text. */
export function firstSentence(text) {
  return text.match(/^.*?[.!?](?=\s|$)/)?.[0] ?? text;
}

function titleOf(name) {
  const stem = name.replace(/\.\w+$/, "").replaceAll("-", " ");
  return stem.charAt(0).toUpperCase() + stem.slice(1);
}
