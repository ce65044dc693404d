// The images of this visit and their states.

import { remoteOf } from "./remote.js";

/**
 * The `source` of an image is the file as it was given, `file` the one that is sent. They differ if the page has
 * converted it; `converted` is the name of the format then. `isCopy` is true for a smaller copy of an earlier visit.
 * `sample` is the relative URL of a sample, null for other images.
 *
 * The `state` of an image is one of
 *   waiting   queued `since` (Date.now()), or until `retryAt` after a `problem`
 *   sending   `sent` is the uploaded fraction, 0..1
 *   done      `answer` is the server's JSON, `result` its part about this image, `maps` the heat
 *             maps by label, `target` the requested model, `elapsedMs` the total duration
 *   failed    `problem` has the reason
 */
export class Pictures extends EventTarget {
  #list = [];
  #next = 1;

  get all() {
    return this.#list;
  }

  /** Add files and return their images; a file is added once. `sample` is the URL of one of the server's samples. */
  add(files, sample = null) {
    return files.map((file) => this.#twin(file, sample) ?? this.#make(file, sample));
  }

  /** Add an image that was answered on an earlier visit; `file` is a smaller copy. */
  restore(file, { answer, ...rest }) {
    const twin = this.#twin(rest.source, rest.sample);
    if (twin) return twin;
    const [result] = answer.images;
    return this.#make(file, rest.sample, { ...rest, answer, result, state: "done", isCopy: true });
  }

  /** Change an image and dispatch the event `change`. */
  update(picture, changes) {
    Object.assign(picture, changes);
    this.#notify("change", picture);
  }

  /** Remove an image and abort its request. */
  remove(picture) {
    this.#list = this.#list.filter((each) => each !== picture);
    picture.request.abort();
    URL.revokeObjectURL(picture.url);
    this.#notify("remove", picture);
  }

  /** Find an image by its id. */
  find(id) {
    return this.#list.find((picture) => picture.id === id);
  }

  count(...states) {
    return this.#list.filter((picture) => states.includes(picture.state)).length;
  }

  /** Return the image of the same file, if there is one. */
  #twin({ name, size, lastModified }, sample) {
    return this.#list.find(
      ({ source, sample: url }) =>
        sample === url &&
        (sample || lastModified === source.lastModified) &&
        name === source.name &&
        size === source.size,
    );
  }

  #make(file, sample, changes = {}) {
    const picture = {
      id: this.#next++,
      source: file,
      file,
      name: file.name,
      url: remoteOf(file) ?? URL.createObjectURL(file),
      sample,
      state: "waiting",
      sent: 0,
      maps: new Map(),
      since: Date.now(),
      request: new AbortController(), // of the current request
      ...changes,
    };
    this.#list.push(picture);
    this.#notify("add", picture);
    return picture;
  }

  #notify(type, picture) {
    this.dispatchEvent(new CustomEvent(type, { detail: picture }));
  }
}
