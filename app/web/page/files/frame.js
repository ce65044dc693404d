// Which part of an image the network sees: its orientation and crop.

/**
 * Return the part of an image that reaches the network, as fractions of its width and height.
 *
 * `frame` is the model's: {side, resize}. Without `resize` it is the whole image; otherwise the shorter side is
 * resized to `resize` pixels and the center `side` × `side` is cropped (app/processing/images.py).
 */
export function seenPart(width, height, frame) {
  if (!frame?.resize) return { left: 0, top: 0, width: 1, height: 1 };
  const scale = frame.resize / Math.min(width, height);
  const [across, down] = [frame.side / (width * scale), frame.side / (height * scale)];
  return { left: (1 - across) / 2, top: (1 - down) / 2, width: across, height: down };
}

/** Return a JPEG's EXIF orientation, 1 to 8; 1 (upright) if there is none. */
export async function readOrientation(file) {
  const view = new DataView(await file.slice(0, 128 * 1024).arrayBuffer());
  try {
    if (view.getUint16(0) !== 0xffd8) return 1;
    for (let at = 2; view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
      if (view.getUint16(at) === 0xffe1 && view.getUint32(at + 4) === 0x45786966) {
        return findOrientation(view, at + 10);
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the file ends too early
  }
  return 1;
}

/** Find the orientation in the first directory of a TIFF header. */
function findOrientation(view, start) {
  const isLittle = view.getUint16(start) === 0x4949;
  const directory = start + view.getUint32(start + 4, isLittle);
  const count = view.getUint16(directory, isLittle);
  for (let entry = directory + 2; entry < directory + 2 + 12 * count; entry += 12) {
    if (view.getUint16(entry, isLittle) === 0x0112) return view.getUint16(entry + 8, isLittle);
  }
  return 1;
}
