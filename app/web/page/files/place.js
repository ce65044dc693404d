// Where a heat map is hot, in words.

import { t } from "./words.js";

const HOT = 0.5; // of the peak
const WIDE = 0.55; // share of the cells from which the hot part is "everywhere"
const [LOW, HIGH] = [0.4, 0.6]; // the middle of the image lies between

/** Describe where the values of a map are at least half of its peak, such as "mostly upper left". */
export function describePlace(map) {
  let [x, y, sum, cells, all] = [0, 0, 0, 0, 0];
  map.forEach((row, j) =>
    row.forEach((value, i) => {
      all += 1;
      if (value < HOT) return;
      cells += 1;
      sum += value;
      x += (value * (i + 0.5)) / row.length;
      y += (value * (j + 0.5)) / map.length;
    }),
  );
  if (!sum) return "";
  if (cells > WIDE * all) return t("place.everywhere");
  return t(`place.${third(y / sum, "top", "bottom")}-${third(x / sum, "left", "right")}`);
}

function third(at, low, high) {
  if (at < LOW) return low;
  return at > HIGH ? high : "middle";
}
