"""The result of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK = "ok"  # the status of an answered image


@dataclass(frozen=True)
class Row:
    """One image and its answer or its error.

    Attributes:
        file: path of the image.
        status: ``OK``, or the code of the error.
        error: message of the error.
        model: name of the model that answered.
        version: its version.
        image: the image's entry in the answer of ``POST /predict``.
    """

    file: str
    status: str
    error: str = ""
    model: str = ""
    version: int = 0
    image: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Labels of the image, strongest first."""
        return [one["label"] for one in self.image.get("labels", [])]

    @property
    def scores(self) -> list[tuple[str, float]]:
        """Class and score of each class, or of each label if the server was not asked for all classes."""
        listed = self.image.get("scores", self.image.get("labels", []))
        return [(one["label"], one["score"]) for one in listed]


def make_row(file: str, answer: dict[str, Any]) -> Row:
    """Return the row of an answered image. Raises LookupError or TypeError."""
    (image,), model = answer["images"], answer["model"]
    row = Row(file, OK, model=model["name"], version=model["version"], image=image)
    _ = row.labels, row.scores  # raise now
    return row
