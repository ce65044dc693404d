// The start view: the current model, its classes and the samples.

import { isDemo, showDemoNote } from "./demo.js";
import { element } from "./element.js";
import { matches } from "./names.js";
import { explain } from "./problems.js";
import { formatNumber, t } from "./words.js";

const SEARCHED = 30; // classes from which there is a search field

/** Show the current model, or the reason if there is none. */
export function showService({ about, problem, target }) {
  element("answering").classList.toggle("bad", Boolean(problem));
  if (problem) element("answering").textContent = explain(problem).title;
  if (!about) return;
  if (!problem) element("answering").textContent = t("top.version", versionOf(about));
  showChoice(about, target);
  element("docs-link").hidden = !about.routes.some((route) => route.startsWith("/docs"));
  showLimits(about.limits);
  showDemoNote(element("home-demo"), about);
  element("home").toggleAttribute("data-demo", isDemo(about));
  element("knows").textContent = isDemo(about) ? "" : firstSentence(about.description);
  element("model-description").textContent = about.description;
  element("model-runs").textContent = t("model.runs", { ...about, ...versionOf(about) });
  element("classes-summary").textContent = t("model.classes", { count: about.classes.length });
  element("classes-search").hidden = about.classes.length < SEARCHED;
  showClasses(about.classes);
}

/** Show the classes that contain what was typed into the search field. */
export function showClasses(classes) {
  const found = classes.filter((name) => matches(name, element("classes-search").value));
  element("classes-none").hidden = found.length > 0;
  element("classes-list").replaceChildren(
    ...found.map((name) => {
      const item = document.createElement("li");
      item.textContent = name;
      return item;
    }),
  );
}

/** Show samples; `take(sample)` is called on a click. */
export function showSamples(samples, about, take) {
  element("samples").hidden = !samples.length;
  element("samples-title").dataset.t = isDemo(about) ? "samples.demo" : "samples.title";
  element("samples-title").textContent = t(element("samples-title").dataset.t);
  element("sample-list").replaceChildren(...samples.map((sample) => makeSample(sample, take)));
}

/** Place the samples first while the demo has no images to answer, and below the images otherwise. */
export function placeSamples(isFirst) {
  const place = element(isFirst ? "add" : "model");
  if (place.previousElementSibling !== element("samples")) place.before(element("samples"));
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
  image.loading = "lazy";
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
    mebibytes: Math.floor(bytes / 1024 / 1024),
    megapixels: formatNumber(pixels / 1e6, 1),
  });
}

/** Return a model and its version as words: versions are names, not numbers to be grouped. */
export function versionOf({ model, version }) {
  return { model, version: String(version) };
}

function firstSentence(text) {
  return text.match(/^.*?[.!?](?=\s|$)/)?.[0] ?? text;
}

function titleOf(name) {
  const stem = name.replace(/\.\w+$/, "").replaceAll("-", " ");
  return stem.charAt(0).toUpperCase() + stem.slice(1);
}
