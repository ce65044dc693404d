// The page's address names the open sample and its label, so that both can be shared: ?sample=street.jpg&label=Bus

export class Link {
  #detail;
  #wanted = readLink(); // what the address named when the page was opened

  constructor({ pictures, detail }) {
    this.#detail = detail;
    detail.addEventListener("choose", () => this.write());
    pictures.addEventListener("change", ({ detail: picture }) => this.#choose(picture));
  }

  /** Open the sample that the address named, once. */
  async follow(samples, takeSample) {
    const { sample: wanted } = this.#wanted;
    this.#wanted.sample = null;
    const sample = samples.find(({ name }) => name === wanted);
    if (sample) await takeSample(sample);
    else this.#wanted.label = null;
  }

  /** Let the address name the open image, if it is a sample, and the label of the visible heat map. */
  write() {
    const { picture, chosen } = this.#detail;
    const query = new URLSearchParams();
    if (picture?.sample) {
      query.set("sample", picture.file.name);
      if (chosen !== null) query.set("label", chosen);
    }
    const search = picture?.sample ? `?${query}` : "";
    if (search === location.search) return; // browsers limit how often the address may change
    history.replaceState(history.state, "", location.pathname + search);
  }

  /** Choose the label that the address named when its sample is answered. */
  #choose(picture) {
    const { label } = this.#wanted;
    if (label === null || picture !== this.#detail.picture || picture.state !== "done") return;
    this.#wanted.label = null;
    if (picture.result.scores.some((each) => each.label === label)) this.#detail.choose(label);
  }
}

function readLink() {
  const query = new URLSearchParams(location.search);
  return { sample: query.get("sample"), label: query.get("label") };
}
