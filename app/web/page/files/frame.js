// Which part of an image the network sees.

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
