// Files that exist on this page only: pasted, photographed or converted.

const files = new WeakSet();
let pasted = 0;

/** Note that a file lies nowhere on the visitor's disk; return it. */
export function markUnsaved(file) {
  files.add(file);
  return file;
}

/** Return whether a file lies nowhere on the visitor's disk. */
export function isUnsaved(file) {
  return files.has(file);
}

/** Name a pasted image: browsers call each of them image.png. */
export function namePasted(file) {
  if (file.name !== "image.png") return file; // copied in a file manager
  pasted += 1;
  return markUnsaved(new File([file], `pasted-${pasted}.png`, { type: file.type }));
}
