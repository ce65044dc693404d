// Answers as CSV and JSON text.

import { explain } from "./problems.js";
import { byScore } from "./rule.js";

const COLUMNS = ["file", "status", "labels", "model", "version", "error"]; // as scripts/predict writes them
const BYTE_ORDER_MARK = "\ufeff"; // Excel reads UTF-8 only after it

/** Return the answered and failed images as CSV (RFC 4180), with one column of scores for each class. */
export function asCsv(pictures, rule) {
  const answered = pictures.filter(({ state }) => state === "done");
  const classes = new Set(answered.flatMap(({ result }) => result.scores.map(nameOf)));
  const rows = pictures.filter(isFinished).map((picture) => makeRow(picture, rule, [...classes]));
  const lines = [[...COLUMNS, ...classes], ...rows].map((row) => row.map(quote).join(","));
  return `${BYTE_ORDER_MARK}${lines.join("\r\n")}\r\n`;
}

/** Return the server's answers as JSON: one object of a single image, a list of several. */
export function asJson(pictures) {
  const answers = pictures.filter(isFinished).map((picture) => {
    if (picture.state === "done") return picture.answer;
    const { status, code, detail, requestId } = picture.problem;
    return { name: picture.name, error: { status, code, detail, request_id: requestId } };
  });
  const text = JSON.stringify(answers.length === 1 ? answers[0] : answers, null, 2);
  // One line for each row of numbers. Raw newlines never occur inside strings.
  return text.replace(/\[\n\s*([-+\d.eE,\s]+?)\n\s*\]/g, (_, row) => `[${row.replace(/\s+/g, " ")}]`);
}

function isFinished({ state }) {
  return state === "done" || state === "failed";
}

function makeRow(picture, rule, classes) {
  const file = asPath(picture.name);
  if (picture.state === "failed") {
    const { code, status } = picture.problem;
    return [file, code || status, "", "", "", explain(picture.problem).title, ...classes.map(() => "")];
  }
  const { answer, result } = picture;
  const labels = rule.passing(picture).map(nameOf).join(" | ");
  const scores = new Map(byScore(result).toReversed().map(({ label, score }) => [label, score]));
  const cells = classes.map((label) => scores.get(label) ?? "");
  return [file, "ok", labels, answer.model.name, answer.model.version, "", ...cells];
}

function nameOf({ label }) {
  return label;
}

/** Return a file name that no spreadsheet takes for a formula; it still names the same file. */
function asPath(name) {
  return /^[=+\-@\t\r]/.test(name) ? `./${name}` : name;
}

function quote(cell) {
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
