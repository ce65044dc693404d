// Connects what the page offers beyond answers: downloads, code, comparison, camera, kept images, links.

import { Calls } from "./calls.js";
import { Camera } from "./camera.js";
import { Compare } from "./compare.js";
import { offerDownloads } from "./downloads.js";
import { element } from "./element.js";
import { formatList, onLanguageChange, t } from "./words.js";

export class Features {
  #calls;
  #compare;

  /** `parts` are those of main.js. */
  constructor(parts) {
    const { pictures, service, detail } = parts;
    this.#calls = new Calls(parts);
    new Camera(parts);
    this.#compare = new Compare(parts);
    offerDownloads(parts);
    pictures.addEventListener("change", ({ detail: picture }) => {
      if (picture === detail.picture) this.show(picture);
    });
    service.addEventListener("change", () => showHosts(service));
    onLanguageChange(() => showHosts(service));
    onLanguageChange(() => this.show(detail.picture));
  }

  /** Show what belongs to the image in the detail view; null if it is closed. */
  show(picture) {
    this.#calls.show(picture);
    this.#compare.show(picture);
    element("origin").hidden = !picture?.converted;
    if (picture?.converted) {
      element("origin").textContent = t("detail.converted", { format: picture.converted });
    }
  }
}

/** Name the hosts whose images the server fetches. */
function showHosts({ about }) {
  const hosts = about?.url_hosts ?? [];
  element("url-hosts").hidden = !hosts.length;
  element("url-hosts").textContent = t("add.url.hosts", { hosts: formatList(hosts) });
}
