// The request of an image as code in Python and JavaScript; curl.js has the curl command.
//
// A request is {address, options, name, sample, remote}: the image is the file `name`, or it is downloaded from the
// URL `sample` first, or the server fetches it from the URL `remote`.

import { bodyOf } from "./remote.js";

/** Return the request in Python, with the package requests. */
export function asPython(request) {
  const { address, options, name, sample, remote } = request;
  const lines = ["import requests", ""];
  const call = (pairs) => [
    "response = requests.post(",
    `    ${JSON.stringify(address)},`,
    ...pairs.map(([key, value]) => `    ${key}=${value},`),
    ")",
  ];
  const data = ["data", asLiteral(options)];
  if (remote) {
    lines.push(...call([["json", asLiteral(bodyOf(remote, options))]]));
  } else if (sample) {
    lines.push(`image = requests.get(${JSON.stringify(sample)}).content`);
    lines.push(...call([["files", '{"image": image}'], data]));
  } else {
    lines.push(`with open(${JSON.stringify(name)}, "rb") as file:`);
    lines.push(...call([["files", '{"image": file}'], data]).map((line) => `    ${line}`));
  }
  lines.push(
    "response.raise_for_status()",
    'for label in response.json()["images"][0]["labels"]:',
    '    print(label["label"], label["score"])',
  );
  return lines.join("\n");
}

/** Return the request in JavaScript: a module for Node.js, or for browsers if it reads no file. */
export function asJavaScript(request) {
  const { address, options, name, sample, remote } = request;
  const lines = [];
  if (remote) {
    lines.push(
      `const response = await fetch(${JSON.stringify(address)}, {`,
      '  method: "POST",',
      '  headers: { "Content-Type": "application/json" },',
      `  body: JSON.stringify(${JSON.stringify(bodyOf(remote, options))}),`,
      "});",
    );
  } else {
    if (!sample) lines.push('import { readFile } from "node:fs/promises";', "");
    lines.push(
      sample
        ? `const image = await (await fetch(${JSON.stringify(sample)})).blob();`
        : `const image = new Blob([await readFile(${JSON.stringify(name)})]);`,
      "const form = new FormData();",
      `form.append("image", image, ${JSON.stringify(name)});`,
      ...Object.entries(options).map(
        ([key, value]) => `form.append(${JSON.stringify(key)}, ${JSON.stringify(String(value))});`,
      ),
      `const response = await fetch(${JSON.stringify(address)}, { method: "POST", body: form });`,
    );
  }
  lines.push(
    "if (!response.ok) throw new Error(await response.text());",
    "const { images } = await response.json();",
    "for (const { label, score } of images[0].labels) console.log(label, score);",
  );
  return lines.join("\n");
}

/** Write a value as a Python literal. Python reads JSON's strings, numbers and lists. */
function asLiteral(value) {
  if (Array.isArray(value)) return `[${value.map(asLiteral).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(
    ([key, each]) => `${JSON.stringify(key)}: ${asLiteral(each)}`,
  );
  return `{${pairs.join(", ")}}`;
}
