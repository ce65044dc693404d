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

/** Return the answers and errors of images as a JSON list. */
export function asJsonList(pictures) {
  return write(pictures.filter(isFinished).map(answerOf));
}

/** Return the answer of an image as JSON, as the server has sent it. */
export function asJson(picture) {
  return write(answerOf(picture));
}

function answerOf({ state, name, answer, problem }) {
  if (state === "done") return answer;
  const { status, code, detail, requestId } = problem;
  return { name, error: { status, code, detail, request_id: requestId } };
}

/** Write JSON with one line for each row of numbers. */
function write(content) {
  const rows = /\[\n\s*([-+\d.eE,\s]+?)\n\s*\]/g; // strings contain no raw newlines
  const inOneLine = (_, row) => `[${row.replace(/\s+/g, " ")}]`;
  return JSON.stringify(content, null, 2).replace(rows, inOneLine);
}

function isFinished({ state }) {
  return state === "done" || state === "failed";
}

function makeRow(picture, rule, classes) {
  const file = asPath(picture.name);
  if (picture.state === "failed") {
    const { code, status } = picture.problem;
    const { title } = explain(picture.problem);
    return [file, code || status, "", "", "", title, ...classes.map(() => "")];
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
