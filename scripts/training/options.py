"""The command line of ``scripts/train.py``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from app.processing.images import SIDE
from scripts.training.start import IMAGENET, NONE

LEAST_SIDE = 64  # px; below it the network's last layers see less than 2 × 2 places


def whole(low: int) -> Callable[[str], int]:
    """Return a parser of integers >= ``low``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {low} on")
        return int(text)

    return read


def between(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers in an open interval."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = low
        if not low < number < high:
            raise argparse.ArgumentTypeError(
                f"{text!r}; expected a number between {low:g} and {high:g}"
            )
        return number

    return read


def device(text: str) -> str:
    """Parse a device name."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected auto, cpu, cuda or cuda:N")
    return text


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; ``docs/training.md`` documents its options."""
    parser = argparse.ArgumentParser(
        prog="scripts/train.py",
        description="Fine-tune ResNet-50 on pictures with any number of labels each.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a VOCdevkit folder, or a CSV file: image,labels")
    add("--out", type=Path, required=True, help="the model's folder; the next version is written")
    add("--weights", default=IMAGENET, help=f"start from: {IMAGENET}, {NONE}, or a weights FILE")
    add("--head-only", action="store_true", help="train only the last layer")
    add("--epochs", type=whole(1), default=10, help="passes over the training images")
    add("--batch", type=whole(1), default=32, help="images per step")
    add("--rate", type=between(0, 1), default=1e-3, help="the head's peak learning rate")
    add("--side", type=whole(LEAST_SIDE), default=SIDE, help="image size in training, px")
    add("--seed", type=whole(0), default=0, help="random seed")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=whole(0), default=0, help="decode and compute threads; 0: one per core")
    add("--restart", action="store_true", help="discard an unfinished training")
    voc = parser.add_argument_group("for a VOCdevkit").add_argument
    voc("--train-set", default="train", metavar="NAME", help="image set for training")
    voc("--validation-set", default="val", metavar="NAME", help="image set for validation")
    table = parser.add_argument_group("for a CSV file").add_argument
    table("--classes", type=Path, metavar="FILE", help="a class_name.json with the classes' order")
    share = between(0, 1)
    table("--validation-share", type=share, default=0.2, help="if there is no column 'part'")
    return parser


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits on errors."""
    parser = make_parser()
    options = parser.parse_args(words)
    if options.head_only and options.weights == NONE:
        parser.error("--head-only with --weights none would leave the trunk as chance made it")
    return options
