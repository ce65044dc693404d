// Connects what the page offers beyond answers: downloads, code, comparison, camera, kept images, links.

import { Calls } from "./calls.js";
import { Camera } from "./camera.js";
import { Compare } from "./compare.js";
import { offerDownloads } from "./downloads.js";
import { element } from "./element.js";
import { Link } from "./link.js";
import { Memory } from "./memory.js";
import { formatList, onLanguageChange, t } from "./words.js";

export class Features {
  #calls;
  #compare;
  #link;

  /** `parts` are those of main.js. */
  constructor(parts) {
    const { pictures, service, detail } = parts;
    this.#calls = new Calls(parts);
    new Camera(parts);
    new Memory(parts);
    this.#compare = new Compare(parts);
    this.#link = new Link(parts);
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
    element("origin").hidden = !picture?.converted && !picture?.isCopy;
    if (picture?.isCopy) element("origin").textContent = t("detail.copy");
    else if (picture?.converted) {
      element("origin").textContent = t("detail.converted", { format: picture.converted });
    }
    this.#link.write();
  }

  /** Open the sample that the page's address names; `takeSample(sample)` opens one. */
  followLink(samples, takeSample) {
    return this.#link.follow(samples, takeSample);
  }
}

/** Name the hosts whose images the server fetches. */
function showHosts({ about }) {
  const hosts = about?.url_hosts ?? [];
  element("url-hosts").hidden = !hosts.length;
  element("url-hosts").textContent = t("add.url.hosts", { hosts: formatList(hosts) });
}
