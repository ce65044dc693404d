// Sources of images: drag and drop, clipboard, file chooser, camera.

import { openDrop } from "./album.js";
import { element } from "./element.js";
import { makeRemote, readUrl } from "./remote.js";
import { tell } from "./toast.js";
import { namePasted } from "./unsaved.js";
import { t } from "./words.js";

/** Call `take(files)` with files from any source, and with URLs if the server that `service` describes fetches them. */
export function listen(take, service) {
  const takeText = (text) => {
    const url = readUrl(text);
    if (url && service.about?.url_hosts.length) take([makeRemote(url)]);
    else tell(t(url ? "add.url.off" : "add.text"));
  };

  listenToButton("choose", "choose-input", take);
  listenToButton("photograph", "photograph-input", take);
  listenToClipboard(take, takeText);
  listenToDrops(take, takeText);
}

function listenToButton(buttonId, inputId, take) {
  const input = element(inputId);
  element(buttonId).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) take(files);
  });
}

function listenToClipboard(take, takeText) {
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input, textarea")) return;
    const files = [...event.clipboardData.files];
    event.preventDefault();
    if (files.length) take(files.map(namePasted));
    else takeText(event.clipboardData.getData("text/plain"));
  });
}

function listenToDrops(take, takeText) {
  const cover = element("drop-cover");
  let depth = 0; // each crossed element fires enter and leave
  const isOurs = ({ dataTransfer: { types } }) =>
    types.includes("Files") || types.includes("text/uri-list");
  const show = (isOver) => cover.classList.toggle("over", isOver);

  document.addEventListener("dragenter", (event) => {
    if (!isOurs(event)) return;
    depth += 1;
    show(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!isOurs(event)) return;
    depth = Math.max(0, depth - 1);
    show(depth > 0);
  });
  document.addEventListener("dragover", (event) => {
    if (!isOurs(event)) return;
    event.preventDefault(); // otherwise the browser opens the file
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", async (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const url = event.dataTransfer.files.length ? "" : event.dataTransfer.getData("text/uri-list");
    const { files, skipped } = await openDrop(event.dataTransfer);
    if (url) return takeText(url);
    if (skipped) tell(t("add.skipped", { count: skipped }));
    if (files.length) take(files);
  });
}
