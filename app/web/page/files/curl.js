// The current request as a curl command.

/** Return the curl command of a request; `threshold` is null for the model's own rule. */
export function curlLine({ name, sample, target }, threshold) {
  const here = new URL("./", document.baseURI);
  const chosen = threshold === null ? target : { ...target, threshold };
  const options = Object.entries(chosen)
    .map((option) => ` -F ${quote(option.join("="))}`)
    .join("");
  const address = quote(new URL("predict", here).href);
  if (!sample) return `curl -F ${quote(`image=@${formName(name)}`)}${options} ${address}`;
  const source = quote(new URL(`samples/${encodeURIComponent(name)}`, here).href);
  return `curl -s ${source} | curl -F image=@-${options} ${address}`;
}

/** Escape a file name for curl -F: quoted if a comma or a semicolon would end it. */
function formName(name) {
  const path = name.startsWith("-") ? `./${name}` : name; // "@-" alone would be the standard input
  return /[,;"\\]/.test(path) ? `"${path.replace(/["\\]/g, "\\$&")}"` : path;
}

/** Quote a word for the shell if necessary. */
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Copy text to the clipboard; without TLS, browsers offer its API to localhost only. */
export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
