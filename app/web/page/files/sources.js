// Sources of images: drag and drop, clipboard, file chooser, camera.

import { openDrop } from "./album.js";
import { element } from "./element.js";
import { tell } from "./toast.js";
import { namePasted } from "./unsaved.js";
import { t } from "./words.js";

/** Call `take(files)` with files from any source. */
export function listen(take) {
  listenToButton("choose", "choose-input", take);
  listenToButton("photograph", "photograph-input", take);
  listenToClipboard(take);
  listenToDrops(take);
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

function listenToClipboard(take) {
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    take(files.map(namePasted));
  });
}

function listenToDrops(take) {
  const cover = element("drop-cover");
  let depth = 0; // each crossed element fires enter and leave
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const show = (isOver) => cover.classList.toggle("over", isOver);

  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    show(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    show(depth > 0);
  });
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // otherwise the browser opens the file
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const { files, skipped } = await openDrop(event.dataTransfer);
    if (skipped) tell(t("add.skipped", { count: skipped }));
    if (files.length) take(files);
  });
}
