// The files of a drop, including those in folders.

const IMAGES = /\.(avif|bmp|gif|heic|heif|ico|jfif|jpe?g|jxl|png|svg|tiff?|webp)$/i;

/**
 * Open what was dropped. Must be called before the event's handler returns: the drop is empty afterwards.
 *
 * Returns {files, skipped}: the images in the order of their names, and how many other files the folders have. Files
 * that were not dropped in a folder are kept, whatever they are, because the visitor chose them one by one.
 */
export async function openDrop(transfer) {
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return { files, skipped: 0 };
  const found = (await Promise.all(entries.map(openEntry))).flat();
  const visible = found.filter(({ file }) => !file.name.startsWith("."));
  const images = visible.filter(({ file }) => isImage(file)).sort(byPath);
  return { files: images.map(({ file }) => file), skipped: visible.length - images.length };
}

function isImage({ name, type }) {
  return type.startsWith("image/") || IMAGES.test(name);
}

function byPath(one, other) {
  return one.path.localeCompare(other.path, undefined, { numeric: true });
}

async function openEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath, file }];
  }
  const reader = entry.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break; // browsers return at most a hundred at a time
    entries.push(...some);
  }
  return (await Promise.all(entries.map(openEntry))).flat();
}
