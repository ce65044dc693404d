"""Exceptions of the training program."""

from __future__ import annotations

import pickle

# Raised by torch for damaged checkpoints and files of other formats.
READ_ERRORS = (OSError, ValueError, EOFError, LookupError, RuntimeError, pickle.UnpicklingError)


class TrainingError(Exception):
    """The data, an option or a file cannot be used; the text names it, its value and what was expected."""


class Interrupted(Exception):
    """The training received SIGINT or SIGTERM."""
