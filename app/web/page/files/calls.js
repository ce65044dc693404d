// The request of the image in the detail view as code: curl, Python, JavaScript.

import { copyOnClick } from "./clipboard.js";
import { curlLine } from "./curl.js";
import { element } from "./element.js";
import { remoteOf } from "./remote.js";
import { save } from "./save.js";
import { asJavaScript, asPython } from "./snippets.js";
import { isUnsaved } from "./unsaved.js";
import { t } from "./words.js";

const LANGUAGES = { curl: curlLine, Python: asPython, JavaScript: asJavaScript };

export class Calls {
  #rule;
  #tabs;
  #language = "curl";
  #picture = null;

  constructor({ rule }) {
    this.#rule = rule;
    this.#tabs = Object.keys(LANGUAGES).map((language) => this.#makeTab(language));
    element("call-tabs").append(...this.#tabs);
    element("call-tabs").addEventListener("keydown", (event) => this.#walk(event));
    copyOnClick(element("copy"), () => element("call").textContent);
    element("save-file").addEventListener("click", () => {
      save(this.#picture.file.name, this.#picture.file);
    });
    rule.addEventListener("change", () => this.show(this.#picture));
  }

  /** Show the request of an answered image; other images have none. */
  show(picture) {
    this.#picture = picture;
    if (picture?.state !== "done") return;
    const request = describeRequest(picture, this.#rule);
    element("call").textContent = LANGUAGES[this.#language](request);
    for (const tab of this.#tabs) {
      const isChosen = tab.textContent === this.#language;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
      if (isChosen) element("call-panel").setAttribute("aria-labelledby", tab.id);
    }
    element("call-unsaved").hidden = !isUnsaved(picture.file);
    element("call-unsaved-words").textContent = t("call.unsaved", { name: picture.file.name });
  }

  #makeTab(language) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.id = `call-${language.toLowerCase()}`;
    tab.textContent = language;
    tab.setAttribute("aria-controls", "call-panel");
    tab.addEventListener("click", () => this.#choose(language));
    return tab;
  }

  #choose(language) {
    this.#language = language;
    this.show(this.#picture);
  }

  /** Move between the tabs with the arrow keys, which otherwise open another image. */
  #walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.stopPropagation();
    const place = this.#tabs.indexOf(event.target) + step + this.#tabs.length;
    const tab = this.#tabs[place % this.#tabs.length];
    tab.focus();
    this.#choose(tab.textContent);
  }
}

function describeRequest({ file, sample, target }, rule) {
  const here = new URL("./", document.baseURI);
  return {
    address: new URL("predict", here).href,
    options: { upright: true, ...target, ...rule.options },
    name: file.name,
    sample: sample && new URL(sample, here).href,
    remote: remoteOf(file),
  };
}
