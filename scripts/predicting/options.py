"""The command line of ``scripts/predict``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

URL = "http://localhost:8999"
QUERY_OPTIONS = (
    "model",
    "version",
    "threshold",
    "top_k",
    "scores",
)  # the server validates their values


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
        description="Send images to a running server and write its answers to a CSV file.",
        epilog="Exit status: 0 all answered; 1 some failed; 2 the run could not continue; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="FOLDER", help="a folder, searched recursively, or a file")
    add("--csv", type=Path, required=True, metavar="FILE", help="output; completed rows are kept")
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
    query("--scores", choices=["all"], help="scores of all classes instead of the labels' only")
    return parser.parse_args()


def make_query(options: argparse.Namespace) -> dict[str, str]:
    """Return the query parameters of a prediction."""
    given = {name: getattr(options, name) for name in QUERY_OPTIONS}
    return {name: text for name, text in given.items() if text is not None}
