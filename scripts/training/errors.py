"""What can be wrong with a training."""

from __future__ import annotations


class TrainingError(Exception):
    """The data, an option or a file cannot be used; the text names it, its value and what was expected."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM."""
