"""The statuses of versions, in the words of TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from app.control.manifest import Key, Manifest


@dataclass(frozen=True)
class VersionStatus:
    """Status of one version in this process.

    Attributes:
        name: the model's name.
        version: its number.
        state: in TensorFlow Serving's terms: ``AVAILABLE`` (live), ``LOADING``, or ``END`` (failed).
        problem: the reason of a failure, for clients: without paths; the log has the details.
    """

    name: str
    version: int
    state: Literal["AVAILABLE", "LOADING", "END"]
    problem: str = ""


def list_statuses(
    wanted: Manifest, failed: Collection[Key], live: Collection[Key]
) -> list[VersionStatus]:
    """Return the status of each version that is live, wanted or rejected, by name and number."""
    problem = "it could not be loaded; the log of the server has the reason"
    known = [
        VersionStatus(each.name, each.version, "END", each.short_reason) for each in wanted.rejected
    ]
    for entry in wanted.entries:
        has_failed = entry.key in failed
        state: Literal["END", "LOADING"] = "END" if has_failed else "LOADING"
        known.append(VersionStatus(entry.name, entry.version, state, problem if has_failed else ""))
    # Last, so that it counts: other weights of a version may be loading, or have failed, meanwhile.
    known += [VersionStatus(name, version, "AVAILABLE") for name, version, *_ in live]
    latest = {(status.name, status.version): status for status in known}
    return [latest[key] for key in sorted(latest)]
