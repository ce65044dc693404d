"""The command line of ``scripts/predict``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

URL = "http://localhost:8999"
# The server validates their values.
QUERY_OPTIONS = ("model", "version", "threshold", "top_k", "upright", "scores")


def whole(low: int) -> Callable[[str], int]:
    """Return a parser of integers >= ``low``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {low} on")
        return int(text)

    return read


def parse_options() -> argparse.Namespace:
    """Parse the command line; exits on errors."""
    parser = argparse.ArgumentParser(
        prog="scripts/predict",
        description="Send images to a running server and write its answers to a file.",
        epilog="Exit status: 0 all answered; 1 some failed; 2 the run could not continue; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="FOLDER", help="a folder, searched recursively, or a file")
    output = parser.add_argument_group("output; completed rows are kept")
    file = output.add_mutually_exclusive_group(required=True).add_argument
    file("--csv", type=Path, metavar="FILE", help="CSV with a header")
    file("--jsonl", type=Path, metavar="FILE", help="JSON lines: an object per image")
    output.add_argument("--bom", action="store_true", help="mark the CSV as UTF-8, for Excel")
    output.add_argument(
        "--columns", action="store_true", help="a CSV column per class with its score"
    )
    add("--url", default=URL, help="the server's address (%(default)s)")
    add(
        "--jobs",
        type=whole(1),
        default=8,
        metavar="N",
        help="concurrent requests (%(default)s)",
    )
    add("--retries", type=whole(0), default=8, metavar="N", help="retries per image (%(default)s)")
    query = parser.add_argument_group("prediction options").add_argument
    query("--model", metavar="NAME", help="default: the server's default model")
    query("--version", metavar="N", help="default: the model's newest version")
    query(
        "--threshold",
        metavar="SCORE",
        help="minimum score of a label, 0..1; default: the model's own",
    )
    query("--top-k", metavar="N", help="maximum number of labels")
    query(
        "--upright",
        choices=["true", "false"],
        help="rotate images by their EXIF orientation; default: as the server is configured",
    )
    query("--scores", choices=["all"], help="scores of all classes instead of the labels' only")
    options = parser.parse_args()
    if options.jsonl and (options.bom or options.columns):
        parser.error("--bom and --columns are options of --csv")
    if options.columns:
        options.scores = "all"
    return options


def make_query(options: argparse.Namespace) -> dict[str, str]:
    """Return the query parameters of a prediction."""
    given = {name: getattr(options, name) for name in QUERY_OPTIONS}
    return {name: text for name, text in given.items() if text is not None}


def list_recorded(options: argparse.Namespace) -> dict[str, str | bool | None]:
    """Return the options that the rows of an output file depend on, by name."""
    return {name: getattr(options, name) for name in (*QUERY_OPTIONS, "bom", "columns")}
