// A request as a curl command; snippets.js describes requests.

import { bodyOf } from "./remote.js";

/** Return the curl command of a request. */
export function curlLine({ address, options, name, sample, remote }) {
  if (remote) {
    const body = quote(JSON.stringify(bodyOf(remote, options)));
    return `curl -H 'Content-Type: application/json' -d ${body} ${quote(address)}`;
  }
  const fields = Object.entries(options).map((option) => ` -F ${quote(option.join("="))}`);
  const rest = `${fields.join("")} ${quote(address)}`;
  if (sample) return `curl -s ${quote(sample)} | curl -F image=@-${rest}`;
  return `curl -F ${quote(`image=@${formName(name)}`)}${rest}`;
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
