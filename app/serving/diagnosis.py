"""The reason why nothing can be served, in a sentence for operators that clients may read too."""

from __future__ import annotations

from collections.abc import Iterable

from app.control.manifest import FOLDERS
from app.errors import first_line
from app.serving.status import VersionStatus

FAILURE = "the model cannot be served"
MAX_NAMED = 3  # versions; there may be dozens, all wrong in the same way


def explain_failure(statuses: Iterable[VersionStatus], problem: str, *, follows: bool) -> str:
    """Return the reason for a failure and its cure; files are named without their folders.

    Args:
        statuses: the status of each known version.
        problem: empty, or the problem of the models folder as a whole.
        follows: whether a repaired version is loaded without a reload.
    """
    failed = [status for status in statuses if status.problem]
    failed.sort(key=lambda status: (status.name, -status.version))
    reasons = [f"{each.name}, version {each.version}: {each.problem}" for each in failed]
    if len(reasons) > MAX_NAMED:
        reasons[MAX_NAMED:] = [f"and {len(reasons) - MAX_NAMED} more"]
    if problem:
        reasons.insert(0, first_line(FOLDERS.sub("", problem)))
    if not reasons:  # a version that is still changing is checked by a later scan
        return f"{FAILURE} yet: new versions are being checked"
    cure = "and it is loaded automatically" if follows else "then send Gunicorn a HUP"
    return f"{FAILURE}: {'; '.join(reasons)}. Fix that, {cure}"
