// Draws a heat map as the server's PNG has it: colors over the image's grays, so that all color is heat.

// The colors from cold to hot and their coverage are those of app/processing/heatmap.py.
const ANCHORS = [
  [38, 12, 80],
  [110, 20, 120],
  [190, 45, 100],
  [240, 100, 60],
  [253, 175, 50],
  [252, 250, 150],
];
const COLD = 0.2;
const SHADES = makeShades();
const LONGER_SIDE = 192; // px of the canvas; the browser scales the rest

/**
 * Draw a map onto a canvas whose shape is that of `width` × `height`.
 *
 * `map` has rows of values in 0..1, the first row at the top; a value stands for the middle of its cell.
 * `strength` in 0..1 multiplies the values.
 */
export function draw(canvas, map, strength, width, height) {
  const scale = LONGER_SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const columns = weights(canvas.width, map[0].length);
  const rows = weights(canvas.height, map.length);
  let at = 0;
  for (const row of rows) {
    // Interpolate vertically first, once per row.
    const line = map[0].map((_, x) => row.reduce((sum, [y, share]) => sum + share * map[y][x], 0));
    for (const column of columns) {
      const value = strength * column.reduce((sum, [x, share]) => sum + share * line[x], 0);
      image.data.set(SHADES[Math.round(255 * Math.min(1, Math.max(0, value)))], at);
      at += 4;
    }
  }
  context.putImageData(image, 0, 0);
}

/** Return the map cells and weights of each of `count` pixels: [[cell, weight], …] (Catmull-Rom). */
function weights(count, cells) {
  return Array.from({ length: count }, (_, pixel) => {
    const at = ((pixel + 0.5) / count) * cells - 0.5;
    const first = Math.floor(at);
    return [-1, 0, 1, 2].map((step) => {
      const cell = Math.min(cells - 1, Math.max(0, first + step));
      return [cell, catmullRom(Math.abs(at - first - step))];
    });
  });
}

function catmullRom(distance) {
  if (distance < 1) return 1.5 * distance ** 3 - 2.5 * distance ** 2 + 1;
  if (distance < 2) return -0.5 * distance ** 3 + 2.5 * distance ** 2 - 4 * distance + 2;
  return 0;
}

/** Return 256 RGBA colors: cold ones hardly cover the image, hot ones hide it. */
function makeShades() {
  return Array.from({ length: 256 }, (_, index) => {
    const level = index / 255;
    const at = level * (ANCHORS.length - 1);
    const first = Math.min(Math.floor(at), ANCHORS.length - 2);
    const mix = (channel) =>
      ANCHORS[first][channel] + (at - first) * (ANCHORS[first + 1][channel] - ANCHORS[first][channel]);
    const cover = COLD + (1 - COLD) * (level ** 2 * (3 - 2 * level)) ** 0.6;
    return [mix(0), mix(1), mix(2), 255 * cover].map(Math.round);
  });
}
