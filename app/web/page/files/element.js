// Elements by their ids in index.html.

export function element(id) {
  return document.getElementById(id);
}
