// Converts images that the browser reads and the server does not, such as HEIC and AVIF.

import { remoteOf } from "./remote.js";
import { stemOf } from "./save.js";
import { markUnsaved } from "./unsaved.js";

// The beginnings of the formats that the server reads: JPEG, PNG, GIF, BMP, WebP.
const READ_BY_SERVER = [/^\xff\xd8\xff/, /^\x89PNG\r\n\x1a\n/, /^GIF8/, /^BM/, /^RIFF.{4}WEBP/s];
const BEGINNING = 12; // bytes
const QUALITY = 0.95;
const SIDE_OF_DRAWINGS = 1024; // px, of SVG files without a size
const NAMES = { "svg+xml": "SVG", "vnd.microsoft.icon": "ICO", "x-icon": "ICO" };

/**
 * Return the file to send: the given one, or a JPEG that the browser made of it.
 *
 * Images become upright; transparent ones are put on white, as on the server. A file that the browser cannot read
 * either is returned as it is: the server's error is the better one.
 */
export async function convert(file) {
  if (remoteOf(file) || (await isReadByServer(file))) return file;
  const blob = await redraw(file);
  if (!blob) return file;
  const name = `${stemOf(file.name)}.jpg`;
  return markUnsaved(new File([blob], name, { type: blob.type, lastModified: file.lastModified }));
}

/** Return whether a file begins like one of the formats that the server reads. */
export async function isReadByServer(file) {
  const bytes = new Uint8Array(await file.slice(0, BEGINNING).arrayBuffer());
  return READ_BY_SERVER.some((format) => format.test(String.fromCharCode(...bytes)));
}

/** Return the name of a file's format: "AVIF". */
export function formatOf({ name, type }) {
  const subtype = type.startsWith("image/") ? type.slice("image/".length) : name.split(".").at(-1);
  return NAMES[subtype] ?? subtype.toUpperCase();
}

/** Return an image file as a JPEG; null if the browser cannot read it. */
async function redraw(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth || SIDE_OF_DRAWINGS;
    canvas.height = image.naturalHeight || SIDE_OF_DRAWINGS;
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(image.src);
  }
}
