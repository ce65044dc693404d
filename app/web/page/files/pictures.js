// The pictures of this visit, and what became of each.

/**
 * A picture's `state` is one of
 *   waiting   for its turn, or for `retryAt` (Date.now()) after a `problem`
 *   sending   `sent` is the uploaded share, 0..1
 *   done      `answer` is the server's JSON, `result` its part about this picture, `maps` the heat
 *             maps by label, `target` who was asked, `elapsedMs` the whole way
 *   failed    `problem` says why
 */
export class Pictures extends EventTarget {
  #list = [];
  #next = 1;

  get all() {
    return this.#list;
  }

  /** Take files; `sample` tells that the server has them too. Returns their pictures. */
  add(files, sample = false) {
    const added = files.map((file) => ({
      id: this.#next++,
      file,
      name: file.name,
      url: URL.createObjectURL(file),
      sample,
      state: "waiting",
      sent: 0,
      maps: new Map(),
      left: new AbortController(),
    }));
    this.#list.push(...added);
    for (const picture of added) this.#tell("add", picture);
    return added;
  }

  /** Change a picture, and tell. */
  update(picture, changes) {
    Object.assign(picture, changes);
    this.#tell("change", picture);
  }

  /** Let go of a picture; a request that is under way for it ends. */
  remove(picture) {
    this.#list = this.#list.filter((each) => each !== picture);
    picture.left.abort();
    URL.revokeObjectURL(picture.url);
    this.#tell("remove", picture);
  }

  /** The picture with that id, if it is still here. */
  find(id) {
    return this.#list.find((picture) => picture.id === id);
  }

  /** The one that stands so many places after another; the first comes after the last. */
  neighbour(picture, step) {
    const place = this.#list.indexOf(picture);
    return this.#list[(place + step + this.#list.length) % this.#list.length];
  }

  count(...states) {
    return this.#list.filter((picture) => states.includes(picture.state)).length;
  }

  #tell(what, picture) {
    this.dispatchEvent(new CustomEvent(what, { detail: picture }));
  }
}
