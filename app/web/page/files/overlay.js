// The enlarged image with its heat map, as a PNG.

import { element } from "./element.js";

const MOST_PIXELS = 16e6; // Safari's canvases hold no more

/** Return what the stage shows as a PNG, in the resolution of the image. Throws an error without a preview. */
export function drawOverlay() {
  const [photo, heat, box] = ["photo", "heat", "picture"].map(element);
  const { width: shownWidth, height: shownHeight } = box.getBoundingClientRect();
  const { naturalWidth: width, naturalHeight: height } = photo;
  if (!width || !height) throw new Error("there is no preview");
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#ffffff"; // under transparent images, as on the page
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.filter = getComputedStyle(photo).filter; // grays under a heat map
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  const [across, down] = [canvas.width / shownWidth, canvas.height / shownHeight];
  context.globalAlpha = Number(getComputedStyle(heat).opacity);
  context.drawImage(
    heat,
    heat.offsetLeft * across,
    heat.offsetTop * down,
    heat.offsetWidth * across,
    heat.offsetHeight * down,
  );
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
