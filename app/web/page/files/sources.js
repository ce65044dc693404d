// Sources of images: drag and drop, clipboard, file chooser, camera.

import { element } from "./element.js";

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
    take(files);
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
    const files = await openAll(event.dataTransfer);
    if (files.length) take(files);
  });
}

/** Return the files of a drop, including those in folders, except hidden ones. */
async function openAll(transfer) {
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return files;
  const found = await Promise.all(entries.filter(Boolean).map(openEntry));
  return found.flat().filter((file) => !file.name.startsWith("."));
}

async function openEntry(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break; // browsers return at most a hundred at a time
    entries.push(...some);
  }
  return (await Promise.all(entries.map(openEntry))).flat();
}
