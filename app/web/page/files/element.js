// The page's own elements, by the ids in index.html.

export function element(id) {
  return document.getElementById(id);
}
