"""Predictions: the outputs for one image, the classes that pass, and the heat maps that a request asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from app.errors import InvalidOption
from app.processing.decision import Decision
from app.processing.heatmap import Drawing, HeatMap, Style
from app.serving.answer_cache import CacheUse
from app.serving.model import Model, Servable
from app.serving.ticket import Timing


@dataclass(frozen=True)
class Prediction:
    """The answer to one image.

    Attributes:
        logits: (classes,) float32, in the order of ``model.class_names``.
        model: the model that computed them.
        timing: the wait for the forward and the forward itself.
        decode_s: waiting for a decode thread, and decoding.
        size: width and height of the image in px, in the orientation that the network sees.
        heat_maps: the requested heat maps, by class.
        drawing: the first of them, drawn over the image if that was requested.
        age_s: seconds since it was computed for an earlier request; None if for this one.
    """

    logits: np.ndarray
    model: Model
    timing: Timing
    decode_s: float
    size: tuple[int, int]
    heat_maps: Mapping[int, HeatMap] = field(default_factory=dict)
    drawing: Drawing | None = None
    age_s: float | None = None

    def scores(self) -> np.ndarray:
        """Return each class's score by the model's activation: (classes,) float32 in 0..1."""
        return self.model.config.decision.scores(self.logits)

    @cached_property
    def passing(self) -> tuple[int, ...]:
        """The classes that pass by the model's own rule, by rising logit."""
        return tuple(self.model.config.decision.choose(self.logits))

    def labels(self) -> list[str]:
        """Return the names of the classes that pass, by rising logit."""
        return [self.model.class_names[index] for index in self.passing]


def count_passing(predictions: Sequence[Prediction]) -> int:
    """Return how many classes pass, in all predictions together."""
    return sum(len(prediction.passing) for prediction in predictions)


@dataclass(frozen=True)
class ClassRule:
    """A request's own rule for the classes to list.

    Attributes:
        decision: the classes that pass.
        limit: the most classes to select; None is no limit.
    """

    decision: Decision
    limit: int | None = None

    def select(self, logits: np.ndarray) -> list[int]:
        """Return the classes that pass, the strongest first, for (classes,) logits."""
        return self.decision.choose(logits)[::-1][: self.limit]


@dataclass(frozen=True)
class HeatMapRequest:
    """The heat maps that a request asks for: of given classes, by a rule, and of the strongest classes.

    Attributes:
        classes: indices of classes.
        rule: selects classes of each image.
        top_k: the number of strongest classes of each image.
        style: draws the first heat map over the image; None draws nothing.
        limit: the most heat maps for all images of the request; None is no limit.
    """

    classes: tuple[int, ...] = ()
    rule: ClassRule | None = None
    top_k: int = 0
    style: Style | None = None
    limit: int | None = None

    def select(self, logits: np.ndarray) -> Sequence[int]:
        """Return the classes of one image that get a heat map, each once, for its (classes,) logits."""
        by_rule = self.rule.select(logits) if self.rule else ()
        falling = np.argsort(-logits, kind="stable")  # NaN comes last
        return [*dict.fromkeys([*self.classes, *by_rule, *falling[: self.top_k].tolist()])]


class TooManyHeatMaps(InvalidOption):
    """The images of a request need more heat maps than ``HeatMapRequest.limit``."""


@dataclass
class PredictCall:
    """Hold what the images of one ``ModelServer.predict`` call share.

    Attributes:
        servable: the version that answers.
        is_gone: returns whether the client has disconnected; safe on any thread.
        heat_maps: the heat maps to compute.
        upright: rotate files by their EXIF tag.
        left_s: the time left for its images.
        cache: how to use the answer cache; None neither reads nor writes it.
        maps: heat maps of all its images so far.
        hashed_bytes: bytes of all its images looked up in the answer cache so far.
    """

    servable: Servable
    is_gone: Callable[[], bool]
    heat_maps: HeatMapRequest | None
    upright: bool
    left_s: float
    cache: CacheUse | None = None
    maps: int = 0
    hashed_bytes: int = 0

    def select_heat_maps(self, logits: np.ndarray) -> Sequence[int]:
        """Return the classes of one image that get a heat map. Raises TooManyHeatMaps."""
        if self.heat_maps is None:
            return ()
        classes, limit = self.heat_maps.select(logits), self.heat_maps.limit
        self.maps += len(classes)
        if limit is not None and self.maps > limit:
            raise TooManyHeatMaps(
                f"the request wants {self.maps:,} heat maps or more; the limit is {limit}"
            )
        return classes
