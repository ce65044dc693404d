"""Chance that can be repeated: the same words give the same numbers, in any process and any order."""

from __future__ import annotations

import random


def throw(*words: object) -> random.Random:
    """Return a generator of random numbers that depends on the words alone."""
    return random.Random(":".join(map(str, words)))  # noqa: S311 (nothing here is to be secret)
