// Images that the server fetches from a URL. On the page, an empty file stands for each.

const urls = new WeakMap();

/** Return a file that stands for the image at a URL. */
export function makeRemote(url) {
  const file = new File([], nameOf(new URL(url)));
  urls.set(file, url);
  return file;
}

/** Return the URL that a file stands for; undefined for a file with a content of its own. */
export function remoteOf(file) {
  return urls.get(file);
}

/** Return the JSON body of a request for the image at a URL. */
export function bodyOf(url, options) {
  return { images: [{ url }], ...options };
}

/** Return the http or https URL that a text consists of, or null. A dragged link has one URL per line. */
export function readUrl(text) {
  const [line] = text.trim().split(/[\r\n]+/);
  return /^https?:\/\/\S+$/i.test(line) && URL.canParse(line) ? line : null;
}

function nameOf({ pathname, host }) {
  const name = pathname.split("/").at(-1) || host;
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // it has a percent sign that escapes nothing
  }
}
