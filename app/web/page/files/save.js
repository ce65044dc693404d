// Saves text and images as files of the visitor.

const KEPT_MS = 60_000; // until the browser has certainly read the content

/** Download a Blob under a file name. */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}

/** Return a file name without its suffix. */
export function stemOf(name) {
  return name.replace(/\.[^./\\]+$/, "") || name;
}
