// Buttons that take the results away: CSV, JSON, and the image with its heat map.

import { copyOnClick } from "./clipboard.js";
import { element } from "./element.js";
import { drawOverlay } from "./overlay.js";
import { asCsv, asJson, asJsonList } from "./results.js";
import { save, stemOf } from "./save.js";
import { tell } from "./toast.js";
import { t } from "./words.js";

const JSON_TYPE = "application/json";

/** Connect the buttons of the grid and of the detail view. */
export function offerDownloads({ pictures, rule, detail }) {
  const onClick = (id, act) => element(id).addEventListener("click", act);
  onClick("save-csv", () => save("results.csv", asBlob(asCsv(pictures.all, rule), "text/csv;charset=utf-8")));
  onClick("save-json", () => save("results.json", asBlob(asJsonList(pictures.all), JSON_TYPE)));
  onClick("save-answer", () => {
    const { picture } = detail;
    save(`${stemOf(picture.name)}.json`, asBlob(asJson(picture), JSON_TYPE));
  });
  onClick("save-overlay", () => saveOverlay(detail));
  copyOnClick(element("copy-json"), () => asJson(detail.picture));
}

async function saveOverlay({ picture, chosen }) {
  const name = [stemOf(picture.name), ...(chosen === null ? [] : [chosen])].join("-");
  try {
    save(`${name}.png`, await drawOverlay());
  } catch {
    tell(t("save.impossible")); // there is no preview, or it comes from another host
  }
}

function asBlob(text, type) {
  return new Blob([text], { type });
}
