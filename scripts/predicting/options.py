"""The command line of ``scripts/predict``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

URL = "http://localhost:8999"
OF_THE_SERVER = ("model", "version", "threshold", "top_k", "scores")  # it checks their values too


def whole(low: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``low`` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {low} on")
        return int(text)

    return read


def parse_options() -> argparse.Namespace:
    """Read the command line; ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/predict",
        description="Send pictures to a running server and write its answers into a CSV file.",
        epilog="Exit status: 0 all are answered; 1 some failed; 2 the run could not go on; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="FOLDER", help="a folder, with those within it, or a file")
    add("--csv", type=Path, required=True, metavar="FILE", help="what is in it already is kept")
    add("--url", default=URL, help="the server's address (%(default)s)")
    add(
        "--jobs",
        type=whole(1),
        default=8,
        metavar="N",
        help="pictures under way at once (%(default)s)",
    )
    add("--retries", type=whole(0), default=8, metavar="N", help="of each picture (%(default)s)")
    asked = parser.add_argument_group("what is asked for").add_argument
    asked("--model", metavar="NAME", help="instead of the server's default")
    asked("--version", metavar="N", help="of the model, instead of the newest")
    asked("--threshold", metavar="SCORE", help="labels above it, 0..1, instead of the model's own")
    asked("--top-k", metavar="N", help="the strongest labels, at most so many")
    asked("--scores", choices=["all"], help="of every class, not of the labels alone")
    return parser.parse_args()


def make_query(options: argparse.Namespace) -> dict[str, str]:
    """Return the options that the server is asked with."""
    given = {name: getattr(options, name) for name in OF_THE_SERVER}
    return {name: text for name, text in given.items() if text is not None}
