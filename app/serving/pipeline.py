"""The pipeline of one image: decode → submit → forward → heat maps; or its answer from the answer cache."""

from __future__ import annotations

import time

import numpy as np

from app.quarantine import Quarantine, Verdict
from app.serving.answer_cache import AnswerCache, Key
from app.serving.image_pool import ImageInput, ImagePool, read_data
from app.serving.prediction import PredictCall, Prediction
from app.serving.stats import ModelStats
from app.serving.ticket import Timing

# Of one request, 0.3 ms of the hub; a switch to a thread costs 0.1 ms.
HASHED_INLINE_BYTES = 256 * 1024
NO_FORWARD = Timing(queue_s=0.0, forward_s=0.0, batch=0, leads=False)


class Pipeline:
    """Computes predictions, or finds them in the answer cache. Methods run on the hub."""

    def __init__(self, image_pool: ImagePool, quarantine: Quarantine, answers: AnswerCache) -> None:
        self._image_pool = image_pool
        self._quarantine = quarantine
        self._answers = answers

    def predict(
        self, call: PredictCall, image: ImageInput, stats: ModelStats, *, on_trial: bool
    ) -> Prediction:
        """Predict one image that holds a slot.

        Args:
            call: the request.
            image: the image.
            stats: counts the look-up in the answer cache.
            on_trial: see ``NativePool.run``.

        Raises:
            NeedsTrial: a suspect that is not on trial.
            ServingError: the image cannot be predicted.
        """
        key = self._make_key(call, image, on_trial)
        if key is None or call.cache is None:
            return self._compute(call, image, on_trial=on_trial)
        known = self._answers.find(key, call.cache.max_age_s)
        stats.count_lookup(is_hit=known is not None)
        if known is not None:
            model, age_s = call.servable.model, known.age_s()
            return Prediction(known.logits, model, NO_FORWARD, 0.0, known.size, age_s=age_s)
        prediction = self._compute(call, image, digest=key.digest)
        self._answers.store(key, prediction.logits, prediction.size)
        return prediction

    def _make_key(self, call: PredictCall, image: ImageInput, on_trial: bool) -> Key | None:
        """Return the image's key in the answer cache; None if it is not to be used.

        A trial has to process its input, and a suspect or blocked input is refused where it would be processed.
        """
        if not self._answers.limit or call.cache is None or call.heat_maps is not None or on_trial:
            return None
        digest = self._digest(call, image)
        if self._quarantine.verdict(digest) is not Verdict.CLEAR:
            return None
        load, partition = call.servable.serial, call.cache.partition
        # The same bytes are other pixels in another shape, and a file is none of them.
        if isinstance(image, np.ndarray):
            return Key(load, partition, digest, image.shape, upright=False)
        return Key(load, partition, digest, (), call.upright)

    def _digest(self, call: PredictCall, image: ImageInput) -> bytes:
        """Return the digest of an image's bytes: on the hub, or on a thread if the request has many bytes."""
        data = read_data(image)
        call.hashed_bytes += memoryview(data).nbytes
        if call.hashed_bytes <= HASHED_INLINE_BYTES:
            return self._quarantine.digest(data)
        return self._image_pool.digest(data)

    def _compute(
        self, call: PredictCall, image: ImageInput, *, on_trial: bool = False, digest: bytes = b""
    ) -> Prediction:
        """Compute one image; ``digest`` is that of its bytes, if it is known."""
        servable, model, began = call.servable, call.servable.model, time.monotonic()
        decoded = self._image_pool.decode(
            image, model, upright=call.upright, on_trial=on_trial, digest=digest
        )
        decode_s = time.monotonic() - began
        row = servable.batcher.submit(
            decoded.image, call.is_gone, call.heat_maps is not None, decoded.digest
        )
        servable.first_look.add(decoded.digest, row.logits)
        classes = call.select_heat_maps(row.logits)
        maps = servable.explain(row.features, classes, call.is_gone, decoded.digest)
        drawing = None
        if call.heat_maps is not None and (style := call.heat_maps.style):
            heat_map, transform = maps[classes[0]], model.config.transform
            with servable.batcher.without_forward():
                drawing = self._image_pool.draw(
                    image, heat_map, transform, style, upright=call.upright, on_trial=on_trial
                )
        return Prediction(row.logits, model, row.timing, decode_s, decoded.size, maps, drawing)
