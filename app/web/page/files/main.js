// Connects the parts of the page: sources of images, sender, grid, detail view, history and keyboard.

import { listSamples, openSample, Problem } from "./api.js";
import { Detail, inWords } from "./detail.js";
import { element } from "./element.js";
import { Features } from "./features.js";
import { Gallery } from "./gallery.js";
import { Pictures } from "./pictures.js";
import { explain } from "./problems.js";
import { Rule } from "./rule.js";
import { Sender } from "./sender.js";
import { Service } from "./service.js";
import { listen } from "./sources.js";
import { Threshold } from "./threshold.js";
import { showSamples, showService } from "./welcome.js";
import { onLanguageChange, t } from "./words.js";

const pictures = new Pictures();
const service = new Service();
const sender = new Sender(pictures, service);
const rule = new Rule();
const detail = new Detail({ pictures, service, sender, rule });
const gallery = new Gallery(pictures, rule, {
  open: visit,
  retry: (picture) => sender.send(picture),
});
const answeringRule = () =>
  (service.of(detail.picture?.answer?.model ?? {}) ?? service.about)?.rule;
const sliders = ["gallery-threshold", "detail-threshold"].map(
  (id) => new Threshold(element(id), rule, answeringRule),
);
const features = new Features({ pictures, service, rule, detail, take });
let sampledFor = ""; // the model for which the samples are shown

/** Add files; open a single one, show several as a grid. */
function take(files, sample = null) {
  const added = pictures.add(files, sample);
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
  sliders.forEach((slider) => slider.show());
  if (picture) {
    showPager(picture);
    window.scrollTo(0, 0);
    element("detail-name").focus({ preventScroll: true });
  } else if (before) {
    gallery.focus(before);
  }
}

function showPager(picture) {
  const { all } = pictures;
  element("back-words").textContent = t(all.length > 1 ? "detail.all" : "detail.another");
  element("pager").hidden = all.length < 2;
  element("position").textContent = t("detail.position", {
    place: all.indexOf(picture) + 1,
    count: all.length,
  });
}

function step(places) {
  if (detail.picture && pictures.all.length > 1) visit(pictures.neighbor(detail.picture, places));
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (!detail.picture || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      if (detail.chosen === null) history.back();
      else detail.choose(null);
    }
    if (event.target.matches("input, select, textarea, pre")) return; // these use the arrow keys themselves
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

/** Announce results to screen readers: of one image its labels, of several the counts when all are done. */
function announce({ detail: picture }) {
  if (!["done", "failed"].includes(picture.state)) return;
  const isAlone = picture === detail.picture || pictures.all.length === 1;
  if (isAlone) {
    const words = { name: picture.name, outcome: outcome(picture) };
    element("announcer").textContent = t("announce.one", words);
  } else if (!pictures.count("waiting", "sending")) {
    const failed = pictures.count("failed");
    element("announcer").textContent = t(failed ? "announce.some" : "announce.all", {
      count: pictures.count("done"),
      failed,
    });
  }
}

function outcome(picture) {
  if (picture.state === "failed") return explain(picture.problem).title;
  return inWords(rule.passing(picture).map(({ label }) => label)) || t("detail.nothing");
}

async function openSamples() {
  sampledFor = service.about.model;
  const takeSample = async (sample) => take([await openSample(sample)], sample.url);
  try {
    const samples = await listSamples();
    showSamples(samples, service.about, takeSample);
    features.followLink(samples, takeSample);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // the page works without samples
  }
  element("model").hidden = false; // after the samples, so that nothing moves
}

history.replaceState(null, "", location.pathname); // images have other ids after a reload
window.addEventListener("popstate", ({ state }) => show(pictures.find(state?.picture)));
pictures.addEventListener("change", announce);
pictures.addEventListener("add", ({ detail: picture }) => {
  if (picture.state === "waiting") sender.send(picture);
});
pictures.addEventListener("add", () => detail.picture && showPager(detail.picture));
element("back").addEventListener("click", () => history.back());
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
listen(take, service);
listenToKeys();
onLanguageChange(() => {
  if (service.about || service.problem) showService(service);
  sliders.forEach((slider) => slider.show());
  gallery.translate();
  detail.translate();
  if (detail.picture) showPager(detail.picture);
});
service.addEventListener("change", () => {
  showService(service);
  sliders.forEach((slider) => slider.show());
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
