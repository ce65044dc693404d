// Connects the parts of the page: sources of images, sender, grid, detail view, history and keyboard.

import { announce } from "./announcer.js";
import { listSamples, openSample, Problem } from "./api.js";
import { isDemo, showDemoNote } from "./demo.js";
import { Detail } from "./detail.js";
import { element } from "./element.js";
import { Features } from "./features.js";
import { Gallery } from "./gallery.js";
import { Outage } from "./outage.js";
import { Pictures } from "./pictures.js";
import { explain } from "./problems.js";
import { Rule } from "./rule.js";
import { Sender } from "./sender.js";
import { Service } from "./service.js";
import { listen } from "./sources.js";
import { Threshold } from "./threshold.js";
import { placeSamples, showClasses, showSamples, showService } from "./welcome.js";
import { onLanguageChange, t } from "./words.js";

const NAME = document.title;
const pictures = new Pictures();
const service = new Service();
const outage = new Outage(service);
const sender = new Sender(pictures, service);
const rule = new Rule();
const detail = new Detail({ pictures, service, sender, rule });
const gallery = new Gallery(
  { pictures, service, rule },
  { open: visit, retry: (picture) => sender.send(picture) },
);
const aboutOf = (picture) => service.of(picture?.answer?.model ?? {}) ?? service.about;
const controls = ["gallery-threshold", "detail-threshold"].map(
  (id) => new Threshold(element(id), rule, () => aboutOf(detail.picture)?.rule),
);
const features = new Features({ pictures, service, rule, detail, take });
let sampledFor = ""; // the model for which the samples are shown

/** Add files; open a single one, show several as a grid. */
function take(files, sample = null) {
  const added = pictures.add(files, sample);
  gallery.refresh();
  if (added.length === 1) visit(added[0]);
  else if (detail.picture) history.back();
  else element("gallery").scrollIntoView({ block: "start" });
}

/** Open an image such that the browser's Back button closes it. */
function visit(picture) {
  const state = { picture: picture.id };
  if (detail.picture) history.replaceState(state, "");
  else history.pushState(state, "");
  show(picture);
}

function show(picture) {
  const before = detail.picture;
  element("home").hidden = Boolean(picture);
  detail.open(picture ?? null);
  features.show(picture ?? null);
  controls.forEach((control) => control.show());
  showTitle();
  if (picture) {
    showPager(picture);
    showNote();
    window.scrollTo(0, 0);
    element("detail-name").focus({ preventScroll: true });
  } else if (before) {
    gallery.focus(before);
  }
}

function showCount() {
  showTitle();
  placeSamples(isDemo(service.about) && !pictures.all.length);
}

function showTitle() {
  const { picture } = detail;
  const count = pictures.all.length;
  const words = picture ? picture.name : count ? t("gallery.title", { count }) : "";
  document.title = words ? `${words} – ${NAME}` : NAME;
}

/** Say that the demo does not know the open image, unless it is a sample. */
function showNote() {
  const { picture } = detail;
  const isAnswered = picture?.state === "done";
  showDemoNote(element("detail-demo"), isAnswered && !picture.sample && aboutOf(picture));
}

function showPager(picture) {
  const isAlone = pictures.all.length < 2;
  const list = gallery.shown.includes(picture) ? gallery.shown : pictures.all;
  element("back-words").textContent = t(isAlone ? "detail.back" : "detail.all");
  element("pager").hidden = isAlone;
  element("position").textContent = t("detail.position", {
    place: list.indexOf(picture) + 1,
    count: list.length,
  });
}

function step(places) {
  if (detail.picture && pictures.all.length > 1) visit(gallery.neighbor(detail.picture, places));
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (!detail.picture || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") history.back();
    if (event.target.matches("input, select, textarea, pre")) return; // these use the arrow keys themselves
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

/** Look whether the server is there after an image has failed for want of it. */
function checkService({ detail: { state, problem } }) {
  const isMissing = state === "failed" && ["no_answer", "offline", "not_ready"].includes(problem.code);
  if (isMissing && !service.problem) service.start();
}

/** Announce results to screen readers: of one image its labels, of several the counts when all are done. */
function announceResult({ detail: picture }) {
  if (!["done", "failed"].includes(picture.state)) return;
  if (picture === detail.picture) {
    showNote();
    const outcome = picture.state === "done" ? detail.words : explain(picture.problem).title;
    announce(t("announce.one", { name: picture.name, outcome }));
  } else if (!pictures.count("waiting", "sending")) {
    const failed = pictures.count("failed");
    const count = pictures.count("done");
    announce(t(failed ? "announce.some" : "announce.all", { count, failed }));
  }
}

async function openSamples() {
  const { about } = service;
  sampledFor = about.model;
  const takeSample = async (sample) => take([await openSample(sample)], sample.url);
  try {
    const samples = await listSamples(about);
    showSamples(samples, about, takeSample);
    features.followLink(samples, takeSample);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // the page works without samples
  }
  element("home").dataset.service = "ready"; // after the samples, so that nothing moves
}

function showAll() {
  showService(service);
  showCount();
  outage.show();
  controls.forEach((control) => control.show());
}

history.replaceState(null, "", location.pathname); // images have other ids after a reload
window.addEventListener("popstate", ({ state }) => show(pictures.find(state?.picture)));
pictures.addEventListener("change", announceResult);
pictures.addEventListener("change", checkService);
pictures.addEventListener("add", ({ detail: picture }) => {
  if (picture.state === "waiting") sender.send(picture);
});
pictures.addEventListener("add", () => detail.picture && showPager(detail.picture));
for (const event of ["add", "remove"]) pictures.addEventListener(event, showCount);
element("back").addEventListener("click", () => history.back());
element("another").addEventListener("click", () => element("choose-input").click());
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("classes-search").addEventListener("input", () => showClasses(service.about.classes));
listen(take, service);
listenToKeys();
onLanguageChange(() => {
  showAll();
  gallery.translate();
  detail.translate();
  showTitle();
  if (detail.picture) showPager(detail.picture);
});
service.addEventListener("change", () => {
  showAll();
  if (service.about && service.about.model !== sampledFor) openSamples();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) service.start(); // versions may have changed in the meantime
});
element("model-choice").addEventListener("change", async ({ target }) => {
  await service.choose(JSON.parse(target.value));
  pictures.all.forEach((picture) => sender.send(picture));
});
service.start();
