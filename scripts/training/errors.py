"""What can be wrong with a training."""

from __future__ import annotations

import pickle

# What torch raises on damaged checkpoints and on files of another kind.
READ_ERRORS = (OSError, ValueError, EOFError, LookupError, RuntimeError, pickle.UnpicklingError)


class TrainingError(Exception):
    """The data, an option or a file cannot be used; the text names it, its value and what was expected."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM."""
